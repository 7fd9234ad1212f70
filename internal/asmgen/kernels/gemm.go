package kernels

import (
	"fmt"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// Offsets of the fields of gemmArgs; a test in compute/cpu compares them.
const (
	gemmA, gemmARow, gemmACol, gemmB, gemmK        = 0, 8, 16, 24, 32
	gemmC, gemmCRow, gemmInit, gemmInitRow, gemmBl = 40, 48, 56, 64, 72
	gemmBPanel, gemmAhead, gemmAheadStep           = 80, 88, 96
)

// Gemm writes the kernel of rows x (panels*vecs) registers of sums. Rows of A are read by broadcasts, four rows an
// address, so A needs no packing; the inner loop is unrolled.
func (s *ISA) Gemm(rows, panels, vecs int) {
	name := fmt.Sprintf("gemm%sV%dR%d", s.Name, vecs, rows)
	if panels > 1 {
		name += fmt.Sprintf("P%d", panels)
	}
	TEXT(name, NOSPLIT, "func(args *byte)")
	Doc(fmt.Sprintf("%s does row blocks of %d by %d panels of %d columns.", name, rows, panels, vecs*s.Lanes))
	g := pointer("args")
	at := AllocLocal(32) // a, c, init, blocks of the next row block
	next := func(i int) Mem { return at.Offset(8 * i) }
	for i, off := range []int{gemmA, gemmC, gemmInit, gemmBl} {
		t := GP64()
		MOVQ(Mem{Base: g, Disp: off}, t)
		MOVQ(t, next(i))
	}
	row, col, row3 := field(g, gemmARow), field(g, gemmACol), GP64()
	LEAQ(Mem{Base: row, Index: row, Scale: 2}, row3)
	var bp, bp3 reg.GPVirtual
	if panels > 1 {
		bp, bp3 = field(g, gemmBPanel), GP64()
		LEAQ(Mem{Base: bp, Index: bp, Scale: 2}, bp3)
	}

	ahead := field(g, gemmAhead)
	TESTQ(ahead, ahead)
	CMOVQEQ(g, ahead) // nothing to fetch: what is there already

	Label("block")
	acc := s.start(g, next(2), rows, panels*vecs)
	k, b := field(g, gemmK), field(g, gemmB)
	a := addresses(next(0), row, (rows+3)/4)
	step := func(u int) {
		s.step(acc, vecs, u, func(j int) Mem {
			m := Mem{Base: b, Disp: (u*vecs + j%vecs) * s.bytes()}
			switch j / vecs {
			case 1:
				m.Index, m.Scale = bp, 1
			case 2:
				m.Index, m.Scale = bp, 2
			case 3:
				m.Index, m.Scale = bp3, 1
			}
			return m
		}, func(r int) Mem {
			m := Mem{Base: a[r/4]}
			switch r % 4 {
			case 1:
				m.Index, m.Scale = row, 1
			case 2:
				m.Index, m.Scale = row, 2
			case 3:
				m.Index, m.Scale = row3, 1
			}
			return m
		})
		for i := range a {
			ADDQ(col, a[i])
		}
	}
	s.inner(k, b, vecs, step, func() {
		PREFETCHT1(Mem{Base: ahead})
		PREFETCHT1(Mem{Base: ahead, Disp: 64})
		ADDQ(Mem{Base: g, Disp: gemmAheadStep}, ahead)
	})
	s.finish(g, next, row, row3, acc)
	DECQ(next(3))
	JNZ(LabelRef("block"))
	VZEROUPPER()
	RET()
}

// addresses returns n registers, four rows of A apart.
func addresses(first Mem, row reg.GPVirtual, n int) []reg.GPVirtual {
	a := make([]reg.GPVirtual, n)
	for i := range a {
		a[i] = GP64()
		if i == 0 {
			MOVQ(first, a[0])
		} else {
			LEAQ(Mem{Base: a[i-1], Index: row, Scale: 4}, a[i])
		}
	}
	return a
}

// step multiplies one column of A with one row of B. What there is less of stays in registers.
func (s *ISA) step(acc [][]reg.VecVirtual, vecs, u int, b, a func(int) Mem) {
	if len(acc[0]) > vecs {
		x := make([]reg.VecVirtual, len(acc))
		for r := range x {
			x[r] = s.vec()
			VBROADCASTSS(a(r), x[r])
		}
		for j := range acc[0] {
			v := s.copyOf(b(j))
			for r := range x {
				VFMADD231PS(x[r], v, acc[r][j])
			}
		}
		return
	}
	v := make([]reg.VecVirtual, len(acc[0]))
	for j := range v {
		v[j] = s.copyOf(b(j))
	}
	for r := range acc {
		x := s.vec()
		VBROADCASTSS(a(r), x)
		for j := range v {
			VFMADD231PS(x, v[j], acc[r][j])
		}
	}
}

// start loads the sums from init.
func (s *ISA) start(g reg.GPVirtual, init Mem, rows, vecs int) [][]reg.VecVirtual {
	p, stride := GP64(), field(g, gemmInitRow)
	MOVQ(init, p)
	acc := make([][]reg.VecVirtual, rows)
	for r := range acc {
		acc[r] = make([]reg.VecVirtual, vecs)
		for j := range acc[r] {
			acc[r][j] = s.copyOf(Mem{Base: p, Disp: j * s.bytes()})
		}
		ADDQ(stride, p)
	}
	MOVQ(p, init)
	return acc
}

// inner walks k, four steps and one fetch at a time.
func (s *ISA) inner(k, b reg.GPVirtual, vecs int, step func(u int), fetch func()) {
	const unroll = 4
	SUBQ(Imm(unroll), k)
	JL(LabelRef("tail"))
	Label("loop")
	fetch()
	for u := range unroll {
		step(u)
	}
	ADDQ(U32(unroll*vecs*s.bytes()), b)
	SUBQ(Imm(unroll), k)
	JGE(LabelRef("loop"))
	Label("tail")
	ADDQ(Imm(unroll), k)
	JE(LabelRef("store"))
	Label("one")
	step(0)
	ADDQ(U32(uint32(vecs*s.bytes())), b)
	DECQ(k)
	JNZ(LabelRef("one"))
	Label("store")
}

// finish stores the sums and moves to the next row block.
func (s *ISA) finish(g reg.GPVirtual, next func(int) Mem, row, row3 reg.GPVirtual, acc [][]reg.VecVirtual) {
	p, stride := GP64(), field(g, gemmCRow)
	MOVQ(next(1), p)
	for r := range acc {
		for j, v := range acc[r] {
			VMOVUPS(v, Mem{Base: p, Disp: j * s.bytes()})
		}
		ADDQ(stride, p)
	}
	MOVQ(p, next(1))
	a, m := GP64(), Mem{Index: row, Scale: uint8(len(acc))}
	MOVQ(next(0), a)
	m.Base = a
	switch len(acc) {
	case 3:
		m.Index, m.Scale = row3, 1
	case 6:
		m.Index, m.Scale = row3, 2
	case 12:
		m.Index, m.Scale = row3, 4
	}
	LEAQ(m, a)
	MOVQ(a, next(0))
}
