package cuda_test

import (
	"math"
	"testing"

	"longtake/accel/ann"
	"longtake/accel/annca"
	"longtake/accel/annsa"
	"longtake/accel/pose"
	"longtake/accel/tempcache"
	"longtake/attention"
	"longtake/compute"
	"longtake/compute/cuda"
	"longtake/internal/devicetest"
	"longtake/kvcache"
	"longtake/model"
	"longtake/rollout"
	"longtake/video"
	"longtake/world"
)

// there goes forward for 8 frames and turns for 8, again and again.
func there(i int) world.Action {
	if i%16 >= 8 {
		return world.TurnLeft
	}
	return world.Forward
}

// walk plays frames of the embedded model under the policies of r, by actions frame by frame, behind the first frame of a world and those of r.
func walk(t *testing.T, dev compute.Device, frames int, r rollout.Request, action func(i int) world.Action) []video.Frame {
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
	r.Prompt, r.Seed, r.Heading = episode.Prompt(), 7, episode.Poses[0].Heading
	r.Start, r.StartActions = append([]video.Frame{start}, r.Start...), append([]int{int(episode.Actions[0])}, r.StartActions...)
	s, err := e.NewSession(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	var out []video.Frame
	for i := range frames {
		got, err := s.Next(t.Context(), int(action(i)))
		if err != nil {
			t.Fatalf("frame %d: %v", i, err)
		}
		for _, f := range got {
			c := video.NewFrame(64, 64)
			copy(c.Pix, f.Pix)
			out = append(out, c)
		}
	}
	return out
}

// TestPoliciesMakeTheCPUsFrames plays the same requests under every policy on the CPU and on the GPU, both in float32.
func TestPoliciesMakeTheCPUsFrames(t *testing.T) {
	gpu := devicetest.GPU(t, cuda.Options{Float32: true})
	defer gpu.Close()
	host := devicetest.Open(t, "float32")
	defer host.Close()
	with := func(f func(*tempcache.Policy)) kvcache.Policy {
		p := tempcache.Default()
		f(&p)
		return p
	}
	tables := ann.LSH{Bits: 6, Tables: 10, Probes: 1}
	sparse := annsa.Default()
	sparse.From = 0 // the host thins from the first, as the device does
	for _, c := range []struct {
		name        string
		cache       kvcache.Policy
		self, cross attention.Maker
	}{
		{name: "tempcache", cache: with(func(p *tempcache.Policy) { p.Budget.Frames = 12 })},
		{name: "tempcache neighbours", cache: with(func(p *tempcache.Policy) { p.Budget.Frames, p.Search = 12, tempcache.Neighbours })},
		{name: "tempcache without a budget", cache: tempcache.Default()},
		{name: "tempcache by hash tables", cache: with(func(p *tempcache.Policy) { p.Budget.Frames, p.Search, p.Matcher = 12, tempcache.Approximate, tables })},
		{name: "annsa", cache: kvcache.Window{Recent: kvcache.Full}, self: sparse},
		{name: "annca", cache: kvcache.Window{Recent: 24, Anchor: 1}, cross: annca.Options{Top: annca.Default().Top}},
		{name: "annca, quantised", cache: kvcache.Window{Recent: 24, Anchor: 1}, cross: annca.Options{Matcher: ann.Scalar(8), Top: annca.Default().Top}},
		{name: "pose", cache: pose.Default},
	} {
		t.Run(c.name, func(t *testing.T) {
			const frames, first = 40, 32
			r := rollout.Request{Cache: c.cache, Self: c.self, Cross: c.cross}
			want, got := walk(t, host, frames, r, there), walk(t, gpu, frames, r, there)
			worst, line := math.Inf(1), []float64{}
			for i := range want {
				p := psnr(got[i], want[i])
				line = append(line, math.Round(p*10)/10)
				if i < first {
					worst = min(worst, p)
				}
			}
			t.Logf("PSNR against the CPU %v", line)
			if worst < 45 {
				t.Errorf("%.1f dB among the first %d frames, want 45", worst, first)
			}
		})
	}
}
