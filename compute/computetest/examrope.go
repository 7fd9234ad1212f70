package computetest

import (
	"math"

	"longtake/compute"
)

// turning makes the table [positions, pairs, 2] of one axis, absent without pairs.
func turning(positions, pairs int) array {
	if pairs == 0 {
		return array{}
	}
	t := newArray(positions, pairs, 2)
	for p := range positions {
		for k := range pairs {
			s, c := math.Sincos(float64(p) * math.Pow(100, -float64(k)/float64(pairs)))
			copy(t.row(p*pairs+k), []float64{exactly(c, compute.F32), exactly(s, compute.F32)})
		}
	}
	return t
}

// ropeSplits are pairs of time, row and column: Wan's, the embedded model's, and with absent axes.
var ropeSplits = [][3]int{{12, 10, 10}, {22, 21, 21}, {8, 0, 0}, {0, 8, 8}, {4, 4, 0}, {32, 0, 0}}

// deviceRope places the tables.
func (s *suite) deviceRope(r rotation) compute.Rope {
	return compute.Rope{Time: s.in(r.tables[0], compute.F32, dense), Row: s.in(r.tables[1], compute.F32, dense),
		Column: s.in(r.tables[2], compute.F32, dense), MinTime: r.minTime, Inverse: r.inverse}
}

// positions draws time from [lo, hi), row and column from their tables.
func (s *suite) positions(r rotation, lo, hi int, shape ...int) array {
	pos := newArray(append(shape, 3)...)
	for i := range pos.rows() {
		pos.row(i)[0] = float64(lo + s.rng.IntN(hi-lo))
		for axis := 1; axis < 3; axis++ {
			if !r.tables[axis].absent() {
				pos.row(i)[axis] = float64(s.rng.IntN(r.tables[axis].shape[0]))
			}
		}
	}
	return pos
}

func examRope(s *suite) {
	const ring = 37
	lays := []layout{dense, heads, capacity}
	for i, split := range few(ropeSplits) {
		r := rotation{tables: [3]array{turning(ring, split[0]), turning(9, split[1]), turning(13, split[2])}}
		dim := 2 * (split[0] + split[1] + split[2])
		for j, types := range pairs {
			for _, tokens := range few([]int{65, 1, 7}) {
				const numHeads = 3
				r.inverse = (i+j)%2 == 1
				var pos array
				shape := []int{tokens}
				if j%2 == 0 {
					shape = []int{numHeads, tokens}
				}
				switch (i + j) % 3 {
				case 0: // far along the ring, nothing clamped
					r.minTime = math.MinInt32
					pos = s.positions(r, 0, 5000, shape...)
				case 1: // most keys are too old
					r.minTime = 3000
					pos = s.positions(r, 2000, 3020, shape...)
				default: // the zero value clamps what lies before the start
					r.minTime = 0
					pos = s.positions(r, -30, 30, shape...)
				}
				s.begin("%v of %v, pairs %v, %d tokens, positions %v, min time %d, inverse %v", types[0], types[1], split, tokens, pos.shape, r.minTime, r.inverse)
				x := s.normal(types[1], 1, numHeads, tokens, dim)
				lay := dense
				if len(shape) == 2 {
					lay = pick(s, dense, capacity)
				}
				tp := s.in(pos, compute.I32, lay)
				if types[0] == types[1] && i%2 == 0 {
					dst := s.inout(x, types[0], lays[(i+j)%3])
					s.dq.Rope(dst.view, dst.view, tp, s.deviceRope(r))
					s.near(dst, rope(x, pos, r), s.tol.F32)
					continue
				}
				dst := s.out(types[0], lays[(i+j)%3], numHeads, tokens, dim)
				s.dq.Rope(dst.view, s.in(x, types[1], lays[(i+2*j)%3]), tp, s.deviceRope(r))
				s.near(dst, rope(x, pos, r), s.tol.F32)
			}
		}
	}
}

// examRopeLaws: Inverse undoes, and dot products depend on differences of positions alone.
func examRopeLaws(s *suite) {
	const numHeads, tokens, dim = 2, 33, 64
	r := rotation{tables: [3]array{turning(200, 12), turning(60, 10), turning(60, 10)}, minTime: math.MinInt32}
	small := rotation{tables: [3]array{turning(50, 12), turning(20, 10), turning(20, 10)}}
	pos, other := s.positions(small, 0, 50, tokens), s.positions(small, 0, 50, tokens)

	s.begin("inverse")
	x := s.normal(compute.F32, 1, numHeads, tokens, dim)
	back, there := s.inout(x, compute.F32, heads), s.out(compute.F32, dense, numHeads, tokens, dim)
	tp, dr := s.in(pos, compute.I32, dense), s.deviceRope(r)
	s.dq.Rope(there.view, back.view, tp, dr)
	dr.Inverse = true
	s.dq.Rope(back.view, there.view, tp, dr)
	s.near(back, x, s.tol.F32.times(2))

	s.begin("equal shifts")
	y := s.normal(compute.F32, 1, numHeads, tokens, dim)
	var dots [2]array
	for k, shift := range [][3]float64{{0, 0, 0}, {101, 17, 31}} {
		a, b := s.out(compute.F32, dense, numHeads, tokens, dim), s.out(compute.F32, dense, numHeads, tokens, dim)
		for _, c := range []struct {
			to   *placed
			x, p array
		}{{a, x, pos}, {b, y, other}} {
			moved := newArray(c.p.shape...)
			for i, v := range c.p.data {
				moved.data[i] = v + shift[i%3]
			}
			s.dq.Rope(c.to.view, s.in(c.x, compute.F32, dense), s.in(moved, compute.I32, dense), s.deviceRope(r))
		}
		va, vb := s.values(a), s.values(b)
		dots[k] = newArray(numHeads, tokens)
		for i := range dots[k].data {
			for d, v := range va.row(i) {
				dots[k].data[i] += v * vb.row(i)[d]
			}
		}
	}
	s.close(dots[1], dots[0], s.tol.F32.times(4))
}
