package tempcache_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"longtake/accel/tempcache"
	"longtake/compute"
	"longtake/compute/cpu"
	"longtake/kvcache"
)

// softmax is attention of one query in float64: keys, values and log counts are slices of the same length.
func softmax(query []float64, keys, values [][]float64, logCount []float64) []float64 {
	out := make([]float64, len(values[0]))
	logits, top := make([]float64, len(keys)), math.Inf(-1)
	for i, k := range keys {
		for j := range k {
			logits[i] += k[j] * query[j]
		}
		logits[i] = logits[i]/math.Sqrt(float64(len(query))) + logCount[i]
		top = max(top, logits[i])
	}
	sum := 0.0
	for i, l := range logits {
		w := math.Exp(l - top)
		sum += w
		for j, v := range values[i] {
			out[j] += w * v
		}
	}
	for j := range out {
		out[j] /= sum
	}
	return out
}

func normal(rng *rand.Rand, n int, scale float64) []float64 {
	out := make([]float64, n)
	for i := range out {
		out[i] = scale * rng.NormFloat64()
	}
	return out
}

// TestEqualKeysMergedAreDense is Lemma 5.1: groups of equal keys, one entry a group with the mean value and the log count.
func TestEqualKeysMergedAreDense(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	for range 300 {
		d := 1 + rng.IntN(24)
		var keys, values, mergedKeys, mergedValues [][]float64
		var counts []float64
		for range 1 + rng.IntN(6) {
			key, mean, n := normal(rng, d, 3), make([]float64, d), 1+rng.IntN(40)
			for i := range n {
				v := normal(rng, d, 2)
				keys, values = append(keys, key), append(values, v)
				for j := range mean {
					mean[j] += (v[j] - mean[j]) / float64(i+1)
				}
			}
			mergedKeys, mergedValues, counts = append(mergedKeys, key), append(mergedValues, mean), append(counts, math.Log(float64(n)))
		}
		q := normal(rng, d, 2)
		dense, merged := softmax(q, keys, values, make([]float64, len(keys))), softmax(q, mergedKeys, mergedValues, counts)
		for j := range dense {
			if math.Abs(dense[j]-merged[j]) > 1e-12 {
				t.Fatalf("element %d is %v, dense %v", j, merged[j], dense[j])
			}
		}
	}
}

// TestTheBoundIsNeverExceeded merges keys that differ, at random and against us: if no logit moves by more than e, the output
// moves by at most 2 R tanh(e/2), where R is the radius of the values.
func TestTheBoundIsNeverExceeded(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 6))
	tightest := 0.0
	for trial := range 3000 {
		d := 1 + rng.IntN(8)
		q, spread := normal(rng, d, 2), math.Exp(3*rng.Float64()-2)
		var keys, values, mergedKeys, mergedValues [][]float64
		var counts []float64
		moved := 0.0
		for range 1 + rng.IntN(4) {
			kept, mean, n := normal(rng, d, 1), make([]float64, d), 1+rng.IntN(6)
			for i := range n {
				key, v := make([]float64, d), normal(rng, d, 1)
				delta := normal(rng, d, spread)
				if trial%2 == 1 { // along the query, and the value goes with it: the worst that can be
					sign := float64(2*rng.IntN(2) - 1)
					for j := range q {
						delta[j] = sign * spread * q[j]
						v[j] = sign * 10
					}
				}
				logit := 0.0
				for j := range key {
					key[j] = kept[j] + delta[j]
					logit += delta[j] * q[j]
					mean[j] += (v[j] - mean[j]) / float64(i+1)
				}
				moved = max(moved, math.Abs(logit)/math.Sqrt(float64(d)))
				keys, values = append(keys, key), append(values, v)
			}
			mergedKeys, mergedValues, counts = append(mergedKeys, kept), append(mergedValues, mean), append(counts, math.Log(float64(n)))
		}
		dense, merged := softmax(q, keys, values, make([]float64, len(keys))), softmax(q, mergedKeys, mergedValues, counts)
		// The radius of a ball that holds all values: around their mean, not the least one, so the bound is no tighter.
		centre, radius, off := make([]float64, d), 0.0, 0.0
		for _, v := range values {
			for j := range v {
				centre[j] += v[j] / float64(len(values))
			}
		}
		for _, v := range values {
			radius = max(radius, distance(v, centre))
		}
		off = distance(dense, merged)
		if bound := 2 * radius * math.Tanh(moved/2); off > bound+1e-12 {
			t.Fatalf("trial %d: output moved by %v, bound %v (logits by %v, radius %v)", trial, off, bound, moved, radius)
		} else if bound > 0 {
			tightest = max(tightest, off/bound)
		}
	}
	if tightest < 0.3 {
		t.Errorf("the largest movement was %v of the bound: the trials are too tame", tightest)
	}
}

