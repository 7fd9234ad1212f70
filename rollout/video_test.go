package rollout_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"longtake/compute"
	"longtake/internal/golden"
	"longtake/kvcache"
	"longtake/rollout"
	"longtake/vae"
	"longtake/video"
	"longtake/weights"
)

// videoEngine is wanEngine with a decoder that remembers, "wan" or "tiny", and an encoder.
func videoEngine(t *testing.T, g *golden.Case, kernel, decoder string) *rollout.Engine {
	t.Helper()
	e := wanEngine(t, g, kernel)
	arena, _ := e.Device.NewArena(0)
	dq, _ := e.Device.NewQueue()
	t.Cleanup(func() { dq.Close(); arena.Free() })
	placer := func(name string) (weights.Placer, *weights.Audit) {
		file, err := weights.Open("../vae/testdata/golden/" + name + "/weights.safetensors")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { file.Close() })
		audit := weights.NewAudit(file)
		return weights.Placer{Audit: audit, Arena: arena, Queue: dq}, audit
	}
	config := vae.Wan21()
	config.Width = 8
	p, audit := placer("wan_vae_tiny")
	m := vae.LoadWan(p, config)
	p, audit2 := placer("taehv_tiny")
	tiny := vae.LoadTAEHV(p, vae.TAEHVConfig{Latent: 16, Widths: [4]int{32, 16, 8, 8}})
	if err := errors.Join(audit.Err(), audit2.Err(), dq.Wait()); err != nil {
		t.Fatal(err)
	}
	e.Width, e.Height, e.Stride = 16*wan.Columns, 16*wan.Rows, 4
	o := vae.Options{Width: e.Width, Height: e.Height}
	e.NewDecoder = func(a compute.Arena, again bool) (rollout.Decoder, error) {
		o := o
		o.Again = again
		if decoder == "tiny" {
			return tiny.NewDecoder(a, e.Device.Types(), o)
		}
		return m.NewDecoder(a, e.Device.Types(), o)
	}
	e.NewEncoder = func(a compute.Arena, frames int) (rollout.Encoder, error) {
		o := o
		o.Single = frames == 1
		return m.NewEncoder(a, e.Device.Types(), o)
	}
	return e
}

// clip is a moving picture.
func clip(e *rollout.Engine, frames int) (out []video.Frame) {
	for f := range frames {
		frame := video.NewFrame(e.Width, e.Height)
		for i := range frame.Pix {
			frame.Pix[i] = uint8(i/3%e.Width*2 + i/e.Width + 5*f + 40*(i%3))
		}
		out = append(out, frame)
	}
	return out
}

// decodeAll decodes a video's latents on their own.
func decodeAll(t *testing.T, e *rollout.Engine, latents []float32) []video.Frame {
	t.Helper()
	arena, _ := e.Device.NewArena(0)
	dq, _ := e.Device.NewQueue()
	defer arena.Free()
	defer dq.Close()
	d, err := e.NewDecoder(arena, false)
	if err != nil {
		t.Fatal(err)
	}
	z := arena.Tensor(compute.F32, len(latents)/64, 64)
	dq.Upload(z, bytes(latents))
	frames, err := d.Decode(dq, z, 0)
	if err != nil {
		t.Fatal(err)
	}
	return frames
}

// encodeAll encodes a video on its own.
func encodeAll(t *testing.T, e *rollout.Engine, frames []video.Frame) (latents []float32) {
	t.Helper()
	arena, _ := e.Device.NewArena(0)
	dq, _ := e.Device.NewQueue()
	defer arena.Free()
	defer dq.Close()
	encoder, err := e.NewEncoder(arena, len(frames))
	if err != nil {
		t.Fatal(err)
	}
	z := arena.Tensor(compute.F32, wan.Tokens(), 64)
	for _, f := range frames {
		full, err := encoder.Push(dq, z, f)
		if err != nil {
			t.Fatal(err)
		}
		if full {
			latents = append(latents, floats(dq, z)...)
		}
	}
	return latents
}

func sameFrames(t *testing.T, got, want []video.Frame) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%d frames, want %d", len(got), len(want))
	}
	for i := range got {
		if got[i].Index != want[i].Index || !slices.Equal(got[i].Pix, want[i].Pix) {
			t.Fatalf("frame %d, numbered %d, is not the one numbered %d", i, got[i].Index, want[i].Index)
		}
	}
}

