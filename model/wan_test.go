package model

import (
	"testing"

	"longtake/compute/cpu"
	"longtake/internal/synth"
	"longtake/kvcache"
	"longtake/rollout"
	"longtake/video"
)

// tinyFolder writes a synthetic set of a family into a new folder.
func tinyFolder(t testing.TB, change func(*synth.Set)) string {
	t.Helper()
	s := synth.TinySet()
	if change != nil {
		change(&s)
	}
	dir := t.TempDir()
	if err := s.Write(dir); err != nil {
		t.Fatal(err)
	}
	return dir
}

// film opens a model and makes so many chunks.
func film(t testing.TB, s Source, o Options, r rollout.Request, chunks int) []video.Frame {
	t.Helper()
	dev, err := cpu.New(cpu.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer dev.Close()
	if o.Width == 0 {
		o.Width, o.Height = 64, 48
	}
	e, err := OpenWan(dev, s, o)
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	timeline, err := e.Open(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	defer timeline.Close()
	var frames []video.Frame
	for range chunks {
		f, err := timeline.Next(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		frames = append(frames, f...)
	}
	return frames
}

func TestASetOfFilesMakesFrames(t *testing.T) {
	dir := tinyFolder(t, nil)
	for _, vae := range []string{"wan", "tiny"} {
		frames := film(t, Source{Model: dir}, Options{VAE: vae}, rollout.Request{Prompt: "a cat in the sea", Cache: kvcache.Window{Recent: kvcache.Full}}, 3)
		if len(frames) != 1+4*8 {
			t.Errorf("%s: %d frames of 9 latent frames", vae, len(frames))
		}
		lo, hi := byte(255), byte(0)
		for _, v := range frames[len(frames)-1].Pix {
			lo, hi = min(lo, v), max(hi, v)
		}
		if hi-lo < 20 {
			t.Errorf("%s: the last frame is flat: %d to %d", vae, lo, hi)
		}
	}
}