func distance(a, b []float64) float64 {
	sum := 0.0
	for i := range a {
		sum += (a[i] - b[i]) * (a[i] - b[i])
	}
	return math.Sqrt(sum)
}

// small is a model without rotation in time, so that a still picture has equal keys.
var small = kvcache.Shape{Layers: 1, Heads: 2, HeadDim: 16, Rows: 2, Columns: 4, ChunkFrames: 1, Pairs: [3]int{0, 4, 4}, Theta: [3]float64{1, 16, 16}}

// bench runs frames through a cache and attends at the end.
type bench struct {
	t            *testing.T
	dev          compute.Device
	dq           compute.Queue
	arena        compute.Arena
	cache        kvcache.Cache
	shape        kvcache.Shape
	keys, values compute.Tensor
	asks         []float32 // queries that the cache sees, if it wants to
	n            int
}

func newBench(t *testing.T, p kvcache.Policy, s kvcache.Shape) *bench {
	dev, err := cpu.New(cpu.Options{Threads: 1})
	if err != nil {
		t.Fatal(err)
	}
	dq, _ := dev.NewQueue()
	cache, err := p.New(dev, dq, s)
	if err != nil {
		t.Fatal(err)
	}
	arena, _ := dev.NewArena(0)
	t.Cleanup(func() { cache.Close(); arena.Free(); dq.Close(); dev.Close() })
	b := &bench{t: t, dev: dev, dq: dq, arena: arena, cache: cache, shape: s}
	b.keys, b.values = arena.Tensor(compute.F32, s.Tokens(), s.Heads*s.HeadDim), arena.Tensor(compute.F32, s.Tokens(), s.Heads*s.HeadDim)
	return b
}

// frame commits a frame's keys and values [tokens, heads*headDim].
func (b *bench) frame(keys, values []float32) {
	b.t.Helper()
	if err := b.cache.Begin(b.dq, kvcache.Span{Start: b.n, Frames: 1}); err != nil {
		b.t.Fatal(err)
	}
	upload(b.dq, b.keys, keys)
	upload(b.dq, b.values, values)
	for l := range b.shape.Layers {
		b.cache.Layer(l).Commit(b.dq, b.keys.Heads(b.shape.Heads), b.values.Heads(b.shape.Heads))
		if w := b.cache.Layer(l).View().Watcher; w != nil && b.asks != nil {
			upload(b.dq, b.keys, b.asks)
			w.Watch(b.dq, b.keys.Heads(b.shape.Heads))
		}
	}
	b.cache.End()
	b.n++
}

