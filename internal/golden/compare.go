package golden

import (
	"fmt"
	"math"
	"strings"
	"testing"
)

// Difference is how far results are from a reference.
type Difference struct {
	Tolerance float64 // what Compare was given
	Relative  float64 // ||got - want|| / ||want||, Euclidean; 0 for equal, +Inf for a NaN or against a zero reference
	MaxAbs    float64 // the largest |got - want|
	Worst     int     // where that is, -1 when all are equal
	First     int     // the first element off by more than Tolerance times the largest |want|, -1 when there is none
	Different int     // how many elements are not equal
	Elems     int
	NaNs      int // NaNs among got where the reference has a number
	lengths   [2]int
	pairs     [2][2]float64 // got and want at Worst and First
}

// Compare measures. Equal infinities and NaN in the same place count as equal. Slices of different lengths are infinitely
// far apart.
func Compare[T ~float32 | ~float64](got, want []T, tolerance float64) Difference {
	d := Difference{Tolerance: tolerance, Worst: -1, First: -1, Elems: len(want), lengths: [2]int{len(got), len(want)}}
	if len(got) != len(want) {
		d.Relative, d.MaxAbs = math.Inf(1), math.Inf(1)
		return d
	}
	var largest float64
	for _, w := range want {
		if a := math.Abs(float64(w)); !math.IsInf(a, 0) {
			largest = max(largest, a) // NaN is handled below
		}
	}
	if math.IsNaN(largest) {
		largest = 0
	}
	var diff, norm float64
	for i := range want {
		g, w := float64(got[i]), float64(want[i])
		if !math.IsNaN(w) && !math.IsInf(w, 0) {
			norm += w * w
		}
		if g == w || math.IsNaN(g) && math.IsNaN(w) {
			continue
		}
		d.Different++
		e := math.Abs(g - w)
		if math.IsNaN(e) {
			e = math.Inf(1)
			if math.IsNaN(g) {
				d.NaNs++
			}
		}
		diff += e * e
		if d.Worst < 0 || e > d.MaxAbs {
			d.MaxAbs, d.Worst, d.pairs[0] = e, i, [2]float64{g, w}
		}
		if d.First < 0 && e > tolerance*largest {
			d.First, d.pairs[1] = i, [2]float64{g, w}
		}
	}
	if diff > 0 {
		d.Relative = math.Sqrt(diff) / math.Sqrt(norm)
	}
	return d
}

// Within reports whether the relative error does not exceed tolerance.
func (d Difference) Within(tolerance float64) bool { return d.Relative <= tolerance }

// String describes the difference in one line.
func (d Difference) String() string { return d.Describe() }

// Describe is String with elements named by their place in shape as well.
func (d Difference) Describe(shape ...int) string {
	if d.lengths[0] != d.lengths[1] {
		return fmt.Sprintf("%d elements, want %d", d.lengths[0], d.lengths[1])
	}
	if d.Worst < 0 {
		return fmt.Sprintf("all %d elements are equal", d.Elems)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "relative error %.3g (tolerance %.3g); %d of %d elements differ; worst is %s: got %v, want %v", d.Relative, d.Tolerance,
		d.Different, d.Elems, place(d.Worst, shape), float32(d.pairs[0][0]), float32(d.pairs[0][1]))
	if d.First >= 0 {
		fmt.Fprintf(&b, "; first that matters is %s: got %v, want %v", place(d.First, shape), float32(d.pairs[1][0]), float32(d.pairs[1][1]))
	}
	if d.NaNs > 0 {
		fmt.Fprintf(&b, "; %d NaN", d.NaNs)
	}
	return b.String()
}

// place prints an element's number, and its coordinates when the shape is known: "70 [1 6]".
func place(i int, shape []int) string {
	n := 1
	for _, d := range shape {
		n *= d
	}
	if len(shape) < 2 || i >= n {
		return fmt.Sprint(i)
	}
	at, rest := make([]int, len(shape)), i
	for k := len(shape) - 1; k >= 0; k-- {
		at[k], rest = rest%shape[k], rest/shape[k]
	}
	return fmt.Sprint(i, " ", at)
}

// Near fails the test when the relative error of got exceeds tolerance. What names the result in the message.
func Near[T ~float32 | ~float64](t testing.TB, what string, got, want []T, tolerance float64) {
	t.Helper()
	if d := Compare(got, want, tolerance); !d.Within(tolerance) {
		t.Errorf("%s: %v", what, d)
	}
}
