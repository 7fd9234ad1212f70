package cpu

import (
	"fmt"
	"unsafe"

	"longtake/compute"
)

// ropeAxis is one of time, row, column: rows of (cos, sin) pairs.
type ropeAxis struct {
	p         unsafe.Pointer
	positions int
	floats    int // float32 a row
	stride    int // bytes from position to position
}

// ropeTask rotates tokens. A token's factors are put together once for all its heads when positions are shared.
type ropeTask struct {
	class         *class
	dst, x        compute.Tensor
	dstP, xP, pos unsafe.Pointer
	posHead       int // bytes from head to head, 0 when shared
	posToken      int
	axes          [3]ropeAxis
	minTime       int
	inverse       bool
	heads, tokens int
	headDim       int
	step          int
}

// Rope rotates pairs of adjacent elements by their token's position.
func (q *Queue) Rope(dst, x, pos compute.Tensor, r compute.Rope) {
	t := &q.rope
	if t.set(q, dst, x, pos, r); x.Elems() > 0 {
		q.run(t, (t.tokens+t.step-1)/t.step)
	}
}

// set makes t Rope.
func (t *ropeTask) set(q *Queue, dst, x, pos compute.Tensor, r compute.Rope) {
	wantSame("rope", dst, x)
	wantFloat("rope", dst, x)
	*t = ropeTask{class: q.class, dst: dst, x: x, minTime: r.MinTime, inverse: r.Inverse,
		heads: x.Shape[0], tokens: x.Shape[1], headDim: x.Shape[2]}
	shared := pos.Rank == 2 && pos.Shape[0] == t.tokens && pos.Shape[1] == 3
	if x.Rank != 3 || pos.DType != compute.I32 || !shared && (pos.Rank != 3 || pos.Shape[0] != t.heads || pos.Shape[1] != t.tokens || pos.Shape[2] != 3) {
		panic(fmt.Sprintf("cpu: rope of %v at positions %v, want i32 [tokens, 3] or [heads, tokens, 3]", x, pos))
	}
	floats := 0
	for i, table := range [3]*compute.Tensor{&r.Time, &r.Row, &r.Column} {
		t.axes[i] = axisOf(*table)
		floats += t.axes[i].floats
	}
	if floats != t.headDim {
		panic(fmt.Sprintf("cpu: rope tables %v %v %v for %v", r.Time, r.Row, r.Column, x))
	}
	if x.Elems() == 0 {
		return
	}
	t.dstP, t.xP, t.pos = address(dst), address(x), address(pos)
	t.posToken = pos.Stride[pos.Rank-2] * 4
	if !shared {
		t.posHead = pos.Stride[0] * 4
	}
	t.step = max(1, worthIt/2/(t.headDim*t.heads))
}

func axisOf(t compute.Tensor) ropeAxis {
	if t.Rank == 0 {
		return ropeAxis{}
	}
	wantType("rope", t, compute.F32)
	if t.Rank != 3 || t.Shape[2] != 2 || t.Stride[1] != 2 && t.Shape[1] > 1 || t.Shape[0] == 0 {
		panic(fmt.Sprintf("cpu: rope table %v, want [positions, pairs, 2]", t))
	}
	return ropeAxis{p: address(t), positions: t.Shape[0], floats: 2 * t.Shape[1], stride: t.Stride[0] * 4}
}

func (t *ropeTask) tile(s *scratch, i int) {
	turn := s.floats(slotScale, t.headDim)
	for token := i * t.step; token < min((i+1)*t.step, t.tokens); token++ {
		for h := range t.heads {
			if h == 0 || t.posHead != 0 {
				t.factors(f32s(turn, t.headDim), h, token)
			}
			t.rotate(s, turn, h, token)
		}
	}
}

// factors puts the (cos, sin) pairs of a token together from the three tables.
func (t *ropeTask) factors(turn []float32, h, token int) {
	pos := i32s(unsafe.Add(t.pos, h*t.posHead+token*t.posToken), 3)
	at := 0
	for i := range t.axes {
		a := &t.axes[i]
		if a.floats == 0 {
			continue
		}
		p := int(pos[i])
		if i == 0 {
			p = max(p, t.minTime) % a.positions
			if p < 0 {
				p += a.positions
			}
		}
		if uint(p) >= uint(a.positions) {
			panic(fmt.Sprintf("cpu: rope position %d on axis %d of %d positions", p, i, a.positions))
		}
		at += copy(turn[at:], f32s(unsafe.Add(a.p, p*a.stride), a.floats))
	}
	if t.inverse {
		for j := 1; j < len(turn); j += 2 {
			turn[j] = -turn[j]
		}
	}
}

func (t *ropeTask) rotate(s *scratch, turn unsafe.Pointer, h, token int) {
	n := t.headDim
	from := unsafe.Add(t.xP, (h*t.x.Stride[0]+token*t.x.Stride[1])*t.x.DType.Size())
	to := unsafe.Add(t.dstP, (h*t.dst.Stride[0]+token*t.dst.Stride[1])*t.dst.DType.Size())
	if t.x.DType == compute.BF16 {
		w := s.floats(slotX, n)
		t.class.widen(w, from, n)
		from = w
	}
	if t.dst.DType == compute.F32 {
		t.class.rotate(to, from, turn, n)
		return
	}
	w := s.floats(slotOut, n)
	t.class.rotate(w, from, turn, n)
	t.class.narrow(to, w, n)
}
