package kernels

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// Polynomial of 2^f, see generic.go of compute/cpu.
var exp2c = []float64{1, 0.6931471824645996, 0.24022650718688965, 0.055503569543361664, 0.009618083015084267, 0.0013390863314270973, 0.00015453163359779865}

const (
	log2e    = 1.4426950408889634
	expLow   = -88.0296919311132 // -127 ln 2: gives 0
	expHigh  = 87.9              // below 127 ln 2: stays finite
	expMagic = 12582912 + 127    // 1.5*2^23 rounds to integers, 127 is the exponent's bias
)

// exp turns x into e^x; x must not exceed expHigh. low holds expLow. x as the second source of the maximum lets NaN through.
func (s *ISA) exp(x, low reg.VecVirtual) reg.VecVirtual {
	VMAXPS(x, low, x)
	t := s.copyOf(s.k(expMagic))
	VFMADD231PS(s.k(log2e), x, t)
	n := s.vec()
	VSUBPS(s.k(expMagic), t, n)
	VFMSUB132PS(s.k(log2e), n, x) // x*log2(e) - n, rounded once
	p := s.copyOf(s.k(exp2c[len(exp2c)-1]))
	for i := len(exp2c) - 2; i >= 0; i-- {
		VFMADD213PS(s.k(exp2c[i]), x, p)
	}
	VPSLLD(Imm(23), t, t)
	VMULPS(t, p, p)
	return p
}

// Offsets of softmaxArgs.
const (
	softS, softStride, softKeys, softCount = 0, 8, 16, 24
	softMax, softSum, softRescale, softChg = 32, 40, 48, 56
	softAhead, softAheadStep               = 72, 80
)

// Softmax writes the update of 16 queries, one a lane.
func (s *ISA) Softmax() {
	TEXT("softmax"+s.Name, NOSPLIT, "func(args *byte)")
	Doc("softmax" + s.Name + " updates running maxima and sums of 16 queries and turns logits into probabilities.")
	a := pointer("args")
	row, stride, keys := field(a, softS), field(a, softStride), field(a, softKeys)
	vs := 16 / s.Lanes
	load := func(off int) []reg.VecVirtual {
		p, v := field(a, off), make([]reg.VecVirtual, vs)
		for i := range v {
			v[i] = s.copyOf(Mem{Base: p, Disp: i * s.bytes()})
		}
		return v
	}
	top := load(softMax)
	s.findMax(a, row, stride, keys, top, vs)

	// rescale = e^(old - new)
	low := s.copyOf(s.k(expLow))
	old, p, sum := load(softMax), field(a, softMax), load(softSum)
	re, changed := field(a, softRescale), GP64()
	XORQ(changed, changed)
	for i := range old {
		VMOVUPS(top[i], Mem{Base: p, Disp: i * s.bytes()})
		VSUBPS(top[i], old[i], old[i])
		f := s.exp(old[i], low)
		VMOVUPS(f, Mem{Base: re, Disp: i * s.bytes()})
		VMULPS(f, sum[i], sum[i])
		s.noteChange(f, changed)
	}
	MOVQ(changed, Mem{Base: a, Disp: softChg})

	MOVQ(Mem{Base: a, Disp: softS}, row)
	MOVQ(Mem{Base: a, Disp: softKeys}, keys)
	ahead, step := field(a, softAhead), field(a, softAheadStep)
	Label("exp")
	PREFETCHT0(Mem{Base: ahead})
	PREFETCHT0(Mem{Base: ahead, Disp: 64})
	ADDQ(step, ahead)
	for i := range top {
		m := Mem{Base: row, Disp: i * s.bytes()}
		x := s.copyOf(m)
		VSUBPS(top[i], x, x)
		f := s.exp(x, low)
		VADDPS(f, sum[i], sum[i])
		VMOVUPS(f, m)
	}
	ADDQ(stride, row)
	DECQ(keys)
	JNZ(LabelRef("exp"))
	s.storeAll(sum, field(a, softSum))
	VZEROUPPER()
	RET()
}

// storeAll stores registers one after the other.
func (s *ISA) storeAll(v []reg.VecVirtual, to reg.GPVirtual) {
	for i := range v {
		VMOVUPS(v[i], Mem{Base: to, Disp: i * s.bytes()})
	}
}

// findMax adds counts, when there are any, and raises top.
func (s *ISA) findMax(a, row, stride, keys reg.GPVirtual, top []reg.VecVirtual, vs int) {
	count := field(a, softCount)
	TESTQ(count, count)
	JZ(LabelRef("plain"))
	Label("counted")
	c := s.vec()
	VBROADCASTSS(Mem{Base: count}, c)
	for i := range vs {
		m, x := Mem{Base: row, Disp: i * s.bytes()}, s.vec()
		VADDPS(m, c, x)
		VMOVUPS(x, m)
		VMAXPS(x, top[i], top[i])
	}
	ADDQ(Imm(4), count)
	ADDQ(stride, row)
	DECQ(keys)
	JNZ(LabelRef("counted"))
	JMP(LabelRef("found"))
	Label("plain")
	for i := range vs {
		VMAXPS(Mem{Base: row, Disp: i * s.bytes()}, top[i], top[i])
	}
	ADDQ(stride, row)
	DECQ(keys)
	JNZ(LabelRef("plain"))
	Label("found")
}

// noteChange sets changed unless every lane of f is 1.
func (s *ISA) noteChange(f reg.VecVirtual, changed reg.GPVirtual) {
	bits := GP32()
	if s.wide() {
		k := K()
		VCMPPS(Imm(4), s.k(1), f, k) // not equal, true for NaN
		KMOVW(k, bits)
	} else {
		v := YMM()
		VCMPPS(Imm(4), s.k(1), f, v)
		VMOVMSKPS(v, bits)
	}
	ORQ(bits.As64(), changed)
}
