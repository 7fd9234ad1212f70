package compare

import (
	"math"
	"math/rand/v2"
	"testing"

	"longtake/video"
)

// The standard error of a ratio is what the ratio of drawn sets of clips really scatters by.
func TestARatioOfMeansKnowsItsError(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	const draws, clips = 2000, 40
	sum, squares, claimed := 0.0, 0.0, 0.0
	for range draws {
		var a, b []Fraction
		for range clips {
			drawn := 10 + 2*rng.NormFloat64()
			b = append(b, Fraction(drawn))
			a = append(a, Fraction(.8*drawn+rng.NormFloat64()))
		}
		f := ratio("", a, b)
		r := float64(f.Mean)
		sum, squares, claimed = sum+r, squares+r*r, claimed+float64(f.SE)/draws
	}
	mean := sum / draws
	if real := math.Sqrt(squares/draws - mean*mean); math.Abs(mean-.8) > .002 || math.Abs(claimed/real-1) > .1 {
		t.Errorf("ratios of .8 are %.4f and scatter by %.4f, said were %.4f", mean, real, claimed)
	}
	if f := ratio("", []Fraction{1, 2, 3}, []Fraction{2, 4, 6}); f.Mean != .5 || f.SE != 0 {
		t.Errorf("halves have the ratio %v ± %v", f.Mean, f.SE)
	}
}

func TestLooksOfAKnownPicture(t *testing.T) {
	f := video.NewFrame(2, 2)
	for i := range f.Pix {
		f.Pix[i] = 100
		if i%6 >= 3 { // the right column
			f.Pix[i] = 140
		}
	}
	l := looks{}
	l.add(f, true)
	// Of 12 values 6 have a neighbour to the left, 40 away; down nothing changes.
	if l.edges != 20 || l.mean != 120 || l.spread != 20 || l.flat != 0 || l.stopped != 1 || l.n != 1 {
		t.Errorf("gradient, mean and spread are %+v, want 20, 120, 20, not flat, after a step that was stopped", l)
	}
}
