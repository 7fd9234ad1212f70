package computetest

import (
	"encoding/binary"
	"fmt"
	"math"

	"longtake/compute"
)

// encode writes elements as dt, rounding to nearest even.
func encode(data []float64, dt compute.DType) []byte {
	b, le := make([]byte, 0, len(data)*dt.Size()), binary.LittleEndian
	for _, v := range data {
		switch dt {
		case compute.F32:
			b = le.AppendUint32(b, math.Float32bits(float32(v)))
		case compute.BF16:
			b = le.AppendUint16(b, compute.BF16FromF32(float32(v)))
		case compute.I32:
			b = le.AppendUint32(b, uint32(int32(v)))
		default:
			panic(fmt.Sprintf("computetest: no encoding of %v", dt))
		}
	}
	return b
}

// decode reads elements of dt.
func decode(b []byte, dt compute.DType) []float64 {
	le, out := binary.LittleEndian, make([]float64, len(b)/dt.Size())
	for i := range out {
		switch dt {
		case compute.F32:
			out[i] = float64(math.Float32frombits(le.Uint32(b[4*i:])))
		case compute.BF16:
			out[i] = float64(compute.F32FromBF16(le.Uint16(b[2*i:])))
		case compute.F16:
			out[i] = float64(compute.F32FromF16(le.Uint16(b[2*i:])))
		case compute.I32:
			out[i] = float64(int32(le.Uint32(b[4*i:])))
		default:
			panic(fmt.Sprintf("computetest: no decoding of %v", dt))
		}
	}
	return out
}

// places returns where the elements of a view lie, in elements from the start of its buffer, in row-major order.
func places(t compute.Tensor) []int {
	at := []int{t.Offset}
	for d := range t.Rank {
		next := make([]int, 0, len(at)*t.Shape[d])
		for _, p := range at {
			for i := range t.Shape[d] {
				next = append(next, p+i*t.Stride[d])
			}
		}
		at = next
	}
	return at
}
