package dit_test

import (
	"testing"

	"longtake/compute"
	"longtake/compute/cpu"
	"longtake/dit"
	"longtake/internal/golden"
	"longtake/kvcache"
)

// float32Kernel is the CPU's best class of kernels that computes in float32.
func float32Kernel(t testing.TB) string {
	t.Helper()
	for _, kernel := range cpu.Kernels() {
		dev := openDevice(t, kernel)
		defer dev.Close()
		if dev.Types().Cache == compute.F32 {
			return kernel
		}
	}
	t.Fatal("no kernels in float32")
	return ""
}

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
	n := loadSize(t, g, float32Kernel(t), config, dit.Size{Frames: 3, Passes: 1, PromptTokens: rows})
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
	n := loadSize(t, g, float32Kernel(t), tiny, dit.Size{Frames: 3, Wide: 9, Passes: 1, PromptTokens: tiny.TextTokens})
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
