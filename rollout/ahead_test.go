package rollout_test

import (
	"context"
	"errors"
	"testing"

	"longtake/internal/golden"
	"longtake/kvcache"
	"longtake/rollout"
	"longtake/video"
)

func TestAheadEqualsSession(t *testing.T) {
	g := golden.Load(t, "../dit/testdata/golden/wan_causal_tiny")
	defer g.Close()
	e := videoEngine(t, g, "float32", "tiny")
	for name, r := range map[string]rollout.Request{
		"window": {Seed: 3, Cache: kvcache.Window{Recent: 6}},
		"full":   {Seed: 3, Cache: kvcache.Window{Recent: kvcache.Full}},
	} {
		t.Run(name, func(t *testing.T) {
			a := session(t, e, r)
			defer a.Close()
			b, err := e.NewAhead(t.Context(), r)
			if err != nil {
				t.Fatal(err)
			}
			defer b.Close()
			next := func(s rollout.Timeline) []video.Frame {
				frames, err := s.Next(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				return frames
			}
			stopped, stop := context.WithCancel(t.Context())
			stop()
			for i := range 5 {
				if i == 3 { // in the middle of a chunk in work
					b.Settle()
				}
				if i == 4 {
					b.Settle()
					if _, err := b.Next(stopped); !errors.Is(err, context.Canceled) {
						t.Errorf("a cancelled chunk: %v", err)
					}
				}
				sameFrames(t, next(b), next(a))
				want, _ := a.Latents()
				got, err := b.Latents()
				if err != nil {
					t.Fatal(err)
				}
				golden.Near(t, "latents", got, want, 1e-12)
			}
		})
	}
	r := rollout.Request{Seed: 3, Chunks: 1, Loop: rollout.AheadOfTime, Cache: kvcache.Window{Recent: 6}}
	s, err := e.Open(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if frames, err := s.Next(t.Context()); err != nil || len(frames) == 0 || s.Stats().Frames != e.Network.ChunkFrames {
		t.Errorf("the only chunk: %d frames, %v, %d latent frames of history", len(frames), err, s.Stats().Frames)
	}
	if frames, err := s.Next(t.Context()); frames != nil || err != nil {
		t.Errorf("after the last chunk: %v, %v", frames, err)
	}
	bytes, err := e.SessionBytes(r)
	if err != nil || bytes != s.Bytes() {
		t.Errorf("predicted %d bytes (%v), taken %d", bytes, err, s.Bytes())
	}
}