// attend begins the next frame with drafts and attends with queries.
func (b *bench) attend(keys, values, queries []float32) []float32 {
	b.t.Helper()
	if err := b.cache.Begin(b.dq, kvcache.Span{Start: b.n, Frames: 1}); err != nil {
		b.t.Fatal(err)
	}
	upload(b.dq, b.keys, keys)
	upload(b.dq, b.values, values)
	b.cache.Layer(0).Draft(b.dq, b.keys.Heads(b.shape.Heads), b.values.Heads(b.shape.Heads))
	q, out := b.arena.Tensor(compute.F32, b.shape.Tokens(), b.shape.Heads*b.shape.HeadDim), b.arena.Tensor(compute.F32, b.shape.Tokens(), b.shape.Heads*b.shape.HeadDim)
	upload(b.dq, q, queries)
	rope, pos := b.cache.Rope()
	b.dq.Rope(q.Heads(b.shape.Heads), q.Heads(b.shape.Heads), pos, rope)
	v := b.cache.Layer(0).View()
	b.dq.Attend(out.Heads(b.shape.Heads), q.Heads(b.shape.Heads), v.Keys, v.Values,
		compute.Attention{Scale: float32(1 / math.Sqrt(float64(b.shape.HeadDim))), LogCount: v.LogCount, Lengths: v.Lengths})
	return download(b.t, b.dq, out)
}

func numbers(rng *rand.Rand, s kvcache.Shape) []float32 {
	out := make([]float32, s.Tokens()*s.Heads*s.HeadDim)
	for i := range out {
		out[i] = float32(rng.NormFloat64())
	}
	return out
}

// TestAStillPictureIsDense runs the lemma through the device: equal keys in every frame and other values merge into one
// entry a token, and attention stays what the full cache gives.
func TestAStillPictureIsDense(t *testing.T) {
	for name, p := range map[string]tempcache.Policy{"mean": tempcache.Prototype(), "newest": tempcache.Paper(), "lossless": {Recent: 2, Threshold: 1}} {
		p.ByQuery, p.Threshold = false, max(p.Threshold, 0.999)
		full, merged := newBench(t, kvcache.Window{Recent: kvcache.Full}, small), newBench(t, p, small)
		rng := rand.New(rand.NewPCG(7, 8))
		keys := numbers(rng, small)
		for range 60 {
			values := numbers(rng, small)
			full.frame(keys, values)
			merged.frame(keys, values)
		}
		k, v, q := numbers(rng, small), numbers(rng, small), numbers(rng, small)
		want, got := full.attend(k, v, q), merged.attend(k, v, q)
		for i := range want {
			if math.Abs(float64(want[i]-got[i])) > 3e-6 {
				t.Fatalf("%s: element %d is %v, the full cache gives %v", name, i, got[i], want[i])
			}
		}
		if s := merged.cache.Stats(); s.Heads[0].Kept != small.Tokens() {
			t.Errorf("%s: %+v, want an entry a token", name, s.Heads[0])
		}
	}
}

// TestThresholdOneIsDense merges nothing unless equal in all bits.
func TestThresholdOneIsDense(t *testing.T) {
	s := worldShape
	s.Layers = 1
	p := tempcache.Default()
	p.Threshold = 1
	full, merged := newBench(t, kvcache.Window{Recent: kvcache.Full}, s), newBench(t, p, s)
	rng := rand.New(rand.NewPCG(9, 10))
	keys := numbers(rng, s)
	for f := range 100 { // beyond the clamp
		if f%3 == 0 {
			keys = numbers(rng, s)
		}
		values := numbers(rng, s)
		full.frame(keys, values)
		merged.frame(keys, values)
	}
	k, v, q := numbers(rng, s), numbers(rng, s), numbers(rng, s)
	want, got := full.attend(k, v, q), merged.attend(k, v, q)
	for i := range want {
		if math.Abs(float64(want[i]-got[i])) > 3e-6 {
			t.Fatalf("element %d is %v, the full cache gives %v", i, got[i], want[i])
		}
	}
	if h := merged.cache.Stats().Heads[0]; h.Merged != 0 {
		t.Errorf("%+v: merged", h)
	}
}

