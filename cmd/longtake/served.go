package main

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"longtake/attention"
	"longtake/rollout"
	"longtake/serve"
	"longtake/video"
	"longtake/world"
)

// served are the policies that viewers may choose, all of them bounded; servedPlain those of models without poses, of which 240 frames
// would be 18 GiB.
const (
	served      = "pose; window; dense=window:window=240; fast=preset:fast; balanced=preset:balanced"
	servedPlain = "window; fast=preset:fast; balanced=preset:balanced"
)

// keyActions are the keys of the embedded page, by KeyboardEvent.code.
var keyActions = map[string]world.Action{
	"KeyW": world.Forward, "ArrowUp": world.Forward, "KeyS": world.Back, "ArrowDown": world.Back,
	"KeyA": world.TurnLeft, "ArrowLeft": world.TurnLeft, "KeyD": world.TurnRight, "ArrowRight": world.TurnRight,
	"KeyQ": world.ForwardLeft, "KeyE": world.ForwardRight,
	"KeyZ": world.StrafeLeft, "KeyC": world.StrafeRight, // of models that know them
}

// steer turns the keys that are held into an action; opposite keys cancel each other.
func steer(held []string) int {
	var ahead, turn, aside int
	seen := map[world.Action]bool{}
	for _, k := range held {
		a, ok := keyActions[k]
		if !ok || seen[a] {
			continue
		}
		seen[a] = true
		turn += a.Turn()
		switch a {
		case world.Forward, world.ForwardLeft, world.ForwardRight:
			ahead = max(ahead, 0) + 1
		case world.Back:
			ahead--
		case world.StrafeLeft:
			aside--
		case world.StrafeRight:
			aside++
		}
	}
	switch {
	case ahead > 0 && turn < 0:
		return int(world.ForwardLeft)
	case ahead > 0 && turn > 0:
		return int(world.ForwardRight)
	case turn < 0:
		return int(world.TurnLeft)
	case turn > 0:
		return int(world.TurnRight)
	case ahead > 0:
		return int(world.Forward)
	case ahead < 0:
		return int(world.Back)
	case aside < 0:
		return int(world.StrafeLeft)
	case aside > 0:
		return int(world.StrafeRight)
	}
	return int(world.Noop)
}

// servedModel makes a lab's model into one that a server plays. Prompt is what sessions show that ask for nothing, where no simulator
// tells.
func servedModel(l *lab, list, prompt string, own policyFlags) (*serve.Model, error) {
	e := l.engine
	if e.Loop == rollout.RollingWindow {
		return nil, usagef("model %s makes its chunks in a rolling window, several at a time: it cannot be played; longtake generate makes videos with it, and self-forcing or longlive can be played", e.Name)
	}
	if e.FromImage() {
		return nil, usagef("model %s makes videos from an image: it cannot be played; longtake generate --image makes videos with it", e.Name)
	}
	if list == "" {
		if list = served; e.Advance == nil {
			list = servedPlain
		}
	}
	if l.model.world && prompt != "" {
		return nil, usagef("--prompt: the simulator describes the worlds of model %s; a session's own prompt is set in the page or over the API", e.Name)
	}
	if prompt == "" {
		prompt = usualPrompt
	}
	m := &serve.Model{Name: e.Name, Hash: e.Hash(), Kernel: l.dev.kind + " " + l.dev.kernel, FPS: e.FPS, Width: e.Width, Height: e.Height,
		ChunkFrames: e.Network.ChunkFrames * max(e.Stride, 1), HeadsPerLayer: e.CacheShape.Heads, WeightBytes: e.WeightBytes(), Steer: func([]string) int { return 0 }}
	m.About, m.Licence = l.model.about, l.model.licence
	if n := len(e.Turns); n > int(world.ForwardRight) && n <= world.NumActions {
		m.Keys = map[string]string{}
		m.Steer = func(held []string) int {
			if a := steer(held); a < n {
				return a
			}
			return int(world.Noop)
		}
		for a := range world.Action(n) {
			m.Actions = append(m.Actions, a.String())
		}
		for key, a := range keyActions {
			if int(a) < n {
				m.Keys[key] = a.String()
			}
		}
	}
	names, items, err := servedPolicies(own.before(list))
	if err != nil {
		return nil, err
	}
	p := &planner{engine: e, world: l.model.world, prompt: prompt, width: m.Width, height: m.Height, steps: l.flags.Steps, chosen: map[string]chosen{}}
	for i, name := range names {
		f, err := parsePolicy(items[i])
		if err != nil {
			return nil, err
		}
		c, err := f.entryOf(items[i], e)
		if err != nil {
			return nil, err
		}
		if c.sized != nil {
			return nil, usagef("--policies: %s grows without bound: give it a window or a budget", name)
		}
		p.chosen[name] = c
		m.Policies = append(m.Policies, serve.Policy{Name: name, About: about(c)})
	}
	m.Plan, m.Script = p.plan, p.script
	m.Picture = func(data []byte) (video.Frame, error) {
		picture, err := decode(data)
		if err != nil {
			return video.Frame{}, err
		}
		return crop(picture, m.Width, m.Height), nil
	}
	return m, nil
}

