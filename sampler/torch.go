package sampler

import (
	"encoding/binary"
	"math"
	"slices"

	"longtake/compute"
)

// Torch reproduces the numbers of torch.manual_seed(seed) followed by calls of torch.randn on the CPU, so that a rollout can be
// compared with a Python program that draws its noise there. The stream is PyTorch's mt19937 and Box-Muller; numbers agree to
// the last bit or two (PyTorch's vectorised logarithm and sine round otherwise).
type Torch struct {
	state [624]uint32
	used  int       // words of state already given out
	spare []float64 // the second of a pair, kept for the next short call
}

// NewTorch seeds as torch.manual_seed does (its CPU generator takes the lower 32 bits).
func NewTorch(seed uint64) *Torch {
	t := &Torch{used: 624}
	t.state[0] = uint32(seed)
	for i := 1; i < 624; i++ {
		t.state[i] = 1812433253*(t.state[i-1]^t.state[i-1]>>30) + uint32(i)
	}
	return t
}

// word is the next output of mt19937 (Matsumoto, Nishimura 1998).
func (t *Torch) word() uint32 {
	if t.used == 624 {
		for k := range 624 {
			y := t.state[k]&0x80000000 | t.state[(k+1)%624]&0x7fffffff
			v := t.state[(k+397)%624] ^ y>>1
			if y&1 != 0 {
				v ^= 0x9908b0df
			}
			t.state[k] = v
		}
		t.used = 0
	}
	y := t.state[t.used]
	t.used++
	y ^= y >> 11
	y ^= y << 7 & 0x9d2c5680
	y ^= y << 15 & 0xefc60000
	return y ^ y>>18
}

// uniform24 is a float32 in [0, 1) with 24 bits, uniform53 a float64 with 53.
func (t *Torch) uniform24() float32 { return float32(t.word()&(1<<24-1)) * (1.0 / (1 << 24)) }

func (t *Torch) uniform53() float64 {
	high, low := t.word(), t.word()
	return float64((uint64(high)<<32|uint64(low))&(1<<53-1)) * (1.0 / (1 << 53))
}

// Randn fills dst as one call of torch.randn(len(dst)). From 16 numbers on PyTorch draws float32 uniforms for all, pairs them
// at distance 8 within blocks of 16, and draws the last 16 anew if the length is not a multiple of 16; below it works pairwise
// in float64.
func (t *Torch) Randn(dst []float32) {
	if len(dst) < 16 {
		t.few(dst)
		return
	}
	for i := range dst {
		dst[i] = t.uniform24()
	}
	for i := 0; i+16 <= len(dst); i += 16 {
		pairUp(dst[i : i+16])
	}
	if len(dst)%16 != 0 {
		last := dst[len(dst)-16:]
		for i := range last {
			last[i] = t.uniform24()
		}
		pairUp(last)
	}
}

func (t *Torch) few(dst []float32) {
	for i := range dst {
		if len(t.spare) > 0 {
			dst[i], t.spare = float32(t.spare[0]), t.spare[:0]
			continue
		}
		angle, length := t.uniform53(), t.uniform53()
		r := math.Sqrt(-2 * math.Log1p(-length))
		sin, cos := math.Sincos(2 * math.Pi * angle)
		dst[i], t.spare = float32(r*cos), append(t.spare, r*sin)
	}
}

// pairUp turns 16 uniforms into normals: number j is the length and j+8 the angle of a pair.
func pairUp(u []float32) {
	for j := range 8 {
		r := float32(math.Sqrt(float64(-2 * float32(math.Log(float64(1-u[j]))))))
		sin, cos := math.Sincos(float64(float32(2*math.Pi) * u[j+8]))
		u[j], u[j+8] = r*float32(cos), r*float32(sin)
	}
}

// Noise returns a source that draws from the stream in the order of its calls, whatever the key says: a session that uses it
// depends on being run from its start. Tensors are filled in the order of their elements.
func (t *Torch) Noise() Noise {
	var values []float32
	var host []byte
	return func(dq compute.Queue, dst compute.Tensor, _ compute.NoiseKey) {
		n := dst.Elems()
		if cap(values) < n {
			values, host = make([]float32, n), make([]byte, 0, 4*n)
		}
		t.Randn(values[:n])
		b := host[:0]
		for _, v := range values[:n] {
			b = binary.LittleEndian.AppendUint32(b, math.Float32bits(v))
		}
		dq.Upload(dst, b)
	}
}

// Latent is the shape of a latent frame, in latents; a token is 2x2 of them.
type Latent struct{ Channels, Rows, Columns int }

// Video returns a source that draws as Self-Forcing's program does: at first torch.randn([1, frames, channels, rows, columns])
// for all chunks together, then torch.randn([chunk frames, ...]) for every step between two levels. Destinations are tokens
// (row, column, channel) of 2x2 patches; chunks must come in order.
func (t *Torch) Video(frames int, l Latent) Noise {
	return t.source(frames, l, func(compute.NoiseKey) (count, index int) { return 1, 0 })
}

// Rolling returns a source that draws as Rolling-Forcing's program does (pipeline/rolling_forcing_inference.py @ a1477d0): at first
// the whole video as in Video, chunks from number first on; then, for every chunk that goes on to its next level, the oldest of
// a window first, noise for all chunks of the window, of which the chunk takes its own part. A window has up to steps chunks.
func (t *Torch) Rolling(first, chunks, chunkFrames, steps int, l Latent) Noise {
	return t.source(chunks*chunkFrames, l, func(key compute.NoiseKey) (count, index int) {
		chunk := int(key.Chunk) - first
		window := chunk + int(key.Step) - 1
		oldest, newest := max(0, window-steps+1), min(chunks-1, window)
		return newest - oldest + 1, chunk - oldest
	})
}

// source draws the first noise of frames frames at once, and between two levels count chunks for the one at index.
func (t *Torch) source(frames int, l Latent, window func(compute.NoiseKey) (count, index int)) Noise {
	var all, values []float32
	var host []byte
	return func(dq compute.Queue, dst compute.Tensor, key compute.NoiseKey) {
		n := dst.Elems()
		if all == nil {
			all = make([]float32, frames*l.Channels*l.Rows*l.Columns)
			t.Randn(all)
		}
		if cap(host) < 4*n {
			host = make([]byte, 4*n)
		}
		var from []float32
		if key.Step == 0 && len(all) >= n {
			from, all = all[:n], all[n:]
		} else {
			count, index := window(key)
			values = slices.Grow(values[:0], count*n)[:count*n]
			t.Randn(values)
			from = values[index*n:][:n]
		}
		for i, v := range from {
			binary.LittleEndian.PutUint32(host[4*l.place(i):], math.Float32bits(v))
		}
		dq.Upload(dst, host[:4*n])
	}
}

// place is where element i of [frames, channels, rows, columns] lies among tokens.
func (l Latent) place(i int) int {
	column, i := i%l.Columns, i/l.Columns
	row, i := i%l.Rows, i/l.Rows
	channel, frame := i%l.Channels, i/l.Channels
	token := (frame*l.Rows/2+row/2)*(l.Columns/2) + column/2
	return (token*4+row%2*2+column%2)*l.Channels + channel
}
