package cuda

import (
	"longtake/compute"
)

// gatherArgs mirrors GatherArgs in kernels/gather/gather.cu.
type gatherArgs struct {
	dst, table, index, fault              uint64
	dstStride, tableStride                int64
	rows, width, entries, accumulate, vec uint32
	_                                     uint32
}

// Gather computes dst[i] = table[index[i]], or adds it. An index outside the table leaves its row as it was and is reported
// by Err.
func (q *queue) Gather(dst, table, index compute.Tensor, accumulate bool) {
	if q.err != nil {
		return
	}
	if !(dst.Rank == 2 && table.Rank == 2 && table.DType == compute.F32 && index.Rank == 1 && index.DType == compute.I32 &&
		index.Contiguous() && dst.Shape[1] == table.Shape[1] && dst.Shape[0] == index.Shape[0]) {
		mismatch("gather", dst, table, index)
	}
	if dst.Elems() == 0 {
		return
	}
	a := &q.gatherArgs
	*a = gatherArgs{dst: address(dst), table: address(table), index: address(index), fault: q.faultAt,
		dstStride: int64(dst.Stride[0]), tableStride: int64(table.Stride[0]),
		rows: uint32(dst.Shape[0]), width: uint32(dst.Shape[1]), entries: uint32(table.Shape[0])}
	if accumulate {
		a.accumulate = 1
	}
	chunk := 1
	if dst.Shape[1]%8 == 0 && aligned(dst) && aligned(table) {
		chunk, a.vec = 8, 1
	}
	grid, threads := geometry(dst.Shape[0], dst.Shape[1]/chunk)
	q.launch("gather", q.device.kernels.gather[half("gather", dst)], grid, threads, 0, argument(a))
}
