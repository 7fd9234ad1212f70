package main

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"strings"

	"longtake/rollout"
	"longtake/video"
	"longtake/world"
)

// Limits of what the command line may ask for.
const (
	maxFrames      = 1_000_000
	maxPromptBytes = 8 << 10
	maxScriptBytes = 4 << 20
)

// plan is a request with everything that the flags left open filled in.
type plan struct {
	request rollout.Request
	frames  int // of the whole video, start frames included
	begin   start
	episode *world.Episode // the simulator's, of begin.seed
	actions []world.Action // that lead to the frames after the first
}

// makePlan checks and reads everything that the flags and the files they name say.
func (g *generateCommand) makePlan(stdin io.Reader) (*plan, error) {
	p := &plan{frames: g.Frames}
	p.request.Seed, p.request.Steps = g.Seed, g.Steps
	var err error
	if p.begin, err = parseStart(g.Start, uint32(g.Seed)); err != nil {
		return nil, err
	}
	if p.episode, err = world.NewEpisode(p.begin.seed, g.Frames, world.Mixed, 0); err != nil {
		return nil, usageError{err}
	}
	p.request.Prompt = p.episode.Prompt()
	if g.Prompt != nil {
		if p.request.Prompt, err = textFlag(*g.Prompt, "--prompt", maxPromptBytes, stdin); err != nil {
			return nil, err
		}
	}
	if g.Actions == "auto" {
		p.actions = p.episode.Actions[1:]
		return p, nil
	}
	script, err := readActions(g.Actions, stdin)
	if err != nil {
		return nil, err
	}
	p.actions = fit(script, g.Frames-1)
	return p, nil
}

// setStart makes the first frame, width x height as the model wants it.
func (p *plan) setStart(width, height int) {
	pose := p.episode.Poses[0]
	switch p.begin.kind {
	case startSim:
		frame := video.NewFrame(width, height)
		p.episode.World.Render(frame.Pix, pose, width, height)
		p.request.Start, p.request.Heading = []video.Frame{frame}, pose.Heading
	case startNone:
		p.request.Heading = pose.Heading
	case startImage:
		p.request.Start = []video.Frame{crop(p.begin.picture, width, height)}
	}
}

// known refuses actions that a model with so many of them does not have.
func (p *plan) known(actions int) error {
	for _, a := range p.actions {
		if actions > 0 && int(a) >= actions {
			return usagef("--actions: the model does not know %s", a)
		}
	}
	return nil
}

// action returns what leads to frame i of the video.
func (p *plan) action(i int) int {
	if i == 0 {
		return int(world.Noop)
	}
	return int(p.actions[i-1])
}

// fit repeats a script up to n actions, or cuts it. An empty one stands still.
func fit(script []world.Action, n int) []world.Action {
	out := make([]world.Action, n)
	if len(script) > 0 {
		for i := range out {
			out[i] = script[i%len(script)]
		}
	}
	return out
}

// readActions takes a script, "@" and a file's name ("@-" is standard input), or the plain name of a file that exists and is
// no script.
func readActions(value string, stdin io.Reader) ([]world.Action, error) {
	script, err := textFlag(value, "--actions", maxScriptBytes, stdin)
	if err != nil {
		return nil, err
	}
	actions, err := world.ParseActions(script)
	if err != nil && !strings.HasPrefix(value, "@") {
		if info, statErr := os.Stat(value); statErr == nil && info.Mode().IsRegular() {
			return readActions("@"+value, stdin)
		}
	}
	if err != nil {
		return nil, usagef("--actions: %w", err)
	}
	return actions, nil
}

// textFlag returns a flag's value, or what is in the file that "@name" stands for.
func textFlag(value, flag string, limit int, stdin io.Reader) (string, error) {
	name, isFile := strings.CutPrefix(value, "@")
	if isFile {
		in := stdin
		if name != "-" {
			f, err := os.Open(name)
			if err != nil {
				return "", usagef("%s: read %s: %w", flag, name, cause(err))
			}
			defer f.Close()
			in = f
		}
		b, err := io.ReadAll(io.LimitReader(in, int64(limit)+1))
		if err != nil {
			return "", usagef("%s: read %s: %w", flag, name, cause(err))
		}
		value = string(b)
	}
	if len(value) > limit {
		return "", usagef("%s: longer than %d bytes", flag, limit)
	}
	return strings.TrimSpace(value), nil
}

// cause takes the path and the system call off an error whose message names the file already.
func cause(err error) error {
	var path *fs.PathError
	if errors.As(err, &path) {
		return path.Err
	}
	return err
}