// TestGroupsOfEqualKeysDoNotDependOnTheOrder feeds the same tokens in other orders. Every frame is one token at one place, so
// that nothing but the order differs.
func TestGroupsOfEqualKeysDoNotDependOnTheOrder(t *testing.T) {
	s := small
	s.Rows, s.Columns = 1, 1
	rng := rand.New(rand.NewPCG(11, 12))
	const things = 5
	var keys, values [][]float32
	for range things {
		keys = append(keys, numbers(rng, s))
	}
	order := make([]int, 60)
	for i := range order {
		order[i] = i
		values = append(values, numbers(rng, s))
	}
	last := [3][]float32{numbers(rng, s), numbers(rng, s), numbers(rng, s)}
	p := tempcache.Prototype()
	p.Threshold, p.Recent = 0.9999, 0
	var want []float32
	for range 6 {
		for _, p := range []kvcache.Policy{kvcache.Window{Recent: kvcache.Full}, p} {
			b := newBench(t, p, s)
			for _, i := range order {
				b.frame(keys[i%things], values[i])
			}
			got := b.attend(last[0], last[1], last[2])
			if want == nil {
				want = got
			}
			for i := range want {
				if math.Abs(float64(want[i]-got[i])) > 3e-6 {
					t.Fatalf("%v: element %d is %v, in another order %v", p, i, got[i], want[i])
				}
			}
			for _, h := range b.cache.Stats().Heads {
				if h.Kept != things || h.Merged != int64(len(order)-things) {
					t.Fatalf("%+v, want %d groups", h, things)
				}
			}
		}
		rng.Shuffle(len(order), func(i, j int) { order[i], order[j] = order[j], order[i] })
	}
}

