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
	together                                          uint32
}

// addArgs mirrors AddArgs in kernels/norm/norm.cu.
type addArgs struct {
	y, gate, sum                   uint64
	yStride, gateStride, sumStride int64
	coarse, scale                  uint64
	rowsPerGate                    uint32
	_                              uint32
}

// turnArgs mirrors TurnArgs in kernels/norm/norm.cu.
type turnArgs struct {
	dstHead, dstFrame int64
	headDim, frame    divisor
	turn              turn
}

// A thread keeps normHeld chunks of its row in registers, and rows that need fewer threads than normThreads share a block: the
// fastest of BenchmarkSweep. Rows too wide for normMostThreads get the second set of kernels.
const (
	normHeld        = 2
	normThreads     = 128
	normMostThreads = 256
	normWideHeld    = 8
	normWideThreads = 512
	normPairRows    = 1024 // from so many rows on, a thread of addnorm takes two at once
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
	if x.Elems() == 0 {
		return
	}
	chunk, ok := q.normPlan("norm", dst, x, n)
	if !ok {
		return
	}
	kernel := half("norm", dst)<<1 | half("norm", x)
	fn, held, most := q.device.kernels.norm[kernel], q.device.normHeld, normMostThreads
	if wholeWarps(x.Shape[1]/chunk, held) > most {
		fn, held, most = q.device.kernels.normWide[kernel], normWideHeld, normWideThreads
	}
	grid, threads, fits := q.device.normGrid(x.Shape[0], x.Shape[1]/chunk, held, most)
	if !fits {
		q.fail("norm", fmt.Errorf("rows of %v are too wide: %w", x, compute.ErrUnsupported))
		return
	}
	q.launch("norm", fn, grid, threads, 0, argument(&q.normArgs))
	if q.rounded.of == dst {
		q.rounded = rounded{} // a forward that ends with its keys leaves a sum in e4m3 behind; this is the next one's first norm
	}
}

// normPlan fills normArgs and says how many elements are taken at once.
func (q *queue) normPlan(op string, dst, x compute.Tensor, n compute.Norm) (chunk int, ok bool) {
	a := &q.normArgs
	*a = normArgs{dst: address(dst), x: address(x), dstStride: int64(dst.Stride[0]), xStride: int64(x.Stride[0]),
		rows: uint32(x.Shape[0]), width: uint32(x.Shape[1]), rowsPerScale: 4, rowsPerShift: 4, together: 1, eps: n.Eps}
	if n.RMS {
		a.rms = 1
	}
	a.weight, a.bias = row(op, n.Weight, x), row(op, n.Bias, x)
	if !n.Scale.IsZero() {
		a.rowsPerScale = uint32(groups(op, n.Scale, x))
		a.scale, a.scaleStride = address(n.Scale), int64(n.Scale.Stride[0])
	}
	if !n.Shift.IsZero() {
		a.rowsPerShift = uint32(groups(op, n.Shift, x))
		a.shift, a.shiftStride = address(n.Shift), int64(n.Shift.Stride[0])
	}
	chunk = 1
	if x.Shape[1]%8 == 0 && aligned(dst) && aligned(x) && aligned(n.Weight) && aligned(n.Bias) && aligned(n.Scale) && aligned(n.Shift) {
		chunk, a.vec = 8, 1
	}
	return chunk, q.err == nil
}

// normGrid lays rows of chunks over blocks; it does not fit when a row needs more than most threads.
func (d *Device) normGrid(rows, chunks, held, most int) (grid, threads [3]uint32, fits bool) {
	x := wholeWarps(chunks, held)
	if x > most {
		return grid, threads, false
	}
	together := max(1, d.normThreads/x)
	return [3]uint32{uint32((rows + together - 1) / together), 1, 1}, [3]uint32{uint32(x), uint32(together), 1}, true
}

