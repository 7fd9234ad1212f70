package cuda

import "longtake/compute"

// Attend computes softmax attention, see compute.Attention. The head dimension is a multiple of 16 up to 128.
func (q *queue) Attend(dst, query, keys, values compute.Tensor, a compute.Attention) {
	if q.err != nil {
		return
	}
	s := checkAttend(dst, query, keys, values, a)
	if s.heads == 0 || s.queries == 0 {
		return
	}
	q.attendAny(dst, query, keys, values, a, s)
}
