package dit_test

import (
	"fmt"
	"testing"

	"longtake/compute"
	"longtake/dit"
	"longtake/internal/devicetest"
	"longtake/internal/golden"
	"longtake/kvcache"
	"longtake/weights"
)

// wide is tiny with the published width of a head and its rotary split.
var wide = dit.Config{
	Dim: 256, Heads: 2, Layers: 2, FFN: 512, In: 64, Out: 64, Rows: 4, Columns: 6, ChunkFrames: 3,
	Conv: [3]int{16, 2, 2}, TextDim: 64, TextTokens: 32, FreqDim: 256, MaxPeriod: 10000,
	Pairs: [3]int{22, 21, 21}, Theta: [3]float64{10000, 10000, 10000}, Eps: 1e-6,
}

func TestHeadsOf128EqualSelfForcing(t *testing.T) {
	const dir = "testdata/golden/wan_causal_hd128"
	g := golden.Load(t, dir)
	defer g.Close()
	x := g.Floats(t, "global.safetensors", "in.x")
	timesteps := g.Floats(t, "global.safetensors", "in.timesteps")
	const values = 16 * 3 * 8 * 12
	for _, kernel := range devicetest.Kernels() {
		t.Run("kernel="+kernel, func(t *testing.T) {
			dev := devicetest.Open(t, kernel)
			dq, _ := dev.NewQueue()
			arena, _ := dev.NewArena(0)
			file, err := weights.Open(dir + "/weights.safetensors")
			if err != nil {
				t.Fatal(err)
			}
			defer func() { dq.Close(); arena.Free(); dev.Close(); file.Close() }()
			audit := weights.NewAudit(file)
			m := dit.Load(weights.Placer{Audit: audit, Arena: arena, Queue: dq}, wide, dit.WanNames)
			if err := audit.Err(); err != nil {
				t.Fatal(err)
			}
			n := wide.ChunkFrames * wide.Tokens()
			net := &network{dev, dq, arena, m.NewWork(arena, dev.Types(), dit.Size{Frames: 3, Passes: 3, PromptTokens: 32}),
				arena.Tensor(compute.F32, n, 64), arena.Tensor(compute.F32, n, 64)}
			encoded := arena.Tensor(compute.F32, promptTokens+1, wide.TextDim)
			dq.Upload(encoded, bytes(g.Floats(t, "global.safetensors", "in.context")[:(promptTokens+1)*wide.TextDim]))
			net.work.Prompt(dq, encoded, wide.TextTokens-promptTokens)
			var levels [][]float32
			for _, v := range timesteps[:3] {
				levels = append(levels, []float32{v, v, v})
			}
			net.work.Schedule(dq, levels)
			cache := net.cacheOf(t, kvcache.Window{Recent: kvcache.Full}, wide.CacheShape())
			for chunk := range 3 {
				if err := cache.Begin(dq, kvcache.Span{Start: 3 * chunk, Frames: 3}); err != nil {
					t.Fatal(err)
				}
				for pass := range 3 {
					at := (chunk*3 + pass) * values
					dq.Upload(net.x, bytes(tokens(x[at:at+values], false)))
					net.work.Predict(dq, net.y, net.x, dit.Pass{Index: pass, Clean: pass == 2, Chunk: chunk}, cache)
					want := g.Floats(t, "global.safetensors", fmt.Sprintf("out.c%d.p%d", chunk, pass))
					golden.Near(t, fmt.Sprintf("chunk %d pass %d", chunk, pass), net.floats(net.y), tokens(want, false), tolerance(dev))
				}
				cache.End()
			}
		})
	}
}