func TestImpossiblePoliciesAreRefused(t *testing.T) {
	dev, err := cpu.New(cpu.Options{Threads: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer dev.Close()
	dq, _ := dev.NewQueue()
	defer dq.Close()
	change := func(f func(*tempcache.Policy)) tempcache.Policy {
		p := tempcache.Default()
		f(&p)
		return p
	}
	smallest := change(func(p *tempcache.Policy) { p.Budget.Frames = 3 }).Bytes(dev, worldShape)
	for name, c := range map[string]struct {
		policy tempcache.Policy
		says   string
	}{
		"budget in frames": {change(func(p *tempcache.Policy) { p.Anchor, p.Budget.Frames = 1, 3 }), "at least 4"},
		"budget in bytes":  {change(func(p *tempcache.Policy) { p.Budget.Bytes = smallest - 1 }), fmt.Sprint("at least ", smallest)},
		"shares":           {change(func(p *tempcache.Policy) { p.Shares = []float64{1, 2} }), "6 layers, or for each of 24 heads"},
		"two budgets":      {change(func(p *tempcache.Policy) { p.Budget = tempcache.Budget{Frames: 9, Bytes: 1 << 30} }), "give one"},
		"threshold":        {change(func(p *tempcache.Policy) { p.Threshold = 1.5 }), "1.5"},
		"no threshold":     {tempcache.Policy{Recent: 2}, "cosine"},
		"nan":              {change(func(p *tempcache.Policy) { p.Threshold = math.NaN() }), "NaN"},
		"recent":           {change(func(p *tempcache.Policy) { p.Recent = 88 }), "up to 87"},
		"negative":         {change(func(p *tempcache.Policy) { p.Anchor = -1 }), "negative"},
		"no index":         {change(func(p *tempcache.Policy) { p.Search = tempcache.Approximate }), "index"},
		"shared by query":  {change(func(p *tempcache.Policy) { p.Shared, p.ByQuery = true, true }), "query"},
	} {
		_, err := c.policy.New(dev, dq, worldShape)
		if err == nil || !contains(err.Error(), c.says) {
			t.Errorf("%s: error %v, want one that says %q", name, err, c.says)
		}
	}
	exact := change(func(p *tempcache.Policy) { p.Budget.Bytes = smallest })
	cache, err := exact.New(dev, dq, worldShape)
	if err != nil {
		t.Fatalf("the smallest budget that the error names: %v", err)
	}
	if got := cache.Stats().Bytes; got > smallest {
		t.Errorf("%d bytes taken, the budget is %d", got, smallest)
	}
	cache.Close()
}

func contains(s, part string) bool {
	for i := 0; i+len(part) <= len(s); i++ {
		if s[i:i+len(part)] == part {
			return true
		}
	}
	return false
}

// TestABudgetInBytesIsUsedUp gives a budget and looks how much of it is taken.
func TestABudgetInBytesIsUsedUp(t *testing.T) {
	dev, err := cpu.New(cpu.Options{Threads: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer dev.Close()
	for _, budget := range []int64{6 << 20, 10 << 20, 100 << 20} {
		p := tempcache.Default()
		p.Budget.Bytes = budget
		if got := p.Bytes(dev, worldShape); got > budget || got < budget-budget/50-100_000 {
			t.Errorf("budget of %d bytes: %d used", budget, got)
		}
	}
}

// TestAFloorOfMinusOneForgetsNothing shows a full cache frames of which every token is new.
func TestAFloorOfMinusOneForgetsNothing(t *testing.T) {
	s := small
	s.Rows, s.Columns = 5, 7
	for _, radius := range []int{0, 1} {
		p := tempcache.Prototype()
		p.Recent, p.Search, p.Radius, p.Depth, p.Floor = 0, tempcache.Neighbours, radius, 1, -1
		p.Budget.Frames = s.ChunkFrames + 1
		b, rng := newBench(t, p, s), rand.New(rand.NewPCG(5, uint64(radius)))
		for range 40 {
			b.frame(numbers(rng, s), numbers(rng, s))
		}
		for h, x := range b.cache.Stats().Heads {
			if x.Evicted != 0 || x.Merged == 0 {
				t.Errorf("radius %d, head %d: %+v, want none evicted", radius, h, x)
			}
		}
	}
}

// TestGrowthIsKnownBeforehand shows a cache without a budget nothing but new keys.
func TestGrowthIsKnownBeforehand(t *testing.T) {
	p := tempcache.Default()
	p.Threshold = 0.999
	rng := rand.New(rand.NewPCG(4, 5))
	for _, frames := range []int{5, 11, 12, 30} {
		b := newBench(t, p, worldShape)
		last := b.cache.Stats().Bytes
		most := last
		for range frames {
			b.frame(numbers(rng, worldShape), numbers(rng, worldShape))
			if now := b.cache.Stats().Bytes; now != last {
				most, last = last+now, now
			}
		}
		if got := p.MostBytes(b.dev, worldShape, frames); got != most {
			t.Errorf("%d frames: %d bytes foreseen, %d taken", frames, got, most)
		}
	}
}

// TestOnlyBothDifferencesAreAChange: keys may differ where values do not and the other way round; where both do, nothing is merged.
func TestOnlyBothDifferencesAreAChange(t *testing.T) {
	p := tempcache.Prototype()
	p.Threshold, p.MaxChange = 0.5, 0.01
	for _, c := range []struct {
		name         string
		keys, values float32 // how far those of a frame are from those of the first
		merges       bool
	}{{"values", 0, 1, true}, {"keys", 0.3, 0, true}, {"both", 0.3, 1, false}} {
		b, rng := newBench(t, p, small), rand.New(rand.NewPCG(3, 4))
		keys, values := numbers(rng, small), numbers(rng, small)
		for range 6 {
			k, v := numbers(rng, small), numbers(rng, small)
			for i := range k {
				k[i], v[i] = keys[i]+c.keys*k[i], values[i]+c.values*v[i]
			}
			b.asks = numbers(rng, small)
			b.frame(k, v)
		}
		for i, h := range b.cache.Stats().Heads {
			if want := int64(2 * small.Tokens()); c.merges && h.Merged != want || !c.merges && h.Merged > 0 {
				t.Errorf("%s differ: head %d kept %d and merged %d tokens", c.name, i, h.Kept, h.Merged)
			}
		}
	}
}
