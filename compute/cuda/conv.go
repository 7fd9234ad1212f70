package cuda

import (
	"fmt"
	"math"
	"math/bits"

	"longtake/compute"
)

// convArgs mirrors ConvArgs in kernels/conv/conv.cu.
type convArgs struct {
	dst                           uint64
	source                        [compute.MaxSources]uint64
	weight, bias                  uint64
	dstRow                        int64
	row, column                   [compute.MaxSources]uint32
	channels, taps, size, columns divisor
	pixels, out, depth            uint32
	stride, height, wide          uint32
	firstRow, firstColumn         int32
	upShift, act, dstHalf         uint32
	_                             uint32
}

const (
	convPixels  = 128      // of a block
	convThreads = 128      // likewise
	convSide    = 16       // of the square of pixels of a block of the form for 3 x 3
	convPatches = 16 << 20 // elements of patches at once where the kernel does not fit
)

// Convolve computes a convolution, see compute.Convolver. bfloat16 weights and images whose channels and strides are multiples
// of 8 are multiplied as they are gathered; others go by way of patches.
func (q *queue) Convolve(dst compute.Tensor, u compute.Unfold, w compute.Matrix, bias compute.Tensor, act compute.Activation) {
	if q.err != nil {
		return
	}
	const op = "convolve"
	m, ok := w.(*matrix)
	like := dst
	for i := range min(max(u.Count, 0), compute.MaxSources) {
		if !u.Sources[i].IsZero() {
			like.DType = u.Sources[i].DType
		}
	}
	shape := checkUnfold(op, like, &u)
	depth := u.Count * u.Size * u.Size * shape[2]
	if !(ok && m.in() == depth && dst.Shape[1] == m.Shape[0]) {
		mismatch(op, dst, u.Sources[0], matrixText(w))
	}
	checkBias(op, bias, dst)
	half(op, dst)
	if dst.Elems() == 0 {
		return
	}
	if !q.convFits(dst, m, &u, shape) {
		q.convolvePatches(dst, u, like.DType, depth, w, bias, act)
		return
	}
	if bias = q.biasAs(compute.F32, bias); q.err != nil {
		return
	}
	a := &q.convArgs
	*a = convArgs{dst: address(dst), weight: address(m.Tensor), bias: row(op, bias, dst), dstRow: int64(dst.Stride[0]), channels: newDivisor(shape[2] / 8),
		taps: newDivisor(u.Size * u.Size), size: newDivisor(u.Size), columns: newDivisor(u.Columns), pixels: uint32(dst.Shape[0]),
		out: uint32(m.Shape[0]), depth: uint32(depth / 8), stride: uint32(u.Stride), height: uint32(shape[0] * u.Up), wide: uint32(shape[1] * u.Up),
		firstRow: int32(u.Row*u.Stride - u.Pad), firstColumn: int32(u.Column*u.Stride - u.Pad), upShift: uint32(bits.TrailingZeros(uint(u.Up))),
		act: uint32(act), dstHalf: half(op, dst)}
	for i := range u.Count {
		if s := u.Sources[i]; !s.IsZero() {
			a.source[i], a.row[i], a.column[i] = address(s), uint32(s.Stride[0]/8), uint32(s.Stride[1]/8)
		}
	}
	v := convVariantOf(m.Shape[0], shape[2], &u)
	fn, shared, err := q.device.convKernel(v)
	if err != nil {
		q.fail(op, err)
		return
	}
	grid, threads := [3]uint32{uint32((m.Shape[0] + v.block - 1) / v.block), (a.pixels + convPixels - 1) / convPixels, 1}, uint32(convThreads)
	if v.near {
		grid[1], threads = uint32(convSquares(&u)), 2*convThreads
	}
	q.launch(op, fn, grid, [3]uint32{threads, 1, 1}, shared, argument(a))
}

