package computetest

import (
	"math"

	"longtake/compute"
)

// examVectors holds a queue's vectors against plain loops, at lengths that fill registers and such that do not, in place.
func examVectors(s *suite) {
	own, ok := s.dq.(compute.Vectorer)
	if !ok {
		s.Skip("the queue is no compute.Vectorer")
	}
	v := own.Vectors()
	for _, n := range []int{0, 1, 2, 7, 8, 24, 40, 63, 64, 128, 130} {
		s.begin("vectors of %d", n)
		x, y, turns := make([]float32, n), make([]float32, n), make([]float32, n&^1)
		words, back := make([]uint16, n), make([]uint16, n)
		for i := range x {
			x[i], y[i] = float32(s.rng.NormFloat64()), float32(s.rng.NormFloat64())
			words[i] = compute.BF16FromF32(y[i])
		}
		for i := 0; i+1 < len(turns); i += 2 {
			sin, cos := math.Sincos(s.rng.Float64() * 6)
			turns[i], turns[i+1] = float32(cos), float32(sin)
		}
		wide, mixed, turned, scaled := make([]float32, n), append([]float32(nil), x...), append([]float32(nil), x...), append([]float32(nil), x...)
		v.Widen(wide, words)
		v.Narrow(back, x)
		v.Mix(mixed, mixed, y, 0.75, -1.5)
		v.Turn(turned, turns)
		v.Scale(scaled, scaled, 3)
		squares := 0.0
		for i := range x {
			squares += float64(x[i]) * float64(x[i])
			want := 0.75*float64(x[i]) - 1.5*float64(y[i])
			if wide[i] != compute.F32FromBF16(words[i]) || back[i] != compute.BF16FromF32(x[i]) || scaled[i] != 3*x[i] || math.Abs(float64(mixed[i])-want) > 1e-6 {
				s.fail("element %d: %v widened, %v rounded, %v scaled, %v mixed of %v and %v", i, wide[i], back[i], scaled[i], mixed[i], x[i], y[i])
			}
			turn := float64(x[i])
			if j := i &^ 1; j+1 < n {
				a, b, cos, sin := float64(x[j]), float64(x[j+1]), float64(turns[j]), float64(turns[j+1])
				if turn = a*cos - b*sin; i > j {
					turn = a*sin + b*cos
				}
			}
			if math.Abs(float64(turned[i])-turn) > 1e-6 {
				s.fail("element %d turned is %v, want %v", i, turned[i], turn)
			}
		}
		if got := float64(v.Squares(x)); math.Abs(got-squares) > 1e-5*(1+squares) {
			s.fail("sum of squares %v, want %v", got, squares)
		}
	}
}
