package cpu

import (
	"fmt"
	"math"
	"unsafe"

	"longtake/compute"
)

// normTask normalises rows. Weight, bias and modulation are folded into one scale and one shift a group:
// (z*w + b)*(1 + m) + t = z*(w*(1+m)) + (b*(1+m) + t).
type normTask struct {
	class        *class
	dst, x       lines
	weight, bias unsafe.Pointer
	scale, shift lines
	scaleGroup   int
	shiftGroup   int
	rms          bool
	eps          float32
	step         int
}

// Norm normalises each row.
func (q *Queue) Norm(dst, x compute.Tensor, n compute.Norm) {
	t := &q.normTask
	if t.set(q, dst, x, n); x.Elems() > 0 {
		q.run(t, t.tiles())
	}
}

// set makes t Norm.
func (t *normTask) set(q *Queue, dst, x compute.Tensor, n compute.Norm) {
	wantSame("norm", dst, x)
	wantFloat("norm", dst, x)
	if x.Rank != 2 {
		panic(fmt.Sprintf("cpu: norm of %v, want rows", x))
	}
	*t = normTask{class: q.class, rms: n.RMS, eps: n.Eps,
		weight: vector("norm weight", n.Weight, x), bias: vector("norm bias", n.Bias, x),
		scaleGroup: groupsOf("norm scale", n.Scale, x), shiftGroup: groupsOf("norm shift", n.Shift, x)}
	if x.Elems() == 0 {
		return
	}
	t.dst, t.x = linesOf(dst, false), linesOf(x, false)
	t.scale, t.shift = linesOf(n.Scale, false), linesOf(n.Shift, false)
	t.step = max(1, worthIt/2/t.x.width)
}

func (t *normTask) tiles() int { return (t.x.rows + t.step - 1) / t.step }

// rows returns the rows of tile i.
func (t *normTask) rows(i int) (lo, hi int) { return i * t.step, min((i+1)*t.step, t.x.rows) }

// vector returns the address of an F32 parameter as wide as the rows of x, nil when absent.
func vector(op string, t, x compute.Tensor) unsafe.Pointer {
	if t.Rank == 0 {
		return nil
	}
	wantType(op, t, compute.F32)
	if t.Elems() != x.Shape[1] || !t.Contiguous() {
		panic(fmt.Sprintf("cpu: %s %v for rows %v", op, t, x))
	}
	return address(t)
}

func (t *normTask) tile(s *scratch, i int) {
	n := t.x.width
	scale, shift := s.floats(slotScale, n), s.floats(slotShift, n)
	lo, hi := t.rows(i)
	for row := lo; row < hi; row++ {
		if row == lo || row%t.scaleGroup == 0 || row%t.shiftGroup == 0 {
			t.fold(f32s(scale, n), f32s(shift, n), row)
		}
		x := t.x.load(t.class, s, slotX, row, 0, n)
		mean := float32(0)
		if !t.rms {
			mean = t.class.sum(x, n) / float32(n)
		}
		variance := t.class.squares(x, n, mean) / float32(n)
		inv := float32(1 / math.Sqrt(float64(variance)+float64(t.eps)))
		dst := t.dst.out(s, row, 0, n)
		t.class.norm(dst, x, scale, shift, n, mean, inv)
		t.dst.store(t.class, dst, row, 0, n)
	}
}

// fold computes the scale and shift of a row's group.
func (t *normTask) fold(scale, shift []float32, row int) {
	if t.weight != nil {
		copy(scale, f32s(t.weight, len(scale)))
	} else {
		for j := range scale {
			scale[j] = 1
		}
	}
	if t.bias != nil {
		copy(shift, f32s(t.bias, len(shift)))
	} else {
		clear(shift)
	}
	n := len(scale)
	a, b := unsafe.Pointer(unsafe.SliceData(scale)), unsafe.Pointer(unsafe.SliceData(shift))
	if t.scale.rows > 0 {
		m := t.scale.at(row/t.scaleGroup, 0)
		t.class.addGated(a, a, a, m, n) // w + w*m
		if t.bias != nil {
			t.class.addGated(b, b, b, m, n)
		}
	}
	if t.shift.rows > 0 {
		t.class.add(b, b, t.shift.at(row/t.shiftGroup, 0), n)
	}
}