// What a session gives, chunk by chunk, is the whole video's latents decoded at once, with or without start frames.
func TestSessionsStreamTheirVideo(t *testing.T) {
	g := golden.Load(t, "../dit/testdata/golden/wan_causal_tiny")
	defer g.Close()
	for _, c := range []struct {
		decoder string
		start   int
		loop    rollout.Loop
	}{{"wan", 5, rollout.Overlapping}, {"tiny", 0, rollout.Blockwise}, {"tiny", 1, rollout.Blockwise}, {"tiny", 13, rollout.Blockwise}} {
		t.Run(fmt.Sprintf("vae=%s/start=%d/%v", c.decoder, c.start, c.loop), func(t *testing.T) {
			if testing.Short() && c.start > 1 {
				t.Skip("runs without -short; shorter starts run here")
			}
			e, start := videoEngine(t, g, "float32", c.decoder), c.start
			r := rollout.Request{Seed: 2, Loop: c.loop, Start: clip(e, start), Cache: kvcache.Window{Anchor: 1, Recent: 5}}
			want, err := e.SessionBytes(r)
			if err != nil {
				t.Fatal(err)
			}
			s, err := e.Open(t.Context(), r)
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			if got := s.Bytes(); got > want || start == 0 && got < want*9/10 {
				t.Errorf("takes %d bytes, arithmetic said %d", got, want)
			}
			all := encodeAll(t, e, r.Start)
			if given := e.LatentFrames(start); len(all) != given*wan.Tokens()*64 || e.Frames(given) != start || s.Stats().Frames != given {
				t.Fatalf("%d start frames are %d latent frames, %d in the cache", start, given, s.Stats().Frames)
			}
			var got []video.Frame
			for range 2 {
				frames, err := s.Next(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				got = append(got, frames...)
				latents, _ := s.Latents()
				all = append(all, latents...)
			}
			sameFrames(t, got, decodeAll(t, e, all)[start:])
		})
	}
}

func TestPeekAndForceWithADecoderThatRemembers(t *testing.T) {
	g := golden.Load(t, "../dit/testdata/golden/wan_causal_tiny")
	defer g.Close()
	e := videoEngine(t, g, "float32", "tiny")
	r := rollout.Request{Seed: 2, Peek: true, Start: clip(e, 1)}
	plain, peeked, forced := session(t, e, r), session(t, e, r), session(t, e, r)
	for i := range 3 {
		want, err := plain.Next(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for range i {
			got, err := peeked.Peek(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			sameFrames(t, got, want)
		}
		latents, _ := plain.Latents()
		if i < 1 {
			if err := peeked.Force(t.Context(), latents); err != nil {
				t.Fatal(err)
			}
		} else if got, err := peeked.Next(t.Context()); err != nil {
			t.Fatal(err)
		} else {
			sameFrames(t, got, want)
		}
		if i < 2 {
			if err := forced.Force(t.Context(), latents); err != nil {
				t.Fatal(err)
			}
		} else if got, err := forced.Next(t.Context()); err != nil {
			t.Fatal(err)
		} else {
			sameFrames(t, got, want)
		}
	}
	r.Peek = false
	if _, err := session(t, e, r).Peek(t.Context()); !errors.Is(err, rollout.ErrRequest) || !strings.Contains(err.Error(), "Request.Peek") {
		t.Errorf("peek without room for it: %v", err)
	}
}

func TestStartFramesThatDoNotFitAreRefused(t *testing.T) {
	g := golden.Load(t, "../dit/testdata/golden/wan_causal_tiny")
	defer g.Close()
	e := videoEngine(t, g, "float32", "tiny")
	small := []video.Frame{video.NewFrame(64, 64)}
	for want, r := range map[string]rollout.Request{
		"a multiple of 4 more": {Start: clip(e, 3)},
		"the model makes":      {Start: small},
		"rolling loop":         {Start: clip(e, 1), Loop: rollout.RollingWindow},
	} {
		if _, err := e.Open(t.Context(), r); !errors.Is(err, rollout.ErrRequest) || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", want, err)
		}
	}
	e.NewEncoder = nil
	if _, err := e.Open(t.Context(), rollout.Request{Start: clip(e, 1)}); !errors.Is(err, rollout.ErrRequest) {
		t.Errorf("start frames without an encoder: %v", err)
	}
}
