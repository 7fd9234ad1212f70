package cuda

import "longtake/compute"

// joinArgs mirrors JoinArgs in kernels/join/join.cu.
type joinArgs struct {
	dst, more, sums, moreSums uint64
	dstHead, dstRow, sumHead  int64
	queries, headDim, half, _ uint32
}

var _ compute.Adder = (*queue)(nil)

// AttendMore adds keys to a finished attention, see compute.Adder: an attention over them, joined with the other.
func (q *queue) AttendMore(dst, query, keys, values compute.Tensor, a compute.Attention, queryTile int) {
	if q.err != nil {
		return
	}
	counts, sums := a.LogCount, a.LogSumExp
	a.LogCount, a.LogSumExp = compute.Tensor{}, compute.Tensor{}
	s := checkAttend(dst, query, keys, values, a)
	if !counts.IsZero() {
		s.queryTile, s.queryTiles, s.byTile = queryTile, (s.queries+queryTile-1)/queryTile, true
	}
	if !(a.Lengths.IsZero() && a.Tiles.Ends.IsZero() && (!s.byTile || counts.Rank == 2 && counts.DType == compute.F32 && counts.Shape[0] == s.heads*s.queryTiles && counts.Shape[1] == s.keys) &&
		sums.Rank == 2 && sums.DType == compute.F32 && sums.Shape[0] == s.heads && sums.Shape[1] == s.queries && s.headDim%2 == 0 && dst.Stride[1]%2 == 0 && dst.Stride[0]%2 == 0) {
		mismatch("attend more", dst, counts, sums)
	}
	if s.heads*s.queries*s.keys == 0 {
		return
	}
	more := q.scratch(scratchMore, dst.DType, s.heads*s.queries, s.headDim)
	moreSums := q.scratch(scratchMoreSums, compute.F32, s.heads, s.queries)
	if q.err != nil {
		return
	}
	more = more.Reshape(s.heads, s.queries, s.headDim)
	a.LogCount, a.LogSumExp = counts, moreSums
	if q.device.float32 || s.byTile && queryTile != attendRows || !attendFits(more, query, keys, values, a, s) {
		q.attendAny(more, query, keys, values, compute.Tensor{}, a, s)
	} else {
		q.attendMatrix(more, query, keys, values, a, s)
	}
	j := &q.joinArgs
	*j = joinArgs{dst: address(dst), more: address(more), sums: address(sums), moreSums: address(moreSums), dstHead: int64(dst.Stride[0]), dstRow: int64(dst.Stride[1]),
		sumHead: int64(sums.Stride[0]), queries: uint32(s.queries), headDim: uint32(s.headDim), half: half("attend more", dst)}
	q.launch("attend", q.device.kernels.join[0], [3]uint32{uint32((s.queries + 7) / 8), uint32(s.heads), 1}, [3]uint32{256, 1, 1}, 0, argument(j))
}
