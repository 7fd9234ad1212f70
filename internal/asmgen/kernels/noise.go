package kernels

import (
	"fmt"
	"math"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// Noise writes compute.FillNoise for four counters at a time, one a 64-bit lane, with the operations of the Go code in the
// same order: products are rounded before they are added, so the bits are those of the definition.
type noise struct{ ks map[uint64]Mem }

func (s *noise) bits(u uint64) Mem {
	m, ok := s.ks[u]
	if !ok {
		m = GLOBL(fmt.Sprintf("q_%016x", u), RODATA|NOPTR)
		for i := range 4 {
			DATA(8*i, U64(u))
		}
		s.ks[u] = m
	}
	return m
}

func (s *noise) k(f float64) Mem { return s.bits(math.Float64bits(f)) }

func load4(from Op) reg.VecVirtual {
	v := YMM()
	VMOVUPD(from, v)
	return v
}

// magic turns integers below 2^52 into float64 by or, 2^52 + n.
const magic = 1 << 52

// Noise is the function; blocks of 16 numbers, first counts from block's counter of 4 numbers each.
func Noise() {
	s := &noise{ks: map[uint64]Mem{}}
	TEXT("noiseAVX2", NOSPLIT, "func(dst *float32, blocks int, first uint64, chunk, step uint64, seed uint64)")
	Doc("noiseAVX2 writes blocks*16 numbers of a draw, from counter first on.")
	dst, blocks := pointer("dst"), pointer("blocks")
	lanes := GLOBL("noiseLanes", RODATA|NOPTR)
	for i := range 4 {
		DATA(8*i, U64(uint64(i)))
	}
	n := quad("first")
	VPADDQ(lanes, n, n)
	Label("loop")
	w := s.philox(n)
	a, b := s.boxMuller(w[0], w[1])
	c, d := s.boxMuller(w[2], w[3])
	// Rows of four counters become a, b, c, d of each.
	ab, cd, ab2, cd2 := XMM(), XMM(), XMM(), XMM()
	VUNPCKLPS(b, a, ab)
	VUNPCKHPS(b, a, ab2)
	VUNPCKLPS(d, c, cd)
	VUNPCKHPS(d, c, cd2)
	for i, p := range [][2]reg.VecVirtual{{ab, cd}, {ab2, cd2}} {
		x := XMM()
		VMOVLHPS(p[1], p[0], x)
		VMOVUPS(x, Mem{Base: dst, Disp: 32 * i})
		VMOVHLPS(p[0], p[1], x)
		VMOVUPS(x, Mem{Base: dst, Disp: 32*i + 16})
	}
	ADDQ(Imm(64), dst)
	VPADDQ(s.bits(4), n, n)
	DECQ(blocks)
	JNZ(LabelRef("loop"))
	VZEROUPPER()
	RET()
}

// quad broadcasts a 64-bit parameter.
func quad(name string) reg.VecVirtual {
	p, err := Param(name).Resolve()
	if err != nil {
		panic(err)
	}
	v := YMM()
	VPBROADCASTQ(p.Addr, v)
	return v
}

// philox does ten rounds; only the lower half of each lane counts until the end, where the upper is cleared.
func (s *noise) philox(n reg.VecVirtual) []reg.VecVirtual {
	c := []reg.VecVirtual{load4(n), YMM(), quad("chunk"), quad("step")}
	VPSRLQ(Imm(32), n, c[1])
	k0, k1 := quad("seed"), YMM()
	VPSRLQ(Imm(32), k0, k1)
	for r := range 10 {
		p0, p1, h0, h1 := YMM(), YMM(), YMM(), YMM()
		VPMULUDQ(s.bits(0xD2511F53), c[0], p0)
		VPMULUDQ(s.bits(0xCD9E8D57), c[2], p1)
		VPSRLQ(Imm(32), p0, h0)
		VPSRLQ(Imm(32), p1, h1)
		VPXOR(c[1], h1, h1)
		VPXOR(k0, h1, h1)
		VPXOR(c[3], h0, h0)
		VPXOR(k1, h0, h0)
		c = []reg.VecVirtual{h1, p1, h0, p0}
		if r < 9 {
			VPADDD(s.bits(0x9E3779B9), k0, k0)
			VPADDD(s.bits(0xBB67AE85), k1, k1)
		}
	}
	for i := range c {
		VPAND(s.bits(math.MaxUint32), c[i], c[i])
	}
	return c
}

// float turns integers into float64.
func (s *noise) float(v reg.VecVirtual) {
	VPOR(s.k(magic), v, v)
	VSUBPD(s.k(magic), v, v)
}

func (s *noise) boxMuller(u, v reg.VecVirtual) (reg.VecVirtual, reg.VecVirtual) {
	s.float(u)
	VADDPD(s.k(0.5), u, u)
	VMULPD(s.k(0x1p-32), u, u)
	r := s.log(u)
	VMULPD(s.k(-2), r, r)
	VSQRTPD(r, r)
	s.float(v)
	VMULPD(s.k(0x1p-32), v, v)
	sin, cos := s.sinCos(v)
	VMULPD(r, cos, cos)
	VMULPD(r, sin, sin)
	a, b := XMM(), XMM()
	VCVTPD2PSY(cos, a)
	VCVTPD2PSY(sin, b)
	return a, b
}

// poly is p = p*z + c for every coefficient, rounding twice.
func (s *noise) poly(z reg.VecVirtual, first float64, rest ...float64) reg.VecVirtual {
	p := load4(s.k(first))
	for _, c := range rest {
		VMULPD(z, p, p)
		VADDPD(s.k(c), p, p)
	}
	return p
}

func (s *noise) log(x reg.VecVirtual) reg.VecVirtual {
	e, m := YMM(), YMM()
	VPSRLQ(Imm(52), x, e)
	VPAND(s.bits(1<<52-1), x, m)
	VPOR(s.bits(1022<<52), m, m)
	VPOR(s.k(magic), e, e)
	VSUBPD(s.k(magic+1022), e, e)
	small, t := YMM(), YMM()
	VCMPPD(Imm(1), s.k(0.7071067811865476), m, small)
	VANDPD(m, small, t) // m + m where small
	VADDPD(t, m, m)
	VANDPD(s.k(1), small, t)
	VSUBPD(t, e, e)
	f, g := YMM(), YMM()
	VSUBPD(s.k(1), m, f)
	VADDPD(s.k(1), m, g)
	VDIVPD(g, f, f)
	VMULPD(f, f, g)
	p := s.poly(g, 1.0/21, 1.0/19, 1.0/17, 1.0/15, 1.0/13, 1.0/11, 1.0/9, 1.0/7, 1.0/5, 1.0/3, 1)
	VMULPD(f, p, p)
	VADDPD(p, p, p)
	VMULPD(s.k(0.6931471805599453), e, e)
	VADDPD(p, e, e)
	return e
}

func (s *noise) sinCos(x reg.VecVirtual) (reg.VecVirtual, reg.VecVirtual) {
	VMULPD(s.k(4), x, x)
	q, a, z := YMM(), YMM(), YMM()
	VADDPD(s.k(0.5), x, q)
	VROUNDPD(Imm(1), q, q)
	VSUBPD(q, x, a)
	VMULPD(s.k(1.5707963267948966), a, a)
	VMULPD(a, a, z)
	sin := s.poly(z, -1.0/1307674368000, 1.0/6227020800, -1.0/39916800, 1.0/362880, -1.0/5040, 1.0/120, -1.0/6, 1)
	VMULPD(a, sin, sin)
	cos := s.poly(z, 1.0/20922789888000, -1.0/87178291200, 1.0/479001600, -1.0/3628800, 1.0/40320, -1.0/720, 1.0/24, -1.0/2, 1)
	// Quadrants: odd ones swap, 2 and 3 negate the sine, 1 and 2 the cosine.
	VADDPD(s.k(magic), q, q)
	odd, outSin, outCos, sign := YMM(), YMM(), YMM(), YMM()
	VPSLLQ(Imm(63), q, odd)
	VBLENDVPD(odd, cos, sin, outSin)
	VBLENDVPD(odd, sin, cos, outCos)
	VPSLLQ(Imm(62), q, sign)
	VPAND(s.bits(1<<63), sign, sign)
	VXORPD(sign, outSin, outSin)
	VPADDQ(s.bits(1), q, q)
	VPSLLQ(Imm(62), q, sign)
	VPAND(s.bits(1<<63), sign, sign)
	VXORPD(sign, outCos, outCos)
	return outSin, outCos
}
