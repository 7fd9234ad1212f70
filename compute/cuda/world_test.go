package cuda_test

import (
	"math"
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

// TestTheEmbeddedModelMakesTheCPUsFrames plays the same request on the CPU in float32 and on the GPU in float32 and bfloat16.
func TestTheEmbeddedModelMakesTheCPUsFrames(t *testing.T) {
	devicetest.GPU(t, cuda.Options{}).Close()
	host := devicetest.Open(t, "float32")
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
		dev := devicetest.GPU(t, c.options)
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
