package computetest

import (
	"math"

	"longtake/compute"
)

func examLinear(s *suite) {
	acts := []compute.Activation{compute.None, compute.GELU, compute.SiLU, compute.ReLU}
	weights := []compute.DType{compute.F32, compute.BF16, compute.F16}
	lays := []layout{dense, padded, odd}
	for i, c := range few([][3]int{{1, 64, 64}, {3, 5, 7}, {65, 192, 100}, {17, 128, 1}, {2, 1024, 65}, {64, 256, 96}, {130, 33, 257}, {5, 257, 40}, {256, 256, 300}}) {
		rows, in, out := c[0], c[1], c[2]
		for j, types := range pairs {
			act, dt := acts[(i+j)%4], weights[(i+2*j)%3]
			lay := [2]layout{lays[(i+j)%3], lays[(i+j/2)%3]}
			s.begin("%v = act %d of %v [%d %d] by %v [%d %d], layouts %d", types[0], act, types[1], rows, in, dt, out, in, lay)
			x, w := s.normal(types[1], 1, rows, in), s.normal(dt, 1/math.Sqrt(float64(in)), out, in)
			bias, biasType := array{}, pick(s, compute.F32, s.dev.Types().Bias)
			if (i+j)%2 == 0 {
				bias = s.normal(biasType, 1, out)
			}
			dst := s.out(types[0], lay[0], rows, out)
			s.dq.Linear(dst.view, s.in(x, types[1], lay[1]), s.matrix(w, dt), s.in(bias, biasType, dense), act)
			s.near(dst, linear(x, w, bias, act), s.tol.Linear)
		}
	}
}

// examLinearLaws: stacked weights give results side by side, and rows do not know of each other.
func examLinearLaws(s *suite) {
	const rows, in, upper, lower = 9, 80, 48, 33
	s.begin("stacked weights")
	x, w := s.normal(compute.F32, 1, rows, in), s.normal(compute.F32, 1/math.Sqrt(in), upper+lower, in)
	tx := s.in(x, compute.F32, dense)
	whole, parts := s.out(compute.F32, padded, rows, upper+lower), s.out(compute.F32, padded, rows, upper+lower)
	s.dq.Linear(whole.view, tx, s.matrix(w, compute.F32), compute.Tensor{}, compute.None)
	s.dq.Linear(parts.view.Slice(1, 0, upper), tx, s.matrix(array{[]int{upper, in}, w.data[:upper*in]}, compute.F32), compute.Tensor{}, compute.None)
	s.dq.Linear(parts.view.Slice(1, upper, upper+lower), tx, s.matrix(array{[]int{lower, in}, w.data[upper*in:]}, compute.F32), compute.Tensor{}, compute.None)
	s.near(parts, s.values(whole), s.tol.Linear.times(2))

	s.begin("rows one by one")
	tx, m := s.in(x, compute.F32, dense), s.matrix(w, compute.F32)
	whole, parts = s.out(compute.F32, dense, rows, upper+lower), s.out(compute.F32, dense, rows, upper+lower)
	s.dq.Linear(whole.view, tx, m, compute.Tensor{}, compute.SiLU)
	for i := range rows {
		s.dq.Linear(parts.view.Slice(0, i, i+1), tx.Slice(0, i, i+1), m, compute.Tensor{}, compute.SiLU)
	}
	s.near(parts, s.values(whole), s.tol.Linear.times(2))
}

// deviceNorm places the parameters of n, modulation with a row stride.
func (s *suite) deviceNorm(n normal) compute.Norm {
	return compute.Norm{RMS: n.rms, Eps: float32(n.eps), Weight: s.in(n.weight, compute.F32, dense), Bias: s.in(n.bias, compute.F32, dense),
		Scale: s.in(n.scale, compute.F32, padded), Shift: s.in(n.shift, compute.F32, pick(s, dense, padded))}
}

