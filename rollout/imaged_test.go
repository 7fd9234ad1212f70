package rollout_test

import (
	"encoding/binary"
	"errors"
	"math"
	"slices"
	"testing"

	"longtake/attention"
	"longtake/compute"
	"longtake/dit"
	"longtake/internal/devicetest"
	"longtake/kvcache"
	"longtake/rollout"
	"longtake/video"
)

// fromImage is a small network with 36 input channels.
var fromImage = dit.Config{
	Dim: 64, Heads: 2, Layers: 2, FFN: 96, In: 64, Given: 20, Out: 64, Rows: 2, Columns: 3, ChunkFrames: 3,
	Conv: [3]int{36, 2, 2}, TextDim: 32, TextTokens: 16, FreqDim: 32, MaxPeriod: 10000,
	Pairs: [3]int{6, 5, 5}, Theta: [3]float64{10000, 10000, 10000}, Eps: 1e-6,
}

// counting is an encoder whose n-th latent frame is known, and that notes what it was given.
type counting struct {
	pushed []string
	n      int
}

// value is element i of latent frame f.
func (counting) value(f, i int) float32 { return float32(f+1)/8 - float32(i%7)/16 }

func (c *counting) Push(dq compute.Queue, latent compute.Tensor, frame video.Frame) (bool, error) {
	what := "image"
	if frame.Pix == nil {
		what = "grey"
	}
	c.pushed = append(c.pushed, what)
	if len(c.pushed)%4 != 1 {
		return false, nil
	}
	b := make([]byte, 0, latent.Bytes())
	for i := range latent.Elems() {
		b = binary.LittleEndian.AppendUint32(b, math.Float32bits(c.value(c.n, i)))
	}
	c.n++
	dq.Upload(latent, b)
	return true, nil
}

// given are the 20 channels of the tokens of three latent frames from first on.
func (c counting) given(first int) (b []byte) {
	tokens := fromImage.Tokens()
	for token := range 3 * tokens {
		f := first + token/tokens
		for place := range 4 {
			for channel := range 20 {
				v := float32(0)
				if f == 0 {
					v = 1
				}
				if channel >= 4 {
					v = c.value(f, (token%tokens*4+place)*16+channel-4)
				}
				b = binary.LittleEndian.AppendUint32(b, math.Float32bits(v))
			}
		}
	}
	return b
}

// A session of a network that makes videos from an image gives it, chunk by chunk, the mask and the latents of the image followed by grey
// frames; the latents are those of the same passes run by hand.
func TestAVideoFromAnImageIsGivenMaskAndLatents(t *testing.T) {
	dev := devicetest.Open(t, "float32")
	e := noiseEngineOn(t, dev, fromImage, 5)
	encoder := &counting{}
	e.NewEncoder = func(compute.Arena, int) (rollout.Encoder, error) { return encoder, nil }
	e.Width, e.Height, e.Stride = 48, 32, 4
	r := rollout.Request{Seed: 3, Cache: kvcache.Window{Recent: 3}, Start: []video.Frame{video.NewFrame(48, 32)}}
	s := session(t, e, r)

	c := fromImage
	dq, _ := dev.NewQueue()
	defer dq.Close()
	arena, _ := dev.NewArena(0)
	defer arena.Free()
	solver, _ := e.NewSolver(0)
	work := e.Network.NewWork(arena, dev.Types(), dit.Size{Frames: 3, Passes: 5, PromptTokens: 16})
	work.Attend(attention.Dense{}, attention.Dense{})
	var times [][]float32
	for _, step := range solver.Steps {
		times = append(times, []float32{step.Timestep, step.Timestep, step.Timestep})
	}
	work.Schedule(dq, append(times, []float32{0, 0, 0}))
	encoded, padded, _, _ := e.Text.Encode(dq, "")
	work.Prompt(dq, encoded, padded)
	cache, err := r.Cache.New(dev, dq, e.CacheShape)
	if err != nil {
		t.Fatal(err)
	}
	defer cache.Close()
	n := 3 * c.Tokens()
	x, pred, scratch, given := arena.Tensor(compute.F32, n, 64), arena.Tensor(compute.F32, n, 64), arena.Tensor(compute.F32, n, 64), arena.Tensor(compute.F32, n, 80)
	for chunk := range 3 {
		dq.Upload(given, encoder.given(3*chunk))
		if err := cache.Begin(dq, kvcache.Span{Start: 3 * chunk, Frames: 3}); err != nil {
			t.Fatal(err)
		}
		work.Given(dq, given)
		key := compute.NoiseKey{Seed: 3, Chunk: uint32(chunk)}
		solver.Noise(dq, x, key)
		for _, step := range solver.Steps {
			work.Predict(dq, pred, x, dit.Pass{Index: step.Index, Chunk: chunk}, cache)
			solver.Advance(dq, x, pred, scratch, step, key)
		}
		work.Predict(dq, compute.Tensor{}, x, dit.Pass{Index: 4, Clean: true, Chunk: chunk}, cache)
		cache.End()
		want, err := rollout.Download(dq, x)
		if err != nil {
			t.Fatal(err)
		}
		if got := chunks(t, s, 1); !slices.Equal(got, want) {
			t.Errorf("chunk %d differs from the passes run by hand", chunk)
		}
	}
	if p := encoder.pushed; len(p) != 1+4*8 || p[0] != "image" || slices.Contains(p[1:], "image") {
		t.Errorf("pushed %v", p)
	}
	chunks(t, s, 10)
	if len(encoder.pushed) != 1+4*31 {
		t.Errorf("%d frames pushed for 39 latent frames: after 32 nothing changes", len(encoder.pushed))
	}
}

func TestWhatAVideoFromAnImageCannotDo(t *testing.T) {
	e := noiseEngineOn(t, devicetest.Open(t, "float32"), fromImage, 5)
	e.NewEncoder = func(compute.Arena, int) (rollout.Encoder, error) { return &counting{}, nil }
	e.Width, e.Height, e.Stride = 48, 32, 4
	image := []video.Frame{video.NewFrame(48, 32)}
	for name, r := range map[string]rollout.Request{
		"no image": {}, "a video": {Start: slices.Repeat(image, 5)}, "rolling": {Start: image, Loop: rollout.RollingWindow},
		"refresh": {Start: image, Refresh: rollout.RefreshChunks},
	} {
		r.Cache = kvcache.Window{Recent: 3}
		if s, err := e.Open(t.Context(), r); !errors.Is(err, rollout.ErrRequest) {
			t.Errorf("%s: %v", name, err)
			if err == nil {
				s.Close()
			}
		}
	}
}
