package kernels

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// each writes a function on elements: inputs by name, one output "dst", and a body on registers. The last lanes go through
// the same body under a mask.
func (s *ISA) each(name, signature string, inputs []string, setup func(), body func(in []reg.VecVirtual) reg.VecVirtual) {
	TEXT(name+s.Name, NOSPLIT, signature)
	dst, n, i := pointer("dst"), pointer("n"), GP64()
	from := make([]reg.GPVirtual, len(inputs))
	for j, in := range inputs {
		from[j] = pointer(in)
	}
	setup()
	XORQ(i, i)
	SUBQ(Imm(uint64(s.Lanes)), n)
	JL(LabelRef("tail"))
	Label("loop")
	in := make([]reg.VecVirtual, len(inputs))
	for j := range in {
		in[j] = s.copyOf(Mem{Base: from[j], Index: i, Scale: 4})
	}
	VMOVUPS(body(in), Mem{Base: dst, Index: i, Scale: 4})
	ADDQ(Imm(uint64(s.Lanes)), i)
	SUBQ(Imm(uint64(s.Lanes)), n)
	JGE(LabelRef("loop"))
	Label("tail")
	ADDQ(Imm(uint64(s.Lanes)), n)
	JE(LabelRef("done"))
	m := s.mask(n)
	for j := range in {
		in[j] = m.load(Mem{Base: from[j], Index: i, Scale: 4})
	}
	m.store(body(in), Mem{Base: dst, Index: i, Scale: 4})
	Label("done")
	VZEROUPPER()
	RET()
}

// Each writes the functions on elements.
func (s *ISA) Each() {
	const two, three = "func(dst, x *float32, n int)", "func(dst, x, y *float32, n int)"
	var a, b, low, high reg.VecVirtual
	x, xy := []string{"x"}, []string{"x", "y"}
	none := func() {}
	s.each("mix", "func(dst, x, y *float32, n int, a, b float32)", xy, func() { a, b = s.param("a"), s.param("b") },
		func(in []reg.VecVirtual) reg.VecVirtual {
			VMULPS(in[1], b, in[1])
			VFMADD231PS(in[0], a, in[1])
			return in[1]
		})
	s.each("scale", "func(dst, x *float32, n int, a float32)", x, func() { a = s.param("a") },
		func(in []reg.VecVirtual) reg.VecVirtual { VMULPS(in[0], a, in[0]); return in[0] })
	s.each("clamp", "func(dst, x *float32, n int, lo, hi float32)", x, func() { a, b = s.param("lo"), s.param("hi") },
		func(in []reg.VecVirtual) reg.VecVirtual {
			VMAXPS(in[0], a, in[0]) // the second source, here first, passes NaN on
			VMINPS(in[0], b, in[0])
			return in[0]
		})
	s.each("add", three, xy, none, func(in []reg.VecVirtual) reg.VecVirtual { VADDPS(in[1], in[0], in[0]); return in[0] })
	s.each("addGated", "func(dst, x, y, gate *float32, n int)", []string{"x", "y", "gate"}, none,
		func(in []reg.VecVirtual) reg.VecVirtual { VFMADD231PS(in[1], in[2], in[0]); return in[0] })
	s.each("norm", "func(dst, x, scale, shift *float32, n int, mean, inv float32)", []string{"x", "scale", "shift"},
		func() { a, b = s.param("mean"), s.param("inv") },
		func(in []reg.VecVirtual) reg.VecVirtual {
			VSUBPS(a, in[0], in[0])
			VMULPS(b, in[0], in[0])
			VFMADD213PS(in[2], in[1], in[0])
			return in[0]
		})
	s.each("rotate", "func(dst, x, turn *float32, n int)", []string{"x", "turn"}, none,
		func(in []reg.VecVirtual) reg.VecVirtual {
			cos, sin, swap := s.vec(), s.vec(), s.vec()
			VMOVSLDUP(in[1], cos)
			VMOVSHDUP(in[1], sin)
			VPERMILPS(Imm(0xb1), in[0], swap)
			VMULPS(swap, sin, sin)
			VFMADDSUB213PS(sin, cos, in[0])
			return in[0]
		})
	s.each("relu", two, x, func() { a = s.zero() },
		func(in []reg.VecVirtual) reg.VecVirtual { VMAXPS(in[0], a, in[0]); return in[0] })

	limits := func() { low, high = s.copyOf(s.k(expLow)), s.copyOf(s.k(expHigh)) }
	logistic := func(x, minus reg.VecVirtual) reg.VecVirtual { // x / (1 + e^minus)
		VMINPS(minus, high, minus)
		e := s.exp(minus, low)
		VADDPS(s.k(1), e, e)
		VDIVPS(e, x, x)
		return x
	}
	s.each("silu", two, x, limits, func(in []reg.VecVirtual) reg.VecVirtual {
		m := s.vec()
		VMULPS(s.k(-1), in[0], m)
		return logistic(in[0], m)
	})
	// 0.5 (1 + tanh u) = 1 / (1 + e^-2u)
	const root = -2 * 0.7978845608028654
	s.each("gelu", two, x, limits, func(in []reg.VecVirtual) reg.VecVirtual {
		m := s.vec()
		VMULPS(in[0], in[0], m)
		c := s.copyOf(s.k(root))
		VFMADD132PS(s.k(root*0.044715), c, m)
		VMULPS(in[0], m, m)
		return logistic(in[0], m)
	})
}

