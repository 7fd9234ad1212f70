package cpu

import (
	"fmt"
	"unsafe"

	"longtake/compute"
)

// buffer is the storage of one tensor. Its memory goes when the arena is freed.
type buffer struct {
	mem  []byte
	size int64
}

// Size returns the bytes of the storage.
func (b *buffer) Size() int64 { return b.size }

// F32 returns the elements of a contiguous F32 tensor of this device as a slice of its own memory, for tests and for
// policies that work on the host. The slice is valid until the arena is freed. It panics for any other tensor.
func F32(t compute.Tensor) []float32 {
	return unsafe.Slice((*float32)(dense(t, compute.F32)), t.Elems())
}

// BF16 is F32 for bfloat16 bits.
func BF16(t compute.Tensor) []uint16 {
	return unsafe.Slice((*uint16)(dense(t, compute.BF16)), t.Elems())
}

// I32 is F32 for int32.
func I32(t compute.Tensor) []int32 {
	return unsafe.Slice((*int32)(dense(t, compute.I32)), t.Elems())
}

func dense(t compute.Tensor, dt compute.DType) unsafe.Pointer {
	if t.DType != dt || !t.Contiguous() {
		panic(fmt.Sprintf("cpu: want a contiguous %v tensor, have %v", dt, t))
	}
	return address(t)
}

// address returns where a view starts, after checking that all of it lies inside its storage. Nil for a view without elements.
func address(t compute.Tensor) unsafe.Pointer {
	b, ok := t.Buffer.(*buffer)
	if !ok {
		panic(fmt.Sprintf("cpu: %v is not a tensor of this device", t))
	}
	last := t.Offset
	for i := range t.Rank {
		if t.Shape[i] == 0 {
			return nil
		}
		last += (t.Shape[i] - 1) * t.Stride[i]
	}
	size := t.DType.Size()
	if t.Offset < 0 || (last+1)*size > len(b.mem) {
		panic(fmt.Sprintf("cpu: %v at element %d ends outside its storage of %d bytes (or its arena was freed)", t, t.Offset, len(b.mem)))
	}
	return unsafe.Add(unsafe.Pointer(unsafe.SliceData(b.mem)), t.Offset*size)
}

// lines is a tensor seen as rows: all dimensions but the last, which is dense.
type lines struct {
	p      unsafe.Pointer
	dt     compute.DType
	width  int
	rows   int
	n1, n2 int // lengths of the last two of the (up to three) row dimensions
	s0     int // strides in bytes of the three row dimensions
	s1     int
	s2     int
}

// linesOf views t as rows; consecutive dimensions that lie densely are joined, so that a contiguous tensor is one row.
func linesOf(t compute.Tensor, join bool) lines {
	if t.Rank == 0 {
		return lines{}
	}
	size := t.DType.Size()
	l := lines{p: address(t), dt: t.DType, width: t.Shape[t.Rank-1], rows: 1, n1: 1, n2: 1}
	if t.Shape[t.Rank-1] > 1 && t.Stride[t.Rank-1] != 1 {
		panic(fmt.Sprintf("cpu: the last dimension of %v is not dense", t))
	}
	if join && t.Contiguous() {
		l.width = t.Elems()
		return l
	}
	if t.Rank > 1 {
		l.n2, l.s2 = t.Shape[t.Rank-2], t.Stride[t.Rank-2]*size
	}
	if t.Rank > 2 {
		l.n1, l.s1 = t.Shape[t.Rank-3], t.Stride[t.Rank-3]*size
	}
	l.rows = l.n1 * l.n2
	if t.Rank > 3 {
		l.s0 = t.Stride[0] * size
		l.rows *= t.Shape[0]
	}
	return l
}

// at returns the address of element col of row i.
func (l *lines) at(i, col int) unsafe.Pointer {
	off := i * l.s2
	if i >= l.n2 {
		i, off = i/l.n2, i%l.n2*l.s2
		if i >= l.n1 {
			off += i / l.n1 * l.s0
			i %= l.n1
		}
		off += i * l.s1
	}
	return unsafe.Add(l.p, off+col*l.dt.Size())
}

// load returns n elements from (i, col) as float32: in place for F32, widened into the given slot for BF16.
func (l *lines) load(c *class, s *scratch, k slot, i, col, n int) unsafe.Pointer {
	p := l.at(i, col)
	if l.dt == compute.F32 {
		return p
	}
	w := s.floats(k, n)
	c.widen(w, p, n)
	return w
}

// out returns where float32 results for (i, col) go: in place for F32, a slot otherwise. Then call store.
func (l *lines) out(s *scratch, i, col, n int) unsafe.Pointer {
	if l.dt == compute.F32 {
		return l.at(i, col)
	}
	return s.floats(slotOut, n)
}

// store narrows what was written to out's slot; nothing to do for F32.
func (l *lines) store(c *class, from unsafe.Pointer, i, col, n int) {
	if l.dt != compute.F32 {
		c.narrow(l.at(i, col), from, n)
	}
}

// wantFloat panics unless all tensors are F32 or BF16.
func wantFloat(op string, ts ...compute.Tensor) {
	for i := range ts {
		if ts[i].Rank != 0 && ts[i].DType != compute.F32 && ts[i].DType != compute.BF16 {
			panic(fmt.Sprintf("cpu: %s takes f32 and bf16, not %v", op, ts[i]))
		}
	}
}

// wantType panics unless t, when present, has the type.
func wantType(op string, t compute.Tensor, dt compute.DType) {
	if t.Rank != 0 && t.DType != dt {
		panic(fmt.Sprintf("cpu: %s takes %v here, not %v", op, dt, t))
	}
}

// wantSame panics unless both tensors have one shape.
func wantSame(op string, a, b compute.Tensor) {
	if a.Rank == 0 || a.Rank != b.Rank || a.Shape != b.Shape {
		panic(fmt.Sprintf("cpu: %s of %v and %v", op, a, b))
	}
}

// groupsOf returns the rows of x that share one row of the parameter g, and checks both. Absent g gives all rows.
func groupsOf(op string, g, x compute.Tensor) int {
	rows := x.Shape[0]
	if g.Rank == 0 {
		return max(rows, 1)
	}
	wantType(op, g, compute.F32)
	if g.Rank != 2 || g.Shape[1] != x.Shape[1] || g.Shape[0] == 0 && rows > 0 || rows > 0 && rows%g.Shape[0] != 0 {
		panic(fmt.Sprintf("cpu: %s of %v with groups %v", op, x, g))
	}
	if rows == 0 {
		return 1
	}
	return rows / g.Shape[0]
}
