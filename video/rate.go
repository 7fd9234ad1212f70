package video

import (
	"fmt"
	"math"
	"math/bits"
	"strconv"
	"strings"
)

// Rate is a number of frames per second as an exact fraction, both parts positive:
// {16, 1}, {30000, 1001}.
type Rate struct{ Num, Den int }

// maxRatePart keeps every product in Ticks far inside 128 bits and covers any real rate.
const maxRatePart = 1_000_000

// Check returns an error unless both parts are between 1 and 1 000 000.
func (r Rate) Check() error {
	if r.Num < 1 || r.Den < 1 || r.Num > maxRatePart || r.Den > maxRatePart {
		return fmt.Errorf("frame rate %d/%d: both parts must be between 1 and %d", r.Num, r.Den, maxRatePart)
	}
	return nil
}

// String returns "16" or "30000/1001"; ParseRate reads it back.
func (r Rate) String() string {
	if r.Den == 1 {
		return strconv.Itoa(r.Num)
	}
	return fmt.Sprintf("%d/%d", r.Num, r.Den)
}

// Float returns frames per second as a float64.
func (r Rate) Float() float64 { return float64(r.Num) / float64(r.Den) }

// Ticks returns the time at which frame i starts, in units of 1/perSecond seconds, rounded to the
// nearest unit (halves up): Ticks(i, 1000) is milliseconds. Because i enters as a whole number the
// result never drifts, however long the video. i and perSecond must not be negative.
func (r Rate) Ticks(i, perSecond int64) int64 {
	if i < 0 || perSecond < 0 {
		panic(fmt.Sprintf("video: ticks of frame %d at %d a second", i, perSecond))
	}
	hi, lo := bits.Mul64(uint64(i), uint64(perSecond)*uint64(r.Den))
	lo, carry := bits.Add64(lo, uint64(r.Num)/2, 0)
	q, _ := bits.Div64(hi+carry, lo, uint64(r.Num))
	return int64(q)
}

// RateOf returns the fraction nearest to fps with a denominator of at most 1001; the broadcast
// rates 23.976, 29.97 and 59.94 become exact multiples of 1000/1001.
func RateOf(fps float64) (Rate, error) {
	if math.IsNaN(fps) || fps <= 0 || fps > 1000 {
		return Rate{}, fmt.Errorf("frame rate %v: must be above 0 and at most 1000", fps)
	}
	if ntsc := math.Round(fps * 1.001); ntsc > 0 && math.Abs(ntsc/1.001-fps) < 0.005 &&
		math.Abs(math.Round(fps)-fps) > 0.005 {
		return Rate{int(ntsc) * 1000, 1001}, nil
	}
	best := Rate{}
	for den := 1; den <= 1001; den++ {
		num := int(math.Round(fps * float64(den)))
		if num < 1 {
			continue
		}
		r := Rate{num, den}
		if best.Num == 0 || math.Abs(r.Float()-fps) < math.Abs(best.Float()-fps)-1e-12 {
			best = r
		}
	}
	if best.Num == 0 {
		return Rate{}, fmt.Errorf("frame rate %v: below 1/1001", fps)
	}
	return best, nil
}

// ParseRate reads "16", "23.976" or "30000/1001".
func ParseRate(s string) (Rate, error) {
	s = strings.TrimSpace(s)
	if num, den, ok := strings.Cut(s, "/"); ok {
		n, errN := strconv.Atoi(num)
		d, errD := strconv.Atoi(den)
		if errN != nil || errD != nil {
			return Rate{}, fmt.Errorf("frame rate %q: want a number or a fraction such as 30000/1001", s)
		}
		r := Rate{n, d}
		return r, r.Check()
	}
	fps, err := strconv.ParseFloat(s, 64)
	if err != nil {
		return Rate{}, fmt.Errorf("frame rate %q: want a number or a fraction such as 30000/1001", s)
	}
	return RateOf(fps)
}
