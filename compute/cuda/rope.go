package cuda

import (
	"fmt"

	"longtake/compute"
)

// turn mirrors Turn in kernels/types.cuh.
type turn struct {
	pos, time, row, column           uint64
	fault                            uint64
	posHead, posToken                int64
	timePairs, rowPairs, columnPairs uint32
	times, rows, columns             uint32
	minTime                          int32
	inverse                          uint32
}

// ropeArgs mirrors RopeArgs in kernels/rope/rope.cu.
type ropeArgs struct {
	dst, x                           uint64
	dstHead, dstToken, xHead, xToken int64
	heads, tokens, vec               uint32
	_                                uint32
	turn                             turn
}

// Rope rotates pairs of adjacent elements by their token's position, see compute.Rope. A row or column position outside its
// table is reported by Err.
func (q *queue) Rope(dst, x, pos compute.Tensor, r compute.Rope) {
	if q.err != nil {
		return
	}
	if !(dst.Rank == 3 && x.Rank == 3 && dst.Shape == x.Shape) {
		mismatch("rope", dst, x)
	}
	heads, tokens, headDim := x.Shape[0], x.Shape[1], x.Shape[2]
	turn := q.turn("rope", x, pos, r)
	if x.Elems() == 0 {
		return
	}
	a := &q.ropeArgs
	*a = ropeArgs{dst: address(dst), x: address(x), dstHead: int64(dst.Stride[0]), dstToken: int64(dst.Stride[1]), xHead: int64(x.Stride[0]),
		xToken: int64(x.Stride[1]), heads: uint32(heads), tokens: uint32(tokens), turn: turn}
	chunk := 2
	if headDim%8 == 0 && aligned(dst) && aligned(x) {
		chunk, a.vec = 8, 1
	}
	tx := headDim / chunk
	if tx > 256 {
		q.fail("rope", fmt.Errorf("head dimension of %v: %w", x, compute.ErrUnsupported))
		return
	}
	ty := min(heads, max(1, 256/tx))
	tz := max(1, min(64, 256/(tx*ty)))
	grid := [3]uint32{uint32((tokens + tz - 1) / tz), 1, 1}
	kernel := half("rope", dst)<<1 | half("rope", x)
	q.launch("rope", q.device.kernels.rope[kernel], grid, [3]uint32{uint32(tx), uint32(ty), uint32(tz)}, 0, argument(a))
}

// turn checks positions and tables for x [heads, tokens, headDim] and packs them.
func (q *queue) turn(op string, x, pos compute.Tensor, r compute.Rope) turn {
	heads, tokens, headDim := x.Shape[0], x.Shape[1], x.Shape[2]
	if !(pos.DType == compute.I32 && (pos.Rank == 2 || pos.Rank == 3 && pos.Shape[0] == heads) &&
		pos.Dim(-2) == tokens && pos.Dim(-1) == 3) {
		mismatch(op, pos, x)
	}
	t := turn{pos: address(pos), fault: q.faultAt, posToken: int64(pos.Stride[pos.Rank-2]), minTime: int32(r.MinTime)}
	if pos.Rank == 3 {
		t.posHead = int64(pos.Stride[0])
	}
	if r.Inverse {
		t.inverse = 1
	}
	t.time, t.times, t.timePairs = ropeTable(r.Time)
	t.row, t.rows, t.rowPairs = ropeTable(r.Row)
	t.column, t.columns, t.columnPairs = ropeTable(r.Column)
	if !(int(t.timePairs+t.rowPairs+t.columnPairs)*2 == headDim) {
		mismatch(op, r.Time, r.Row, r.Column, x)
	}
	return t
}

// ropeTable checks one axis, F32 [positions, pairs, 2] contiguous, or absent.
func ropeTable(t compute.Tensor) (at uint64, positions, pairs uint32) {
	if t.IsZero() {
		return 0, 0, 0
	}
	if !(t.Rank == 3 && t.DType == compute.F32 && t.Shape[2] == 2 && t.Shape[0] > 0 && t.Contiguous()) {
		mismatch("rope", t)
	}
	return address(t), uint32(t.Shape[0]), uint32(t.Shape[1])
}
