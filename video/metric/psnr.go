// Package metric says how much two pictures differ.
//
// What enters: two [video.Frame] values of one size, or two float slices. What leaves: one float64.
// PSNR is in decibels; SSIM follows Wang, Bovik, Sheikh and Simoncelli, "Image quality assessment:
// from error visibility to structural similarity", IEEE TIP 13(4), 2004; MS-SSIM follows Wang,
// Simoncelli and Bovik, "Multiscale structural similarity for image quality assessment", Asilomar
// 2003. All sums are float64. Pictures of different or broken size are errors.
//
// Figures of different programs compare only if they mean the same thing. Here: colour channels are
// R, G and B as stored (not luma); PSNR comes from the mean squared error over all three; SSIM is
// the mean of the three channels' SSIM, over positions where the window lies wholly inside, with no
// downsampling beforehand. ffmpeg's ssim filter uses 8x8 windows and gives other numbers.
package metric

import (
	"fmt"
	"math"

	"longtake/video"
)

// PSNR returns the peak signal-to-noise ratio of two frames in dB, peak 255, from the mean squared
// error over all bytes. It is +Inf for equal frames.
func PSNR(a, b video.Frame) (float64, error) {
	if err := same(a, b); err != nil {
		return 0, fmt.Errorf("psnr: %w", err)
	}
	var sum int64 // exact: at most 65025 for each byte
	for i, v := range a.Pix {
		d := int64(v) - int64(b.Pix[i])
		sum += d * d
	}
	return decibels(255*255, float64(sum)/float64(len(a.Pix))), nil
}

// PSNRWhere is the PSNR over the pixels whose value in where, one for each pixel row by row, is true; NaN if none is.
func PSNRWhere(a, b video.Frame, where []bool) (float64, error) {
	if err := same(a, b); err != nil {
		return 0, fmt.Errorf("psnr: %w", err)
	}
	if len(where) != a.Width*a.Height {
		return 0, fmt.Errorf("psnr: frames of %dx%d and %d pixels to choose from", a.Width, a.Height, len(where))
	}
	var sum, n int64
	for i, in := range where {
		if !in {
			continue
		}
		n += 3
		for k := 3 * i; k < 3*i+3; k++ {
			d := int64(a.Pix[k]) - int64(b.Pix[k])
			sum += d * d
		}
	}
	if n == 0 {
		return math.NaN(), nil
	}
	return decibels(255*255, float64(sum)/float64(n)), nil
}

// PSNRFloat returns the PSNR of two pictures with values in [-1, 1], so with peak 2. It is +Inf for
// equal and NaN if a value is NaN; lengths must match and not be zero.
func PSNRFloat(a, b []float32) (float64, error) {
	if len(a) != len(b) || len(a) == 0 {
		return 0, fmt.Errorf("psnr: %d and %d values", len(a), len(b))
	}
	var sum float64
	for i, v := range a {
		d := float64(v) - float64(b[i])
		sum += d * d
	}
	return decibels(4, sum/float64(len(a))), nil
}

func decibels(peakSquared, mse float64) float64 { return 10 * math.Log10(peakSquared/mse) }

func same(a, b video.Frame) error {
	if err := a.Check(); err != nil {
		return err
	}
	if err := b.Check(); err != nil {
		return err
	}
	if a.Width != b.Width || a.Height != b.Height {
		return fmt.Errorf("frames of %dx%d and %dx%d", a.Width, a.Height, b.Width, b.Height)
	}
	return nil
}
