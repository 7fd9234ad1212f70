package analyze

import (
	"fmt"
	"math"
	"slices"

	"longtake/compute"
	"longtake/kvcache"
)

// PromptUse is how one layer's cross attention spreads over the prompt.
type PromptUse struct {
	Layer int `json:"layer"`
	// Frame90, Frame95 and Frame99 are the shares of prompt tokens that hold 90, 95 and 99 % of a chunk's attention (mean over
	// heads and queries first), Query90 the share that a single query needs for 90 %.
	Frame90 float64 `json:"frame_0.9"`
	Frame95 float64 `json:"frame_0.95"`
	Frame99 float64 `json:"frame_0.99"`
	Query90 float64 `json:"query_0.9"`
	// Mass is the attention on each prompt token.
	Mass []float64 `json:"mass"`
}

// promptMass is the cross attention of a layer in a moment: by query, mean over heads [queries][tokens], and what single
// queries need.
type promptMass struct {
	byQuery [][]float64
	query90 float64
}

// promptMap is where in the picture a word is looked at: the mean over the studied layers, by token of the first latent frame.
type promptMap struct {
	word  string
	at    int // in the prompt
	mass  float64
	place []float64
}

// promptMass computes cross attention from the queries and keys of a call.
func (r *recorder) promptMass(dq compute.Queue, query compute.Tensor, kv kvcache.View) *promptMass {
	heads, n, d, tokens := query.Dim(0), query.Dim(1), query.Dim(2), kv.Keys.Dim(1)
	q, k := r.scrap.fetch(dq, query), r.scrap.fetch(dq, kv.Keys)
	bias := make([]float32, tokens)
	if !kv.LogCount.IsZero() {
		bias = r.scrap.fetch(dq, kv.LogCount.Slice(0, 0, 1))
	}
	m := &promptMass{byQuery: make([][]float64, n)}
	x := make([]float64, tokens)
	for i := range n {
		m.byQuery[i] = make([]float64, tokens)
		for h := range heads {
			logits(x, q[(h*n+i)*d:][:d], k[h*tokens*d:])
			for j, b := range bias {
				x[j] += float64(b)
			}
			softmax(x)
			for j, v := range x {
				m.byQuery[i][j] += v / float64(heads)
			}
			m.query90 += needed(x, 0.9) / float64(heads*n)
		}
	}
	return m
}

// needed returns the least share of entries that hold a share of the sum, 1 of all.
func needed(x []float64, share float64) float64 {
	sorted := slices.Clone(x)
	slices.Sort(sorted)
	sum := 0.0
	for i := range sorted {
		if sum += sorted[len(sorted)-1-i]; sum >= share {
			return float64(i+1) / float64(len(sorted))
		}
	}
	return 1
}

// prompt sums up cross attention by layer, and by word.
func (s *Study) prompt(layers []int, words []string) {
	c := s.clip
	n := float64(len(c.moments))
	var place [][]float64 // [token][place]
	for _, layer := range layers {
		u := PromptUse{Layer: layer}
		for _, m := range c.moments {
			p := m.prompt[layer]
			if p == nil || len(p.byQuery) == 0 || u.Mass != nil && len(u.Mass) != len(p.byQuery[0]) {
				continue
			}
			mass := make([]float64, len(p.byQuery[0]))
			if u.Mass == nil {
				u.Mass = make([]float64, len(mass))
			}
			if place == nil {
				place = make([][]float64, len(mass))
				for j := range place {
					place[j] = make([]float64, c.tokens())
				}
			}
			for i, row := range p.byQuery {
				for j, v := range row {
					mass[j] += v / float64(len(p.byQuery))
					if i < c.tokens() {
						place[j][i] += v / n / float64(len(layers))
					}
				}
			}
			for j, v := range mass {
				u.Mass[j] += v / n
			}
			u.Frame90, u.Frame95, u.Frame99 = u.Frame90+needed(mass, 0.9)/n, u.Frame95+needed(mass, 0.95)/n, u.Frame99+needed(mass, 0.99)/n
			u.Query90 += p.query90 / n
		}
		s.Prompt = append(s.Prompt, u)
	}
	if len(words) != len(place) {
		words = nil
		for i := range place {
			words = append(words, fmt.Sprintf("token %d", i))
		}
	}
	s.Words = words
	for j, p := range place {
		s.maps = append(s.maps, promptMap{words[j], j, total(p) / float64(len(p)), p})
	}
	// The words whose place in the picture is the most definite come first.
	slices.SortStableFunc(s.maps, func(a, b promptMap) int { return -cmpFloat(a.spread(), b.spread()) })
}

// spread is the standard deviation over the places.
func (m promptMap) spread() float64 {
	sum := 0.0
	for _, v := range m.place {
		sum += (v - m.mass) * (v - m.mass)
	}
	return math.Sqrt(sum / float64(len(m.place)))
}

func cmpFloat(a, b float64) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}