// AddNorm adds and normalises, see compute.AddNormer. In one pass where x and sum are F32, or everything is BF16, and rows are no
// wider than 8192.
func (q *queue) AddNorm(dst, sum, x, y, gate compute.Tensor, n compute.Norm) {
	if q.err != nil {
		return
	}
	if !(dst.Rank == 2 && sum.Rank == 2 && y.Rank == 2 && dst.Shape == sum.Shape && x.Shape == sum.Shape && y.Shape == sum.Shape) {
		mismatch("add norm", dst, sum, x, y)
	}
	b := &q.addArgs
	*b = addArgs{y: address(y), sum: address(sum), yStride: int64(y.Stride[0]), sumStride: int64(sum.Stride[0]), rowsPerGate: 4}
	if !gate.IsZero() {
		b.rowsPerGate = uint32(groups("add norm", gate, x))
		b.gate, b.gateStride = address(gate), int64(gate.Stride[0])
	}
	kernel := half("add norm", dst)<<1 | half("add norm", y)
	one := x.DType == compute.F32 && sum.DType == compute.F32
	if x.DType == compute.BF16 && sum.DType == compute.BF16 && kernel == 3 {
		one, kernel = true, 4
	}
	if dst.Elems() == 0 {
		return
	}
	chunk, ok := q.normPlan("add norm", dst, x, n)
	if !(aligned(sum) && aligned(y) && aligned(gate)) {
		chunk, q.normArgs.vec = 1, 0
	}
	if a := &q.normArgs; a.vec == 1 && q.device.normPairs && a.rows >= normPairRows && a.rows%2 == 0 && (a.rowsPerScale|a.rowsPerShift|b.rowsPerGate)%2 == 0 {
		a.together = 2
	}
	grid, threads, fits := q.device.normGrid(x.Shape[0]/int(q.normArgs.together), x.Shape[1]/chunk, normHeld, normWideThreads)
	if !ok || !fits || !one {
		q.AddGated(sum, x, y, gate)
		q.Norm(dst, sum, n)
		return
	}
	coarse := kernel == 4 && q.normArgs.vec == 1 && q.coarseToo(dst)
	if coarse {
		kernel = 5
		if n.Coarse {
			q.normArgs.dst = 0
		}
	}
	if q.err != nil {
		return
	}
	q.launch("add norm", q.device.kernels.addNorm[kernel], grid, threads, 0, argument(&q.normArgs), argument(b))
	if coarse {
		q.rounded = rounded{dst, q.ops, n.Coarse}
	} else {
		q.rounded.only = false
	}
}

// NormRope normalises rows and rotates their heads, see compute.NormRoper. In one pass where all allows 16-byte accesses.
func (q *queue) NormRope(dst, x compute.Tensor, n compute.Norm, pos compute.Tensor, r compute.Rope) {
	if q.err != nil {
		return
	}
	if !((dst.Rank == 3 || dst.Rank == 4) && x.Rank == 2 && dst.Shape[0]*dst.Dim(-1) == x.Shape[1] && dst.Elems() == x.Elems() && dst.Shape[0] > 0) {
		mismatch("norm rope", dst, x)
	}
	heads := x.Heads(dst.Shape[0])
	t := &q.turnArgs
	*t = turnArgs{dstHead: int64(dst.Stride[0]), headDim: newDivisor(dst.Dim(-1)), frame: newDivisor(dst.Dim(-2)), turn: q.turn("norm rope", heads, pos, r)}
	if dst.Rank == 4 {
		t.dstFrame = int64(dst.Stride[1])
	}
	kernel := half("norm rope", dst)<<1 | half("norm rope", x)
	if x.Elems() == 0 {
		return
	}
	chunk, ok := q.normPlan("norm rope", x, x, n)
	grid, threads, fits := q.device.normGrid(x.Shape[0], x.Shape[1]/chunk, q.device.normHeld, normWideThreads)
	if !ok || !fits || chunk == 1 || dst.Dim(-1)%8 != 0 || !aligned(dst) {
		q.Norm(x, x, n)
		compute.RopeFrames(q, dst, heads, pos, r)
		return
	}
	q.normArgs.dst, q.normArgs.dstStride = address(dst), int64(dst.Stride[dst.Rank-2])
	if q.device.normAlike && t.turn.posHead == 0 && int(threads[0])*chunk%dst.Dim(-1) == 0 {
		kernel += 4
	}
	q.launch("norm rope", q.device.kernels.normRope[kernel], grid, threads, 0, argument(&q.normArgs), argument(t))
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
