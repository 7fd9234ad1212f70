// Package kernels writes the assembly of longtake/compute/cpu with avo, once for each vector width.
package kernels

import (
	"fmt"
	"math"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// ISA is a vector width.
type ISA struct {
	Name  string
	Lanes int // float32 a register
	masks Mem
	ks    map[uint32]Mem
}

// AVX2 has 16 registers of 8 lanes.
func AVX2() *ISA { return &ISA{Name: "AVX2", Lanes: 8, ks: map[uint32]Mem{}} }

// AVX512 has 32 registers of 16 lanes.
func AVX512() *ISA { return &ISA{Name: "AVX512", Lanes: 16, ks: map[uint32]Mem{}} }

func (s *ISA) wide() bool { return s.Lanes == 16 }

func (s *ISA) bytes() int { return 4 * s.Lanes }

func (s *ISA) vec() reg.VecVirtual {
	if s.wide() {
		return ZMM()
	}
	return YMM()
}

func (s *ISA) zero() reg.VecVirtual {
	v := s.vec()
	VXORPS(v, v, v)
	return v
}

// copyOf moves a register or memory into a new register.
func (s *ISA) copyOf(from Op) reg.VecVirtual {
	v := s.vec()
	VMOVUPS(from, v)
	return v
}

// k is a float32 constant in every lane, as a memory operand.
func (s *ISA) k(f float64) Mem { return s.bits(math.Float32bits(float32(f))) }

// bits is k for a bit pattern.
func (s *ISA) bits(u uint32) Mem {
	m, ok := s.ks[u]
	if !ok {
		m = GLOBL(fmt.Sprintf("k%s_%08x", s.Name, u), RODATA|NOPTR)
		for i := range s.Lanes {
			DATA(4*i, U32(u))
		}
		s.ks[u] = m
	}
	return m
}

// mask selects the first n < Lanes lanes.
type mask struct {
	isa *ISA
	v   reg.VecVirtual
	k   reg.OpmaskVirtual
}

// Masks must be called once before functions that need tails.
func (s *ISA) Masks() {
	if s.wide() {
		return
	}
	s.masks = GLOBL("tail"+s.Name, RODATA|NOPTR)
	for i := range 16 {
		DATA(4*i, U32(uint32(math.MaxUint32*((15-i)/8))))
	}
}

func (s *ISA) mask(n reg.GPVirtual) mask {
	m := mask{isa: s}
	if s.wide() {
		all := GP32()
		MOVL(U32(math.MaxUint32), all)
		BZHIL(n.As32(), all, all)
		m.k = K()
		KMOVW(all, m.k)
		return m
	}
	p := GP64()
	LEAQ(s.masks, p)
	at := GP64()
	MOVQ(n, at)
	NEGQ(at)
	m.v = YMM()
	VMOVUPS(Mem{Base: p, Index: at, Scale: 4, Disp: 32}, m.v)
	return m
}

func (m mask) load(from Mem) reg.VecVirtual {
	v := m.isa.vec()
	if m.isa.wide() {
		VMOVUPS_Z(from, m.k, v)
	} else {
		VMASKMOVPS(from, m.v, v)
	}
	return v
}

func (m mask) store(v reg.VecVirtual, to Mem) {
	if m.isa.wide() {
		VMOVUPS(v, m.k, to)
	} else {
		VMASKMOVPS(v, m.v, to)
	}
}

// keep zeroes the other lanes.
func (m mask) keep(v reg.VecVirtual) {
	if m.isa.wide() {
		VMOVAPS_Z(v, m.k, v)
	} else {
		VANDPS(m.v, v, v)
	}
}

// param broadcasts a float32 parameter, from memory: avo's Load would use the old encoding, which waits for upper halves.
func (s *ISA) param(name string) reg.VecVirtual {
	p, err := Param(name).Resolve()
	if err != nil {
		panic(err)
	}
	v := s.vec()
	VBROADCASTSS(p.Addr, v)
	return v
}

func pointer(name string) reg.GPVirtual { return Load(Param(name), GP64()).(reg.GPVirtual) }

// field loads a 64-bit field of a struct.
func field(args reg.GPVirtual, off int) reg.GPVirtual {
	v := GP64()
	MOVQ(Mem{Base: args, Disp: off}, v)
	return v
}

// Pause writes the spin hint and a measure of peak speed.
func Pause() {
	TEXT("pause", NOSPLIT, "func()")
	Doc("pause tells the processor that this is a spin loop.")
	PAUSE()
	RET()
	TEXT("peakAVX2", NOSPLIT, "func(n int)")
	Doc("peakAVX2 runs n times 12 independent multiply-adds of 8 lanes.")
	n := pointer("n")
	v := make([]reg.VecVirtual, 12)
	for i := range v {
		v[i] = YMM()
		VXORPS(v[i], v[i], v[i])
	}
	x := YMM()
	VXORPS(x, x, x)
	Label("loop")
	for i := range v {
		VFMADD231PS(x, x, v[i])
	}
	DECQ(n)
	JNZ(LabelRef("loop"))
	VZEROUPPER()
	RET()
}
