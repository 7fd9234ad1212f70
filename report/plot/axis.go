package plot

import (
	"math"
	"strconv"
)

// axis maps values to pixels.
type axis struct {
	lo, hi   float64 // in values, or their decimal logarithm
	from, to float64 // pixels
	log      bool
	ticks    []float64 // in values
}

// newAxis covers the finite values given, with round ends. With log, values that are not positive do not count.
func newAxis(values []float64, log bool, limits [2]float64, from, to float64, most int) axis {
	a := axis{from: from, to: to, log: log, lo: math.Inf(1), hi: math.Inf(-1)}
	for _, v := range values {
		if a.shows(v) {
			a.lo, a.hi = min(a.lo, v), max(a.hi, v)
		}
	}
	if a.lo > a.hi {
		a.lo, a.hi = 1, 2
	}
	if limits[0] < limits[1] {
		a.lo, a.hi = limits[0], limits[1]
		if a.log && a.lo <= 0 {
			a.lo = a.hi / 1000
		}
	}
	if log {
		a.logTicks()
		return a
	}
	if a.lo == a.hi {
		half := max(math.Abs(a.lo)*0.05, 1e-9)
		a.lo, a.hi = a.lo-half, a.hi+half
	}
	step := round((a.hi - a.lo) / float64(most))
	if limits[0] >= limits[1] {
		a.lo, a.hi = math.Floor(a.lo/step+1e-9)*step, math.Ceil(a.hi/step-1e-9)*step
	}
	for i := math.Ceil(a.lo/step - 1e-9); i*step <= a.hi+step*1e-9; i++ {
		a.ticks = append(a.ticks, i*step)
	}
	return a
}

// shows reports whether v has a place.
func (a axis) shows(v float64) bool {
	return !math.IsNaN(v) && !math.IsInf(v, 0) && (!a.log || v > 0)
}

// at returns the pixel of v.
func (a axis) at(v float64) float64 {
	if a.log {
		v = math.Log10(v)
	}
	return a.from + (v-a.lo)/(a.hi-a.lo)*(a.to-a.from)
}

// round returns the next larger number of the form 1, 2 or 5 times a power of ten.
func round(x float64) float64 {
	power := math.Pow(10, math.Floor(math.Log10(x)))
	for _, m := range [...]float64{1, 2, 5} {
		if x <= m*power*(1+1e-9) {
			return m * power
		}
	}
	return 10 * power
}

// logTicks turns the ends to logarithms and puts ticks at 1, 2 and 5, or at powers of ten if there are many of them.
func (a *axis) logTicks() {
	if a.lo == a.hi {
		a.lo, a.hi = a.lo/1.5, a.hi*1.5
	}
	lo, hi := math.Log10(a.lo), math.Log10(a.hi)
	marks := []float64{1, 2, 5}
	if hi-lo > 3 {
		marks = marks[:1]
	}
	for d := math.Floor(lo); d <= math.Ceil(hi); d++ {
		for _, m := range marks {
			v := m * math.Pow(10, d)
			if l := math.Log10(v); l >= lo-1e-9 && l <= hi+1e-9 {
				a.ticks = append(a.ticks, v)
			}
		}
	}
	if len(a.ticks) < 3 { // a short stretch: round numbers as on a linear axis
		step := round((a.hi - a.lo) / 5)
		a.ticks = a.ticks[:0]
		for i := math.Ceil(a.lo/step - 1e-9); i*step <= a.hi+step*1e-9; i++ {
			a.ticks = append(a.ticks, i*step)
		}
	}
	a.lo, a.hi = lo, hi
}

// label writes a tick with the digits that tell it from its neighbours.
func (a axis) label(v float64) string {
	if math.Abs(v) < 1e-12 {
		return "0"
	}
	if size := math.Abs(v); size >= 1e6 || size < 1e-4 {
		return strconv.FormatFloat(v, 'g', 3, 64)
	}
	return strconv.FormatFloat(math.Round(v*1e4)/1e4, 'f', -1, 64)
}
