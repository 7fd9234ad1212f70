package compare

import (
	"context"
	"fmt"
	"math"
	"sync"

	"longtake/rollout"
	"longtake/video"
	"longtake/world"
)

// The measures of Play.
const (
	NextFrame = "next-frame" // every frame is made after the true ones before it
	Actions   = "actions"    // is the picture the one that the action leads to?
	Walls     = "walls"      // walk into what is there, then back
	Stroll    = "stroll"     // a long walk: revisits, sharpness, colours
	Stability = "stability"  // a very long walk: what pictures are like early and late
	Prompt    = "prompt"     // a turn on the spot from text alone: is it the room that the prompt names?

	OneStep     = "one-step"      // single frames against the first policy's, on what the first policy has dreamt
	OneStepOwn  = "one-step-own"  // on what the policy itself has dreamt
	OneStepTrue = "one-step-true" // on true walks
)

// PlayOptions says what Play measures.
type PlayOptions struct {
	Engine *rollout.Engine
	// Measure is one of the constants above; Frames is how long its clips are, Given how many true frames a stroll begins with.
	Measure       string
	Frames, Given int
	// Clips is the number of worlds, from Seed on.
	Clips int
	Seed  uint32
	// Steps of denoising, 0 for the model's own.
	Steps   int
	Entries []Entry
	// Stills is the number of pictures of the first clip, 0 for none.
	Stills int
	// Parallel is how many clips share the machine, 0 and 1 for one after the other.
	Parallel int
	Progress func(what string, done, total int)

	shared *histories
}

// scene is a world to play in: actions, and what the simulator shows.
type scene struct {
	seed    uint32
	request rollout.Request
	actions []int
	poses   []world.Pose
	world   *world.World
	truth   func(p world.Pose) video.Frame
}

// found are the numbers of one clip in the order of their names, with its frames.
type found struct {
	names  []string
	values map[string]float64
	frames []video.Frame
	last   tick
}

func (f *found) note(name string, v float64) {
	if f.values == nil {
		f.values = map[string]float64{}
	}
	f.names, f.values[name] = append(f.names, name), v
}

// Play measures how a world model plays, policy by policy, against the simulator.
func Play(ctx context.Context, o PlayOptions) (*PlayTest, error) {
	o.shared = &histories{}
	if err := checkEntries(o.Entries); err != nil {
		return nil, fmt.Errorf("%w: %w", rollout.ErrRequest, err)
	}
	measure, ok := map[string]func(context.Context, Entry, scene) (*found, error){
		NextFrame: o.nextFrame, Actions: o.obedience, Walls: o.walls, Stroll: o.stroll, Stability: o.stability, Prompt: o.prompted,
		OneStep: o.oneStep, OneStepOwn: o.oneStep, OneStepTrue: o.oneStep,
	}[o.Measure]
	switch {
	case !ok:
		return nil, fmt.Errorf("%w: measure %q: known are next-frame, actions, walls, stroll, stability, prompt, one-step, one-step-own and one-step-true", rollout.ErrRequest, o.Measure)
	case o.Clips < 1 || o.Frames < 2 || o.Given < 1 || o.Given >= o.Frames:
		return nil, fmt.Errorf("%w: %s: %d clips of %d frames, %d of them given: must be at least 1, 2 and 1, and fewer given", rollout.ErrRequest, o.Measure, o.Clips, o.Frames, o.Given)
	case o.Engine.Network.ChunkFrames != 1 || len(o.Engine.Turns) == 0 || len(o.Engine.Turns) > world.NumActions:
		return nil, fmt.Errorf("%w: %s needs a world model with actions that makes one frame at a time", rollout.ErrRequest, o.Measure)
	}
	if o.Progress == nil {
		o.Progress = func(string, int, int) {}
	}
	t := &PlayTest{Measure: o.Measure, Frames: o.Frames, Given: o.Given}
	for n := range o.Clips {
		t.Seeds = append(t.Seeds, o.Seed+uint32(n))
	}
	for _, entry := range o.Entries {
		row, err := o.row(ctx, entry, t.Seeds, measure)
		if err != nil {
			return nil, err
		}
		t.Rows = append(t.Rows, *row)
	}
	first, err := o.scene(o.Seed)
	if err != nil {
		return nil, err
	}
	t.TruthStrip, err = stills(func(i int) video.Frame { return first.truth(first.poses[i]) }, 0, len(first.poses), o.Stills)
	return t, err
}

