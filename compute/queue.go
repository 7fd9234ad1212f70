package compute

// Queue runs operations in order. See the package comment for the rules that all of them keep.
type Queue interface {
	Transfer
	Math
	// Attend computes softmax attention, see Attention. Shapes: dst and query [heads, queries, headDim], keys and values
	// [heads, keys, headDim]; the first two may have any strides. HeadDim is a multiple of 16 (devices are tuned for 64 and
	// 128). Keys and values share one type, F32 or BF16; query and dst are F32 or BF16. No keys at all (a length of 0) gives 0.
	Attend(dst, query, keys, values Tensor, a Attention)
	// Err returns the first failure, or nil, without waiting.
	Err() error
	// Wait blocks until everything called so far is done, and returns Err.
	Wait() error
	// Close gives the queue back.
	Close()
}

// Transfer moves data. Host bytes are little-endian elements in row-major order.
type Transfer interface {
	// Upload fills dst (contiguous) from src; src may be reused when the call returns.
	Upload(dst Tensor, src []byte)
	// Download fills dst from src (contiguous) and returns when the bytes are there.
	Download(dst []byte, src Tensor)
	// Copy copies src to dst of the same shape, any strides, converting between F32 and BF16.
	Copy(dst, src Tensor)
}

// Math is what the networks need. Unless said otherwise tensors are [rows, width], F32 or BF16, with any row stride.
// "Groups": a tensor [groups, width] that goes with rows [rows, width] holds one row for each rows/groups consecutive rows
// (one latent frame's tokens, say); groups must divide rows. Parameter tensors (bias, weight, modulation) are F32.
type Math interface {
	// Linear computes dst = act(x Wᵀ + bias): x [rows, in], dst [rows, out], bias [out], F32 or the device's Types().Bias, or
	// absent.
	Linear(dst, x Tensor, w Matrix, bias Tensor, act Activation)
	// Norm normalises each row, see Norm. In place allowed.
	Norm(dst, x Tensor, n Norm)
	// Rope rotates pairs of adjacent elements by their token's position: x and dst [heads, tokens, headDim] with any
	// strides, pos I32 [tokens, 3] or [heads, tokens, 3] (time, row, column). In place allowed; dst may be of another type.
	Rope(dst, x, pos Tensor, r Rope)
	// AddGated computes dst = x + y*gate, gate [groups, width] or absent (1). In place on x allowed.
	AddGated(dst, x, y, gate Tensor)
	// Activate computes dst = act(x) on elements. In place allowed.
	Activate(dst, x Tensor, act Activation)
	// Gather computes dst[i] = table[index[i]], or dst[i] += with accumulate: table [n, width] F32, index I32 [rows].
	// An index outside the table is a programmer error.
	Gather(dst, table, index Tensor, accumulate bool)
	// TimeEmbed writes the sinusoids of each value: t F32 [rows], dst [rows, width], half = width/2:
	// dst[i, j] = cos(t[i] * maxPeriod^(-j/half)) for j < half, then the sines (Wan order). Angles in float64.
	TimeEmbed(dst, t Tensor, maxPeriod float64)
	// Noise fills dst (contiguous) with standard normal numbers, see FillNoise: the same bits on every device (for BF16
	// the rounded ones).
	Noise(dst Tensor, key NoiseKey)
	// Mix computes dst = a*x + b*y on elements; y may be absent (b is then ignored). In place allowed.
	Mix(dst Tensor, a float32, x Tensor, b float32, y Tensor)
	// Clamp limits every element to [lo, hi]. In place allowed. NaN stays NaN.
	Clamp(dst, x Tensor, lo, hi float32)
}

// Activation is a pointwise function.
type Activation uint8

// Activations. GELU is the tanh approximation, 0.5x(1+tanh(sqrt(2/pi)(x+0.044715x³))).
const (
	None Activation = iota
	GELU
	SiLU
	ReLU
)

// Norm describes a row normalisation:
//
//	LayerNorm  y = (x - mean) / sqrt(variance + eps)
//	RMS        y = x / sqrt(mean(x²) + eps)
//
// then y*Weight + Bias (each [width] or absent), then y*(1 + Scale) + Shift (each [groups, width] or absent: modulation).
type Norm struct {
	RMS          bool
	Eps          float32
	Weight, Bias Tensor
	Scale, Shift Tensor
	// Coarse says that dst is read by the next operation alone, a product with a coarse weight (IsCoarse): AddNorm need not write more of it
	// than that takes.
	Coarse bool
}

// Rope holds the rotation tables of the three axes, F32 [positions, pairs, 2] with (cos, sin) of each position and pair; an
// axis without pairs is absent. The pairs of a head are divided time, row, column in this order, and the pair counts sum to
// headDim/2. Pairs are adjacent elements (x0, x1), as in Wan: (a, b) -> (a cos - b sin, a sin + b cos).
//
// Time is a ring: position p uses row p mod Time.Dim(0). Positions below MinTime are taken as MinTime: this clamps old keys
// to the largest distance that the model was trained on. Row and column positions index their tables directly.
// Inverse turns by the negative angle.
type Rope struct {
	Time, Row, Column Tensor
	MinTime           int
	Inverse           bool
}

// Attention describes one attention call: for every head h and query i,
//
//	dst[h, i] = sum over visible keys j of softmax_j(Scale*query[h, i]·keys[h, j] + LogCount[h, j]) values[h, j].
//
// The zero value of every field but Scale is plain dense attention over all keys.
type Attention struct {
	// Scale multiplies the dot products; usually 1/sqrt(headDim).
	Scale float32
	// LogCount, F32 [heads, keys] with any head stride, is added to the logits: ln of how many keys a token stands for.
	// -Inf hides a key.
	LogCount Tensor
	// Lengths, I32 [heads], limits head h to its first Lengths[h] keys.
	Lengths Tensor
	// Tiles limits each tile of queries to a list of tiles of keys.
	Tiles Tiles
	// LogSumExp, F32 [heads, queries], receives ln of each query's softmax denominator (natural logarithm), when present;
	// -Inf where no key is visible.
	LogSumExp Tensor
}

// Tiles is a ragged list of key tiles for every query tile: query tile t of head h sees the key tiles
// Keys[e(i-1) .. e(i)), i = h*queryTiles + t, e = Ends, e(-1) = 0; ids ascend inside a list. Key tile k is keys
// [k*KeyTile, (k+1)*KeyTile) cut at the number of keys. Absent tensors: every query sees every key.
type Tiles struct {
	QueryTile, KeyTile int
	Keys, Ends         Tensor // I32 [entries], I32 [heads*queryTiles]
}
