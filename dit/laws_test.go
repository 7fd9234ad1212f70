package dit_test

import (
	"math/rand/v2"
	"testing"

	"longtake/compute"
	"longtake/dit"
	"longtake/internal/devicetest"
	"longtake/internal/golden"
	"longtake/kvcache"
	"longtake/weights"
)

// view downloads what the last block sees.
func (n *network) view(cache kvcache.Cache) (keys, values []float32) {
	v := cache.Layer(tiny.Layers - 1).View()
	whole := n.arena.Tensor(compute.F32, v.Keys.Dim(0), v.Keys.Dim(1), v.Keys.Dim(2))
	n.dq.Copy(whole, v.Keys)
	keys = n.floats(whole)
	n.dq.Copy(whole, v.Values)
	return keys, n.floats(whole)
}

// The 490 rows of padding of a prompt of 512 tokens, as one token with ln(490) on its logit (exact: merge lemma).
func TestMergedPaddingEqualsAllRowsOfPadding(t *testing.T) {
	g := golden.Load(t, "testdata/golden/wan_causal_tiny")
	defer g.Close()
	const rows = 512
	config := tiny
	config.TextTokens = rows
	n := loadSize(t, g, "float32", config, dit.Size{Frames: 3, Passes: 1, PromptTokens: rows})
	n.work.Schedule(n.dq, [][]float32{{1000, 1000, 1000}})
	in := g.Floats(t, "global.safetensors", "in.x")[:n.x.Elems()]
	predict := func() []float32 {
		n.dq.Upload(n.x, bytes(tokens(in, false)))
		cache := n.cache(t, kvcache.Window{Recent: 3})
		if err := cache.Begin(n.dq, kvcache.Span{Frames: 3}); err != nil {
			t.Fatal(err)
		}
		n.work.Predict(n.dq, n.y, n.x, dit.Pass{}, cache)
		return n.floats(n.y)
	}
	merged := predict()
	all := n.arena.Tensor(compute.F32, rows, tiny.TextDim)
	text := make([]float32, rows*tiny.TextDim)
	copy(text, g.Floats(t, "global.safetensors", "in.context")[:promptTokens*tiny.TextDim])
	n.dq.Upload(all, bytes(text))
	n.work.Prompt(n.dq, all, 0)
	golden.Near(t, "merged padding", merged, predict(), 1e-5)
	n.work.Prompt(n.dq, all.Slice(0, 0, promptTokens+1), 0) // one row as if it were the only one
	if d := golden.Compare(predict(), merged, 0); d.Relative < 1e-3 {
		t.Errorf("dropped padding differs by %v only: the test shows nothing", d.Relative)
	}
}

// Frames written again in one forward are those of one wide chunk.
func TestAWindowWrittenAgainIsAWideChunk(t *testing.T) {
	g := golden.Load(t, "testdata/golden/wan_causal_tiny")
	defer g.Close()
	n := loadSize(t, g, "float32", tiny, dit.Size{Frames: 3, Wide: 9, Passes: 1, PromptTokens: tiny.TextTokens})
	n.work.Schedule(n.dq, [][]float32{{0, 0, 0}})
	n.dq.Noise(n.x, compute.NoiseKey{Seed: 1})
	chunk := 3 * tiny.Tokens()
	cache := n.cache(t, kvcache.Window{Recent: 6})
	for i := range 3 {
		if err := cache.Begin(n.dq, kvcache.Span{Start: 3 * i, Frames: 3}); err != nil {
			t.Fatal(err)
		}
		n.work.Predict(n.dq, compute.Tensor{}, n.x.Slice(0, i*chunk, (i+1)*chunk), dit.Pass{Clean: true, Chunk: i}, cache)
		cache.End()
	}
	before, _ := n.view(cache)
	if err := cache.(kvcache.Rewinder).Redo(n.dq, 0); err != nil {
		t.Fatal(err)
	}
	n.work.Predict(n.dq, compute.Tensor{}, n.x, dit.Pass{Clean: true}, cache)
	cache.End()
	keys, values := n.view(cache)

	shape := tiny.CacheShape()
	shape.ChunkFrames = 9
	wide := n.cacheOf(t, kvcache.Window{Recent: 0}, shape)
	if err := wide.Begin(n.dq, kvcache.Span{Frames: 9}); err != nil {
		t.Fatal(err)
	}
	n.work.Predict(n.dq, compute.Tensor{}, n.x, dit.Pass{Clean: true}, wide)
	wantKeys, wantValues := n.view(wide)
	golden.Near(t, "keys", keys, wantKeys, 1e-6)
	golden.Near(t, "values", values, wantValues, 1e-6)
	if d := golden.Compare(keys, before, 0); d.Relative < 1e-3 {
		t.Errorf("chunk by chunk differs by %v only: the test shows nothing", d.Relative)
	}
}

// joint is the golden file with another patch embedding.
type joint struct {
	*weights.File
	patch compute.Host
}

func (j joint) Tensor(name string) (compute.Host, error) {
	if name == "patch_embedding.weight" {
		return j.patch, nil
	}
	return j.File.Tensor(name)
}