// convFits says whether the kernel takes a convolution.
func (q *queue) convFits(dst compute.Tensor, m *matrix, u *compute.Unfold, shape [compute.MaxRank]int) bool {
	if !m.half || m.parts || shape[2]%8 != 0 || u.Up&(u.Up-1) != 0 || !aligned(m.Tensor) || dst.Shape[0] > 65535*convPixels ||
		shape[0]*u.Up >= 1<<29 || shape[1]*u.Up >= 1<<29 || (u.Row+u.Rows)*u.Stride >= 1<<29 || (u.Column+u.Columns)*u.Stride >= 1<<29 {
		return false
	}
	for i := range u.Count {
		s := u.Sources[i]
		if s.IsZero() {
			continue
		}
		if s.DType != compute.BF16 || !aligned(s) || s.Stride[0] < 0 || s.Stride[1] < 0 || shape[0]*s.Stride[0]+shape[1]*s.Stride[1] > math.MaxInt32 {
			return false
		}
	}
	return true
}

// convBlock is the number of outputs of a block that wastes least for out of them.
func convBlock(out int) int {
	if out <= 16 {
		return 16
	}
	best, least := 0, math.MaxInt
	for _, b := range []int{128, 96, 64} {
		if padded := (out + b - 1) / b * b; padded < least {
			best, least = b, padded
		}
	}
	return best
}

// convVariant is what the kernel is compiled for.
type convVariant struct {
	block int  // outputs of a block
	near  bool // the form that fetches what the taps of 16 x 16 pixels see once
}

// convVariantOf chooses for a convolution of so many outputs and channels of a source. Blocks of 128 outputs are faster without squares, of 64
// and fewer with them (dev/gpu/RESULTS.md, "Images").
func convVariantOf(out, channels int, u *compute.Unfold) convVariant {
	near := u.Size == 3 && u.Stride == 1 && channels%64 == 0 && convSquares(u) <= 65535
	switch {
	case near && out <= 16:
		return convVariant{16, true}
	case near && out%64 == 0 && convBlock(out) < 128:
		return convVariant{64, true}
	}
	return convVariant{block: convBlock(out)}
}

// convSquares is how many squares cover the rectangle.
func convSquares(u *compute.Unfold) int {
	return (u.Rows + convSide - 1) / convSide * ((u.Columns + convSide - 1) / convSide)
}

// shared is the shared memory of a block: three stages of 64 elements; or two squares with their surroundings and the weights of three taps.
func (v convVariant) shared() int {
	if v.near {
		return 64 * 2 * (2*(convSide+2)*(convSide+2) + 3*v.block)
	}
	return 3 * (convPixels + v.block) * 64 * 2
}

// convKernel returns the kernel compiled for a variant, and its shared memory.
func (d *Device) convKernel(v convVariant) (fn uintptr, shared int, err error) {
	shared = v.shared()
	d.attendMu.Lock()
	defer d.attendMu.Unlock()
	if fn, ok := d.convs[v]; ok {
		return fn, shared, nil
	}
	near := 0
	if v.near {
		near = 1
	}
	module, err := d.modules.load("conv", define("BN", v.block), define("NEAR", near))
	if err != nil {
		return 0, 0, err
	}
	if fn, err = d.drv.Function(module, "conv"); err != nil {
		return 0, 0, err
	}
	if err := d.drv.SetShared(fn, shared); err != nil {
		return 0, 0, err
	}
	d.convs[v] = fn
	return fn, shared, nil
}

// convolvePatches unfolds strips of the rectangle, whole rows or parts of one, and multiplies each.
func (q *queue) convolvePatches(dst compute.Tensor, u compute.Unfold, dt compute.DType, depth int, w compute.Matrix, bias compute.Tensor, act compute.Activation) {
	height, width, top, left := u.Rows, u.Columns, u.Row, u.Column
	pixels := max(convPatches/depth, 1)
	rows, columns := min(pixels/width, height), width
	if rows == 0 {
		rows, columns = 1, pixels
	}
	room := q.scratch(scratchPatches, dt, rows*columns, depth)
	if q.err != nil {
		return
	}
	for y := 0; y < height; y += rows {
		for x := 0; x < width; x += columns {
			u.Row, u.Column, u.Rows, u.Columns = top+y, left+x, min(rows, height-y), min(columns, width-x)
			n, at := u.Rows*u.Columns, y*width+x
			patches := room.Slice(0, 0, n)
			q.Unfold(patches, u)
			q.Linear(dst.Slice(0, at, at+n), patches, w, bias, act)
		}
	}
	if q.err != nil {
		q.err = fmt.Errorf("convolve: %w", q.err)
	}
}
