package analyze

import (
	"image"
	"image/color"
	"math"
	"slices"
)

// components are the first three principal components of vectors, drawn as red, green and blue.
type components struct {
	mean []float64
	axes [3][]float64
	// lo and hi are the 2nd and 98th percentile of each component: the ends of its colour.
	lo, hi [3]float64
	// explained is the share of the variance that the components hold.
	explained float64
}

// analyse finds the components of rows of width d by orthogonal iteration on the covariance. The sign of an axis is chosen so
// that its largest element is positive.
func analyse(rows [][]float32, d int) *components {
	c := &components{mean: make([]float64, d)}
	for _, r := range rows {
		for i, v := range r {
			c.mean[i] += float64(v) / float64(len(rows))
		}
	}
	cov, trace := make([]float64, d*d), 0.0
	x := make([]float64, d)
	for _, r := range rows {
		for i, v := range r {
			x[i] = float64(v) - c.mean[i]
		}
		for i, a := range x {
			row := cov[i*d:][:d]
			for j, b := range x {
				row[j] += a * b
			}
			trace += a * a
		}
	}
	held := 0.0
	for k := range c.axes {
		c.axes[k] = c.axis(cov, k, d)
		held += quadratic(cov, c.axes[k])
	}
	if trace > 0 {
		c.explained = held / trace
	}
	for k := range c.axes {
		all := make([]float64, len(rows))
		for i, r := range rows {
			all[i] = c.score(k, r)
		}
		slices.Sort(all)
		n := len(all)
		c.lo[k], c.hi[k] = all[n/50], all[n-1-n/50]
	}
	return c
}

// rounds of the power iteration at most: enough for a picture.
const rounds = 200

// axis finds the k-th axis by power iteration, orthogonal to those before.
func (c *components) axis(cov []float64, k, d int) []float64 {
	v, w := make([]float64, d), make([]float64, d)
	for i := range v {
		v[i] = math.Sin(float64(i+1) * float64(k+1)) // any start that is not orthogonal by chance
	}
	for range rounds {
		for i := range w {
			w[i] = 0
			for j, x := range v {
				w[i] += cov[i*d+j] * x
			}
		}
		for _, a := range c.axes[:k] {
			p := inner(a, w)
			for i := range w {
				w[i] -= p * a[i]
			}
		}
		l := math.Sqrt(inner(w, w))
		if l == 0 {
			break
		}
		moved := 0.0
		for i := range v {
			moved = max(moved, math.Abs(v[i]-w[i]/l))
			v[i] = w[i] / l
		}
		if moved < 1e-6 {
			break
		}
	}
	large := 0
	for i := range v {
		if math.Abs(v[i]) > math.Abs(v[large])+1e-12 {
			large = i
		}
	}
	if v[large] < 0 {
		for i := range v {
			v[i] = -v[i]
		}
	}
	return v
}

func inner(a, b []float64) (sum float64) {
	for i := range a {
		sum += a[i] * b[i]
	}
	return sum
}

func quadratic(m, v []float64) (sum float64) {
	d := len(v)
	for i := range v {
		sum += v[i] * inner(m[i*d:][:d], v)
	}
	return sum
}

// score is the k-th component of a vector.
func (c *components) score(k int, x []float32) (sum float64) {
	for i, v := range x {
		sum += (float64(v) - c.mean[i]) * c.axes[k][i]
	}
	return sum
}

func (c *components) colour(x []float32) color.RGBA {
	var rgb [3]uint8
	for k := range rgb {
		share := (c.score(k, x) - c.lo[k]) / max(c.hi[k]-c.lo[k], 1e-12)
		rgb[k] = uint8(255 * min(max(share, 0), 1))
	}
	return color.RGBA{rgb[0], rgb[1], rgb[2], 255}
}

// rows returns the vectors of a latent frame, all heads of a token joined.
func (g geometry) rows(x []float32) [][]float32 {
	out := make([][]float32, g.tokens())
	for i := range out {
		for h := range g.Heads {
			out[i] = append(out[i], x[(h*g.tokens()+i)*g.HeadDim:][:g.HeadDim]...)
		}
	}
	return out
}

// pictured draws the components of a latent frame, one pixel a token.
func (c *components) pictured(g geometry, x []float32) *image.RGBA {
	m := image.NewRGBA(image.Rect(0, 0, g.Columns, g.Rows))
	for i, r := range g.rows(x) {
		m.SetRGBA(i%g.Columns, i/g.Columns, c.colour(r))
	}
	return m
}