func examNorm(s *suite) {
	widths := few([]int{64, 7, 256, 100, 2, 1536})
	for i := range 32 { // every combination of parameters
		for j, types := range pairs {
			rows, width := 12, widths[(i+j)%len(widths)]
			if width == 64 && j == 0 { // many at once
				rows = 1026
			}
			groups := pick(s, 1, 2, 3, rows)
			n := normal{rms: i&1 != 0, eps: pick(s, 1e-6, 1e-5, 0.5)}
			n.eps = float64(float32(n.eps))
			for bit, p := range []*array{&n.weight, &n.bias, &n.scale, &n.shift} {
				if i>>(bit+1)&1 == 0 {
					continue
				}
				if *p = s.normal(compute.F32, 1, width); bit >= 2 {
					*p = s.normal(compute.F32, 1, groups, width)
				}
			}
			s.begin("%v = norm of %v [%d %d], rms %v, parameters %05b, %d groups, eps %v", types[0], types[1], rows, width, n.rms, i, groups, n.eps)
			x := s.normal(types[1], 2, rows, width)
			clear(x.row(1))
			if i%2 == j%2 && types[0] == types[1] {
				dst := s.inout(x, types[0], pick(s, dense, padded, odd))
				s.dq.Norm(dst.view, dst.view, s.deviceNorm(n))
				s.near(dst, norm(x, n), s.tol.F32)
				continue
			}
			dst := s.out(types[0], pick(s, dense, padded, odd), rows, width)
			s.dq.Norm(dst.view, s.in(x, types[1], pick(s, dense, padded, odd)), s.deviceNorm(n))
			s.near(dst, norm(x, n), s.tol.F32)
		}
	}
}

// examNormLaws: what a norm must not notice. A variance as mean of squares minus squared mean fails the first.
func examNormLaws(s *suite) {
	const rows, width = 6, 256
	for _, rms := range []bool{false, true} {
		s.begin("rms %v", rms)
		n := compute.Norm{RMS: rms, Eps: 1e-12}
		x := s.normal(compute.F32, 1, rows, width)
		plain := s.out(compute.F32, dense, rows, width)
		s.dq.Norm(plain.view, s.in(x, compute.F32, dense), n)
		truth := s.values(plain)
		if !rms {
			s.label = "shifted by 100"
			moved := each(x, array{}, func(x, _ float64) float64 { return exactly(x+100, compute.F32) })
			dst := s.out(compute.F32, dense, rows, width)
			s.dq.Norm(dst.view, s.in(moved, compute.F32, dense), n)
			s.near(dst, truth, s.tol.F32.times(20)) // rounding x + 100 alone costs 4e-6
		}
		s.label = "times 64"
		dst := s.out(compute.F32, dense, rows, width)
		s.dq.Norm(dst.view, s.in(each(x, array{}, func(x, _ float64) float64 { return 64 * x }), compute.F32, dense), n)
		s.near(dst, truth, s.tol.F32)
		s.label = "modulated by nothing"
		dst = s.out(compute.F32, dense, rows, width)
		zero := s.in(newArray(2, width), compute.F32, dense)
		s.dq.Norm(dst.view, s.in(x, compute.F32, dense), compute.Norm{RMS: rms, Eps: 1e-12, Scale: zero, Shift: zero})
		s.near(dst, truth, s.tol.F32)
	}
}

func examAddGated(s *suite) {
	const rows = 12
	for i, types := range [][3]compute.DType{{compute.F32, compute.F32, compute.F32}, {compute.BF16, compute.BF16, compute.BF16},
		{compute.F32, compute.F32, compute.BF16}, {compute.BF16, compute.BF16, compute.F32}, {compute.F32, compute.BF16, compute.F32}} {
		for j, width := range few([]int{64, 7, 257, 1024}) {
			for _, groups := range []int{0, 1, 3, rows} {
				s.begin("%v, width %d, %d groups", types, width, groups)
				x, y := s.normal(types[1], 1, rows, width), s.normal(types[2], 1, rows, width)
				var gate array
				if groups > 0 {
					gate = s.normal(compute.F32, 1, groups, width)
				}
				ty, tg := s.in(y, types[2], pick(s, dense, padded, odd)), s.in(gate, compute.F32, pick(s, dense, padded))
				if types[0] == types[1] && (i+j)%2 == 0 {
					dst := s.inout(x, types[0], pick(s, dense, padded, odd))
					s.dq.AddGated(dst.view, dst.view, ty, tg)
					s.near(dst, addGated(x, y, gate), s.tol.F32)
					continue
				}
				dst := s.out(types[0], pick(s, dense, padded, odd), rows, width)
				s.dq.AddGated(dst.view, s.in(x, types[1], pick(s, dense, padded, odd)), ty, tg)
				s.near(dst, addGated(x, y, gate), s.tol.F32)
			}
		}
	}
}

