package cpu

import (
	"unsafe"

	"longtake/compute"
)

// class is a set of kernels that round alike. All pointers may be unaligned unless said otherwise; n counts float32 elements
// and may be anything from 0. Where a destination equals a source exactly, the function works in place.
type class struct {
	name  string
	cache compute.DType
	// panel is the width of packed weight panels, panelBytes their size.
	panel      int
	panelBytes func(in int) int
	// tiles are the kernels of the class amx, nil for the others.
	tiles *tileKernels
	// pack fills a matrix; linear runs a prepared task on x.
	pack   func(m *matrix, w compute.Host, read func([]float32, []byte))
	linear func(q *Queue, t *linearTask, x compute.Tensor)
	// gemm computes full and partial row blocks, see gemmArgs.
	gemm func(g *gemmArgs, width, rows int)
	// thin does one to three rows by several panels bPanel apart, at once, and returns how many; 0 where gemm is as good.
	// Nil without such kernels.
	thin func(g *gemmArgs, rows, panels int) int
	// lanes are the widths of query groups that gemm can take in attention, widest first; the last is 16.
	lanes []int
	// softmax turns one block of logits of 16 queries into probabilities, see softmaxArgs.
	softmax func(a *softmaxArgs)
	// scaleRows multiplies rows of 16 columns by 16 factors: x[i][j] *= f[j], rows stride bytes apart.
	scaleRows func(x unsafe.Pointer, stride int, f unsafe.Pointer, rows int)
	// transpose16 writes dst[c][r] = x[r][c]*f for r < rows <= 16 and c < cols, strides in bytes.
	transpose16 func(dst unsafe.Pointer, dstStride int, x unsafe.Pointer, xStride int, rows, cols int, f float32)

	activate func(dst, x unsafe.Pointer, n int, act compute.Activation)
	mix      func(dst, x, y unsafe.Pointer, n int, a, b float32)
	scale    func(dst, x unsafe.Pointer, n int, a float32)
	clamp    func(dst, x unsafe.Pointer, n int, lo, hi float32)
	addGated func(dst, x, y, gate unsafe.Pointer, n int)
	add      func(dst, x, y unsafe.Pointer, n int)
	widen    func(dst, x unsafe.Pointer, n int) // bfloat16 to float32
	narrow   func(dst, x unsafe.Pointer, n int) // float32 to bfloat16, nearest even
	sum      func(x unsafe.Pointer, n int) float32
	squares  func(x unsafe.Pointer, n int, mean float32) float32 // sum of (x-mean)²
	norm     func(dst, x, scale, shift unsafe.Pointer, n int, mean, inv float32)
	rotate   func(dst, x, turn unsafe.Pointer, n int) // pairs by (cos, sin) pairs
	noise    func(dst []float32, key compute.NoiseKey, first uint64)
}

// gemmArgs asks for C = init + A B, where B is a packed panel: row k of it is width float32 wide and follows row k-1.
// A(r, k) lies at a + r*aRow + k*aCol, so rows of activations, keys, and columns of values all serve in place. Every row of C
// starts from a row of init: a zero or bias row with initRow 0, or C itself. Strides are bytes. Each element is one chain of
// multiply-adds in the order of k.
type gemmArgs struct {
	a       unsafe.Pointer
	aRow    int
	aCol    int
	b       unsafe.Pointer
	k       int
	c       unsafe.Pointer
	cRow    int
	init    unsafe.Pointer
	initRow int
	blocks  int // row blocks of the kernel's height, one after the other
	bPanel  int // from panel to panel, for thin
	// Memory soon needed: with every four steps of k 128 bytes are fetched from ahead, which then moves on by aheadStep. Nil
	// with 0 for none.
	ahead     unsafe.Pointer
	aheadStep int
}

// softmaxArgs is one block of keys for 16 queries: logits s[key][query] without LogCount. Afterwards s holds e^(s+count-max),
// max and sum are brought up to date, and rescale holds e^(old max - new max).
type softmaxArgs struct {
	s       unsafe.Pointer
	stride  int // bytes from key to key
	keys    int
	count   unsafe.Pointer // [keys] added to the logits, or nil
	max     unsafe.Pointer // [16]
	sum     unsafe.Pointer // [16]
	rescale unsafe.Pointer // [16]
	changed int            // set when some rescale is not 1
	out     unsafe.Pointer // words, for tileKernels.softmax
	// Memory soon needed, 128 bytes for every key (in tiles every two keys), aheadStep bytes apart.
	ahead     unsafe.Pointer
	aheadStep int
}

// advance moves to the rows after the first n.
func (g *gemmArgs) advance(n int) {
	g.a = unsafe.Add(g.a, n*g.aRow)
	g.c = unsafe.Add(g.c, n*g.cRow)
	g.init = unsafe.Add(g.init, n*g.initRow)
}
