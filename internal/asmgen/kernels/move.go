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
		s.turnRows()
	} else {
		s.transpose8()
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

// turnRows writes dst[c][r] = x[r][c] for 32 rows and blocks*8 columns of bfloat16; strides in bytes.
func (s *ISA) turnRows() {
	TEXT("turnRows"+s.Name, NOSPLIT, "func(dst *byte, dstStride int, x *byte, xStride int, blocks int)")
	dst, to, x, from, blocks := pointer("dst"), pointer("dstStride"), pointer("x"), pointer("xStride"), pointer("blocks")
	// Quarter q of a register holds 8 numbers of row 8q+i: each quarter is then transposed by itself.
	quarter := []reg.GPVirtual{x, GP64(), GP64(), GP64()}
	for q := 1; q < 4; q++ {
		LEAQ(Mem{Base: quarter[q-1], Index: from, Scale: 8}, quarter[q])
	}
	times := func(n int) reg.GPVirtual {
		v := GP64()
		IMUL3Q(Imm(uint64(n)), from, v)
		return v
	}
	from3, from5, from7 := times(3), times(5), times(7)
	step := []Mem{{}, {Index: from, Scale: 1}, {Index: from, Scale: 2}, {Index: from3, Scale: 1}, {Index: from, Scale: 4},
		{Index: from5, Scale: 1}, {Index: from3, Scale: 2}, {Index: from7, Scale: 1}}
	Label("loop")
	v := make([]reg.VecVirtual, 8)
	for i := range v {
		at := func(q int) Mem {
			m := step[i]
			m.Base = quarter[q]
			return m
		}
		v[i] = ZMM()
		VMOVUPS(at(0), v[i].AsX())
		for q := 1; q < 4; q++ {
			VINSERTI32X4(Imm(uint64(q)), at(q), v[i], v[i])
		}
	}
	unpack := func(dist int, low, high func(ops ...Op)) {
		next := make([]reg.VecVirtual, 8)
		for i := 0; i < 8; i += 2 * dist {
			for j := range dist {
				next[i+2*j], next[i+2*j+1] = ZMM(), ZMM()
				low(v[i+j+dist], v[i+j], next[i+2*j])
				high(v[i+j+dist], v[i+j], next[i+2*j+1])
			}
		}
		v = next
	}
	unpack(1, VPUNPCKLWD, VPUNPCKHWD)   // of rows 2i and 2i+1, columns 0-3 and 4-7
	unpack(2, VPUNPCKLDQ, VPUNPCKHDQ)   // of rows 4i to 4i+3, two columns each
	unpack(4, VPUNPCKLQDQ, VPUNPCKHQDQ) // of all rows, one column each
	for c := range 8 {
		VMOVUPS(v[c], Mem{Base: dst})
		ADDQ(to, dst)
	}
	for q := range quarter {
		ADDQ(Imm(16), quarter[q])
	}
	DECQ(blocks)
	JNZ(LabelRef("loop"))
	VZEROUPPER()
	RET()
}

// transpose8 writes dst[c][r] = x[r][c]*f for 8 rows and blocks*8 columns of float32; strides in bytes.
func (s *ISA) transpose8() {
	TEXT("transpose8"+s.Name, NOSPLIT, "func(dst *byte, dstStride int, x *byte, xStride int, blocks int, f float32)")
	dst, to, x, from, blocks := pointer("dst"), pointer("dstStride"), pointer("x"), pointer("xStride"), pointer("blocks")
	p := GP64()
	row := func() Mem { return Mem{Base: p} }
	Label("loop")
	f := s.param("f")
	v := make([]reg.VecVirtual, 8)
	MOVQ(x, p)
	for i := range v {
		v[i] = YMM()
		VMULPS(row(), f, v[i])
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
