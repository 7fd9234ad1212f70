package model

import (
	"path/filepath"
	"testing"

	"longtake/compute"
	"longtake/internal/golden"
	"longtake/kvcache"
	"longtake/rollout"
	"longtake/video"
)

// A small network that is told its place, with strafes: steps that count, and steps that all fail at a wall.
func TestAPlacedRolloutEqualsPyTorch(t *testing.T) {
	const dir, file, values, given = "testdata/golden/placed", "rollout.safetensors", 64 * 192, 2
	g := golden.Load(t, dir)
	eps, pixels := g.Floats(t, file, "eps"), g.Ints(t, file, "start_frames")
	var request rollout.Request
	for i := range given {
		f := video.NewFrame(64, 64)
		for k := range f.Pix {
			f.Pix[k] = byte(pixels[i*len(f.Pix)+k])
		}
		request.Start = append(request.Start, f)
	}
	var actions []int
	for _, a := range g.Ints(t, file, "actions") {
		actions = append(actions, int(a))
	}
	request.StartActions, request.Heading = actions[:given], int(g.Ints(t, file, "headings")[0])
	request.Cache = kvcache.Window{Recent: kvcache.Full}
	request.Noise = func(dq compute.Queue, dst compute.Tensor, key compute.NoiseKey) {
		at := (int(key.Chunk) - given) * dst.Elems()
		uploadFloats(dq, dst, eps[at:at+dst.Elems()])
	}
	eachKernel(t, func(t *testing.T, dev compute.Device, forward, roll float64) {
		e, err := OpenWorld(dev, filepath.Join(dir, "weights.safetensors"))
		if err != nil {
			t.Fatal(err)
		}
		defer e.Close()
		request.Prompt = e.Text.(*prompter).words.Decode(g.Ints(t, file, "tokens"))
		for name, still := range map[string]rollout.Still{"free": {}, "stopped": {Enter: 100, Leave: 100}} {
			e.Still = still
			s, err := e.NewSession(t.Context(), request)
			if err != nil {
				t.Fatal(err)
			}
			want := g.Floats(t, file, name)
			for i, a := range actions[given:] {
				if _, err := s.Next(t.Context(), a); err != nil {
					t.Fatal(err)
				}
				got, err := s.Latents()
				if err != nil {
					t.Fatal(err)
				}
				golden.Near(t, name, got, want[i*values:(i+1)*values], roll)
			}
			s.Close()
		}
	})
}
