package model_test

import (
	"errors"
	"fmt"
	"testing"

	"longtake/accel/annca"
	"longtake/accel/annsa"
	"longtake/compute/cpu"
	"longtake/internal/golden"
	"longtake/kvcache"
	"longtake/model/modeltest"
	"longtake/rollout"
	"longtake/video"
	"longtake/world"
)

// walk is a request for the embedded model with two start frames.
func walk(t *testing.T, e *rollout.Engine) rollout.Request {
	t.Helper()
	episode, err := world.NewEpisode(7, 3, world.Mixed, 0)
	if err != nil {
		t.Fatal(err)
	}
	r := rollout.Request{Prompt: episode.Prompt(), Seed: 7, Heading: episode.Poses[0].Heading, StartActions: []int{0, 1}, Steps: 2}
	for i := range 2 {
		f := video.NewFrame(e.Width, e.Height)
		episode.World.Render(f.Pix, episode.Poses[i], f.Width, f.Height)
		r.Start = append(r.Start, f)
	}
	return r
}

// The embedded model has actions, start frames and a clamp.
func TestOverlappedEqualsSessionInTheWorld(t *testing.T) {
	e := modeltest.TinyWorld(t, cpu.Options{Float32: true})
	r := walk(t, e)
	window, sparse := kvcache.Window{Anchor: 1, Recent: 9}, annsa.Default()
	sparse.Least, sparse.From = 0, 0 // the history is short
	for name, change := range map[string]func(*rollout.Request){
		"window": func(r *rollout.Request) { r.Cache = kvcache.Window{Anchor: 1, Recent: 3} },
		"full":   func(r *rollout.Request) { r.Cache = kvcache.Window{Recent: kvcache.Full} },
		"annsa":  func(r *rollout.Request) { r.Cache, r.Self = window, sparse },
		"annca":  func(r *rollout.Request) { r.Cache, r.Cross = window, annca.Options{Top: 2} },
	} {
		t.Run(name, func(t *testing.T) {
			r := r
			change(&r)
			a, err := e.NewSession(t.Context(), r)
			if err != nil {
				t.Fatal(err)
			}
			defer a.Close()
			b, err := e.NewOverlapped(t.Context(), r)
			if err != nil {
				t.Fatal(err)
			}
			defer b.Close()
			for i, action := range []int{1, 2, 3, 1, 0, 1, 2, 3} {
				for _, s := range []rollout.Timeline{a, b} {
					if _, err := s.Next(t.Context(), action); err != nil {
						t.Fatal(err)
					}
				}
				want, _ := a.Latents()
				got, _ := b.Latents()
				golden.Near(t, fmt.Sprint("chunk ", i), got, want, 1e-4)
			}
			if a.Heading() != b.Heading() {
				t.Errorf("heading %d, want %d", b.Heading(), a.Heading())
			}
		})
	}
	if _, err := e.Open(t.Context(), rollout.Request{Refresh: rollout.RefreshChunks}); !errors.Is(err, rollout.ErrRequest) {
		t.Errorf("refresh of a model with actions: %v", err)
	}
}

// One chunk of the embedded model by both loops, window 32.
func BenchmarkLoops(b *testing.B) {
	e := modeltest.TinyWorld(b, cpu.Options{})
	for _, loop := range []rollout.Loop{rollout.Blockwise, rollout.Overlapping} {
		b.Run("loop="+loop.String(), func(b *testing.B) {
			s, err := e.Open(b.Context(), rollout.Request{Prompt: "you start in the north .", Loop: loop})
			if err != nil {
				b.Fatal(err)
			}
			defer s.Close()
			for range 34 {
				if _, err := s.Next(b.Context(), 1); err != nil {
					b.Fatal(err)
				}
			}
			for b.Loop() {
				if _, err := s.Next(b.Context(), 1); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