func examActivate(s *suite) {
	for _, act := range []compute.Activation{compute.None, compute.GELU, compute.SiLU, compute.ReLU} {
		for _, types := range pairs {
			for _, inPlace := range []bool{false, true} {
				s.begin("activation %d, %v to %v, in place %v", act, types[1], types[0], inPlace)
				x := s.normal(types[1], 3, 9, 65)
				if inPlace { // overflow somewhere inside must not show
					for i := range x.data {
						x.data[i] = exactly(pick(s, 0.0, 30, -30, 500, -500, 10, -10, 90, -90), types[1])
					}
				}
				truth := each(x, array{}, func(x, _ float64) float64 { return activate(x, act) })
				if inPlace && types[0] == types[1] {
					dst := s.inout(x, types[0], pick(s, dense, padded, odd))
					s.dq.Activate(dst.view, dst.view, act)
					s.near(dst, truth, s.tol.F32)
					continue
				}
				dst := s.out(types[0], pick(s, dense, padded, odd), 9, 65)
				s.dq.Activate(dst.view, s.in(x, types[1], pick(s, dense, padded, odd)), act)
				s.near(dst, truth, s.tol.F32)
			}
		}
	}
}

func examGather(s *suite) {
	for _, dt := range []compute.DType{compute.F32, compute.BF16} {
		for _, c := range few([][3]int{{5, 30, 64}, {300, 7, 33}, {1, 1, 256}, {64, 4096, 16}}) {
			for _, accumulate := range []bool{false, true} {
				rows, entries, width := c[0], c[1], c[2]
				s.begin("%v[%d %d] of a table of %d, accumulate %v", dt, rows, width, entries, accumulate)
				table, index := s.normal(compute.F32, 1, entries, width), newArray(rows)
				for i := range index.data {
					index.data[i] = float64(s.rng.IntN(entries))
				}
				index.data[0] = float64(entries - 1)
				was, dst := array{}, s.out(dt, padded, rows, width)
				if accumulate {
					was = s.normal(dt, 1, rows, width)
					dst = s.inout(was, dt, padded)
				}
				s.dq.Gather(dst.view, s.in(table, compute.F32, pick(s, dense, odd)), s.in(index, compute.I32, dense), accumulate)
				s.near(dst, gather(was, table, index), s.tol.F32)
			}
		}
	}
}

func examTimeEmbed(s *suite) {
	for _, dt := range []compute.DType{compute.F32, compute.BF16} {
		for _, c := range few([][2]int{{4, 256}, {1, 2}, {33, 30}}) {
			for _, period := range []float64{10000, 256} {
				s.begin("%v %v, period %v", dt, c, period)
				t := s.normal(compute.F32, 1000, c[0])
				t.data[0] = pick(s, 1000.0, 0, 1e5) // at 1e5 a float32 angle is off by 4e-3
				dst := s.out(dt, pick(s, dense, padded, odd), c[0], c[1])
				s.dq.TimeEmbed(dst.view, s.in(t, compute.F32, dense), period)
				s.near(dst, timeEmbed(t, c[1], period), s.tol.F32)
			}
		}
	}
}