// about says in words what a policy does.
func about(c chosen) string {
	parts := []string{c.Policy.Cache}
	for _, p := range []string{c.Policy.Self, c.Policy.Cross} {
		if p != "" && p != "dense" {
			parts = append(parts, p)
		}
	}
	return strings.Join(parts, ", ")
}

// usualPrompt is what a server shows when nobody says what; models without a simulator need a prompt.
const usualPrompt = "a cat walks along a beach at sunset, waves roll in behind it, cinematic"

// planner turns setups into timelines of an engine.
type planner struct {
	engine        *rollout.Engine
	world         bool   // the simulator goes with the model
	prompt        string // of sessions without one, where it does not
	width, height int
	steps         int
	chosen        map[string]chosen
}

// begin reads the start of a setup. Unlike the flag --start it never names files.
func (p *planner) begin(s serve.Setup) (start, *world.Episode, error) {
	if !p.world {
		if s.Start != "" && s.Start != "none" {
			return start{}, nil, fmt.Errorf("%w: start %.30q: model %s knows no simulator; none, or an image", serve.ErrRequest, s.Start, p.engine.Name)
		}
		return start{name: "none", kind: startNone}, nil, nil
	}
	if s.Start != "" && s.Start != "sim" && s.Start != "none" && !strings.HasPrefix(s.Start, "sim:") {
		return start{}, nil, fmt.Errorf("%w: start %.30q: sim, sim:SEED or none", serve.ErrRequest, s.Start)
	}
	begin, err := parseStart(s.Start, uint32(s.Seed))
	if err != nil {
		return start{}, nil, fmt.Errorf("%w: %w", serve.ErrRequest, err)
	}
	episode, err := world.NewEpisode(begin.seed, 1, world.Mixed, 0)
	return begin, episode, err
}

// plan implements serve.Model.Plan.
func (p *planner) plan(s serve.Setup) (out serve.Plan, err error) {
	begin, episode, err := p.begin(s)
	if err != nil {
		return out, err
	}
	c := p.chosen[s.Policy]
	r := c.Request(rollout.Request{Seed: s.Seed, Steps: s.Steps, Prompt: p.prompt})
	var pose world.Pose
	if episode != nil {
		r.Prompt, pose = episode.Prompt(), episode.Poses[0]
	}
	if r.Self == nil {
		r.Self = attention.Dense{}
	}
	inner := r.Self
	r.Self = &attention.Gaze{Inner: inner} // for its bytes; every timeline has its own
	if s.Prompt != nil {
		r.Prompt = *s.Prompt
	}
	if s.Steps == 0 {
		r.Steps = p.steps
	}
	resumed := r
	r.Heading = pose.Heading
	switch {
	case s.Picture != nil:
		if len(s.Picture) != 3*p.width*p.height {
			return out, fmt.Errorf("%w: picture of %d bytes", serve.ErrRequest, len(s.Picture))
		}
		r.Start, r.Heading = []video.Frame{{Width: p.width, Height: p.height, Pix: s.Picture}}, 0
	case begin.kind == startSim:
		frame := video.NewFrame(p.width, p.height)
		episode.World.Render(frame.Pix, pose, p.width, p.height)
		r.Start = []video.Frame{frame}
	}
	if out.Bytes, err = p.engine.SessionBytes(r); err != nil {
		return out, err
	}
	out.Prompt, out.Policy, out.Start = r.Prompt, about(c), r.Start
	open := func(ctx context.Context, r rollout.Request) (serve.Timeline, error) {
		gaze := &attention.Gaze{Inner: inner}
		r.Self = gaze
		s, err := p.engine.NewSession(ctx, r)
		if err != nil {
			return nil, err
		}
		return newCharted(s, gaze, p.engine.CacheShape), nil
	}
	out.Open = func(ctx context.Context) (serve.Timeline, error) { return open(ctx, r) }
	out.Resume = func(ctx context.Context, heading int) (serve.Timeline, error) {
		resumed.Heading = heading
		return open(ctx, resumed)
	}
	return out, nil
}

// script implements serve.Model.Script.
func (p *planner) script(script string, s serve.Setup, n int) ([]int, error) {
	begin, _, err := p.begin(s)
	if err != nil {
		return nil, err
	}
	if !p.world {
		if script != "" {
			return nil, fmt.Errorf("%w: actions: model %s follows none", serve.ErrRequest, p.engine.Name)
		}
		return make([]int, n), nil
	}
	var actions []world.Action
	if script == "" {
		actions, err = world.AutoActions(begin.seed, n)
	} else if actions, err = world.ParseActions(script); err == nil {
		actions = fit(actions, n)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: actions: %w", serve.ErrRequest, err)
	}
	if slices.ContainsFunc(actions, func(a world.Action) bool { return int(a) >= len(p.engine.Turns) }) {
		return nil, fmt.Errorf("%w: the model takes no actions", serve.ErrRequest)
	}
	out := make([]int, n)
	for i := range out {
		out[i] = int(actions[i])
	}
	return out, nil
}
