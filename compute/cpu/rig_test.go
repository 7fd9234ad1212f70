package cpu

import (
	"bytes"
	"encoding/binary"
	"math"
	"math/rand/v2"
	"testing"
	"unsafe"

	"longtake/compute"
)

// rig is one device under test with a queue, an arena and a source of numbers.
type rig struct {
	*testing.T
	dev   *Device
	q     compute.Queue
	arena compute.Arena
	rng   *rand.Rand
	outs  []guarded
}

// testClasses are the kernel classes of this machine, and a model of the class amx in plain Go, for its layouts.
func testClasses() []*class { return append(classes(), modelClass) }

// eachClass runs a test on every kernel class.
func eachClass(t *testing.T, threads int, f func(r *rig)) {
	for _, c := range testClasses() {
		t.Run(c.name, func(t *testing.T) { f(rigOf(t, c, threads)) })
	}
}

// newRig is a rig of a class of this machine, "" for the best.
func newRig(t *testing.T, kernel string, threads int) *rig {
	for _, c := range classes() {
		if kernel == "" || kernel == c.name {
			return rigOf(t, c, threads)
		}
	}
	t.Fatalf("no kernel class %q", kernel)
	return nil
}

func rigOf(t *testing.T, c *class, threads int) *rig {
	dev := &Device{class: c, pool: newPool(threads)}
	q, err := dev.NewQueue()
	if err != nil {
		t.Fatal(err)
	}
	arena, err := dev.NewArena(0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		q.Close()
		arena.Free()
		dev.Close()
	})
	return &rig{T: t, dev: dev, q: q, arena: arena, rng: rand.New(rand.NewPCG(7, 11))}
}

// guarded is a view inside a poisoned parent; nothing around the view may change.
type guarded struct {
	view   compute.Tensor
	parent []byte
	saved  []byte
}

// tensor returns a strided view [.., width] inside poisoned storage: rows are apart, and margins lie before and after.
func (r *rig) tensor(dt compute.DType, dims ...int) compute.Tensor {
	const margin = 37
	pad := r.rng.IntN(3) * 5
	width := dims[len(dims)-1]
	t := compute.NewTensor(nil, margin, dt, dims...)
	stride := width + pad
	for i := t.Rank - 2; i >= 0; i-- {
		t.Stride[i] = stride
		stride *= t.Shape[i]
	}
	if t.Rank == 1 {
		stride = width
	}
	parent := r.arena.Tensor(compute.U8, (stride+2*margin)*dt.Size())
	if r.arena.Err() != nil {
		r.Fatal(r.arena.Err())
	}
	t.Buffer = parent.Buffer
	mem := parent.Buffer.(*buffer).mem
	for i := range mem {
		mem[i] = 0xff // a NaN in every floating-point type
	}
	r.outs = append(r.outs, guarded{view: t, parent: mem})
	return t
}

// random is tensor filled with normal numbers.
func (r *rig) random(dt compute.DType, dims ...int) compute.Tensor {
	t := r.tensor(dt, dims...)
	each(t, func(i int, p unsafe.Pointer) { set(p, dt, r.rng.NormFloat64()) })
	return t
}

// dense is a contiguous tensor with given numbers.
func (r *rig) dense(dt compute.DType, data []float64, dims ...int) compute.Tensor {
	t := r.arena.Tensor(dt, dims...)
	each(t, func(i int, p unsafe.Pointer) { set(p, dt, data[i]) })
	return t
}

// each visits all elements in row-major order.
func each(t compute.Tensor, f func(i int, p unsafe.Pointer)) {
	mem := t.Buffer.(*buffer).mem
	for i := range t.Elems() {
		off, rest := t.Offset, i
		for d := t.Rank - 1; d >= 0; d-- {
			off += rest % t.Shape[d] * t.Stride[d]
			rest /= t.Shape[d]
		}
		f(i, unsafe.Pointer(&mem[off*t.DType.Size()]))
	}
}

func set(p unsafe.Pointer, dt compute.DType, v float64) {
	switch dt {
	case compute.F32:
		*(*float32)(p) = float32(v)
	case compute.BF16:
		*(*uint16)(p) = compute.BF16FromF32(float32(v))
	case compute.I32:
		*(*int32)(p) = int32(v)
	}
}

// read returns all elements in row-major order.
func read(t compute.Tensor) []float64 {
	out := make([]float64, t.Elems())
	each(t, func(i int, p unsafe.Pointer) {
		switch t.DType {
		case compute.F32:
			out[i] = float64(*(*float32)(p))
		case compute.BF16:
			out[i] = float64(compute.F32FromBF16(*(*uint16)(p)))
		case compute.I32:
			out[i] = float64(*(*int32)(p))
		}
	})
	return out
}

// arm remembers everything around the views made so far; call it before the operation under test.
func (r *rig) arm() {
	for i := range r.outs {
		r.outs[i].saved = bytes.Clone(r.outs[i].parent)
	}
}

// check compares dst with want, |got-want| <= tol*(1+|want|), and that nothing but dst changed since arm.
func (r *rig) check(what string, dst compute.Tensor, want []float64, tol float64) {
	r.Helper()
	if dst.DType == compute.BF16 {
		tol += 1.0 / 256
	}
	got := read(dst)
	for i := range want {
		if d := math.Abs(got[i] - want[i]); !(d <= tol*(1+math.Abs(want[i]))) && got[i] != want[i] {
			r.Fatalf("%s into %v: element %d is %v, want %v", what, dst, i, got[i], want[i])
		}
	}
	for _, g := range r.outs {
		if g.saved == nil {
			continue
		}
		if g.view.Buffer == dst.Buffer {
			each(g.view, func(_ int, p unsafe.Pointer) {
				at := uintptr(p) - uintptr(unsafe.Pointer(&g.parent[0]))
				copy(g.saved[at:], g.parent[at:int(at)+g.view.DType.Size()])
			})
		}
		if !bytes.Equal(g.saved, g.parent) {
			r.Fatalf("%s into %v wrote outside of it, into the storage of %v", what, dst, g.view)
		}
	}
	r.outs = r.outs[:0]
}

// rounds is how often a test tries random sizes.
func rounds(n int) int {
	if raceBuild {
		return max(n/10, 5)
	}
	return n
}

// types are the float types operations take.
var types = []compute.DType{compute.F32, compute.BF16}

func (r *rig) pick(from ...int) int { return from[r.rng.IntN(len(from))] }

func (r *rig) dtype() compute.DType { return types[r.rng.IntN(2)] }

// host is a random weight of the given type, and its numbers.
func (r *rig) host(dt compute.DType, out, in int) (compute.Host, []float64) {
	h := compute.Host{DType: dt, Shape: []int{out, in}}
	vals := make([]float64, out*in)
	for i := range vals {
		v := float32(r.rng.NormFloat64())
		switch dt {
		case compute.F32:
			h.Data = binary.LittleEndian.AppendUint32(h.Data, math.Float32bits(v))
		case compute.BF16:
			b := compute.BF16FromF32(v)
			h.Data = binary.LittleEndian.AppendUint16(h.Data, b)
			v = compute.F32FromBF16(b)
		case compute.F16:
			b := uint16(r.rng.IntN(0x3c00)) | uint16(r.rng.IntN(2)<<15) // below 1
			h.Data = binary.LittleEndian.AppendUint16(h.Data, b)
			v = compute.F32FromF16(b)
		}
		vals[i] = float64(v)
	}
	return h, vals
}
