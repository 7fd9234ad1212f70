package cuda

import (
	"longtake/compute"
)

// timeEmbedArgs mirrors TimeEmbedArgs in kernels/timeembed/timeembed.cu.
type timeEmbedArgs struct {
	dst, t             uint64
	dstStride, tStride int64
	maxPeriod          float64
	rows, half         uint32
}

// TimeEmbed writes cosines then sines of each value, angles in float64.
func (q *queue) TimeEmbed(dst, t compute.Tensor, maxPeriod float64) {
	if q.err != nil {
		return
	}
	if !(dst.Rank == 2 && t.Rank == 1 && t.DType == compute.F32 && dst.Shape[0] == t.Shape[0] && dst.Shape[1]%2 == 0) {
		mismatch("time embed", dst, t)
	}
	if dst.Elems() == 0 {
		return
	}
	a := &q.timeEmbedArgs
	*a = timeEmbedArgs{dst: address(dst), t: address(t), dstStride: int64(dst.Stride[0]), tStride: int64(t.Stride[0]),
		maxPeriod: maxPeriod, rows: uint32(dst.Shape[0]), half: uint32(dst.Shape[1] / 2)}
	const threads = 128
	blocks := (dst.Elems()/2 + threads - 1) / threads
	q.launch("time embed", q.device.kernels.timeembed[half("time embed", dst)], [3]uint32{uint32(blocks), 1, 1}, [3]uint32{threads, 1, 1}, 0, argument(a))
}
