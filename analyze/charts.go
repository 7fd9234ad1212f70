package analyze

import (
	"fmt"
	"strconv"

	"longtake/report/plot"
)

// recallChart is figure 2: one curve for each layer.
func (s *Study) recallChart() plot.Chart {
	c := plot.Chart{Title: "Attention held by the strongest past keys", X: "share of past keys (density)", Y: "share of attention (recall)", LogX: true, YLimits: [2]float64{0, 1}}
	for _, r := range s.Recall {
		c.Series = append(c.Series, plot.Series{Name: "layer " + strconv.Itoa(r.Layer), X: r.Density, Y: r.Mass, Line: true, Marks: true})
	}
	return c
}

// lagChart shows mean similarity over layers by the distance in time.
func (s *Study) lagChart(best bool) plot.Chart {
	c := plot.Chart{Title: "Same place, earlier frame", X: "frames apart", Y: "cosine", LogX: true}
	if best {
		c.Title = "Nearest key of the earlier frame"
	}
	for sp := range spaces {
		line := plot.Series{Name: sp.String(), Line: true, Marks: true}
		n := 0.0
		for _, v := range s.Similarity {
			if v.Space != sp.String() {
				continue
			}
			values := v.Same
			if best {
				values = v.Best
			}
			if line.Y == nil {
				line.Y = make([]float64, len(values))
				for _, lag := range v.Lags {
					line.X = append(line.X, float64(lag))
				}
			}
			for i, x := range values {
				line.Y[i] += x
			}
			n++
		}
		for i := range line.Y {
			line.Y[i] /= n
		}
		c.Series = append(c.Series, line)
	}
	return c
}

// mergingCharts are recall over threshold, and over what is kept.
func (s *Study) mergingCharts() []plot.Chart {
	by := plot.Chart{Title: "Recall of merging, by threshold", X: "cosine threshold", Y: "recall"}
	kept := plot.Chart{Title: "Recall of merging, by what is kept", X: "entries per past token", Y: "recall", LogX: true}
	for i := 0; i < len(s.Merging); {
		first := s.Merging[i]
		line := plot.Series{Name: first.Space + ", " + first.Keep + " key", Line: true, Marks: true}
		small := line
		for ; i < len(s.Merging) && s.Merging[i].Space == first.Space && s.Merging[i].Keep == first.Keep; i++ {
			m := s.Merging[i]
			line.X, line.Y = append(line.X, m.Threshold), append(line.Y, m.Recall)
			small.X, small.Y = append(small.X, m.Kept), append(small.Y, m.Recall)
		}
		by.Series, kept.Series = append(by.Series, line), append(kept.Series, small)
	}
	return []plot.Chart{by, kept}
}

// trialCharts show the error of caches on trial.
func (s *Study) trialCharts() []plot.Chart {
	by := plot.Chart{Title: "Error of attention outputs, by threshold", X: "cosine threshold", Y: "relative error"}
	kept := plot.Chart{Title: "Error of attention outputs, by keys kept", X: "keys in view over all", Y: "relative error"}
	at := map[string]int{}
	for _, t := range s.Trials {
		i, known := at[t.Group]
		if !known {
			i = len(by.Series)
			at[t.Group] = i
			line := plot.Series{Name: t.Group, Line: true, Marks: true}
			by.Series, kept.Series = append(by.Series, line), append(kept.Series, line)
		}
		b, k := &by.Series[i], &kept.Series[i]
		b.X, b.Y = append(b.X, t.Threshold), append(b.Y, t.Error)
		k.X, k.Y = append(k.X, t.Kept), append(k.Y, t.Error)
	}
	return []plot.Chart{by, kept}
}

// matcherCharts show recall over bits at one density, relative to the best possible.
func (s *Study) matcherCharts() (out []plot.Chart) {
	for k, density := range matcherDensities {
		if density != 0.05 && density != 0.1 {
			continue
		}
		c := plot.Chart{Title: fmt.Sprintf("Recall of matchers at %g %% of the keys", 100*density), X: "bits stored per key", Y: "share of attention", LogX: true}
		at := map[string]int{}
		for _, m := range s.Matchers {
			if m.Bits == 0 {
				c.Rules = append(c.Rules, plot.Rule{Name: m.Name, Y: m.Mass[k]})
				continue
			}
			i, known := at[m.Kind]
			if !known {
				i = len(c.Series)
				at[m.Kind] = i
				c.Series = append(c.Series, plot.Series{Name: m.Kind, Line: true, Marks: true})
			}
			c.Series[i].X, c.Series[i].Y = append(c.Series[i].X, m.Bits), append(c.Series[i].Y, m.Mass[k])
		}
		out = append(out, c)
	}
	return out
}

// promptChart shows how much each word gets, by layer. Signs between words have no label.
func (s *Study) promptChart() plot.Heat {
	h := plot.Heat{Title: "Cross attention by word", X: "prompt token", Y: "layer"}
	for _, word := range s.Words {
		if plain(word) == sign {
			word = ""
		}
		h.Columns = append(h.Columns, word)
	}
	for _, u := range s.Prompt {
		h.Rows, h.Values = append(h.Rows, strconv.Itoa(u.Layer)), append(h.Values, u.Mass)
	}
	return h
}
