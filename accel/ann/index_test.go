package ann_test

import (
	"math"
	"math/rand/v2"
	"strings"
	"testing"

	"longtake/accel/ann"
)

var names = []string{"exact", "lsh16", "lsh64", "lsh64 centred", "lsh256", "lsh8x4+1", "lsh13x7+2", "quant2", "quant4", "quant8", "pq8", "pq16"}

func maker(t testing.TB, name string) ann.Maker {
	t.Helper()
	m, err := ann.Parse(name)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// structured returns keys around a few centres with a mean of their own, as attention keys are, and queries near keys.
func structured(rng *rand.Rand, keys, queries, width int) (k, q [][]float32) {
	vector := func(scale float64, around []float32) []float32 {
		v := make([]float32, width)
		for i := range v {
			v[i] = float32(rng.NormFloat64() * scale)
			if around != nil {
				v[i] += around[i]
			}
		}
		return v
	}
	mean := vector(1, nil)
	var centres [][]float32
	for range 30 {
		centres = append(centres, vector(0.8, mean))
	}
	for range keys {
		k = append(k, vector(0.3, centres[rng.IntN(len(centres))]))
	}
	for range queries {
		q = append(q, vector(0.4, k[rng.IntN(keys)]))
	}
	return k, q
}

func TestNamesAreReadBack(t *testing.T) {
	for _, name := range names {
		if got := maker(t, name).String(); got != name {
			t.Errorf("%q reads as %q", name, got)
		}
	}
	for _, bad := range []string{"", "lsh", "lsh0", "lsh-3", "lsh64x", "lsh64x2", "lsh8x0+1", "lsh8x4+9", "lsh9999", "quant3", "quant", "pq0", "pq", "exact 3", "LSH64", "quant8 centred"} {
		if m, err := ann.Parse(bad); err == nil || !strings.Contains(err.Error(), "known are exact") {
			t.Errorf("%q: %v, %v", bad, m, err)
		}
	}
}

// recall returns how many of the take best keys of each query are among the take best by the index.
func recall(m ann.Maker, keys, queries [][]float32, take int) float64 {
	exact, x := ann.Exact{}.New(len(keys[0]), 0), m.New(len(keys[0]), 0)
	for i, k := range keys {
		exact.Put(i, k)
		x.Put(i, k)
	}
	truth, guess := make([]float32, len(keys)), make([]float32, len(keys))
	hit := 0
	for _, q := range queries {
		exact.Score(truth, q, 0)
		x.Score(guess, q, 0)
		best := map[int]bool{}
		for range take {
			best[drain(truth)] = true
		}
		for range take {
			if best[drain(guess)] {
				hit++
			}
		}
	}
	return float64(hit) / float64(take*len(queries))
}

// drain returns the place of the largest score and takes it out.
func drain(scores []float32) int {
	at := 0
	for i, s := range scores {
		if s > scores[at] {
			at = i
		}
	}
	scores[at] = float32(math.Inf(-1))
	return at
}

func TestMoreBitsRecallMore(t *testing.T) {
	keys, queries := structured(rand.New(rand.NewPCG(1, 1)), 1500, 60, 64)
	got := map[string]float64{}
	for _, name := range names {
		got[name] = recall(maker(t, name), keys, queries, 75)
		t.Logf("%-14s finds %.3f of the best 5 %%", name, got[name])
	}
	if got["exact"] != 1 {
		t.Errorf("exact finds %v", got["exact"])
	}
	for _, order := range [][2]string{{"lsh16", "lsh64"}, {"lsh64", "lsh256"}, {"quant2", "quant4"}, {"quant4", "quant8"}, {"pq8", "pq16"}} {
		if got[order[0]] > got[order[1]] {
			t.Errorf("%s finds %.3f, %s only %.3f", order[0], got[order[0]], order[1], got[order[1]])
		}
	}
	if got["quant8"] < 0.97 || got["lsh256"] < 0.7 {
		t.Errorf("quant8 finds %.3f, lsh256 %.3f", got["quant8"], got["lsh256"])
	}
}

func TestNearestIsTheFirstOfTheBestScores(t *testing.T) {
	keys, queries := structured(rand.New(rand.NewPCG(2, 1)), 700, 20, 48)
	for _, name := range names {
		if name == "pq16" || name == "pq8" {
			continue // 48 is not a multiple of everything
		}
		x := maker(t, name).New(48, 10)
		if got := x.Nearest(queries[0], 0); got != -1 {
			t.Errorf("%s: nearest of none is %d", name, got)
		}
		for i, k := range keys {
			x.Put(i, k)
		}
		scores := make([]float32, 500)
		for _, q := range queries {
			x.Score(scores, q, 0)
			want, any := 0, false
			for i, s := range scores {
				any = any || !math.IsInf(float64(s), -1)
				if s > scores[want] {
					want = i
				}
			}
			if !any {
				want = -1
			}
			if got := x.Nearest(q, 500); got != want {
				t.Errorf("%s: nearest is %d, want %d", name, got, want)
			}
		}
	}
}

func TestPartsScoreLikeTheWhole(t *testing.T) {
	keys, queries := structured(rand.New(rand.NewPCG(3, 1)), 600, 5, 64)
	for _, name := range names {
		x := maker(t, name).New(64, 0)
		for i, k := range keys {
			x.Put(i, k)
		}
		whole, part := make([]float32, 600), make([]float32, 90)
		for _, q := range queries {
			x.Score(whole, q, 0)
			x.Score(part, q, 310)
			for i, s := range part {
				if d := math.Abs(float64(s - whole[310+i])); d > 1e-3 {
					t.Fatalf("%s: slot %d scores %v alone, %v among all", name, 310+i, s, whole[310+i])
				}
			}
		}
	}
}

func TestKeysMayBeReplacedAndForgotten(t *testing.T) {
	keys, queries := structured(rand.New(rand.NewPCG(4, 1)), 900, 4, 64)
	for _, name := range names {
		fresh, used := maker(t, name).New(64, 0), maker(t, name).New(64, 0)
		for i, k := range keys {
			used.Put(i%100, k)
		}
		used.Reset()
		for i, k := range keys {
			fresh.Put(i, k)
			used.Put(i, k)
		}
		a, b := make([]float32, 900), make([]float32, 900)
		for _, q := range queries {
			fresh.Score(a, q, 0)
			used.Score(b, q, 0)
			for i := range a {
				if a[i] != b[i] && !strings.HasPrefix(name, "pq") { // whose centroids stay
					t.Fatalf("%s: slot %d scores %v after Reset, %v in a new index", name, i, b[i], a[i])
				}
			}
		}
	}
}

func TestSteadyStateAllocatesNothing(t *testing.T) {
	keys, queries := structured(rand.New(rand.NewPCG(5, 1)), 1200, 4, 64)
	for _, name := range names {
		x := maker(t, name).New(64, 1200)
		for i, k := range keys {
			x.Put(i, k)
		}
		scores := make([]float32, 1200)
		x.Nearest(queries[0], 1200)
		if n := testing.AllocsPerRun(3, func() {
			x.Put(7, keys[8])
			x.Score(scores, queries[1], 0)
			x.Nearest(queries[2], 1200)
		}); n > 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
		if x.Bytes() <= 0 {
			t.Errorf("%s takes %d bytes", name, x.Bytes())
		}
	}
}

func TestAugmentedHashesRankByProduct(t *testing.T) {
	rng := rand.New(rand.NewPCG(6, 1))
	keys, queries := structured(rng, 1500, 60, 64)
	for i := range keys {
		f := float32(0.2 + 2*rng.Float64()) // lengths differ
		for j := range keys[i] {
			keys[i][j] *= f
		}
	}
	plain := recall(ann.LSH{Bits: 10, Tables: 6, Probes: 3}, keys, queries, 15)
	augmented := recall(ann.LSH{Bits: 10, Tables: 6, Probes: 3, Augment: true}, keys, queries, 15)
	t.Logf("buckets find %.3f of the best 1 %%, augmented %.3f", plain, augmented)
	if math.IsNaN(plain + augmented) {
		t.Error("no number")
	}
}

func TestManyQueriesScoreLikeOne(t *testing.T) {
	keys, queries := structured(rand.New(rand.NewPCG(5, 1)), 700, 9, 64)
	for _, name := range names {
		x := maker(t, name).New(64, 0)
		for i, k := range keys {
			x.Put(i, k)
		}
		var flat []float32
		for _, q := range queries {
			flat = append(flat, q...)
		}
		const lo, n = 13, 600
		got, row, want := make([]float32, n*len(queries)), make([]float32, 64), make([]float32, n)
		many, ok := x.(ann.Many)
		rows, isRows := x.(ann.Rows)
		if !ok || !many.ScoreMany(got, flat, len(queries), lo) {
			if !isRows {
				continue // one by one is all there is
			}
			for i := range n {
				rows.Row(row, lo+i)
				for r, q := range queries {
					got[i*len(queries)+r] = ann.Dot(q, row)
				}
			}
		}
		for r, q := range queries {
			x.Score(want, q, lo)
			for i, w := range want {
				if g := got[i*len(queries)+r]; math.Abs(float64(g-w)) > 1e-3*(1+math.Abs(float64(w))) {
					t.Fatalf("%s: query %d, key %d: %v, one by one %v", name, r, lo+i, g, w)
				}
			}
		}
	}
}
