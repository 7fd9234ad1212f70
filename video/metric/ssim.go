package metric

import (
	"fmt"
	"math"

	"longtake/video"
)

// Window and constants of Wang et al. 2004, section III: an 11x11 Gaussian with sigma 1.5,
// C1 = (0.01 L)^2, C2 = (0.03 L)^2, L = 255.
const (
	windowSide = 11
	sigma      = 1.5
	c1         = (0.01 * 255) * (0.01 * 255)
	c2         = (0.03 * 255) * (0.03 * 255)
)

// scaleWeights are the exponents of Wang et al. 2003, finest scale first.
var scaleWeights = [...]float64{0.0448, 0.2856, 0.3001, 0.2363, 0.1333}

// gauss is one axis of the window; the window is its outer product.
var gauss = func() (g [windowSide]float64) {
	sum := 0.0
	for i := range g {
		d := float64(i - windowSide/2)
		g[i] = math.Exp(-d * d / (2 * sigma * sigma))
		sum += g[i]
	}
	for i := range g {
		g[i] /= sum
	}
	return g
}()

// SSIM returns the mean structural similarity of two frames, 1 for equal ones. Sides must be at
// least 11 pixels.
func SSIM(a, b video.Frame) (float64, error) {
	if err := same(a, b); err != nil {
		return 0, fmt.Errorf("ssim: %w", err)
	}
	if min(a.Width, a.Height) < windowSide {
		return 0, fmt.Errorf("ssim: frames of %dx%d are smaller than the %dx%[3]d window", a.Width, a.Height, windowSide)
	}
	sum := 0.0
	for c := range 3 {
		full, _ := channel(a, c).compare(channel(b, c))
		sum += full
	}
	return sum / 3, nil
}

// MSSSIM returns the five-scale structural similarity. The smaller side must be at least 161
// pixels, so that the coarsest scale still holds a window.
func MSSSIM(a, b video.Frame) (float64, error) { return MSSSIMScales(a, b, len(scaleWeights)) }

// MSSSIMScales is MSSSIM with only the first scales (1-5) of the five, their exponents divided by
// their sum. That is our choice for small frames (64x64 holds 3 scales); the result must not be
// compared with the five-scale figure. A scale whose mean contrast-structure term is negative
// counts as 0.
func MSSSIMScales(a, b video.Frame, scales int) (float64, error) {
	if err := same(a, b); err != nil {
		return 0, fmt.Errorf("ms-ssim: %w", err)
	}
	if scales < 1 || scales > len(scaleWeights) {
		return 0, fmt.Errorf("ms-ssim: %d scales, not 1 to %d", scales, len(scaleWeights))
	}
	// Each halving rounds up, so a side of s leaves ceil(s / 2^k).
	if least := (windowSide-1)<<(scales-1) + 1; min(a.Width, a.Height) < least {
		return 0, fmt.Errorf("ms-ssim: frames of %dx%d are too small for %d scales, which need sides of %d",
			a.Width, a.Height, scales, least)
	}
	total := 0.0
	for _, w := range scaleWeights[:scales] {
		total += w
	}
	sum := 0.0
	for c := range 3 {
		x, y := channel(a, c), channel(b, c)
		product := 1.0
		for k, w := range scaleWeights[:scales] {
			if k > 0 {
				x, y = x.halve(), y.halve()
			}
			full, structure := x.compare(y)
			if k == scales-1 {
				structure = full
			}
			product *= math.Pow(max(structure, 0), w/total)
		}
		sum += product
	}
	return sum / 3, nil
}

// plane is one channel, [height][width].
type plane struct {
	width, height int
	v             []float64
}

func channel(f video.Frame, c int) plane {
	p := plane{f.Width, f.Height, make([]float64, f.Width*f.Height)}
	for i := range p.v {
		p.v[i] = float64(f.Pix[3*i+c])
	}
	return p
}

// halve averages 2x2 squares; at an odd edge the last row or column counts twice, as the authors'
// symmetric padding does.
func (p plane) halve() plane {
	h := plane{(p.width + 1) / 2, (p.height + 1) / 2, nil}
	h.v = make([]float64, h.width*h.height)
	for y := range h.height {
		top, low := p.v[2*y*p.width:], p.v[min(2*y+1, p.height-1)*p.width:]
		for x := range h.width {
			l, r := 2*x, min(2*x+1, p.width-1)
			h.v[y*h.width+x] = (top[l] + top[r] + low[l] + low[r]) / 4
		}
	}
	return h
}

// compare returns the mean SSIM and the mean of its contrast-structure factor alone.
func (p plane) compare(q plane) (full, structure float64) {
	outW, outH := p.width-windowSide+1, p.height-windowSide+1
	// The five local moments, filtered along rows first: mean of p, q, p², q², pq.
	rows := make([][5]float64, outW*p.height)
	for y := range p.height {
		a, b := p.v[y*p.width:][:p.width], q.v[y*p.width:][:p.width]
		for x := range outW {
			var m [5]float64
			for i, g := range gauss {
				u, v := a[x+i], b[x+i]
				gu, gv := g*u, g*v
				m[0] += gu
				m[1] += gv
				m[2] += gu * u
				m[3] += gv * v
				m[4] += gu * v
			}
			rows[y*outW+x] = m
		}
	}
	for y := range outH {
		for x := range outW {
			var m [5]float64
			for i, g := range gauss {
				r := &rows[(y+i)*outW+x]
				m[0] += g * r[0]
				m[1] += g * r[1]
				m[2] += g * r[2]
				m[3] += g * r[3]
				m[4] += g * r[4]
			}
			varP, varQ, cov := m[2]-m[0]*m[0], m[3]-m[1]*m[1], m[4]-m[0]*m[1]
			cs := (2*cov + c2) / (varP + varQ + c2)
			structure += cs
			full += cs * (2*m[0]*m[1] + c1) / (m[0]*m[0] + m[1]*m[1] + c1)
		}
	}
	n := float64(outW * outH)
	return full / n, structure / n
}
