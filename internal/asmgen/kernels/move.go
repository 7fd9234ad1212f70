package kernels

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// Move writes conversions, transposition and the scaling of columns.
func (s *ISA) Move() {
	s.widen()
	s.narrow()
	s.scaleRows()
	if s.wide() {
		s.pairRows()
		s.pairWords()
	} else {
		s.transpose8(true)
		s.transpose8(false)
	}
}

// widen does whole registers; n is a multiple of Lanes and not 0.
func (s *ISA) widen() {
	TEXT("widen"+s.Name, NOSPLIT, "func(dst, x *byte, n int)")
	dst, x, n := pointer("dst"), pointer("x"), pointer("n")
	Label("loop")
	v := s.vec()
	VPMOVZXWD(Mem{Base: x}, v)
	VPSLLD(Imm(16), v, v)
	VMOVUPS(v, Mem{Base: dst})
	ADDQ(Imm(uint64(s.bytes()/2)), x)
	ADDQ(Imm(uint64(s.bytes())), dst)
	SUBQ(Imm(uint64(s.Lanes)), n)
	JNZ(LabelRef("loop"))
	VZEROUPPER()
	RET()
}

// narrow rounds to nearest even: (u + 0x7fff + (u>>16 & 1)) >> 16, and NaN to a quiet one.
func (s *ISA) narrow() {
	TEXT("narrow"+s.Name, NOSPLIT, "func(dst, x *byte, n int)")
	dst, x, n := pointer("dst"), pointer("x"), pointer("n")
	Label("loop")
	u := s.copyOf(Mem{Base: x})
	t, q := s.vec(), s.vec()
	VPSRLD(Imm(16), u, q)
	if s.wide() {
		VPANDD(s.bits(1), q, t)
	} else {
		VPAND(s.bits(1), q, t)
	}
	VPADDD(s.bits(0x7fff), t, t)
	VPADDD(u, t, t)
	VPSRLD(Imm(16), t, t)
	if s.wide() {
		k := K()
		VCMPPS(Imm(3), u, u, k)
		VPORD(s.bits(0x40), q, k, t)
		h := YMM()
		VPMOVDW(t, h)
		VMOVUPS(h, Mem{Base: dst})
	} else {
		nan, h := s.vec(), XMM()
		VCMPPS(Imm(3), u, u, nan)
		VPOR(s.bits(0x40), q, q)
		VPBLENDVB(nan, q, t, t)
		VEXTRACTI128(Imm(1), t, h)
		VPACKUSDW(h, t.AsX(), h)
		VMOVUPS(h, Mem{Base: dst})
	}
	ADDQ(Imm(uint64(s.bytes())), x)
	ADDQ(Imm(uint64(s.bytes()/2)), dst)
	SUBQ(Imm(uint64(s.Lanes)), n)
	JNZ(LabelRef("loop"))
	VZEROUPPER()
	RET()
}

// scaleRows multiplies rows of 16 by 16 factors; rows is not 0.
func (s *ISA) scaleRows() {
	TEXT("scaleRows"+s.Name, NOSPLIT, "func(x *float32, stride int, f *float32, rows int)")
	x, stride, p, rows := pointer("x"), pointer("stride"), pointer("f"), pointer("rows")
	f := make([]reg.VecVirtual, 16/s.Lanes)
	for i := range f {
		f[i] = s.copyOf(Mem{Base: p, Disp: i * s.bytes()})
	}
	Label("loop")
	for i := range f {
		v, m := s.vec(), Mem{Base: x, Disp: i * s.bytes()}
		VMULPS(m, f[i], v)
		VMOVUPS(v, m)
	}
	ADDQ(stride, x)
	DECQ(rows)
	JNZ(LabelRef("loop"))
	VZEROUPPER()
	RET()
}