// row runs one entry in all worlds.
func (o *PlayOptions) row(ctx context.Context, entry Entry, seeds []uint32, measure func(context.Context, Entry, scene) (*found, error)) (*PlayRow, error) {
	row := &PlayRow{Policy: entry.Policy}
	clips := make([]*found, len(seeds))
	var mu sync.Mutex
	done := 0
	err := parallel(max(o.Parallel, 1), 0, len(seeds), func(i int) error {
		s, err := o.scene(seeds[i])
		if err != nil {
			return err
		}
		if clips[i], err = measure(ctx, entry, s); err != nil {
			return fmt.Errorf("policy %s, world %d: %w", entry.Name, seeds[i], err)
		}
		mu.Lock()
		defer mu.Unlock()
		done++
		o.Progress(entry.Name, done, len(seeds))
		return nil
	})
	if err != nil {
		return nil, err
	}
	for _, f := range clips {
		row.add(f)
		row.Tokens += f.last.tokens / float64(len(seeds))
		row.CacheBytes = max(row.CacheBytes, f.last.cacheBytes)
	}
	if row.Strip, err = stills(func(k int) video.Frame { return clips[0].frames[k] }, 0, len(clips[0].frames), o.Stills); err != nil {
		return nil, err
	}
	for i := range row.Findings {
		row.Findings[i].close()
	}
	if o.Measure == Stability {
		row.ratios(o.marks())
	}
	return row, nil
}

// add appends a clip's numbers to the findings of the same names.
func (row *PlayRow) add(f *found) {
	for _, name := range f.names {
		at := -1
		for i := range row.Findings {
			if row.Findings[i].Name == name {
				at = i
			}
		}
		if at < 0 {
			at, row.Findings = len(row.Findings), append(row.Findings, Finding{Name: name})
		}
		row.Findings[at].Clips = append(row.Findings[at].Clips, Fraction(f.values[name]))
	}
}

// close takes mean and standard error.
func (f *Finding) close() {
	sum, n := 0.0, 0.0
	for _, v := range f.Clips {
		if !math.IsNaN(float64(v)) {
			sum, n = sum+float64(v), n+1
		}
	}
	f.N, f.Mean, f.SE = int(n), Fraction(sum/n), Fraction(math.NaN())
	if n > 1 {
		squares := 0.0
		for _, v := range f.Clips {
			if d := float64(v) - float64(f.Mean); !math.IsNaN(d) {
				squares += d * d
			}
		}
		f.SE = Fraction(math.Sqrt(squares / (n - 1) / n))
	}
}

// clips are the numbers of a finding, clip by clip.
func (row *PlayRow) clips(name string) []Fraction {
	for _, f := range row.Findings {
		if f.Name == name {
			return f.Clips
		}
	}
	return nil
}

// ratio is the mean of a by that of b; its standard error is that of a - ratio*b, by b's mean.
func ratio(name string, a, b []Fraction) Finding {
	f := Finding{Name: name, N: len(a)}
	over, under, squares := 0.0, 0.0, 0.0
	for i := range a {
		over, under = over+float64(a[i]), under+float64(b[i])
	}
	r, n := over/under, float64(len(a))
	for i := range a {
		d := float64(a[i]) - r*float64(b[i])
		squares += d * d
	}
	f.Mean, f.SE = Fraction(r), Fraction(math.NaN())
	if n > 1 {
		f.SE = Fraction(math.Sqrt(squares*n/(n-1)) / under)
	}
	return f
}

// scene makes the world of a seed and a walk in it, with actions that the model knows.
func (o *PlayOptions) scene(seed uint32) (scene, error) {
	kind := world.Mixed
	if len(o.Engine.Turns) == world.NumActions {
		kind = world.Stroll
	}
	e, err := world.NewEpisode(seed, o.Frames, kind, 0)
	if err != nil {
		return scene{}, err
	}
	s := scene{seed: seed, poses: e.Poses, world: e.World}
	for _, a := range e.Actions {
		s.actions = append(s.actions, int(a))
	}
	s.truth = func(p world.Pose) video.Frame {
		f := video.NewFrame(o.Engine.Width, o.Engine.Height)
		e.World.Render(f.Pix, p, f.Width, f.Height)
		return f
	}
	s.request = rollout.Request{Prompt: e.Prompt(), Seed: uint64(seed), Steps: o.Steps, Heading: e.Poses[0].Heading}
	return s, nil
}

// given starts the scene with its first n true frames.
func (s *scene) given(n int) {
	for i := range n {
		s.request.Start = append(s.request.Start, s.truth(s.poses[i]))
		s.request.StartActions = append(s.request.StartActions, s.actions[i])
	}
}
