package pose_test

import (
	"bytes"
	"context"
	"math"
	"os"
	"strconv"
	"testing"

	"longtake/accel/pose"
	"longtake/compute/cpu"
	"longtake/kvcache"
	"longtake/model/modeltest"
	"longtake/rollout"
	"longtake/video"
	"longtake/video/metric"
	"longtake/world"
)

// walkAndUndo shows the model a true walk of span frames, lets it undo every action, and returns the PSNR of the way back
// against the simulator, whole and in its last five frames. It skips clips that touch a wall, where dead reckoning and truth part.
func walkAndUndo(t *testing.T, e *rollout.Engine, seed uint32, span int, policy kvcache.Policy) (all, last float64, ok bool) {
	t.Helper()
	ep, err := world.NewEpisode(seed, 2*span+1, world.WalkAndUndo, span)
	if err != nil {
		t.Fatal(err)
	}
	poses := world.DeadReckon(ep.Poses[0], ep.Actions)
	for i, p := range ep.Poses {
		dx, dy := p.X-poses[i].X, p.Y-poses[i].Y
		if dx*dx+dy*dy > 1e-4 {
			return 0, 0, false
		}
	}
	r := rollout.Request{Prompt: ep.Prompt(), Seed: uint64(seed), Cache: policy, Heading: ep.Poses[0].Heading}
	for i := range span + 1 {
		f := video.NewFrame(64, 64)
		ep.World.Render(f.Pix, ep.Poses[i], 64, 64)
		r.Start, r.StartActions = append(r.Start, f), append(r.StartActions, int(ep.Actions[i]))
	}
	s, err := e.NewSession(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	truth := video.NewFrame(64, 64)
	for i := span + 1; i <= 2*span; i++ {
		frames, err := s.Next(t.Context(), int(ep.Actions[i]))
		if err != nil {
			t.Fatal(err)
		}
		ep.World.Render(truth.Pix, ep.Poses[i], 64, 64)
		db, err := metric.PSNR(frames[0], truth)
		if err != nil {
			t.Fatal(err)
		}
		all += db / float64(span)
		if i > 2*span-5 {
			last += db / 5
		}
	}
	return all, last, true
}

// The first clip without a wall; LONGTAKE_CLIPS measures more of them (README.md).
func TestWalkingBackIsRemembered(t *testing.T) {
	clips, _ := strconv.Atoi(os.Getenv("LONGTAKE_CLIPS"))
	span := 40
	if clips == 0 {
		clips, span = 1, 12
	}
	e := modeltest.TinyWorld(t, cpu.Options{})
	type score struct{ all, last float64 }
	sums := map[string]score{}
	policies := map[string]kvcache.Policy{"window 6": kvcache.Window{Recent: 6}, "pose": pose.Default}
	for seed, done := uint32(53000), 0; done < clips; seed++ {
		counted := false
		for name, p := range policies {
			all, last, ok := walkAndUndo(t, e, seed, span, p)
			if !ok {
				break
			}
			counted = true
			s := sums[name]
			sums[name] = score{s.all + all/float64(clips), s.last + last/float64(clips)}
		}
		if counted {
			done++
		}
	}
	var best, other score
	for name, s := range sums {
		t.Logf("%-10s walk %d and undo, %d clips: %.1f dB, last five frames %.1f dB", name, span, clips, s.all, s.last)
		if name == "pose" {
			best = s
		} else {
			other = s
		}
	}
	if best.last < other.last+5 {
		t.Errorf("pose memory ends at %.1f dB, the window at %.1f: want 5 dB more", best.last, other.last)
	}
}

// Keys that are made again are the same whenever that is: neither how many are at hand, nor a chunk that was given up, nor a peek, nor the time of the last
// prompt's frames changes a frame.
func TestHowManyKeysAreAtHandChangesNoFrame(t *testing.T) {
	e := modeltest.TinyWorld(t, cpu.Options{})
	const frames = 30
	play := func(budget int64, restless bool) (out []video.Frame) {
		p := pose.Default
		p.Window, p.Budget = 4, budget
		s, err := e.NewSession(t.Context(), rollout.Request{Prompt: "you start in the north .", Seed: 5, Cache: p, Peek: true})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		for i := range frames {
			action := 3 + i/8%2 // eight turns to the left, eight to the right
			if restless && i%7 == 6 {
				if _, err := s.Peek(t.Context(), 7-action); err != nil {
					t.Fatal(err)
				}
				cancelled, cancel := context.WithCancel(t.Context())
				cancel()
				if _, err := s.Next(cancelled, 1); err == nil {
					t.Fatal("a cancelled chunk was made")
				}
			}
			if i == 20 {
				if err := s.SetPrompt(t.Context(), "you start in the south . the sky is night ."); err != nil {
					t.Fatal(err)
				}
			}
			more, err := s.Next(t.Context(), action)
			if err != nil {
				t.Fatal(err)
			}
			out = append(out, more...)
		}
		return out
	}
	want := play(64<<20, false)
	for name, got := range map[string][]video.Frame{"few keys": play(8<<20, false), "few keys, peeks and cancelled chunks": play(8<<20, true), "many keys, peeks and cancelled chunks": play(64<<20, true)} {
		for i := range want {
			if !bytes.Equal(got[i].Pix, want[i].Pix) {
				t.Fatalf("%s: frame %d differs", name, i)
			}
		}
	}
}

// A true step towards a wall that fills the view may change the picture less than a dream flickers; world 3031 has two. Start frames are believed, unless
// the picture stays as it was.
func TestGivenStepsThatChangeLittleAreSteps(t *testing.T) {
	e := modeltest.TinyWorld(t, cpu.Options{})
	const span = 40
	ep, err := world.NewEpisode(3031, span+1, world.WalkAndUndo, span)
	if err != nil {
		t.Fatal(err)
	}
	start := func(at func(i int) world.Pose, action func(i int) world.Action) kvcache.Pose {
		r := rollout.Request{Prompt: ep.Prompt(), Cache: kvcache.Window{Recent: 1}, Heading: at(0).Heading}
		for i := range span + 1 {
			f := video.NewFrame(64, 64)
			ep.World.Render(f.Pix, at(i), 64, 64)
			r.Start, r.StartActions = append(r.Start, f), append(r.StartActions, int(action(i)))
		}
		s, err := e.NewSession(t.Context(), r)
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		return s.Pose()
	}
	p := start(func(i int) world.Pose { return ep.Poses[i] }, func(i int) world.Action { return ep.Actions[i] })
	if last := ep.Poses[span]; math.Hypot(p.X-float64(last.X-ep.Poses[0].X), p.Y-float64(last.Y-ep.Poses[0].Y)) > 1e-3 {
		t.Errorf("the given frames lead to %+v, want %v from %v", p, last, ep.Poses[0])
	}
	p = start(func(int) world.Pose { return ep.Poses[0] }, func(int) world.Action { return world.Forward })
	if p.X != 0 || p.Y != 0 {
		t.Errorf("%d steps whose picture stays lead to %+v", span, p)
	}
}
