package compute

import (
	"fmt"
	"slices"
	"strings"
)

// MaxRank is the largest number of dimensions of a Tensor.
const MaxRank = 4

// Buffer is storage on some device. Each device recognises its own concrete type.
type Buffer interface {
	// Size returns the bytes of the storage.
	Size() int64
}

// Tensor is a typed, strided view of a Buffer. It is a small value: copy it, slice it, pass it; the storage is shared.
// Strides count elements; the last dimension is always contiguous (stride 1). The zero Tensor means "absent".
type Tensor struct {
	DType  DType
	Rank   int
	Shape  [MaxRank]int
	Stride [MaxRank]int
	Buffer Buffer
	Offset int // elements from the start of Buffer
}

// NewTensor describes a contiguous tensor at the start of a buffer. Devices call it from Arena.Tensor.
func NewTensor(b Buffer, offset int, dt DType, dims ...int) Tensor {
	if len(dims) == 0 || len(dims) > MaxRank {
		panic(fmt.Sprintf("compute: tensor of rank %d, want 1 to %d", len(dims), MaxRank))
	}
	t := Tensor{DType: dt, Rank: len(dims), Buffer: b, Offset: offset}
	stride := 1
	for i := len(dims) - 1; i >= 0; i-- {
		if dims[i] < 0 {
			panic(fmt.Sprintf("compute: negative dimension in %v", slices.Clone(dims))) // cloned, so that dims stay on the stack
		}
		t.Shape[i], t.Stride[i] = dims[i], stride
		stride *= dims[i]
	}
	return t
}

// IsZero reports whether the tensor is absent.
func (t Tensor) IsZero() bool { return t.Rank == 0 }

// Dim returns the length of dimension i; negative i counts from the last.
func (t Tensor) Dim(i int) int {
	if i < 0 {
		i += t.Rank
	}
	return t.Shape[i]
}

// Elems returns the number of elements.
func (t Tensor) Elems() int {
	if t.Rank == 0 {
		return 0
	}
	n := 1
	for _, d := range t.Shape[:t.Rank] {
		n *= d
	}
	return n
}

// Bytes returns the bytes of the elements (not of the storage behind a strided view).
func (t Tensor) Bytes() int64 { return int64(t.Elems()) * int64(t.DType.Size()) }

// Contiguous reports whether the elements lie densely in row-major order.
func (t Tensor) Contiguous() bool {
	stride := 1
	for i := t.Rank - 1; i >= 0; i-- {
		if t.Shape[i] != 1 && t.Stride[i] != stride {
			return false
		}
		stride *= t.Shape[i]
	}
	return true
}

// Slice returns elements [lo, hi) of dimension dim.
func (t Tensor) Slice(dim, lo, hi int) Tensor {
	if dim < 0 || dim >= t.Rank || lo < 0 || hi < lo || hi > t.Shape[dim] {
		panic(fmt.Sprintf("compute: slice [%d:%d] of dimension %d of %v", lo, hi, dim, t))
	}
	t.Offset += lo * t.Stride[dim]
	t.Shape[dim] = hi - lo
	return t
}

// Index returns the sub-tensor at position i of the first dimension, one rank lower. The rank must be at least 2.
func (t Tensor) Index(i int) Tensor {
	if t.Rank < 2 || i < 0 || i >= t.Shape[0] {
		panic(fmt.Sprintf("compute: index %d of %v", i, t))
	}
	t.Offset += i * t.Stride[0]
	copy(t.Shape[:], t.Shape[1:])
	copy(t.Stride[:], t.Stride[1:])
	t.Rank--
	t.Shape[t.Rank], t.Stride[t.Rank] = 0, 0
	return t
}

// Reshape gives a contiguous tensor other dimensions with the same number of elements.
func (t Tensor) Reshape(dims ...int) Tensor {
	if !t.Contiguous() {
		panic(fmt.Sprintf("compute: reshape of the strided %v", t))
	}
	r := NewTensor(t.Buffer, t.Offset, t.DType, dims...)
	if r.Elems() != t.Elems() {
		panic(fmt.Sprintf("compute: reshape %v to %v", t, slices.Clone(dims)))
	}
	return r
}

// Heads views rows [tokens, heads*headDim] as [heads, tokens, headDim] without moving anything.
func (t Tensor) Heads(heads int) Tensor {
	if t.Rank != 2 || heads <= 0 || t.Shape[1]%heads != 0 {
		panic(fmt.Sprintf("compute: %d heads of %v", heads, t))
	}
	headDim := t.Shape[1] / heads
	return Tensor{DType: t.DType, Rank: 3, Buffer: t.Buffer, Offset: t.Offset,
		Shape: [MaxRank]int{heads, t.Shape[0], headDim}, Stride: [MaxRank]int{headDim, t.Stride[0], 1}}
}

// String prints type and shape, "f32[4 64 64]", with strides when they are not the dense ones.
func (t Tensor) String() string {
	if t.IsZero() {
		return "none"
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%v%v", t.DType, t.Shape[:t.Rank])
	if !t.Contiguous() {
		fmt.Fprintf(&b, " strides %v", t.Stride[:t.Rank])
	}
	return b.String()
}

// Host is a dense tensor in host memory: raw little-endian elements, as they lie in a checkpoint. Data may be a read-only
// memory map.
type Host struct {
	DType DType
	Shape []int
	Data  []byte
	// Coarse allows a device to store a weight in fewer bits, if it was told to.
	Coarse bool
}

// Elems returns the number of elements.
func (h Host) Elems() int {
	n := 1
	for _, d := range h.Shape {
		n *= d
	}
	return n
}
