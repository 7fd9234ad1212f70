package rollout_test

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"longtake/compute"
	"longtake/dit"
	"longtake/internal/devicetest"
	"longtake/kvcache"
	"longtake/rollout"
	"longtake/sampler"
	"longtake/text"
	"longtake/weights"
)

// wan13 is Wan-2.1 at 1.3 billion parameters and 832x480.
var wan13 = dit.Config{
	Dim: 1536, Heads: 12, Layers: 30, FFN: 8960, In: 64, Out: 64, Rows: 30, Columns: 52, ChunkFrames: 3,
	Conv: [3]int{16, 2, 2}, TextDim: 4096, TextTokens: 512, FreqDim: 256, MaxPeriod: 10000,
	Pairs: [3]int{22, 21, 21}, Theta: [3]float64{10000, 10000, 10000}, Eps: 1e-6,
}

// small has the sizes of the embedded model: launches cost more than arithmetic.
var small = dit.Config{
	Dim: 256, Heads: 4, Layers: 6, FFN: 1024, In: 64, Out: 64, Rows: 8, Columns: 8, ChunkFrames: 1,
	Conv: [3]int{16, 2, 2}, TextDim: 4096, TextTokens: 512, FreqDim: 256, MaxPeriod: 10000,
	Pairs: [3]int{12, 10, 10}, Theta: [3]float64{10000, 10000, 10000}, Eps: 1e-6,
}

// nothing is a file without tensors.
type nothing struct{}

func (nothing) Tensor(string) (compute.Host, error) { return compute.Host{}, weights.ErrMissing }

// made is an arena that makes weights of noise.
type made struct {
	compute.Arena
	noise []byte
}

func (m made) Matrix(h compute.Host) compute.Matrix {
	h.DType = compute.F32
	h.Data = m.noise[:4*h.Elems()]
	return m.Arena.Matrix(h)
}

// filled is a queue that uploads noise in the place of nothing.
type filled struct {
	compute.Queue
	noise []byte
}

func (q filled) Upload(dst compute.Tensor, b []byte) {
	if len(b) == 0 {
		b = q.noise[:dst.Bytes()]
	}
	q.Queue.Upload(dst, b)
}

// longText is a Prompter that always answers with the same rows, of so many at most; the rest is padding.
type longText struct {
	encoded compute.Tensor
	most    int
}

func (f longText) MaxTokens() int { return f.most }
func (f longText) Encode(compute.Queue, string) (compute.Tensor, int, []text.Unknown, error) {
	return f.encoded, f.most - f.encoded.Dim(0) + 1, nil, nil
}

// noiseEngine is a network with weights of noise, on a GPU, and a prompt of so many rows.
func noiseEngine(b *testing.B, config dit.Config, prompt int) *rollout.Engine {
	b.Helper()
	return noiseEngineOn(b, devicetest.Open(b, "cuda"), config, prompt)
}

// noiseEngineOn is a network with weights of noise on a device, which is closed in the end.
func noiseEngineOn(b testing.TB, dev compute.Device, config dit.Config, prompt int) *rollout.Engine {
	b.Helper()
	dq, _ := dev.NewQueue()
	arena, err := dev.NewArena(0)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { dq.Close(); arena.Free(); dev.Close() })
	rng := rand.New(rand.NewPCG(1, 2))
	var noise []byte
	for range config.Dim * max(3*config.FFN, 6*config.Dim, config.TextDim) {
		noise = binary.LittleEndian.AppendUint32(noise, math.Float32bits(float32(rng.NormFloat64()*0.02)))
	}
	p := weights.Placer{Audit: weights.NewAudit(nothing{}), Arena: made{arena, noise}, Queue: filled{dq, noise}}
	network := dit.Load(p, config, dit.WanNames)
	encoded := arena.Tensor(compute.F32, prompt, config.TextDim)
	dq.Noise(encoded, compute.NoiseKey{Seed: 1})
	if err := dq.Wait(); err != nil {
		b.Fatal(err)
	}
	return rollout.NewEngine(dev, arena, rollout.Parts{
		Network: network, Text: longText{encoded, config.TextTokens}, CacheShape: config.CacheShape(),
		NewDecoder: func(compute.Arena, bool) (rollout.Decoder, error) { return noFrames{}, nil },
		NewSolver:  func(int) (*sampler.Solver, error) { return sampler.Warped([]int{1000, 750, 500, 250}, 5) },
	})
}

// Chunks of the 1.3B network, three latent frames each, and of a small one; both loops in turn, the window is full.
func BenchmarkLoops(b *testing.B) {
	b.Run("network=small", func(b *testing.B) { loops(b, noiseEngine(b, small, 22), kvcache.Window{Recent: 31}) })
	single := wan13
	single.ChunkFrames = 1
	b.Run("network=1.3b/chunk=1", func(b *testing.B) { loops(b, noiseEngine(b, single, 22), kvcache.Window{Anchor: 3, Recent: 8}) })
	b.Run("network=1.3b/chunk=3", func(b *testing.B) {
		loops(b, noiseEngine(b, wan13, 22), kvcache.Window{Anchor: 3, Recent: 6}, kvcache.Window{Recent: 18})
	})
}

func loops(b *testing.B, e *rollout.Engine, windows ...kvcache.Window) {
	for _, window := range windows {
		loops := []rollout.Loop{rollout.Blockwise, rollout.Overlapping}
		var sessions []rollout.Timeline
		for _, loop := range loops {
			s, err := e.Open(b.Context(), rollout.Request{Cache: window, Loop: loop})
			if err != nil {
				b.Fatal(err)
			}
			defer s.Close()
			for range window.Frames(e.CacheShape)/e.Network.ChunkFrames + 2 {
				if _, err := s.Next(b.Context()); err != nil {
					b.Fatal(err)
				}
			}
			if _, err := s.Latents(); err != nil {
				b.Fatal(err)
			}
			sessions = append(sessions, s)
		}
		b.Run(fmt.Sprint("cache=", window), func(b *testing.B) {
			best := [2]time.Duration{time.Hour, time.Hour}
			for b.Loop() {
				for i, s := range sessions {
					began := time.Now()
					if _, err := s.Next(b.Context()); err != nil {
						b.Fatal(err)
					}
					if _, err := s.Latents(); err != nil { // waits
						b.Fatal(err)
					}
					best[i] = min(best[i], time.Since(began))
				}
			}
			for i, loop := range loops {
				b.ReportMetric(float64(best[i].Microseconds())/1e3, loop.String()+"-ms/chunk")
				b.ReportMetric(float64(sessions[i].Bytes())/1e9, loop.String()+"-GB")
			}
		})
		for _, s := range sessions {
			s.Close()
		}
	}
}
