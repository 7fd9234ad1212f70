package cuda

import (
	"fmt"
	"math"

	"longtake/compute"
)

// unfoldArgs mirrors UnfoldArgs in kernels/unfold/unfold.cu.
type unfoldArgs struct {
	dst                         uint64
	source                      [compute.MaxSources]uint64
	dstRow                      int64
	row, column                 [compute.MaxSources]int64
	width, channels, taps, size divisor
	columns, up                 divisor
	total, stride, height, wide uint32
	firstRow, firstColumn       int32
}

// checkUnfold panics unless u fits pixels rows of dst's type, and returns the shape of its sources.
func checkUnfold(op string, dst compute.Tensor, u *compute.Unfold) (shape [compute.MaxRank]int) {
	half(op, dst)
	if !(u.Count >= 1 && u.Count <= compute.MaxSources && u.Size >= 1 && u.Stride >= 1 && u.Up >= 1 && u.Pad >= 0 && u.Row >= 0 &&
		u.Column >= 0 && u.Rows >= 0 && u.Columns >= 0) {
		mismatch(op, fmt.Sprintf("%d sources, size %d, stride %d, pad %d, up %d, %d x %d from (%d, %d)", u.Count, u.Size, u.Stride, u.Pad, u.Up, u.Rows, u.Columns, u.Row, u.Column))
	}
	found := false
	for i := range u.Count {
		s := u.Sources[i]
		if s.IsZero() {
			continue
		}
		if !(s.Rank == 3 && s.DType == dst.DType && (!found || s.Shape == shape)) {
			mismatch(op, dst, s, shape)
		}
		found, shape = true, s.Shape
	}
	if !(found && dst.Rank == 2 && dst.Shape[0] == u.Rows*u.Columns) {
		mismatch(op, dst, u.Sources[0], u.Rows, u.Columns)
	}
	return shape
}

// Unfold gathers the patches of a convolution, see compute.Unfolder.
func (q *queue) Unfold(dst compute.Tensor, u compute.Unfold) {
	if q.err != nil {
		return
	}
	shape := checkUnfold("unfold", dst, &u)
	if !(dst.Shape[1] == u.Count*u.Size*u.Size*shape[2]) {
		mismatch("unfold", dst, u.Sources[0], u.Count, u.Size)
	}
	if dst.Elems() == 0 {
		return
	}
	fits := aligned(dst)
	for i := range u.Count {
		fits = fits && aligned(u.Sources[i])
	}
	size, kernel, unit := dst.DType.Size(), 0, 1
	switch {
	case fits && shape[2]*size%16 == 0:
		unit = 16 / size
	case size == 4:
		kernel = 1
	default:
		kernel = 2
	}
	width := dst.Shape[1] / unit
	if dst.Shape[0]*width > math.MaxInt32-256 || shape[0]*u.Up > math.MaxInt32 || shape[1]*u.Up > math.MaxInt32 {
		q.fail("unfold", fmt.Errorf("%v has too many elements: %w", dst, compute.ErrUnsupported))
		return
	}
	a := &q.unfoldArgs
	*a = unfoldArgs{dst: address(dst), dstRow: int64(dst.Stride[0] / unit), width: newDivisor(width), channels: newDivisor(shape[2] / unit),
		taps: newDivisor(u.Size * u.Size), size: newDivisor(u.Size), columns: newDivisor(u.Columns), up: newDivisor(u.Up),
		total: uint32(dst.Shape[0] * width), stride: uint32(u.Stride), height: uint32(shape[0] * u.Up), wide: uint32(shape[1] * u.Up),
		firstRow: int32(u.Row*u.Stride - u.Pad), firstColumn: int32(u.Column*u.Stride - u.Pad)}
	for i := range u.Count {
		if s := u.Sources[i]; !s.IsZero() {
			a.source[i], a.row[i], a.column[i] = address(s), int64(s.Stride[0]/unit), int64(s.Stride[1]/unit)
		}
	}
	q.launch("unfold", q.device.kernels.unfold[kernel], [3]uint32{(a.total + 255) / 256, 1, 1}, [3]uint32{256, 1, 1}, 0, argument(a))
}

// pixelsArgs mirrors PixelsArgs in kernels/pixels/pixels.cu.
type pixelsArgs struct {
	dst, x, bad  uint64
	scale, shift float64
	count        uint32
	_            uint32
}

// Pixels makes bytes, see compute.Pixeler.
func (q *queue) Pixels(dst, bad, x compute.Tensor, scale, shift float64) {
	if q.err != nil {
		return
	}
	if !(dst.DType == compute.U8 && dst.Contiguous() && x.DType == compute.F32 && x.Contiguous() && dst.Elems() == x.Elems() &&
		bad.DType == compute.I32 && bad.Elems() == 1) {
		mismatch("pixels", dst, bad, x)
	}
	n := x.Elems()
	if n == 0 {
		return
	}
	if n > math.MaxInt32-1024 || address(x)%16 != 0 || address(dst)%4 != 0 {
		q.fail("pixels", fmt.Errorf("%v at an odd place, or too large: %w", x, compute.ErrUnsupported))
		return
	}
	a := &q.pixelsArgs
	*a = pixelsArgs{dst: address(dst), x: address(x), bad: address(bad), scale: scale, shift: shift, count: uint32(n)}
	q.launch("pixels", q.device.kernels.pixels[0], [3]uint32{uint32((n + 1023) / 1024), 1, 1}, [3]uint32{256, 1, 1}, 0, argument(a))
}

// Squash limits smoothly, see compute.Squasher.
func (q *queue) Squash(dst, x compute.Tensor, limit float32) {
	if q.err != nil {
		return
	}
	q.elementwise("squash", opSquash, dst, x, compute.Tensor{}, compute.Tensor{}, 1, compute.None, limit, 0)
}
