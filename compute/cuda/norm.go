package cuda

import (
	"fmt"

	"longtake/compute"
)

// normArgs mirrors NormArgs in kernels/norm/norm.cu.
type normArgs struct {
	dst, x, weight, bias, scale, shift                uint64
	dstStride, xStride                                int64
	scaleStride, shiftStride                          int64
	rows, width, rowsPerScale, rowsPerShift, rms, vec uint32
	eps                                               float32
	_                                                 uint32
}

// A thread keeps normHeld chunks of its row in registers, and rows that need fewer threads than normThreads share a block: the
// fastest of BenchmarkSweep. Rows too wide for normMostThreads get the second set of kernels.
const (
	normHeld        = 2
	normThreads     = 128
	normMostThreads = 256
	normWideHeld    = 8
	normWideThreads = 512
)

// Norm normalises each row, see compute.Norm. Rows may be up to 32768 wide (4096 where alignment
// forbids 16-byte accesses).
func (q *queue) Norm(dst, x compute.Tensor, n compute.Norm) {
	if q.err != nil {
		return
	}
	if !(dst.Rank == 2 && x.Rank == 2 && dst.Shape == x.Shape) {
		mismatch("norm", dst, x)
	}
	rows, width := x.Shape[0], x.Shape[1]
	if rows == 0 || width == 0 {
		return
	}
	a := &q.normArgs
	*a = normArgs{dst: address(dst), x: address(x), dstStride: int64(dst.Stride[0]), xStride: int64(x.Stride[0]),
		rows: uint32(rows), width: uint32(width), rowsPerScale: 1, rowsPerShift: 1, eps: n.Eps}
	if n.RMS {
		a.rms = 1
	}
	a.weight, a.bias = row("norm", n.Weight, x), row("norm", n.Bias, x)
	if !n.Scale.IsZero() {
		a.rowsPerScale = uint32(groups("norm", n.Scale, x))
		a.scale, a.scaleStride = address(n.Scale), int64(n.Scale.Stride[0])
	}
	if !n.Shift.IsZero() {
		a.rowsPerShift = uint32(groups("norm", n.Shift, x))
		a.shift, a.shiftStride = address(n.Shift), int64(n.Shift.Stride[0])
	}
	chunk := 1
	if width%8 == 0 && aligned(dst) && aligned(x) && aligned(n.Weight) && aligned(n.Bias) && aligned(n.Scale) && aligned(n.Shift) {
		chunk, a.vec = 8, 1
	}
	kernel := half("norm", dst)<<1 | half("norm", x)
	chunks, fn := width/chunk, q.device.kernels.norm[kernel]
	threads := wholeWarps(chunks, q.device.normHeld)
	if threads > normMostThreads {
		fn, threads = q.device.kernels.normWide[kernel], wholeWarps(chunks, normWideHeld)
	}
	if threads > normWideThreads {
		q.fail("norm", fmt.Errorf("rows of %v are too wide: %w", x, compute.ErrUnsupported))
		return
	}
	together := max(1, q.device.normThreads/threads)
	q.launch("norm", fn, [3]uint32{uint32((rows + together - 1) / together), 1, 1}, [3]uint32{uint32(threads), uint32(together), 1}, 0, argument(a))
}

// wholeWarps is how many threads share chunks, each taking up to held, rounded up to warps.
func wholeWarps(chunks, held int) int { return ((chunks+held-1)/held + 31) / 32 * 32 }

// row returns the address of an F32 parameter [width] that goes with x [rows, width], or 0 when it is absent.
func row(op string, t, x compute.Tensor) uint64 {
	if t.IsZero() {
		return 0
	}
	if !(t.DType == compute.F32 && t.Elems() == x.Shape[1] && t.Contiguous()) {
		mismatch(op, t, x)
	}
	return address(t)
}
