package rollout_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"longtake/accel/annsa"
	"longtake/accel/tempcache"
	"longtake/attention"
	"longtake/compute"
	"longtake/internal/golden"
	"longtake/kvcache"
	"longtake/rollout"
	"longtake/text"
)

// twoPrompts knows the golden prompt, and its opposite.
type twoPrompts struct {
	fixedText
	other compute.Tensor
}

func (p twoPrompts) Encode(dq compute.Queue, prompt string) (compute.Tensor, int, []text.Unknown, error) {
	if prompt == "other" {
		return p.other, wan.TextTokens - 21, nil, nil
	}
	return p.fixedText.Encode(dq, prompt)
}

// promptEngine is wanEngine with two prompts.
func promptEngine(t *testing.T, g *golden.Case) *rollout.Engine {
	t.Helper()
	e := wanEngine(t, g, "float32")
	rows := g.Floats(t, "self_forcing.safetensors", "in.context")[:22*wan.TextDim]
	other := make([]float32, len(rows))
	for i, v := range rows {
		other[i] = -v
	}
	arena, _ := e.Device.NewArena(0)
	dq, _ := e.Device.NewQueue()
	t.Cleanup(func() { dq.Close(); arena.Free() })
	p := twoPrompts{e.Text.(fixedText), arena.Tensor(compute.F32, 22, wan.TextDim)}
	dq.Upload(p.other, bytes(other))
	e.Text = p
	return e
}

// A history that was written again is that of a session which had the prompt from the start, and the same latents.
func TestRefreshedChunksEqualASessionWithThePromptFromTheStart(t *testing.T) {
	g := golden.Load(t, "../dit/testdata/golden/wan_causal_tiny")
	defer g.Close()
	e := promptEngine(t, g)
	for _, loop := range []rollout.Loop{rollout.Blockwise, rollout.Overlapping} {
		for _, self := range []attention.Maker{attention.Dense{}, annsa.Default()} {
			t.Run(fmt.Sprint(loop, " ", self), func(t *testing.T) {
				r := rollout.Request{Seed: 3, Prompt: "golden", Cache: kvcache.Window{Anchor: 3, Recent: 9}, Self: self, Loop: loop, Refresh: rollout.RefreshChunks}
				switched, err := e.Open(t.Context(), r)
				if err != nil {
					t.Fatal(err)
				}
				defer switched.Close()
				r.Loop, r.Prompt, r.Refresh = rollout.Blockwise, "other", rollout.NoRefresh
				given := session(t, e, r)
				r.Prompt = "golden"
				stale := session(t, e, r)
				for range 4 {
					if _, err := switched.Next(t.Context()); err != nil {
						t.Fatal(err)
					}
					latents, _ := switched.Latents()
					for _, s := range []*rollout.Session{given, stale} {
						if err := s.Force(t.Context(), latents); err != nil {
							t.Fatal(err)
						}
					}
				}
				if err := stale.SetPrompt(t.Context(), "other"); err != nil {
					t.Fatal(err)
				}
				if err := switched.SetPrompt(t.Context(), "other"); err != nil {
					t.Fatal(err)
				}
				equalChunks(t, given, switched, 1, 1e-5)
				want, _ := given.Latents()
				if d := golden.Compare(chunks(t, stale, 1), want, 0); d.Relative < 1e-3 {
					t.Errorf("without a refresh the latents differ by %v only: the test shows nothing", d.Relative)
				}
				equalChunks(t, given, switched, 3, 1e-5)
			})
		}
	}
}

