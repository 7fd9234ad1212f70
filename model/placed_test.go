package model

import (
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"longtake/compute"
	"longtake/internal/golden"
	"longtake/kvcache"
	"longtake/rollout"
	"longtake/video"
)

// Small networks that are told their place, with strafes: steps that count, and steps that all fail at a wall.
func TestAPlacedRolloutEqualsPyTorch(t *testing.T) {
	placedRollout(t, "testdata/golden/placed", 64, 64)
}

// Of another size, whose patches lie half as far apart in rotation, as world-hd's do.
func TestARolloutOnAFinerGridEqualsPyTorch(t *testing.T) {
	placedRollout(t, "testdata/golden/finer", 24, 16)
}

func placedRollout(t *testing.T, dir string, width, height int) {
	const file, given = "rollout.safetensors", 2
	values := 3 * width * height
	g := golden.Load(t, dir)
	eps, pixels := g.Floats(t, file, "eps"), g.Ints(t, file, "start_frames")
	var request rollout.Request
	for i := range given {
		f := video.NewFrame(width, height)
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
		if raw, err := os.ReadFile(filepath.Join(dir, "weights.safetensors")); err != nil || e.Hash() != fmt.Sprintf("%x", sha256.Sum256(raw)) {
			t.Errorf("the model's hash is %s, not its file's (%v)", e.Hash(), err)
		}
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
