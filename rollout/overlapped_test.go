package rollout_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"longtake/accel/tempcache"
	"longtake/compute"
	"longtake/internal/devicetest"
	"longtake/internal/golden"
	"longtake/kvcache"
	"longtake/rollout"
)

func overlapped(t *testing.T, e *rollout.Engine, r rollout.Request) *rollout.Overlapped {
	t.Helper()
	s, err := e.NewOverlapped(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

// equalChunks makes n chunks by both and compares their latents.
func equalChunks(t *testing.T, a, b rollout.Timeline, n int, tolerance float64, actions ...int) {
	t.Helper()
	for i := range n {
		for _, s := range []rollout.Timeline{a, b} {
			var action []int
			if len(actions) > 0 {
				action = actions[i%len(actions) : i%len(actions)+1]
			}
			if _, err := s.Next(t.Context(), action...); err != nil {
				t.Fatalf("chunk %d of %T: %v", i, s, err)
			}
		}
		want, _ := a.Latents()
		got, _ := b.Latents()
		golden.Near(t, fmt.Sprint("chunk ", i), got, want, tolerance)
	}
}

func TestOverlappedEqualsSession(t *testing.T) {
	g := golden.Load(t, "../dit/testdata/golden/wan_causal_tiny")
	defer g.Close()
	for _, kernel := range devicetest.Kernels() {
		for i, policy := range []kvcache.Window{{Recent: kvcache.Full}, {Anchor: 1, Recent: 2}, {Recent: 0}, {Anchor: 3, Recent: 6, Near: true}} {
			t.Run(fmt.Sprint("kernel=", kernel, " ", policy), func(t *testing.T) {
				if kernel == "generic" && i != 1 {
					t.Skip("portable Go is slow; the other classes run this window")
				}
				e := wanEngine(t, g, kernel)
				tolerance := 1e-5
				if e.Device.Types().Cache == compute.BF16 {
					tolerance = 1.5e-2
				}
				r := rollout.Request{Seed: 4, Cache: policy}
				equalChunks(t, session(t, e, r), overlapped(t, e, r), 6, tolerance)
			})
		}
	}
}

func TestOverlappedIsOnlyLate(t *testing.T) {
	g := golden.Load(t, "../dit/testdata/golden/wan_causal_tiny")
	defer g.Close()
	e := wanEngine(t, g, "float32")
	r := rollout.Request{Seed: 4, Cache: kvcache.Window{Anchor: 1, Recent: 2}}
	a, b := session(t, e, r), overlapped(t, e, r)
	equalChunks(t, a, b, 2, 1e-5)

	// A cancelled chunk is made again.
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := b.Next(ctx); !errors.Is(err, context.Canceled) {
		t.Fatalf("a cancelled context gave %v", err)
	}
	equalChunks(t, a, b, 1, 1e-5)
	// A prompt is for the next chunk, not for the clean pass that is still open.
	for _, s := range []rollout.Timeline{a, b} {
		if err := s.SetPrompt(t.Context(), "another"); err != nil {
			t.Fatal(err)
		}
	}
	equalChunks(t, a, b, 2, 1e-5)
	// Peek and Force.
	if _, err := b.Peek(t.Context()); err != nil {
		t.Fatal(err)
	}
	equalChunks(t, a, b, 2, 1e-5)
	forced, _ := a.Latents()
	for _, s := range []interface {
		Force(context.Context, []float32, ...int) error
	}{a, b} {
		if err := s.Force(t.Context(), forced); err != nil {
			t.Fatal(err)
		}
	}
	equalChunks(t, a, b, 2, 1e-5)

	r.Loop = rollout.Overlapping
	want, err := e.SessionBytes(r)
	if err != nil || b.Bytes() > want || b.Bytes() < want*9/10 {
		t.Errorf("takes %d bytes, arithmetic said %d, %v", b.Bytes(), want, err)
	}
	b.Close()
	for _, err := range []error{b.SetPrompt(t.Context(), ""), b.Force(t.Context(), nil)} {
		if !errors.Is(err, rollout.ErrClosed) {
			t.Errorf("after close: %v", err)
		}
	}
	r.Cache = tempcache.Default()
	if _, err := e.Open(t.Context(), r); !errors.Is(err, rollout.ErrRequest) || !strings.Contains(err.Error(), "two chunks open") {
		t.Errorf("overlapped on a cache that cannot: %v", err)
	}
}
