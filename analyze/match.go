package analyze

import (
	"math"
	"slices"
)

// Match says which token of the previous latent frame each query of an examined frame looks at.
type Match struct {
	Layer int `json:"layer"`
	Frame int `json:"frame"`
	// To[i] is the token of frame Frame-1 with the largest attention of token i, mean over heads.
	To []int `json:"to"`
	// Same is the share of tokens that look at their own place, Near at a place at most one row and column away; Shift the
	// mean distance in tokens.
	Same  float64 `json:"same"`
	Near  float64 `json:"near"`
	Shift float64 `json:"shift"`
}

// matches is the paper's figure 5.
func (c *clip) matches(layers []int) (out []Match) {
	for _, m := range c.moments {
		for _, layer := range layers {
			out = append(out, c.match(m, layer))
		}
	}
	return out
}

func (c *clip) match(m *moment, layer int) Match {
	now, d, n := m.span.Start, c.HeadDim, c.tokens()
	sum := make([]float64, n*n)
	for h := range c.Heads {
		keys, query := c.past(layer, h, now-1, now, now, after), c.query(m, layer, h)
		row := make([]float64, n)
		for i := range n {
			logits(row, query[i*d:][:d], keys)
			softmax(row)
			for j, v := range row {
				sum[i*n+j] += v
			}
		}
	}
	r := Match{Layer: layer, Frame: now, To: make([]int, n)}
	for i := range n {
		row := sum[i*n:][:n]
		at := slices.Index(row, slices.Max(row))
		r.To[i] = at
		dy, dx := float64(at/c.Columns-i/c.Columns), float64(at%c.Columns-i%c.Columns)
		if at == i {
			r.Same += 1 / float64(n)
		}
		if max(math.Abs(dy), math.Abs(dx)) <= 1 {
			r.Near += 1 / float64(n)
		}
		r.Shift += math.Hypot(dx, dy) / float64(n)
	}
	return r
}

// MatcherRow is how much attention an index finds: for each of Densities, the share of attention on past keys that is held by
// the keys which the index ranks first, and what the truly strongest keys hold. Looked is the share of keys that were ranked at all.
type MatcherRow struct {
	Name      string    `json:"name"`
	Kind      string    `json:"kind"`
	Bits      float64   `json:"bits"`
	Densities []float64 `json:"densities"`
	Mass      []float64 `json:"mass"`
	Exact     []float64 `json:"exact"`
	Looked    float64   `json:"looked"`
}

// matcherDensities are those at which indexes are asked.
var matcherDensities = []float64{0.02, 0.05, 0.1, 0.2}

// mostQueries of a head that indexes are asked.
const mostQueries = 16

// matchers asks every index for the keys of the last moment.
func (c *clip) matchers(layers []int, list []Matcher) (out []MatcherRow) {
	m := c.moments[len(c.moments)-1]
	for _, matcher := range list {
		rows := make([]MatcherRow, len(layers)*c.Heads)
		parallel(len(rows), func(i int) { rows[i] = c.headMatcher(m, matcher, layers[i/c.Heads], i%c.Heads) })
		sum := MatcherRow{Name: matcher.Name, Kind: matcher.Kind, Bits: matcher.Bits, Densities: matcherDensities,
			Mass: make([]float64, len(matcherDensities)), Exact: make([]float64, len(matcherDensities))}
		n := float64(len(rows))
		for _, r := range rows {
			for k := range sum.Mass {
				sum.Mass[k] += r.Mass[k] / n
				sum.Exact[k] += r.Exact[k] / n
			}
			sum.Looked += r.Looked / n
		}
		out = append(out, sum)
	}
	return out
}

func (c *clip) headMatcher(m *moment, matcher Matcher, layer, h int) MatcherRow {
	now, d := m.span.Start, c.HeadDim
	keys, query := c.past(layer, h, 0, now, now, after), c.query(m, layer, h)
	n := len(keys) / d
	index := matcher.New(d, n)
	for i := range n {
		index.Put(i, keys[i*d:][:d])
	}
	r := MatcherRow{Mass: make([]float64, len(matcherDensities)), Exact: make([]float64, len(matcherDensities))}
	shares, sorted, scores, order := make([]float64, n), make([]float64, n), make([]float32, n), make([]int, n)
	queries := len(query) / d
	step := max(1, queries/mostQueries)
	weight := 1 / float64((queries+step-1)/step)
	for q := 0; q < queries; q += step {
		logits(shares, query[q*d:][:d], keys)
		softmax(shares)
		index.Score(scores, query[q*d:][:d], 0)
		ranked := order[:0]
		for i, s := range scores {
			if !math.IsInf(float64(s), -1) {
				ranked = append(ranked, i)
			}
		}
		slices.SortStableFunc(ranked, func(a, b int) int { return -cmpFloat(float64(scores[a]), float64(scores[b])) })
		r.Looked += weight * float64(len(ranked)) / float64(n)
		copy(sorted, shares)
		slices.Sort(sorted)
		for k, density := range matcherDensities {
			most := top(density, n)
			for _, i := range ranked[:min(most, len(ranked))] {
				r.Mass[k] += weight * shares[i]
			}
			r.Exact[k] += weight * total(sorted[n-most:])
		}
	}
	return r
}