// pairRows rounds rows 2i and 2i+1 of 16 float32 to bfloat16 (nearest even, NaN quiet) and stores them as words, 2i below.
func (s *ISA) pairRows() {
	TEXT("pairRows"+s.Name, NOSPLIT, "func(dst *byte, dstStride int, x *byte, xStride int, pairs int)")
	dst, to, x, from, pairs := pointer("dst"), pointer("dstStride"), pointer("x"), pointer("xStride"), pointer("pairs")
	round := func(m Mem) reg.VecVirtual { // in the upper half
		u, t := s.copyOf(m), s.vec()
		VPSRLD(Imm(16), u, t)
		VPANDD(s.bits(1), t, t)
		VPADDD(s.bits(0x7fff), t, t)
		VPADDD(u, t, t)
		k := K()
		VCMPPS(Imm(3), u, u, k)
		VPORD(s.bits(0x400000), u, k, t)
		return t
	}
	Label("loop")
	even := round(Mem{Base: x})
	odd := round(Mem{Base: x, Index: from, Scale: 1})
	VPSRLD(Imm(16), even, even)
	VPANDD(s.bits(0xffff0000), odd, odd)
	VPORD(even, odd, odd)
	VMOVUPS(odd, Mem{Base: dst})
	ADDQ(to, dst)
	LEAQ(Mem{Base: x, Index: from, Scale: 2}, x)
	DECQ(pairs)
	JNZ(LabelRef("loop"))
	VZEROUPPER()
	RET()
}

// pairWords interleaves rows 2i and 2i+1 of blocks*16 bfloat16 as words; dst is dense.
func (s *ISA) pairWords() {
	TEXT("pairWords"+s.Name, NOSPLIT, "func(dst, x *byte, xStride int, pairs, blocks int)")
	dst, x, from, pairs, blocks := pointer("dst"), pointer("x"), pointer("xStride"), pointer("pairs"), pointer("blocks")
	Label("row")
	p, n := GP64(), GP64()
	MOVQ(x, p)
	MOVQ(blocks, n)
	Label("word")
	even, odd := ZMM(), ZMM()
	VPMOVZXWD(Mem{Base: p}, even)
	VPMOVZXWD(Mem{Base: p, Index: from, Scale: 1}, odd)
	VPSLLD(Imm(16), odd, odd)
	VPORD(even, odd, odd)
	VMOVUPS(odd, Mem{Base: dst})
	ADDQ(Imm(32), p)
	ADDQ(Imm(64), dst)
	DECQ(n)
	JNZ(LabelRef("word"))
	LEAQ(Mem{Base: x, Index: from, Scale: 2}, x)
	DECQ(pairs)
	JNZ(LabelRef("row"))
	VZEROUPPER()
	RET()
}

// transpose8 writes dst[c][r] = x[r][c]*f for 8 rows and blocks*8 columns of float32, or of words without a factor; strides
// in bytes.
func (s *ISA) transpose8(factor bool) {
	if factor {
		TEXT("transpose8"+s.Name, NOSPLIT, "func(dst *byte, dstStride int, x *byte, xStride int, blocks int, f float32)")
	} else {
		TEXT("transposeWords"+s.Name, NOSPLIT, "func(dst *byte, dstStride int, x *byte, xStride int, blocks int)")
	}
	dst, to, x, from, blocks := pointer("dst"), pointer("dstStride"), pointer("x"), pointer("xStride"), pointer("blocks")
	p := GP64()
	row := func() Mem { return Mem{Base: p} }
	Label("loop")
	var f reg.VecVirtual
	if factor {
		f = s.param("f")
	}
	v := make([]reg.VecVirtual, 8)
	MOVQ(x, p)
	for i := range v {
		if factor {
			v[i] = YMM()
			VMULPS(row(), f, v[i])
		} else {
			v[i] = s.copyOf(row())
		}
		ADDQ(from, p)
	}
	t := make([]reg.VecVirtual, 8)
	for i := 0; i < 8; i += 2 {
		t[i], t[i+1] = YMM(), YMM()
		VUNPCKLPS(v[i+1], v[i], t[i])
		VUNPCKHPS(v[i+1], v[i], t[i+1])
	}
	q := make([]reg.VecVirtual, 8)
	for i := 0; i < 8; i += 4 {
		for j := range 2 {
			q[i+2*j], q[i+2*j+1] = YMM(), YMM()
			VSHUFPS(Imm(0x44), t[i+2+j], t[i+j], q[i+2*j])
			VSHUFPS(Imm(0xee), t[i+2+j], t[i+j], q[i+2*j+1])
		}
	}
	MOVQ(dst, p)
	for c := range 8 {
		o := YMM()
		VPERM2F128(Imm(uint64([]int{0x20, 0x31}[c/4])), q[c%4+4], q[c%4], o)
		VMOVUPS(o, row())
		ADDQ(to, p)
	}
	LEAQ(Mem{Base: dst, Index: to, Scale: 8}, dst)
	ADDQ(Imm(32), x)
	DECQ(blocks)
	JNZ(LabelRef("loop"))
	VZEROUPPER()
	RET()
}