// examNoise asks for the bits of compute.FillNoise, whatever the shape.
func examNoise(s *suite) {
	for _, dt := range []compute.DType{compute.F32, compute.BF16} {
		for _, shape := range few([][]int{{12, 13}, {1}, {6}, {3, 52}, {2, 3, 26}, {4097}, {1 << 16}}) {
			key := compute.NoiseKey{Seed: s.rng.Uint64(), Chunk: s.rng.Uint32(), Step: s.rng.Uint32()}
			s.begin("%v%v, key %+v", dt, shape, key)
			dst, x := s.out(dt, dense, shape...), make([]float32, newCount(shape))
			s.dq.Noise(dst.view, key)
			compute.FillNoise(x, key, 0)
			truth := newArray(shape...)
			for i, v := range x {
				truth.data[i] = float64(v)
			}
			s.exact(dst, truth)
		}
	}
}

func examMix(s *suite) {
	for i, types := range [][3]compute.DType{{compute.F32, compute.F32, compute.F32}, {compute.BF16, compute.BF16, compute.BF16},
		{compute.F32, compute.BF16, compute.F32}, {compute.F32, compute.F32, compute.BF16}, {compute.BF16, compute.F32, compute.F32}} {
		for _, shape := range few([][]int{{9, 64}, {5, 33}, {1, 40}}) {
			for kind := range 4 { // two operands, one, in place, in place on the second
				s.begin("%v%v, kind %d", types, shape, kind)
				a, b := float32(s.rng.NormFloat64()), float32(s.rng.NormFloat64())
				x, y := s.normal(types[1], 1, shape...), s.normal(types[2], 1, shape...)
				mix := func(x, y float64) float64 { return float64(a)*x + float64(b)*y }
				switch {
				case kind == 1:
					dst := s.out(types[0], pick(s, dense, padded, odd), shape...)
					b = float32(math.NaN()) // must be ignored
					s.dq.Mix(dst.view, a, s.in(x, types[1], pick(s, dense, padded, odd)), b, compute.Tensor{})
					s.near(dst, each(x, array{}, func(x, _ float64) float64 { return float64(a) * x }), s.tol.F32)
				case kind == 2 && types[0] == types[1]:
					dst := s.inout(x, types[0], layout(i%3))
					s.dq.Mix(dst.view, a, dst.view, b, s.in(y, types[2], dense))
					s.near(dst, each(x, y, mix), s.tol.F32)
				case kind == 3 && types[0] == types[2]:
					dst := s.inout(y, types[0], layout(i%3))
					s.dq.Mix(dst.view, a, s.in(x, types[1], padded), b, dst.view)
					s.near(dst, each(x, y, mix), s.tol.F32)
				default:
					dst := s.out(types[0], pick(s, dense, padded, odd), shape...)
					s.dq.Mix(dst.view, a, s.in(x, types[1], pick(s, dense, padded, odd)), b, s.in(y, types[2], pick(s, dense, padded, odd)))
					s.near(dst, each(x, y, mix), s.tol.F32)
				}
			}
		}
	}
}

func examClamp(s *suite) {
	for _, types := range pairs {
		for _, inPlace := range []bool{false, true} {
			s.begin("%v to %v, in place %v", types[1], types[0], inPlace)
			x := s.normal(types[1], 1, 7, 37)
			copy(x.data, []float64{math.NaN(), math.Inf(1), math.Inf(-1), 0.5, -0.75})
			x.data[100] = math.NaN()
			truth := each(x, array{}, func(x, _ float64) float64 { return clamp(x, -0.75, 0.5) })
			if inPlace && types[0] == types[1] {
				dst := s.inout(x, types[0], pick(s, dense, padded, odd))
				s.dq.Clamp(dst.view, dst.view, -0.75, 0.5)
				s.exact(dst, truth)
				continue
			}
			dst := s.out(types[0], pick(s, dense, padded, odd), 7, 37)
			s.dq.Clamp(dst.view, s.in(x, types[1], pick(s, dense, padded, odd)), -0.75, 0.5)
			s.exact(dst, truth)
		}
	}
}