// A network from an image is one whose latents have more channels, of which the caller sets some once a chunk.
func TestGivenChannelsAreChannels(t *testing.T) {
	g := golden.Load(t, "testdata/golden/wan_causal_tiny")
	defer g.Close()
	const mask, latents, places = 4, 16, 4
	rng := rand.New(rand.NewPCG(1, 2))
	normal := func(n int) []float32 {
		out := make([]float32, n)
		for i := range out {
			out[i] = float32(rng.NormFloat64())
		}
		return out
	}
	patch := compute.Host{DType: compute.F32, Shape: []int{tiny.Dim, 16 + mask + latents, 1, 2, 2}, Data: bytes(normal(tiny.Dim * 36 * places))}
	whole, given := tiny, tiny
	whole.Conv[0], whole.In = 36, 36*places
	given.Conv[0], given.Given = 36, mask+latents
	for _, c := range []dit.Config{whole, given} {
		if err := c.Check(); err != nil {
			t.Fatal(err)
		}
	}
	bad := given
	bad.Given = 7
	if bad.Check() == nil {
		t.Error("7 given channels of 36 pass the check")
	}
	file, err := weights.Open("testdata/golden/wan_causal_tiny/weights.safetensors")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	dev := devicetest.Open(t, "float32")
	defer dev.Close()
	dq, _ := dev.NewQueue()
	defer dq.Close()
	n := tiny.ChunkFrames * tiny.Tokens()
	var noisy, held, x [2][]float32 // of two chunks; x is both, place by place
	for i := range 2 {
		noisy[i], held[i] = normal(n*places*16), normal(n*places*20)
		for p := range n * places {
			x[i] = append(append(x[i], noisy[i][16*p:16*p+16]...), held[i][20*p:20*p+20]...)
		}
	}
	placer := weights.Placer{Audit: weights.NewAudit(joint{file, patch}), Queue: dq}
	want := twoChunks(t, dev, placer, whole, x, nil)
	golden.Near(t, "given", twoChunks(t, dev, placer, given, noisy, held[:]), want, 1e-6)
}

// twoChunks predicts a chunk, and the next beside the clean pass of the first, with given channels if there are any.
func twoChunks(t *testing.T, dev compute.Device, p weights.Placer, c dit.Config, x [2][]float32, given [][]float32) []float32 {
	t.Helper()
	dq, n := p.Queue, tiny.ChunkFrames*tiny.Tokens()
	p.Arena, _ = dev.NewArena(0)
	defer p.Arena.Free()
	work := dit.Load(p, c, dit.WanNames).NewWork(p.Arena, dev.Types(), dit.Size{Frames: 3, Passes: 2, PromptTokens: 32, Pair: true})
	net := &network{dev: dev, dq: dq, arena: p.Arena, work: work}
	work.Schedule(dq, [][]float32{{1000, 1000, 1000}, {0, 0, 0}})
	encoded := p.Arena.Tensor(compute.F32, 4, tiny.TextDim)
	dq.Noise(encoded, compute.NoiseKey{Seed: 1})
	work.Prompt(dq, encoded, 0)
	cache := net.cache(t, kvcache.Window{Recent: 3}).(kvcache.Paired)
	both, y := p.Arena.Tensor(compute.F32, 2*n, c.In), p.Arena.Tensor(compute.F32, n, c.Out)
	for chunk := range 2 {
		if given != nil {
			h := p.Arena.Tensor(compute.F32, n, len(given[chunk])/n)
			dq.Upload(h, bytes(given[chunk]))
			work.Given(dq, h)
		}
		dq.Copy(both.Slice(0, 0, n), both.Slice(0, n, 2*n))
		dq.Upload(both.Slice(0, n, 2*n), bytes(x[chunk]))
		span := kvcache.Span{Start: 3 * chunk, Frames: 3}
		if chunk == 0 {
			if err := cache.Begin(dq, span); err != nil {
				t.Fatal(err)
			}
			work.Predict(dq, y, both.Slice(0, n, 2*n), dit.Pass{}, cache)
			continue
		}
		if err := cache.BeginPair(dq, span); err != nil {
			t.Fatal(err)
		}
		work.PredictPair(dq, y, both, 0, cache)
	}
	return net.floats(y)
}

// In steady state a forward asks the host for no memory, so that its launches can be recorded (compute.Batcher).
func TestForwardsAllocateNothing(t *testing.T) {
	g := golden.Load(t, "testdata/golden/wan_causal_tiny")
	defer g.Close()
	n := loadSize(t, g, "float32", tiny, dit.Size{Frames: 3, Passes: 2, PromptTokens: tiny.TextTokens, Pair: true})
	n.work.Schedule(n.dq, [][]float32{{1000, 1000, 1000}, {0, 0, 0}})
	cache := n.cache(t, kvcache.Window{Anchor: 3, Recent: 6}).(kvcache.Paired)
	both := n.arena.Tensor(compute.F32, 2*n.x.Dim(0), 64)
	n.dq.Noise(both, compute.NoiseKey{Seed: 1})
	if err := cache.Begin(n.dq, kvcache.Span{Frames: 3}); err != nil {
		t.Fatal(err)
	}
	for chunk := range 6 { // the window is full
		n.work.Predict(n.dq, n.y, n.x, dit.Pass{Chunk: chunk}, cache)
		if err := cache.BeginPair(n.dq, kvcache.Span{Start: 3*chunk + 3, Frames: 3}); err != nil {
			t.Fatal(err)
		}
		n.work.PredictPair(n.dq, n.y, both, chunk, cache)
		if chunk < 5 {
			cache.End()
		}
	}
	for name, f := range map[string]func(){
		"pair":  func() { n.work.PredictPair(n.dq, n.y, both, 5, cache) },
		"noisy": func() { n.work.Predict(n.dq, n.y, n.x, dit.Pass{Chunk: 6}, cache) },
		"clean": func() { n.work.Predict(n.dq, compute.Tensor{}, n.x, dit.Pass{Index: 1, Clean: true, Chunk: 6}, cache) },
	} {
		if allocations := testing.AllocsPerRun(5, f); allocations > 0 {
			t.Errorf("%s: %v allocations a forward", name, allocations)
		}
	}
}
