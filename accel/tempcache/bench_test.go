package tempcache_test

import (
	"fmt"
	"testing"

	"longtake/accel/tempcache"
	"longtake/compute"
	"longtake/compute/cpu"
	"longtake/kvcache"
)

// worldShape is the cache of the embedded model.
var worldShape = kvcache.Shape{Layers: 6, Heads: 4, HeadDim: 64, Rows: 8, Columns: 8, ChunkFrames: 1,
	Pairs: [3]int{12, 10, 10}, Theta: [3]float64{256, 16, 16}, Clamp: 88}

// BenchmarkBegin is what merging costs a frame when the store is full of a thousand entries a head. Content "still" joins in
// every token, "motion" replaces an entry with every token.
func BenchmarkBegin(b *testing.B) {
	for _, search := range []struct {
		name string
		set  func(*tempcache.Policy)
	}{
		{"exact", func(p *tempcache.Policy) {}},
		{"exact-newest", func(p *tempcache.Policy) { p.Keep = tempcache.Newest }},
		{"neighbours", func(p *tempcache.Policy) { p.Search = tempcache.Neighbours }},
	} {
		for _, content := range []string{"still", "motion"} {
			b.Run(fmt.Sprintf("search=%s/content=%s", search.name, content), func(b *testing.B) {
				p := tempcache.Default()
				p.Budget.Frames = 19
				search.set(&p)
				begin(b, p, content == "motion")
			})
		}
	}
}

func begin(b *testing.B, p tempcache.Policy, motion bool) {
	dev, err := cpu.New(cpu.Options{Threads: 2})
	if err != nil {
		b.Fatal(err)
	}
	defer dev.Close()
	dq, _ := dev.NewQueue()
	defer dq.Close()
	cache, err := p.New(dev, dq, worldShape)
	if err != nil {
		b.Fatal(err)
	}
	defer cache.Close()
	arena, _ := dev.NewArena(0)
	defer arena.Free()
	pool := arena.Tensor(compute.F32, 64*64, 256) // 64 frames of keys
	dq.Noise(pool, compute.NoiseKey{Seed: 1})
	frame := func(i int, reuse bool) {
		if err := cache.Begin(dq, kvcache.Span{Start: i, Frames: 1}); err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		at := i % 64
		if reuse {
			at = i % 15
		}
		k := pool.Slice(0, at*64, (at+1)*64)
		for l := range worldShape.Layers {
			cache.Layer(l).Commit(dq, k.Heads(4), k.Heads(4))
		}
		cache.End()
		b.StartTimer()
	}
	i := 0
	for ; i < 60; i++ {
		frame(i, !motion)
	}
	b.ReportAllocs()
	b.ResetTimer()
	for range b.N {
		frame(i, !motion)
		i++
	}
	b.ReportMetric(cache.Stats().Tokens, "tokens")
}
