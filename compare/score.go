package compare

import (
	"math"
	"runtime"
	"sync"
	"sync/atomic"

	"longtake/video"
	"longtake/video/metric"
)

// scales of MS-SSIM that a frame of 64x64 holds.
const scales = 3

// scores of frames against others, frame by frame; NaN where there is none.
type scores struct {
	psnr         []Decibel
	ssim, msssim []Fraction
}

// score compares frames from on with want, on all cores.
func score(frames, want []video.Frame, from int) (scores, error) {
	n := min(len(frames), len(want))
	s := scores{make([]Decibel, n), make([]Fraction, n), make([]Fraction, n)}
	for i := range min(from, n) {
		s.psnr[i], s.ssim[i], s.msssim[i] = Unmeasured, Fraction(math.NaN()), Fraction(math.NaN())
	}
	err := parallel(0, from, n, func(i int) (err error) {
		s.psnr[i], s.ssim[i], s.msssim[i], err = compared(frames[i], want[i])
		return err
	})
	return s, err
}

// compared measures one frame. Frames too small for a window of SSIM have a PSNR only.
func compared(a, b video.Frame) (Decibel, Fraction, Fraction, error) {
	psnr, err := metric.PSNR(a, b)
	if err != nil {
		return 0, 0, 0, err
	}
	if math.IsInf(psnr, 1) {
		return Decibel(psnr), 1, 1, nil
	}
	ssim, err := metric.SSIM(a, b)
	if err != nil {
		return Decibel(psnr), Fraction(math.NaN()), Fraction(math.NaN()), nil
	}
	msssim, err := metric.MSSSIMScales(a, b, scales)
	if err != nil {
		msssim = math.NaN()
	}
	return Decibel(psnr), Fraction(ssim), Fraction(msssim), nil
}

// parallel calls do for every number from lo to hi-1, in order, so many at a time (0: one a core), and returns the first error.
func parallel(workers, lo, hi int, do func(i int) error) error {
	var next atomic.Int64
	var wait sync.WaitGroup
	var failed atomic.Pointer[error]
	next.Store(int64(lo))
	if workers <= 0 {
		workers = runtime.GOMAXPROCS(0)
	}
	for range min(workers, max(hi-lo, 0)) {
		wait.Go(func() {
			for failed.Load() == nil {
				i := int(next.Add(1)) - 1
				if i >= hi {
					return
				}
				if err := do(i); err != nil {
					failed.CompareAndSwap(nil, &err)
				}
			}
		})
	}
	wait.Wait()
	if err := failed.Load(); err != nil {
		return *err
	}
	return nil
}

// pool is the mean over frames lo to hi-1.
func (s scores) pool(lo, hi int) Quality {
	q := Quality{From: lo, To: hi}
	lo, hi = max(lo, 0), min(hi, len(s.psnr))
	for i := lo; i < hi; i++ {
		if s.psnr[i].Measured() {
			q.Frames++
			if math.IsInf(float64(s.psnr[i]), 1) {
				q.Equal++
			}
		}
	}
	if lo < hi {
		q.PSNR, q.SSIM, q.MSSSIM = meanDecibel(s.psnr[lo:hi]), meanFraction(s.ssim[lo:hi]), meanFraction(s.msssim[lo:hi])
	} else {
		q.PSNR, q.SSIM, q.MSSSIM = Unmeasured, Fraction(math.NaN()), Fraction(math.NaN())
	}
	return q
}

// meanDecibel is the mean of what was measured, with a bound for equal frames.
func meanDecibel(list []Decibel) Decibel {
	sum, n := 0.0, 0
	for _, d := range list {
		if d.Measured() {
			sum, n = sum+min(float64(d), equalDecibels), n+1
		}
	}
	if n == 0 {
		return Unmeasured
	}
	return Decibel(sum / float64(n))
}

func meanFraction(list []Fraction) Fraction {
	sum, n := 0.0, 0
	for _, f := range list {
		if !math.IsNaN(float64(f)) {
			sum, n = sum+float64(f), n+1
		}
	}
	return Fraction(sum / float64(n)) // NaN of nothing
}

// spans pools runs of frames.
func (s scores) spans(from, span int) (out []Quality) {
	for lo := from; lo < len(s.psnr); lo += span {
		out = append(out, s.pool(lo, min(lo+span, len(s.psnr))))
	}
	return out
}

// diverged returns the first frame below a PSNR, or -1.
func (s scores) diverged(below float64) int {
	for i, d := range s.psnr {
		if float64(d) < below {
			return i
		}
	}
	return -1
}

var nan, inf = math.NaN(), math.Inf(1)
