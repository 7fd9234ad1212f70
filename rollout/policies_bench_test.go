package rollout_test

import (
	"cmp"
	"slices"
	"strings"
	"testing"
	"time"

	"longtake/accel/annca"
	"longtake/accel/annsa"
	"longtake/accel/tempcache"
	"longtake/attention"
	"longtake/kvcache"
	"longtake/rollout"
)

// policyAtSize is a policy as a user of Wan 1.3B has it.
type policyAtSize struct {
	name string
	rollout.Request
	chunks int
}

func policiesAtSize() []policyAtSize {
	merged := func(change func(*tempcache.Policy)) kvcache.Policy {
		p := tempcache.Default()
		change(&p)
		return p
	}
	balanced := func(s tempcache.Search) kvcache.Policy {
		return merged(func(p *tempcache.Policy) { p.Recent, p.Budget.Frames, p.Search = 8, 28, s })
	}
	fast := func(s tempcache.Search) kvcache.Policy {
		return merged(func(p *tempcache.Policy) { p.Recent, p.Budget.Frames, p.Search, p.Threshold = 4, 14, s, 0.85 })
	}
	paper := tempcache.Paper()
	paper.Budget.Frames = 28
	window := kvcache.Window{Anchor: 3, Recent: 15}
	sparse, wide := annsa.Default().Coarse(1560), annsa.Default().Coarse(1560)
	wide.Tile = 128
	tenth := sparse
	tenth.Fraction = 0.1
	return []policyAtSize{
		{"window", rollout.Request{Cache: window}, 12},
		{"full", rollout.Request{Cache: kvcache.Window{Recent: kvcache.Full, Room: 36}}, 12},
		{"balanced", rollout.Request{Cache: balanced(tempcache.Exact)}, 14},
		{"balanced neighbours", rollout.Request{Cache: balanced(tempcache.Neighbours)}, 14},
		{"fast", rollout.Request{Cache: fast(tempcache.Exact)}, 10},
		{"fast neighbours", rollout.Request{Cache: fast(tempcache.Neighbours)}, 10},
		{"paper's cache", rollout.Request{Cache: paper, Self: tempcache.Watching(attention.Dense{})}, 14},
		{"annsa 64", rollout.Request{Cache: window, Self: sparse}, 12},
		{"annsa 128", rollout.Request{Cache: window, Self: wide}, 12},
		{"annsa 64 tenth, full", rollout.Request{Cache: kvcache.Window{Recent: kvcache.Full, Room: 48}, Self: tenth}, 16},
		{"dense, full", rollout.Request{Cache: kvcache.Window{Recent: kvcache.Full, Room: 48}}, 16},
		{"annca", rollout.Request{Cache: window, Cross: annca.Default()}, 6},
		{"annca buckets", rollout.Request{Cache: window, Cross: annca.Paper()}, 6},
		{"no budget", rollout.Request{Cache: tempcache.Default()}, 10},
	}
}

// Chunks of the 1.3B network under each policy, one after the other from the first: ms of every chunk, entries, and memory beside what
// was predicted.
func BenchmarkPolicies(b *testing.B) {
	for _, prompt := range []int{22, 512} {
		e := noiseEngine(b, wan13, prompt)
		for _, p := range policiesAtSize() {
			if prompt == 512 && !strings.HasPrefix(p.name, "annca") && p.name != "window" {
				continue
			}
			b.Run(strings.ReplaceAll(p.name, " ", "-"), func(b *testing.B) {
				for b.Loop() {
					policyChunks(b, e, p, prompt)
				}
			})
		}
	}
}

func policyChunks(b *testing.B, e *rollout.Engine, p policyAtSize, prompt int) {
	want, err := e.SessionBytes(p.Request)
	if err != nil {
		b.Fatal(err)
	}
	before := e.Device.Memory().Used
	s, err := e.Open(b.Context(), p.Request)
	if err != nil {
		b.Logf("%s: %v", p.name, err)
		return
	}
	defer s.Close()
	var took []float64
	for range p.chunks {
		began := time.Now()
		if _, err := s.Next(b.Context()); err != nil {
			b.Logf("%s: %v", p.name, err)
			return
		}
		if _, err := s.Latents(); err != nil { // waits
			b.Fatal(err)
		}
		took = append(took, float64(time.Since(began).Microseconds()/100)/10)
	}
	used, stats := e.Device.Memory().Used-before, s.Stats()
	most := kvcache.HeadStats{}
	if len(stats.Heads) > 0 {
		most = slices.MaxFunc(stats.Heads, func(x, y kvcache.HeadStats) int { return cmp.Compare(x.Kept, y.Kept) })
	}
	b.Logf("%s, prompt %d: ms %v; host in Begin %v; tokens %.0f, fullest head %+v; taken %.3f GiB, predicted %.3f (%.1f %%)", p.name, prompt, took, stats.Compacting.Round(time.Millisecond),
		stats.Tokens, most, float64(used)/(1<<30), float64(want)/(1<<30), 100*float64(used)/float64(want))
	b.ReportMetric(took[len(took)-1], "ms/chunk")
}
