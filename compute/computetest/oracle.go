package computetest

import (
	"math"

	"longtake/compute"
)

// array is a dense row-major array. The zero array is absent.
type array struct {
	shape []int
	data  []float64
}

func newArray(shape ...int) array {
	n := 1
	for _, d := range shape {
		n *= d
	}
	return array{shape, make([]float64, n)}
}

func (a array) absent() bool { return a.shape == nil }

// row returns row i of a matrix, counted through all leading dimensions.
func (a array) row(i int) []float64 {
	w := a.shape[len(a.shape)-1]
	return a.data[i*w : (i+1)*w]
}

// rows is the product of all but the last dimension.
func (a array) rows() int {
	n := 1
	for _, d := range a.shape[:len(a.shape)-1] {
		n *= d
	}
	return n
}

// group returns the row of a [groups, width] array that goes with row i of rows.
func (a array) group(i, rows int) []float64 { return a.row(i / (rows / a.shape[0])) }

func activate(v float64, act compute.Activation) float64 {
	switch act {
	case compute.GELU:
		return 0.5 * v * (1 + math.Tanh(math.Sqrt(2/math.Pi)*(v+0.044715*v*v*v)))
	case compute.SiLU:
		return v / (1 + math.Exp(-v))
	case compute.ReLU:
		return math.Max(v, 0)
	}
	return v
}

func linear(x, w, bias array, act compute.Activation) array {
	out := newArray(x.shape[0], w.shape[0])
	for i := range x.shape[0] {
		for o := range w.shape[0] {
			sum := 0.0
			for j, v := range x.row(i) {
				sum += v * w.row(o)[j]
			}
			if !bias.absent() {
				sum += bias.data[o]
			}
			out.row(i)[o] = activate(sum, act)
		}
	}
	return out
}

// normal is compute.Norm with arrays.
type normal struct {
	rms                        bool
	eps                        float64
	weight, bias, scale, shift array
}

func norm(x array, n normal) array {
	out := newArray(x.shape...)
	rows, width := x.shape[0], float64(x.shape[1])
	for i := range rows {
		mean, square := 0.0, 0.0
		if !n.rms {
			for _, v := range x.row(i) {
				mean += v / width
			}
		}
		for _, v := range x.row(i) {
			square += (v - mean) * (v - mean) / width
		}
		for j, v := range x.row(i) {
			y := (v - mean) / math.Sqrt(square+n.eps)
			if !n.weight.absent() {
				y *= n.weight.data[j]
			}
			if !n.bias.absent() {
				y += n.bias.data[j]
			}
			if !n.scale.absent() {
				y *= 1 + n.scale.group(i, rows)[j]
			}
			if !n.shift.absent() {
				y += n.shift.group(i, rows)[j]
			}
			out.row(i)[j] = y
		}
	}
	return out
}

// rotation is compute.Rope with arrays: one table of [positions, pairs, 2] for each axis.
type rotation struct {
	tables  [3]array
	minTime int
	inverse bool
}

// rope turns x [heads, tokens, headDim] by pos [tokens, 3] or [heads, tokens, 3].
func rope(x, pos array, r rotation) array {
	out := newArray(x.shape...)
	tokens := x.shape[1]
	for i := range x.rows() {
		at := pos.row(i % tokens)
		if len(pos.shape) == 3 {
			at = pos.row(i)
		}
		pair := 0
		for axis, table := range r.tables {
			if table.absent() {
				continue
			}
			p := int(at[axis])
			if axis == 0 {
				p = max(p, r.minTime) % table.shape[0]
			}
			pairs := table.shape[1]
			for k := range pairs {
				c, s := table.row(p*pairs + k)[0], table.row(p*pairs + k)[1]
				if r.inverse {
					s = -s
				}
				a, b := x.row(i)[2*pair], x.row(i)[2*pair+1]
				out.row(i)[2*pair], out.row(i)[2*pair+1] = a*c-b*s, a*s+b*c
				pair++
			}
		}
	}
	return out
}

func addGated(x, y, gate array) array {
	out := newArray(x.shape...)
	for i := range x.shape[0] {
		for j, v := range x.row(i) {
			g := 1.0
			if !gate.absent() {
				g = gate.group(i, x.shape[0])[j]
			}
			out.row(i)[j] = v + y.row(i)[j]*g
		}
	}
	return out
}

// gather adds to what dst holds, or with an absent dst starts at zero.
func gather(dst, table, index array) array {
	out := newArray(len(index.data), table.shape[1])
	for i, k := range index.data {
		for j, v := range table.row(int(k)) {
			if !dst.absent() {
				v += dst.row(i)[j]
			}
			out.row(i)[j] = v
		}
	}
	return out
}

func timeEmbed(t array, width int, maxPeriod float64) array {
	out, half := newArray(len(t.data), width), width/2
	for i, v := range t.data {
		for j := range half {
			s, c := math.Sincos(v * math.Pow(maxPeriod, -float64(j)/float64(half)))
			out.row(i)[j], out.row(i)[half+j] = c, s
		}
	}
	return out
}

// each applies f to elements of arrays of one shape; y may be absent.
func each(x, y array, f func(x, y float64) float64) array {
	out := newArray(x.shape...)
	for i, v := range x.data {
		w := 0.0
		if !y.absent() {
			w = y.data[i]
		}
		out.data[i] = f(v, w)
	}
	return out
}

func clamp(v, lo, hi float64) float64 {
	switch {
	case v < lo:
		return lo
	case v > hi:
		return hi
	}
	return v
}
