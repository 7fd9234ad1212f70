package rollout_test

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
	"longtake/rollout"
	"longtake/sampler"
	"longtake/text"
	"longtake/video"
	"longtake/weights"
)

// wan is the network of dit/testdata/golden/wan_causal_tiny.
var wan = dit.Config{
	Dim: 128, Heads: 2, Layers: 3, FFN: 256, In: 64, Out: 64, Rows: 4, Columns: 6, ChunkFrames: 3,
	Conv: [3]int{16, 2, 2}, TextDim: 64, TextTokens: 32, FreqDim: 64, MaxPeriod: 10000,
	Pairs: [3]int{12, 10, 10}, Theta: [3]float64{10000, 10000, 10000}, Eps: 1e-6,
}

// fixedText is a Prompter that always answers with the golden prompt: 21 rows, and one for the padding.
type fixedText struct{ encoded compute.Tensor }

func (f fixedText) MaxTokens() int { return wan.TextTokens }
func (f fixedText) Encode(compute.Queue, string) (compute.Tensor, int, []text.Unknown, error) {
	return f.encoded, wan.TextTokens - 21, nil, nil
}

// noFrames is a Decoder for tests that look at latents.
type noFrames struct{}

func (noFrames) Decode(compute.Queue, compute.Tensor, int) ([]video.Frame, error) { return nil, nil }
func (noFrames) Feed(compute.Queue, compute.Tensor, int) error                    { return nil }
func (noFrames) Again() bool                                                      { return true }

func wanEngine(t *testing.T, g *golden.Case, kernel string) *rollout.Engine {
	t.Helper()
	dev := devicetest.Open(t, kernel)
	dq, _ := dev.NewQueue()
	arena, _ := dev.NewArena(0)
	t.Cleanup(func() { dq.Close(); arena.Free(); dev.Close() })
	file, err := weights.Open("../dit/testdata/golden/wan_causal_tiny/weights.safetensors")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { file.Close() })
	network := dit.Load(weights.Placer{Audit: weights.NewAudit(file), Arena: arena, Queue: dq}, wan, dit.WanNames)
	encoded := arena.Tensor(compute.F32, 22, wan.TextDim)
	dq.Upload(encoded, bytes(g.Floats(t, "self_forcing.safetensors", "in.context")[:22*wan.TextDim]))
	return rollout.NewEngine(dev, arena, rollout.Parts{
		Network: network, Text: fixedText{encoded}, CacheShape: wan.CacheShape(), Cache: kvcache.Window{Recent: kvcache.Full},
		NewDecoder: func(compute.Arena, bool) (rollout.Decoder, error) { return noFrames{}, nil },
		NewSolver:  func(int) (*sampler.Solver, error) { return sampler.Warped([]int{1000, 750, 500, 250}, 5) },
	})
}

func bytes(v []float32) []byte {
	var b []byte
	for _, x := range v {
		b = binary.LittleEndian.AppendUint32(b, math.Float32bits(x))
	}
	return b
}

// tokens turns [frames, channels, rows, columns] into tokens (row, column, channel) of 2x2 patches.
func tokens(x []float32) []float32 {
	const channels, height, width = 16, 8, 12
	var out []float32
	for f := range len(x) / (channels * height * width) {
		for i := range height * width {
			patch, in := i/4, i%4
			row, column := patch/(width/2)*2+in/2, patch%(width/2)*2+in%2
			for c := range channels {
				out = append(out, x[((f*channels+c)*height+row)*width+column])
			}
		}
	}
	return out
}

func TestRolloutEqualsSelfForcing(t *testing.T) {
	g := golden.Load(t, "../dit/testdata/golden/wan_causal_tiny")
	defer g.Close()
	const each = 3 * 16 * 8 * 12 // values of a chunk
	for _, kernel := range devicetest.Kernels() {
		for file, policy := range map[string]kvcache.Window{
			"self_forcing.safetensors":       {Recent: kvcache.Full},
			"self_forcing_local.safetensors": {Anchor: 1, Recent: 2}, // upstream: window 6, sink 1
		} {
			for _, loop := range []rollout.Loop{rollout.Blockwise, rollout.Overlapping} {
				t.Run(fmt.Sprint("kernel=", kernel, " ", policy, " ", loop), func(t *testing.T) {
					if kernel == "generic" && loop != rollout.Blockwise {
						t.Skip("portable Go is slow; the other classes run this loop")
					}
					e := wanEngine(t, g, kernel)
					start, again, want := g.Floats(t, file, "in.noise"), g.Floats(t, file, "in.renoise"), g.Floats(t, file, "latents")
					noise := func(dq compute.Queue, dst compute.Tensor, key compute.NoiseKey) {
						from := start[int(key.Chunk)*each:]
						if key.Step > 0 {
							from = again[(int(key.Chunk)*3+int(key.Step)-1)*each:]
						}
						dq.Upload(dst, bytes(tokens(from[:each])))
					}
					s, err := e.Open(t.Context(), rollout.Request{Cache: policy, Noise: noise, Loop: loop})
					if err != nil {
						t.Fatal(err)
					}
					defer s.Close()
					tolerance := 5e-5
					if e.Device.Types().Cache == compute.BF16 {
						tolerance = 1.5e-2
					}
					for chunk := range len(want) / each {
						if _, err := s.Next(t.Context()); err != nil {
							t.Fatal(err)
						}
						got, err := s.Latents()
						if err != nil {
							t.Fatal(err)
						}
						golden.Near(t, fmt.Sprint("chunk ", chunk), got, tokens(want[chunk*each:(chunk+1)*each]), tolerance)
					}
				})
			}
		}
	}
}

// floats downloads a tensor.
func floats(dq compute.Queue, x compute.Tensor) []float32 {
	b, out := make([]byte, x.Bytes()), make([]float32, x.Elems())
	dq.Download(b, x)
	for i := range out {
		out[i] = math.Float32frombits(binary.LittleEndian.Uint32(b[4*i:]))
	}
	return out
}
