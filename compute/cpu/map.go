package cpu

import (
	"unsafe"

	"longtake/compute"
)

// Map returns the bytes of t in place, see compute.Mapper. It is valid until the arena is freed.
func (q *Queue) Map(t compute.Tensor) []byte {
	p := address(t)
	if p == nil {
		return nil
	}
	last := 0
	for i := range t.Rank {
		last += (t.Shape[i] - 1) * t.Stride[i]
	}
	return unsafe.Slice((*byte)(p), (last+1)*t.DType.Size())
}
