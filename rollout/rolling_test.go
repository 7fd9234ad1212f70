package rollout_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"longtake/accel/annca"
	"longtake/accel/annsa"
	"longtake/accel/tempcache"
	"longtake/compute"
	"longtake/internal/devicetest"
	"longtake/internal/golden"
	"longtake/kvcache"
	"longtake/rollout"
	"longtake/sampler"
	"longtake/video"
)

func TestRollingEqualsRollingForcing(t *testing.T) {
	prompt := golden.Load(t, "../dit/testdata/golden/wan_causal_tiny")
	defer prompt.Close()
	g := golden.Load(t, "testdata/golden/rolling_forcing")
	defer g.Close()
	start, again := g.Floats(t, "rollout.safetensors", "in.noise"), g.Floats(t, "rollout.safetensors", "in.renoise")
	want := g.Floats(t, "rollout.safetensors", "latents")
	const each = 3 * 16 * 8 * 12 // values of a chunk
	for _, kernel := range devicetest.Kernels() {
		t.Run("kernel="+kernel, func(t *testing.T) {
			e := wanEngine(t, prompt, kernel)
			e.NewSolver = func(int) (*sampler.Solver, error) { return sampler.Warped([]int{1000, 800, 600, 400, 200}, 5) }
			noise := func(dq compute.Queue, dst compute.Tensor, key compute.NoiseKey) {
				from := start[int(key.Chunk)*each:]
				if key.Step > 0 {
					from = again[(int(key.Chunk)*4+int(key.Step)-1)*each:]
				}
				dq.Upload(dst, bytes(tokens(from[:each])))
			}
			s, err := e.NewRolling(t.Context(), rollout.Request{Noise: noise, Chunks: len(want) / each})
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			tolerance := 5e-5
			if e.Device.Types().Cache == compute.BF16 {
				tolerance = 1.5e-2
			}
			for chunk := range len(want) / each {
				if _, err := s.Next(t.Context()); err != nil {
					t.Fatal(err)
				}
				got, err := s.Latents()
				if err != nil {
					t.Fatal(err)
				}
				golden.Near(t, fmt.Sprint("chunk ", chunk), got, tokens(want[chunk*each:(chunk+1)*each]), tolerance)
			}
			if frames, err := s.Next(t.Context()); frames != nil || err != nil {
				t.Errorf("after the last chunk: %v, %v", frames, err)
			}
		})
	}
}

func TestTheRollingLoopTakesWhatItCanUse(t *testing.T) {
	g := golden.Load(t, "../dit/testdata/golden/wan_causal_tiny")
	defer g.Close()
	e := wanEngine(t, g, "float32")
	e.Loop, e.Cache = rollout.RollingWindow, kvcache.Window{Anchor: 3, Recent: 15}
	e.NewSolver = func(int) (*sampler.Solver, error) { return sampler.Warped([]int{1000, 800, 600, 400, 200}, 5) }
	open := func(r rollout.Request) rollout.Timeline {
		t.Helper()
		want, err := e.SessionBytes(r)
		if err != nil {
			t.Fatal(err)
		}
		s, err := e.Open(t.Context(), r)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(s.Close)
		if got := s.Bytes(); got > want || r.Cross == nil && got < want*9/10 { // policies' memory is their own
			t.Errorf("takes %d bytes, arithmetic said %d", got, want)
		}
		return s
	}
	// AnnCA that keeps all is dense; one that keeps less is not.
	equalChunks(t, open(rollout.Request{Seed: 1, Chunks: 8, Cache: e.Cache}), open(rollout.Request{Seed: 1, Chunks: 8, Cross: annca.Options{All: true}}), 8, 1e-5)
	thin := open(rollout.Request{Seed: 1, Cross: annca.Options{Top: 1, Refresh: true}})
	for range 3 {
		if _, err := thin.Next(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if err := thin.SetPrompt(t.Context(), "other"); err != nil {
		t.Error(err)
	}
	for want, r := range map[string]rollout.Request{
		"nothing to merge":  {Cache: tempcache.Default()},
		"use dense":         {Self: annsa.Default()},
		"its history again": {Refresh: rollout.RefreshChunks},
		"-1 chunks":         {Chunks: -1},
		"whole chunks":      {Start: make([]video.Frame, 4)},
		"window has room":   {Steps: 9},
	} {
		if want == "window has room" {
			e.NewSolver = func(int) (*sampler.Solver, error) { return sampler.New(9, 5, sampler.Flow, 0) }
		}
		if _, err := e.Open(t.Context(), r); !errors.Is(err, rollout.ErrRequest) || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", want, err)
		}
	}
}

// With a single step a window is one chunk, and as long as nothing leaves the store it sees all that a full cache keeps: the rolling loop
// is then the blockwise one, with start frames and without.
func TestRollingInOneStepIsBlockwise(t *testing.T) {
	g := golden.Load(t, "../dit/testdata/golden/wan_causal_tiny")
	defer g.Close()
	e := wanEngine(t, g, "float32")
	e.Width, e.Height, e.Stride = 48, 32, 4
	e.NewSolver = func(int) (*sampler.Solver, error) { return sampler.Warped([]int{1000}, 5) }
	e.NewEncoder = func(compute.Arena, int) (rollout.Encoder, error) { return &counting{}, nil }
	frame := []video.Frame{video.NewFrame(48, 32)}
	for _, frames := range []int{0, 9, 21} {
		r := rollout.Request{Seed: 4, Start: slices.Repeat(frame, frames)}
		block := session(t, e, r)
		r.Loop = rollout.RollingWindow
		roll, err := e.Open(t.Context(), r)
		if err != nil {
			t.Fatal(err)
		}
		defer roll.Close()
		equalChunks(t, block, roll, 6-(frames+3)/12, 1e-5)
	}
	for _, frames := range []int{1, 5, 13} {
		_, err := e.Open(t.Context(), rollout.Request{Loop: rollout.RollingWindow, Start: slices.Repeat(frame, frames)})
		if !errors.Is(err, rollout.ErrRequest) || !strings.Contains(err.Error(), "9 frames, or 12 more") {
			t.Errorf("%d start frames: %v", frames, err)
		}
	}
}
