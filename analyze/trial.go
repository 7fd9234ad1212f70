package analyze

import (
	"encoding/binary"
	"math"

	"longtake/attention"
	"longtake/compute"
)

// TrialRow is how close attention over a cache on trial comes to dense attention over all keys, for the same queries on the
// same history: mean over examined chunks, layers, heads and queries.
type TrialRow struct {
	Name      string  `json:"name"`
	Group     string  `json:"group"`
	Threshold float64 `json:"threshold"`
	// Kept is the number of keys in view over that of the full cache, the chunk's own included.
	Kept float64 `json:"kept"`
	// Error is the length of the difference of the outputs over that of the dense output, Cosine their cosine.
	Error  float64 `json:"error"`
	Cosine float64 `json:"cosine"`
}

// tried is one comparison.
type tried struct {
	trial               int
	kept, error, cosine float64
}

// try asks the caches on trial what dst was computed from.
func (r *recorder) try(dq compute.Queue, at attention.Site, dst, query compute.Tensor) {
	if len(r.cache.shadows) == 0 {
		return
	}
	// The dense output once more, since dst may be rounded.
	whole := r.cache.Cache.Layer(at.Layer).View()
	out := r.scrap.room(&r.scrap.second, dst)
	attention.Dense{}.Attend(dq, at, out, query, whole)
	want, all := r.scrap.download(dq, out), float64(whole.Keys.Dim(1))
	for i, s := range r.cache.shadows {
		view := s.Layer(at.Layer).View()
		attention.Dense{}.Attend(dq, at, out, query, view)
		t := tried{trial: i, kept: float64(view.Keys.Dim(1)) / all}
		got := r.scrap.download(dq, out)
		if !view.Lengths.IsZero() {
			b, sum := make([]byte, view.Lengths.Bytes()), 0.0
			dq.Download(b, view.Lengths)
			for j := 0; j < len(b); j += 4 {
				sum += float64(int32(binary.LittleEndian.Uint32(b[j:])))
			}
			t.kept = sum / float64(len(b)/4) / all
		}
		t.error, t.cosine = distance(got, want, r.clip.HeadDim)
		r.clip.tried = append(r.clip.tried, t)
	}
}

// distance compares rows of width d: mean relative error and cosine.
func distance(got, want []float32, d int) (relative, cosine float64) {
	rows := len(want) / d
	for i := range rows {
		var diff, g, w, both float64
		for j := i * d; j < (i+1)*d; j++ {
			a, b := float64(got[j]), float64(want[j])
			diff, g, w, both = diff+(a-b)*(a-b), g+a*a, w+b*b, both+a*b
		}
		relative += math.Sqrt(diff/max(w, 1e-300)) / float64(rows)
		cosine += both / max(math.Sqrt(g*w), 1e-300) / float64(rows)
	}
	return relative, cosine
}

// trials sums up.
func (c *clip) trials(list []Trial) []TrialRow {
	out, count := make([]TrialRow, len(list)), make([]float64, len(list))
	for _, t := range c.tried {
		count[t.trial]++
	}
	for i, t := range list {
		out[i] = TrialRow{Name: t.Name, Group: t.Group, Threshold: t.Threshold}
	}
	for _, t := range c.tried {
		r, n := &out[t.trial], count[t.trial]
		r.Kept, r.Error, r.Cosine = r.Kept+t.kept/n, r.Error+t.error/n, r.Cosine+t.cosine/n
	}
	return out
}
