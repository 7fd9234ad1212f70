package dit_test

import (
	"encoding/binary"
	"fmt"
	"math"
	"testing"

	"longtake/compute"
	"longtake/dit"
	"longtake/internal/devicetest"
	"longtake/internal/golden"
	"longtake/kvcache"
	"longtake/weights"
)

// tiny is Wan-2.1's network in the sizes of testdata/golden/wan_causal_tiny.
var tiny = dit.Config{
	Dim: 128, Heads: 2, Layers: 3, FFN: 256, In: 64, Out: 64, Rows: 4, Columns: 6, ChunkFrames: 3,
	Conv: [3]int{16, 2, 2}, TextDim: 64, TextTokens: 32, FreqDim: 64, MaxPeriod: 10000,
	Pairs: [3]int{12, 10, 10}, Theta: [3]float64{10000, 10000, 10000}, Eps: 1e-6,
}

const promptTokens = 21 // rows of in.context before the zero padding

// network is a loaded model with one session's memory.
type network struct {
	dev   compute.Device
	dq    compute.Queue
	arena compute.Arena
	work  *dit.Work
	x, y  compute.Tensor
}

func load(t *testing.T, g *golden.Case, kernel string, passes int) *network {
	t.Helper()
	return loadSize(t, g, kernel, tiny, dit.Size{Frames: tiny.ChunkFrames, Passes: passes, PromptTokens: tiny.TextTokens})
}

func loadSize(t *testing.T, g *golden.Case, kernel string, config dit.Config, size dit.Size) *network {
	t.Helper()
	dev := devicetest.Open(t, kernel)
	dq, _ := dev.NewQueue()
	arena, _ := dev.NewArena(0)
	t.Cleanup(func() { dq.Close(); arena.Free(); dev.Close() })
	file, err := weights.Open("testdata/golden/wan_causal_tiny/weights.safetensors")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { file.Close() })
	audit := weights.NewAudit(file)
	m := dit.Load(weights.Placer{Audit: audit, Arena: arena, Queue: dq}, config, dit.WanNames)
	if err := audit.Err(); err != nil {
		t.Fatal(err)
	}
	n := max(size.Frames, size.Wide) * tiny.Tokens()
	net := &network{dev, dq, arena, m.NewWork(arena, dev.Types(), size), arena.Tensor(compute.F32, n, 64), arena.Tensor(compute.F32, n, 64)}

	// The prompt: its rows and one zero row for all the padding.
	rows := g.Floats(t, "global.safetensors", "in.context")[:(promptTokens+1)*tiny.TextDim]
	encoded := arena.Tensor(compute.F32, promptTokens+1, tiny.TextDim)
	dq.Upload(encoded, bytes(rows))
	net.work.Prompt(dq, encoded, config.TextTokens-promptTokens)
	return net
}

func (n *network) cache(t *testing.T, w kvcache.Window) kvcache.Cache {
	return n.cacheOf(t, w, tiny.CacheShape())
}

func (n *network) cacheOf(t *testing.T, w kvcache.Window, s kvcache.Shape) kvcache.Cache {
	s.DType = n.dev.Types().Cache
	c, err := w.New(n.dev, n.dq, s)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// tokens turns [channels, frames, rows, columns] (or frames first) into tokens (row, column, channel) of 2x2 patches.
func tokens(x []float32, frameMajor bool) []float32 {
	const channels, frames, height, width = 16, 3, 8, 12
	var out []float32
	for f := range frames {
		for r := 0; r < height; r += 2 {
			for c := 0; c < width; c += 2 {
				for i := range 4 {
					for ch := range channels {
						plane := ch*frames + f
						if frameMajor {
							plane = f*channels + ch
						}
						out = append(out, x[(plane*height+r+i/2)*width+c+i%2])
					}
				}
			}
		}
	}
	return out
}

func bytes(v []float32) []byte {
	var b []byte
	for _, x := range v {
		b = binary.LittleEndian.AppendUint32(b, math.Float32bits(x))
	}
	return b
}

func (n *network) floats(x compute.Tensor) []float32 {
	b := make([]byte, x.Bytes())
	n.dq.Download(b, x)
	out := make([]float32, x.Elems())
	for i := range out {
		out[i] = math.Float32frombits(binary.LittleEndian.Uint32(b[4*i:]))
	}
	return out
}

// tolerance of a kernel class: relative error of one forward.
func tolerance(dev compute.Device) float64 {
	if dev.Types().Cache == compute.BF16 {
		return 1.5e-2
	}
	return 1e-5
}

func TestPredictEqualsSelfForcing(t *testing.T) {
	g := golden.Load(t, "testdata/golden/wan_causal_tiny")
	defer g.Close()
	for _, kernel := range devicetest.Kernels() {
		for _, c := range []struct {
			file   string
			chunks int
			policy kvcache.Window
		}{
			{"global.safetensors", 3, kvcache.Window{Recent: kvcache.Full}},
			{"local.safetensors", 5, kvcache.Window{Anchor: 1, Recent: 2}}, // upstream: window 6, sink 1
		} {
			t.Run(fmt.Sprint("kernel=", kernel, " ", c.policy), func(t *testing.T) {
				n := load(t, g, kernel, 3)
				n.work.Schedule(n.dq, [][]float32{{1000, 1000, 1000}, {833.33337, 833.33337, 833.33337}, {0, 0, 0}})
				cache := n.cache(t, c.policy)
				in := g.Floats(t, c.file, "in.x")
				for chunk := range c.chunks {
					if err := cache.Begin(n.dq, kvcache.Span{Start: 3 * chunk, Frames: 3}); err != nil {
						t.Fatal(err)
					}
					for pass := range 3 {
						each := n.x.Elems()
						at := (chunk*3 + pass) * each
						n.dq.Upload(n.x, bytes(tokens(in[at:at+each], false)))
						n.work.Predict(n.dq, n.y, n.x, dit.Pass{Index: pass, Clean: pass == 2, Chunk: chunk}, cache)
						name := fmt.Sprintf("out.c%d.p%d", chunk, pass)
						golden.Near(t, name, n.floats(n.y), tokens(g.Floats(t, c.file, name), false), tolerance(n.dev))
					}
					cache.End()
				}
			})
		}
	}
}

// A clean pass may stop after the last block's keys: what follows in the cache is the same.
func TestAbsentDestinationLeavesTheSameKeys(t *testing.T) {
	g := golden.Load(t, "testdata/golden/wan_causal_tiny")
	defer g.Close()
	n := load(t, g, "", 2)
	n.work.Schedule(n.dq, [][]float32{{1000, 1000, 1000}, {0, 0, 0}})
	in := g.Floats(t, "global.safetensors", "in.x")[:n.x.Elems()]
	n.dq.Upload(n.x, bytes(tokens(in, false)))
	var views [2][]float32
	for i, dst := range []compute.Tensor{n.y, {}} {
		cache := n.cache(t, kvcache.Window{Recent: 3})
		if err := cache.Begin(n.dq, kvcache.Span{Start: 0, Frames: 3}); err != nil {
			t.Fatal(err)
		}
		n.work.Predict(n.dq, dst, n.x, dit.Pass{Index: 1, Clean: true}, cache)
		view := cache.Layer(tiny.Layers - 1).View()
		whole := n.arena.Tensor(compute.F32, view.Keys.Dim(0), view.Keys.Dim(1), view.Keys.Dim(2))
		n.dq.Copy(whole, view.Keys)
		views[i] = n.floats(whole)
	}
	golden.Near(t, "keys of the last block", views[1], views[0], 0)
}
