package analyze

// mostLag is the longest lag looked at; lags are powers of two.
const mostLag = 64

// similarity compares the clean keys of every examined frame with all earlier ones.
func (c *clip) similarity(layers []int) (out []Similarity) {
	var lags []int
	shortest := c.moments[0].at
	for lag := 1; lag <= min(mostLag, shortest); lag *= 2 {
		lags = append(lags, lag)
	}
	for _, layer := range layers {
		for s := range spaces {
			heads := make([]Similarity, c.Heads*len(c.moments))
			parallel(len(heads), func(j int) { heads[j] = c.headSimilarity(c.moments[j/c.Heads].at, layer, j%c.Heads, s, lags) })
			sum := Similarity{Layer: layer, Space: s.String(), Lags: lags, Same: make([]float64, len(lags)), Best: make([]float64, len(lags))}
			n := float64(len(heads))
			for _, h := range heads {
				for k := range lags {
					sum.Same[k] += h.Same[k] / n
					sum.Best[k] += h.Best[k] / n
				}
				sum.BestAll, sum.Above90, sum.Pair = sum.BestAll+h.BestAll/n, sum.Above90+h.Above90/n, sum.Pair+h.Pair/n
			}
			out = append(out, sum)
		}
	}
	return out
}

func (c *clip) headSimilarity(at, layer, h int, s space, lags []int) Similarity {
	d, n := c.HeadDim, c.tokens()
	all := c.past(layer, h, 0, at+1, at, s)
	normalize(all, d)
	fresh := all[at*n*d:]
	best := make([]float64, at) // of one key, by frame
	r := Similarity{Same: make([]float64, len(lags)), Best: make([]float64, len(lags))}
	each := 1 / float64(n)
	for i := range n {
		key, nearest := fresh[i*d:][:d], -1.0
		for f := range at {
			best[f] = -1
			for j := range n {
				cos := float64(dot(key, all[(f*n+j)*d:][:d]))
				best[f] = max(best[f], cos)
				r.Pair += cos * each / float64(at*n)
			}
			nearest = max(nearest, best[f])
		}
		r.BestAll += nearest * each
		if nearest > 0.9 {
			r.Above90 += each
		}
		for k, lag := range lags {
			r.Same[k] += float64(dot(key, all[((at-lag)*n+i)*d:][:d])) * each
			r.Best[k] += best[at-lag] * each
		}
	}
	return r
}