// Frames that have left the window cannot come back, but the switch goes on from what is there.
func TestRefreshAfterEviction(t *testing.T) {
	g := golden.Load(t, "../dit/testdata/golden/wan_causal_tiny")
	defer g.Close()
	e := promptEngine(t, g)
	for _, refresh := range []rollout.Refresh{rollout.NoRefresh, rollout.RefreshChunks, rollout.RefreshWindow} {
		for _, w := range []kvcache.Window{{Anchor: 3, Recent: 6}, {Anchor: 3, Recent: 6, Near: true}} {
			t.Run(fmt.Sprint(refresh, " ", w), func(t *testing.T) {
				if testing.Short() && !w.Near {
					t.Skip("runs without -short; the nearer anchors run here")
				}
				r := rollout.Request{Seed: 3, Cache: w, Refresh: refresh}
				a, b := session(t, e, r), overlapped(t, e, r)
				want, err := e.SessionBytes(r)
				if err != nil || a.Bytes() > want || a.Bytes() < want*9/10 {
					t.Errorf("takes %d bytes, arithmetic said %d, %v", a.Bytes(), want, err)
				}
				for _, prompt := range []string{"golden", "other", "golden"} {
					equalChunks(t, a, b, 5, 1e-4)
					for _, s := range []rollout.Timeline{a, b} {
						if err := s.SetPrompt(t.Context(), prompt); err != nil {
							t.Fatal(err)
						}
					}
				}
				equalChunks(t, a, b, 4, 1e-4)
			})
		}
	}
}

// A restarted history is that of a session to which only the overlap was given: distances alone count.
func TestARestartEqualsANewSession(t *testing.T) {
	g := golden.Load(t, "../dit/testdata/golden/wan_causal_tiny")
	defer g.Close()
	e := wanEngine(t, g, "float32")
	chunk := 0
	drawn := func(dq compute.Queue, dst compute.Tensor, key compute.NoiseKey) {
		key.Chunk = uint32(chunk)
		dq.Noise(dst, key)
	}
	for _, w := range []kvcache.Window{{Recent: kvcache.Full}, {Anchor: 3, Recent: 18}} {
		r := rollout.Request{Seed: 3, Cache: w, Noise: drawn, Restart: rollout.Restart{After: 12, Overlap: 3}}
		a := session(t, e, r)
		r.Restart = rollout.Restart{}
		var b *rollout.Session
		for chunk = range 10 {
			latents, _ := a.Latents()
			if chunk%3 == 1 && chunk > 1 { // after 12 frames, and after 3 more chunks each time
				b = session(t, e, r)
				if err := b.Force(t.Context(), latents); err != nil {
					t.Fatal(err)
				}
			} else if b == nil {
				b = session(t, e, r)
			}
			equalChunks(t, b, a, 1, 1e-4)
		}
	}
	if _, err := e.NewSession(t.Context(), rollout.Request{Restart: rollout.Restart{After: 4, Overlap: 3}}); !errors.Is(err, rollout.ErrRequest) {
		t.Errorf("restart without room for a chunk: %v", err)
	}
}

func TestRefreshesThatCannotBeAreRefused(t *testing.T) {
	g := golden.Load(t, "../dit/testdata/golden/wan_causal_tiny")
	defer g.Close()
	e, window := wanEngine(t, g, "float32"), kvcache.Window{Anchor: 3, Recent: 6}
	for want, r := range map[string]rollout.Request{
		"cannot be written again": {Cache: tempcache.Default(), Refresh: rollout.RefreshChunks},
		"without end":             {Refresh: rollout.RefreshChunks},
		"needs dense attention":   {Cache: window, Self: annsa.Default(), Refresh: rollout.RefreshWindow},
	} {
		if _, err := e.Open(t.Context(), r); !errors.Is(err, rollout.ErrRequest) || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", want, err)
		}
	}
	// A model's own refresh gives way.
	e.Refresh = rollout.RefreshWindow
	for _, r := range []rollout.Request{{Cache: tempcache.Default()}, {}, {Cache: window, Self: annsa.Default()}, {Cache: window}} {
		s := session(t, e, r)
		chunks(t, s, 1)
		if err := s.SetPrompt(t.Context(), "other"); err != nil {
			t.Error(err)
		}
		chunks(t, s, 1)
	}
}
