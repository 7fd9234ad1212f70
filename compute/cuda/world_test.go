package cuda_test

import (
	"errors"
	"math"
	"os"
	"testing"
	"time"

	"longtake/compute"
	"longtake/compute/cpu"
	"longtake/compute/cuda"
	"longtake/kvcache"
	"longtake/model"
	"longtake/rollout"
	"longtake/video"
	"longtake/world"
)

// openWorld opens the GPU with options, or skips.
func openWorld(t testing.TB, o cuda.Options) compute.Device {
	t.Helper()
	d, err := cuda.New(o)
	if err != nil && errors.Is(err, compute.ErrUnsupported) && os.Getenv("LONGTAKE_REQUIRE_GPU") == "" {
		t.Skip("no NVIDIA GPU here: dev/gpu/run.sh runs this on one")
	}
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// play generates frames of the embedded model and says how long the later half took.
func play(t *testing.T, dev compute.Device, frames int, window kvcache.Window) ([]video.Frame, time.Duration) {
	t.Helper()
	e, err := model.OpenTinyWorld(dev)
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	episode, err := world.NewEpisode(7, 2, world.Mixed, 0)
	if err != nil {
		t.Fatal(err)
	}
	start := video.NewFrame(64, 64)
	episode.World.Render(start.Pix, episode.Poses[0], 64, 64)
	s, err := e.NewSession(t.Context(), rollout.Request{Prompt: episode.Prompt(), Seed: 7, Cache: window, Heading: episode.Poses[0].Heading,
		Start: []video.Frame{start}, StartActions: []int{int(episode.Actions[0])}})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	var out []video.Frame
	var half time.Time
	for i := range frames {
		if i == frames/2 {
			half = time.Now()
		}
		got, err := s.Next(t.Context(), int(world.Forward))
		if err != nil {
			t.Fatalf("frame %d: %v", i, err)
		}
		for _, f := range got {
			c := video.NewFrame(64, 64)
			copy(c.Pix, f.Pix)
			out = append(out, c)
		}
	}
	return out, time.Since(half) / time.Duration(frames-frames/2)
}

// openFloat32CPU opens the best kernel class of the CPU that computes in float32.
func openFloat32CPU(t *testing.T) compute.Device {
	t.Helper()
	for _, kernel := range cpu.Kernels() {
		d, err := cpu.New(cpu.Options{Kernel: kernel})
		if err != nil {
			t.Fatal(err)
		}
		if d.Types().Cache == compute.F32 {
			return d
		}
		d.Close()
	}
	t.Fatal("no kernel class computes in float32")
	return nil
}

func psnr(a, b video.Frame) float64 {
	sum := 0.0
	for i := range a.Pix {
		d := float64(a.Pix[i]) - float64(b.Pix[i])
		sum += d * d
	}
	if sum == 0 {
		return 99
	}
	return 10 * math.Log10(255*255*float64(len(a.Pix))/sum)
}

// TestTheEmbeddedModelMakesTheCPUsFrames plays the same request on the CPU in float32 and on the GPU in float32 and bfloat16.
func TestTheEmbeddedModelMakesTheCPUsFrames(t *testing.T) {
	openWorld(t, cuda.Options{}).Close()
	host := openFloat32CPU(t)
	defer host.Close()
	const frames = 48
	window := kvcache.Window{Recent: 24, Anchor: 1}
	want, each := play(t, host, frames, window)
	t.Logf("%s: %v a frame", host.Name(), each)
	for _, c := range []struct {
		name    string
		options cuda.Options
		first   float64 // least PSNR of the first 32 frames
	}{
		{"float32", cuda.Options{Float32: true}, 45},
		{"bfloat16", cuda.Options{Weights: compute.BF16}, 45},
		{"bfloat16, weights as stored", cuda.Options{}, 45},
	} {
		dev := openWorld(t, c.options)
		got, each := play(t, dev, frames, window)
		var line []float64
		worst := math.Inf(1)
		for i := range want {
			p := psnr(got[i], want[i])
			line = append(line, math.Round(p*10)/10)
			if i < 32 {
				worst = min(worst, p)
			}
		}
		t.Logf("%s: %v a frame, PSNR against the CPU %v", c.name, each, line)
		if worst < c.first {
			t.Errorf("%s: %.1f dB among the first 32 frames, want %.0f", c.name, worst, c.first)
		}
		if err := dev.Close(); err != nil {
			t.Error(err)
		}
	}
}
