package ann

import (
	"encoding/binary"
	"math"

	"longtake/compute"
)

// Load writes the elements of t [rows, width] or [heads, rows, width], F32 or BF16 with any strides, to dst as float32 in row-major
// order: in place where the queue is a compute.Mapper, else by way of stage, a contiguous F32 tensor of at least as many
// elements, and bytes for them.
func Load(dq compute.Queue, dst []float32, t, stage compute.Tensor, bytes []byte) {
	if t.Elems() == 0 {
		return
	}
	if t.Rank == 2 {
		t = compute.Tensor{DType: t.DType, Rank: 3, Buffer: t.Buffer, Offset: t.Offset, Shape: [4]int{1, t.Shape[0], t.Shape[1]},
			Stride: [4]int{0, t.Stride[0], 1}}
	}
	mapper, ok := dq.(compute.Mapper)
	if !ok {
		flat := stage
		flat.Rank, flat.Shape, flat.Stride = 1, [4]int{t.Elems()}, [4]int{1}
		dq.Copy(flat.Reshape(t.Shape[0], t.Shape[1], t.Shape[2]), t)
		dq.Download(bytes[:flat.Bytes()], flat)
		for i := range dst[:t.Elems()] {
			dst[i] = math.Float32frombits(binary.LittleEndian.Uint32(bytes[4*i:]))
		}
		return
	}
	mem := mapper.Map(t)
	for h := range t.Shape[0] {
		for i := range t.Shape[1] {
			LoadRow(dst[:t.Shape[2]], mem, t.DType, h*t.Stride[0]+i*t.Stride[1])
			dst = dst[t.Shape[2]:]
		}
	}
}

// LoadRow reads len(dst) elements of a mapped tensor from element at on.
func LoadRow(dst []float32, mem []byte, dt compute.DType, at int) {
	if dt == compute.BF16 {
		mem = mem[2*at:][:2*len(dst)]
		for i := range dst {
			dst[i] = compute.F32FromBF16(binary.LittleEndian.Uint16(mem[2*i:]))
		}
		return
	}
	mem = mem[4*at:][:4*len(dst)]
	for i := range dst {
		dst[i] = math.Float32frombits(binary.LittleEndian.Uint32(mem[4*i:]))
	}
}

// StoreRow writes src as elements of a mapped tensor from element at on, rounded for BF16.
func StoreRow(mem []byte, dt compute.DType, at int, src []float32) {
	if dt == compute.BF16 {
		mem = mem[2*at:][:2*len(src)]
		for i, v := range src {
			binary.LittleEndian.PutUint16(mem[2*i:], compute.BF16FromF32(v))
		}
		return
	}
	mem = mem[4*at:][:4*len(src)]
	for i, v := range src {
		binary.LittleEndian.PutUint32(mem[4*i:], math.Float32bits(v))
	}
}
