package cuda_test

import (
	"math"
	"slices"
	"testing"
	"time"

	"longtake/compute"
	"longtake/compute/cuda"
	"longtake/internal/devicetest"
	"longtake/kvcache"
	"longtake/rollout"
	"longtake/video"
	"longtake/world"
)

// play walks forward and says how long a frame of the later half took.
func play(t *testing.T, dev compute.Device, frames int, window kvcache.Window) ([]video.Frame, time.Duration) {
	t.Helper()
	var half time.Time
	out := walk(t, dev, frames, rollout.Request{Cache: window}, func(i int) world.Action {
		if i == frames/2 {
			half = time.Now()
		}
		return world.Forward
	})
	return out, time.Since(half) / time.Duration(frames-frames/2)
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

// step is the frame that a device makes after the first of the frames of a walk forward.
func step(t *testing.T, dev compute.Device, frames []video.Frame, window kvcache.Window) video.Frame {
	t.Helper()
	r := rollout.Request{Cache: window, Start: frames, StartActions: slices.Repeat([]int{int(world.Forward)}, len(frames))}
	return walk(t, dev, 1, r, func(int) world.Action { return world.Forward })[0]
}

// TestTheEmbeddedModelMakesTheCPUsFrames plays the same request on the CPU in float32 and on the GPU: as longtake plays it there, with bfloat16
// weights and activations in three bfloat16 parts, and with activations rounded to bfloat16. Rounded, every step from the same frames is compared: a walk of its
// own leaves the CPU's where the model dreams. What nobody has seen may look one way or the other, and the CPU's own bfloat16 parts from its
// float32 at the same frame and as far.
func TestTheEmbeddedModelMakesTheCPUsFrames(t *testing.T) {
	devicetest.GPU(t, cuda.Options{}).Close()
	host := devicetest.Open(t, "float32")
	defer host.Close()
	const frames, least = 48, 45
	window := kvcache.Window{Recent: 24, Anchor: 1}
	want, each := play(t, host, frames, window)
	t.Logf("%s: %v a frame", host.Name(), each)
	after, next := []int{0, 2, 4, 6, 8, 10, 12, 13, 16, 20, 24, 28, 31}, []video.Frame{}
	for _, n := range after {
		next = append(next, step(t, host, want[:n], window))
	}
	for _, c := range []struct {
		name    string
		options cuda.Options
	}{{"parts", cuda.Options{Float32: true}}, {"bfloat16", cuda.Options{Weights: compute.BF16}}, {"bfloat16, weights as stored", cuda.Options{}}} {
		dev := devicetest.GPU(t, c.options)
		got, each := play(t, dev, frames, window)
		var free, steps []float64
		for i := range want {
			free = append(free, math.Round(psnr(got[i], want[i])*10)/10)
		}
		for i, n := range after {
			steps = append(steps, math.Round(psnr(step(t, dev, want[:n], window), next[i])*10)/10)
		}
		t.Logf("%s: %v a frame, PSNR against the CPU %v; steps after %v of its frames %v", c.name, each, free, after, steps)
		if worst := slices.Min(free[:32]); c.options.Float32 && worst < least {
			t.Errorf("%s: %.1f dB among the first 32 frames, want %d", c.name, worst, least)
		}
		if worst := slices.Min(steps); worst < least {
			t.Errorf("%s: a step is %.1f dB, want %d", c.name, worst, least)
		}
		if err := dev.Close(); err != nil {
			t.Error(err)
		}
	}
}
