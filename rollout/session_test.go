package rollout_test

import (
	"context"
	"errors"
	"slices"
	"testing"

	"longtake/internal/golden"
	"longtake/kvcache"
	"longtake/rollout"
)

// chunks runs n chunks and returns the latents of the last.
func chunks(t *testing.T, s *rollout.Session, n int) []float32 {
	t.Helper()
	for range n {
		if _, err := s.Next(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	latents, err := s.Latents()
	if err != nil {
		t.Fatal(err)
	}
	return latents
}

func session(t *testing.T, e *rollout.Engine, r rollout.Request) *rollout.Session {
	t.Helper()
	s, err := e.NewSession(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

func TestPeekAndForceLeaveTheRolloutAsItIs(t *testing.T) {
	g := golden.Load(t, "../dit/testdata/golden/wan_causal_tiny")
	defer g.Close()
	e := wanEngine(t, g, "")
	r := rollout.Request{Seed: 5, Cache: kvcache.Window{Anchor: 1, Recent: 3}}
	plain, peeked, forced := session(t, e, r), session(t, e, r), session(t, e, r)
	for i := range 4 {
		want := chunks(t, plain, 1)
		for range 2 {
			if _, err := peeked.Peek(t.Context()); err != nil {
				t.Fatal(err)
			}
			if got, _ := peeked.Latents(); !slices.Equal(got, want) {
				t.Fatalf("chunk %d: peek differs from next", i)
			}
		}
		looks, err := peeked.NewLooks(nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := peeked.PeekUnder(t.Context(), looks); err != nil {
			t.Fatal(err)
		}
		if got, _ := peeked.Latents(); !slices.Equal(got, want) {
			t.Fatalf("chunk %d: peek under dense attention differs from next", i)
		}
		looks.Close()
		if got := chunks(t, peeked, 1); !slices.Equal(got, want) {
			t.Fatalf("chunk %d: next after peek differs", i)
		}
		if i == 3 {
			if got := chunks(t, forced, 1); !slices.Equal(got, want) {
				t.Fatal("next after forced chunks differs")
			}
		} else if err := forced.Force(t.Context(), want); err != nil {
			t.Fatal(err)
		}
	}
	if err := forced.Force(t.Context(), make([]float32, 5)); !errors.Is(err, rollout.ErrRequest) {
		t.Errorf("a chunk of 5 values: %v", err)
	}
}

func TestACancelledChunkCanBeMadeAgain(t *testing.T) {
	g := golden.Load(t, "../dit/testdata/golden/wan_causal_tiny")
	defer g.Close()
	e := wanEngine(t, g, "")
	r := rollout.Request{Seed: 6}
	plain, cut := session(t, e, r), session(t, e, r)
	chunks(t, plain, 1)
	chunks(t, cut, 1)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := cut.Next(ctx); !errors.Is(err, context.Canceled) {
		t.Fatalf("a cancelled context gave %v", err)
	}
	if !slices.Equal(chunks(t, plain, 1), chunks(t, cut, 1)) {
		t.Error("the chunk after a cancelled one differs")
	}
}

func TestMemoryIsKnownBeforeASessionStarts(t *testing.T) {
	g := golden.Load(t, "../dit/testdata/golden/wan_causal_tiny")
	defer g.Close()
	e := wanEngine(t, g, "")
	r := rollout.Request{Cache: kvcache.Window{Anchor: 1, Recent: 3}}
	want, err := e.SessionBytes(r)
	if err != nil {
		t.Fatal(err)
	}
	s := session(t, e, r)
	chunks(t, s, 3)
	if got := s.Bytes(); got > want || got < want*9/10 {
		t.Errorf("session takes %d bytes, arithmetic said %d", got, want)
	}
}

func TestAClosedSessionSaysSo(t *testing.T) {
	g := golden.Load(t, "../dit/testdata/golden/wan_causal_tiny")
	defer g.Close()
	e := wanEngine(t, g, "")
	s := session(t, e, rollout.Request{})
	s.Close()
	if _, err := s.Next(t.Context()); !errors.Is(err, rollout.ErrClosed) {
		t.Errorf("next after close: %v", err)
	}
	s.Close() // twice is allowed
}
