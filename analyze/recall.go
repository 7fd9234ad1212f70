package analyze

import "slices"

// recall is the paper's figure 2 on keys of the past.
func (c *clip) recall(layers []int) []LayerRecall {
	out := make([]LayerRecall, len(layers))
	for i, layer := range layers {
		heads := make([]LayerRecall, c.Heads*len(c.moments))
		parallel(len(heads), func(j int) { heads[j] = c.headRecall(c.moments[j/c.Heads], layer, j%c.Heads) })
		sum := LayerRecall{Layer: layer, Density: densities, Mass: make([]float64, len(densities))}
		n := float64(len(heads))
		for _, h := range heads {
			for k, m := range h.Mass {
				sum.Mass[k] += m / n
			}
			sum.Own, sum.Previous, sum.Last8, sum.Older32 = sum.Own+h.Own/n, sum.Previous+h.Previous/n, sum.Last8+h.Last8/n, sum.Older32+h.Older32/n
		}
		out[i] = sum
	}
	return out
}

// headRecall is the mean over the queries of one head.
func (c *clip) headRecall(m *moment, layer, h int) LayerRecall {
	now, d, tokens := m.span.Start, c.HeadDim, c.tokens()
	keys := c.past(layer, h, 0, now, now, after)
	own, query := c.own(m, layer, h), c.query(m, layer, h)
	n := len(keys) / d
	keys = append(keys, own...)
	shares := make([]float64, len(keys)/d)
	queries := len(query) / d
	r := LayerRecall{Mass: make([]float64, len(densities))}
	for i := range queries {
		logits(shares, query[i*d:][:d], keys)
		softmax(shares)
		mine := total(shares[n:])
		r.Own += mine / float64(queries)
		weight := 1 / max(total(shares[:n]), 1e-300) / float64(queries)
		frames := func(lo, hi int) float64 {
			return weight * total(shares[max(lo, 0)*tokens:max(hi, 0)*tokens])
		}
		r.Previous += frames(now-1, now)
		r.Last8 += frames(now-8, now)
		r.Older32 += frames(0, now-32)
		slices.Sort(shares[:n])
		sum, next := 0.0, 0
		for k := range n {
			sum += shares[n-1-k]
			for ; next < len(densities) && k+1 >= top(densities[next], n); next++ {
				r.Mass[next] += weight * sum
			}
		}
	}
	return r
}

// top is the number of keys that a density allows: at least one.
func top(density float64, n int) int { return max(1, int(density*float64(n)+1e-9)) }

func total(x []float64) (sum float64) {
	for _, v := range x {
		sum += v
	}
	return sum
}