// Sums writes the reductions: sum of x, and sum of (x-mean)². Eight registers' lanes are added in pairs at the end.
func (s *ISA) Sums() {
	var mean reg.VecVirtual
	s.sum("sum", "func(x *float32, n int) float32", func() {}, func(v, acc reg.VecVirtual, _ *mask) { VADDPS(v, acc, acc) })
	s.sum("squares", "func(x *float32, n int, mean float32) float32", func() { mean = s.param("mean") },
		func(v, acc reg.VecVirtual, m *mask) {
			VSUBPS(mean, v, v)
			if m != nil {
				m.keep(v)
			}
			VFMADD231PS(v, v, acc)
		})
}

func (s *ISA) sum(name, signature string, setup func(), add func(v, acc reg.VecVirtual, m *mask)) {
	const unroll = 4
	TEXT(name+s.Name, NOSPLIT, signature)
	x, n := pointer("x"), pointer("n")
	setup()
	acc := make([]reg.VecVirtual, unroll)
	for i := range acc {
		acc[i] = s.zero()
	}
	SUBQ(Imm(uint64(unroll*s.Lanes)), n)
	JL(LabelRef("rest"))
	Label("loop")
	for i := range acc {
		add(s.copyOf(Mem{Base: x, Disp: i * s.bytes()}), acc[i], nil)
	}
	ADDQ(U32(uint32(unroll*s.bytes())), x)
	SUBQ(Imm(uint64(unroll*s.Lanes)), n)
	JGE(LabelRef("loop"))
	Label("rest")
	ADDQ(Imm(uint64((unroll-1)*s.Lanes)), n)
	JL(LabelRef("tail"))
	Label("one")
	add(s.copyOf(Mem{Base: x}), acc[0], nil)
	ADDQ(Imm(uint64(s.bytes())), x)
	SUBQ(Imm(uint64(s.Lanes)), n)
	JGE(LabelRef("one"))
	Label("tail")
	ADDQ(Imm(uint64(s.Lanes)), n)
	JE(LabelRef("done"))
	m := s.mask(n)
	add(m.load(Mem{Base: x}), acc[1], &m)
	Label("done")
	VADDPS(acc[1], acc[0], acc[0])
	VADDPS(acc[3], acc[2], acc[2])
	VADDPS(acc[2], acc[0], acc[0])
	x0 := s.lanesSum(acc[0])
	VZEROUPPER() // before the store, which avo writes in the old encoding; the lower halves stay
	Store(x0, ReturnIndex(0))
	RET()
}

// lanesSum adds all lanes, halving.
func (s *ISA) lanesSum(v reg.VecVirtual) reg.VecVirtual {
	y := v.AsY().(reg.VecVirtual)
	if s.wide() {
		h := YMM()
		VEXTRACTF64X4(Imm(1), v, h)
		VADDPS(h, y, y)
	}
	x, h := XMM(), XMM()
	VEXTRACTF128(Imm(1), y, h)
	VADDPS(y.AsX(), h, x)
	VMOVHLPS(x, x, h)
	VADDPS(h, x, x)
	VMOVSHDUP(x, h)
	VADDSS(h, x, x)
	return x
}
