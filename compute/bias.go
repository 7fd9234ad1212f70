package compute

import "fmt"

// BiasedAttender computes attention with a bias for every pair of query and key.
type BiasedAttender interface {
	// AttendBiased computes, for every head h and query i,
	//
	//	dst[h, i] = sum over keys j of softmax_j(scale*query[h, i]·keys[h, j] + bias[h, i, j]) values[h, j]
	//
	// with shapes and types as in Queue.Attend; bias is F32 [heads, queries, keys]. The first two strides of all may be
	// anything, those of bias negative or 0 too: a bias that depends on j-i alone is a view of one row a head.
	AttendBiased(dst, query, keys, values, bias Tensor, scale float32)
}

// AttendBiased runs dq's AttendBiased, or ComposeBiased on a queue without it.
func AttendBiased(dq Queue, dst, query, keys, values, bias Tensor, scale float32) {
	if b, ok := dq.(BiasedAttender); ok {
		b.AttendBiased(dst, query, keys, values, bias, scale)
		return
	}
	ComposeBiased(dq, dst, query, keys, values, bias, scale)
}

// ComposeBiased is AttendBiased by the operations every queue has: one query at a time, its bias as the LogCount of the keys.
func ComposeBiased(dq Queue, dst, query, keys, values, bias Tensor, scale float32) {
	if bias.Rank != 3 || bias.Shape[0] != query.Shape[0] || bias.Shape[1] != query.Shape[1] || bias.Shape[2] != keys.Shape[1] {
		panic(fmt.Sprintf("compute: attention of %v over %v with a bias of %v", query, keys, bias))
	}
	for i := range query.Shape[1] {
		row := bias.Slice(1, i, i+1)
		row.Rank, row.Shape, row.Stride = 2, [MaxRank]int{bias.Shape[0], bias.Shape[2]}, [MaxRank]int{bias.Stride[0], bias.Stride[2]}
		dq.Attend(dst.Slice(1, i, i+1), query.Slice(1, i, i+1), keys, values, Attention{Scale: scale, LogCount: row})
	}
}
