package analyze

import "math"

// Merging is what becomes of attention when keys of the past are merged by cosine, in the way of the paper's section 4.1 with
// exact search: tokens in order of time join the nearest entry if it is close enough, or become one.
type Merging struct {
	Space     string  `json:"space"`
	Keep      string  `json:"keep"` // which key stands for the members: newest or mean
	Threshold float64 `json:"threshold"`
	// Kept is the number of entries over that of past tokens.
	Kept float64 `json:"kept"`
	// Recall is the overlap of attention over past keys with that after merging: for every entry the smaller of what its
	// members hold in dense attention and what the entry holds (with the logarithm of their number on its logit).
	Recall float64 `json:"recall"`
}

// denseFrames before the chunk are never merged.
const denseFrames = 2

// merging is the paper's figure 10 for thresholds, at the last moment, by space and by the key that is kept.
func (c *clip) merging(layers []int, thresholds []float64) (out []Merging) {
	m := c.moments[len(c.moments)-1]
	if m.span.Start <= denseFrames {
		return nil
	}
	for _, how := range []struct {
		space space
		mean  bool
	}{{spatial, false}, {spatial, true}, {before, false}, {after, false}} {
		for _, threshold := range thresholds {
			heads := make([]Merging, len(layers)*c.Heads)
			parallel(len(heads), func(i int) {
				heads[i] = c.headMerging(m, layers[i/c.Heads], i%c.Heads, how.space, how.mean, threshold)
			})
			sum := Merging{Space: how.space.String(), Keep: "newest", Threshold: threshold}
			if how.mean {
				sum.Keep = "mean"
			}
			for _, h := range heads {
				sum.Kept += h.Kept / float64(len(heads))
				sum.Recall += h.Recall / float64(len(heads))
			}
			out = append(out, sum)
		}
	}
	return out
}

// entries are merged keys of one head.
type entries struct {
	d      int
	keys   []float32 // unrotated, of the member that is kept or the mean
	unit   []float32 // what is compared, of length 1
	counts []float64
	newest []int // number of the newest member
	of     []int // by token, its entry
}

// merge groups the first tokens of raw, whose compared forms of length 1 are unit.
func merge(raw, unit []float32, d, tokens int, threshold float64, mean bool) *entries {
	e := &entries{d: d, of: make([]int, tokens)}
	for i := range tokens {
		key := unit[i*d:][:d]
		at, nearest := -1, float32(threshold)
		for j := range e.counts {
			if cos := dot(key, e.unit[j*d:][:d]); cos >= nearest {
				at, nearest = j, cos
			}
		}
		if at < 0 {
			at = len(e.counts)
			e.keys, e.unit = append(e.keys, raw[i*d:][:d]...), append(e.unit, key...)
			e.counts, e.newest = append(e.counts, 0), append(e.newest, i)
		}
		e.join(at, i, raw[i*d:][:d], key, mean)
	}
	return e
}

// join makes token i a member.
func (e *entries) join(at, i int, raw, unit []float32, mean bool) {
	e.of[i], e.newest[at] = at, i
	e.counts[at]++
	k, u := e.keys[at*e.d:][:e.d], e.unit[at*e.d:][:e.d]
	if !mean {
		copy(k, raw)
		copy(u, unit)
		return
	}
	part := float32(1 / e.counts[at])
	for j := range k {
		k[j] += (raw[j] - k[j]) * part
		u[j] += (unit[j] - u[j]) * part
	}
	normalize(u, e.d)
}

func (c *clip) headMerging(m *moment, layer, h int, s space, mean bool, threshold float64) Merging {
	now, d, n := m.span.Start, c.HeadDim, c.tokens()
	raw := c.past(layer, h, 0, now, now, before)
	unit := c.past(layer, h, 0, now, now, s)
	normalize(unit, d)
	tokens := (now - denseFrames) * n
	e := merge(raw, unit, d, tokens, threshold, mean)
	// Entries, then the dense frames, each at the position of its newest member.
	of := e.of
	counts := e.counts
	t := newTurns(c.geometry)
	reps := make([]float32, 0, len(e.keys)+denseFrames*n*d)
	for j, at := range e.newest {
		reps = append(reps, e.keys[j*d:][:d]...)
		t.one(reps[len(reps)-d:], at%n, after, t.at(at/n, now))
	}
	dense := c.past(layer, h, 0, now, now, after)
	for i := tokens; i < now*n; i++ {
		of = append(of, len(counts))
		counts = append(counts, 1)
		reps = append(reps, dense[i*d:][:d]...)
	}
	query := c.query(m, layer, h)
	r := Merging{Kept: float64(len(counts)) / float64(now*n)}
	r.Recall = overlap(query, dense, reps, counts, of, d)
	return r
}

// overlap compares attention over keys with that over representatives, mean over queries.
func overlap(query, keys, reps []float32, counts []float64, of []int, d int) (recall float64) {
	want, got, held := make([]float64, len(keys)/d), make([]float64, len(counts)), make([]float64, len(counts))
	queries := len(query) / d
	for i := range queries {
		q := query[i*d:][:d]
		logits(want, q, keys)
		softmax(want)
		logits(got, q, reps)
		for j, n := range counts {
			got[j] += math.Log(n)
			held[j] = 0
		}
		softmax(got)
		for k, v := range want {
			held[of[k]] += v
		}
		for j := range got {
			recall += min(got[j], held[j]) / float64(queries)
		}
	}
	return recall
}
