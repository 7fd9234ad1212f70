package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"

	"longtake/attention"
	"longtake/rollout"
	"longtake/sampler"
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
	chunks  int // that are generated
	begin   start
	given   []video.Frame  // that the video begins with: start frames, but not the image that a network makes videos from
	episode *world.Episode // the simulator's, of begin.seed; nil of models without
	actions []world.Action // that lead to the frames after the first
	script  script         // the prompts; request has the first
	output  string
	record  string // path of the sidecar, "" for none
}

// makePlans checks and reads everything that the flags and the files they name say: a plan for each video.
func (g *generateCommand) makePlans(stdin io.Reader, m catalogued) (out []*plan, err error) {
	scripts := []script{nil}
	if g.PromptFile != "" {
		if g.Prompt != nil {
			return nil, usagef("--prompt and --prompt-file exclude each other")
		}
		if scripts, err = readPrompts(g.PromptFile); err != nil {
			return nil, err
		}
		if len(scripts) > 1 && g.Output == "-" {
			return nil, usagef("--prompt-file %s asks for %d videos: standard output takes one", g.PromptFile, len(scripts))
		}
	}
	for i, s := range scripts {
		one := *g
		if s != nil {
			one.Prompt = &s[0]
		}
		p, err := one.makePlan(stdin, m)
		if err != nil {
			return nil, err
		}
		if p.script = s; s == nil {
			p.script = script{p.request.Prompt}
		}
		p.output = numbered(g.Output, i, len(scripts))
		if p.record, err = sidecarPath(p.output); err != nil {
			return nil, err
		}
		out = append(out, p)
	}
	return out, nil
}

// length is the video's frames.
func (g *generateCommand) length(m catalogued) int {
	switch {
	case g.Frames != nil:
		return *g.Frames
	case g.Latent != nil:
		return min(1+(*g.Latent-1)*m.stride, maxFrames)
	case m.world:
		return 240
	}
	return 81
}

// makePlan checks and reads what one video needs.
func (g *generateCommand) makePlan(stdin io.Reader, m catalogued) (*plan, error) {
	p := &plan{frames: g.length(m)}
	p.request.Seed, p.request.Steps = g.Seed, g.Steps
	from := g.Start
	if from == "" && !m.world {
		from = "none"
	}
	var err error
	if p.begin, err = parseStart(from, uint32(g.Seed)); err != nil {
		return nil, err
	}
	if g.Prompt != nil {
		if p.request.Prompt, err = textFlag(*g.Prompt, "--prompt", maxPromptBytes, stdin); err != nil {
			return nil, err
		}
	}
	if !m.world {
		return p, p.withoutWorld(g)
	}
	if len(p.begin.pictures) > 1 {
		return nil, usagef("--start %s: only models on Wan-2.1 go on from several frames: name one image", p.begin.name)
	}
	if p.episode, err = world.NewEpisode(p.begin.seed, p.frames, world.Mixed, 0); err != nil {
		return nil, usageError{err}
	}
	if g.Prompt == nil {
		p.request.Prompt = p.episode.Prompt()
	}
	if g.Actions == "auto" {
		p.actions = p.episode.Actions[1:]
		return p, nil
	}
	script, err := readActions(g.Actions, stdin)
	if err != nil {
		return nil, err
	}
	p.actions = fit(script, p.frames-1)
	return p, nil
}

// withoutWorld refuses what only models of the simulator's world know.
func (p *plan) withoutWorld(g *generateCommand) error {
	switch {
	case g.Prompt == nil:
		return usagef("--model %s needs a --prompt: what the video shows", g.Model)
	case p.begin.kind == startSim:
		return usagef("--start %s: model %s knows no simulator; none, or an image file", p.begin.name, g.Model)
	case g.Actions != "auto" && g.Actions != "":
		return usagef("--actions: model %s follows none", g.Model)
	}
	return nil
}

// setRefresh says what new prompts do. A video of one prompt needs no memory for them, and LongLive's window is written again
// under dense attention only: with another, chunk by chunk.
func (p *plan) setRefresh(asked rollout.Refresh) {
	switch p.request.Refresh = asked; {
	case asked != rollout.ModelRefresh:
	case len(p.script) == 1:
		p.request.Refresh = rollout.NoRefresh
	case p.request.Self != nil && p.request.Self != attention.Maker(attention.Dense{}):
		p.request.Refresh = rollout.RefreshChunks
	}
}

// fitStart cuts start frames to what the model takes: 1 and a multiple of its stride; whole chunks in the rolling loop, for which an
// image stands still; the first where the network makes videos from an image.
func (p *plan) fitStart(e *rollout.Engine, rolls bool) {
	frames, stride := p.request.Start, max(e.Stride, 1)
	if p.begin.kind != startImage {
		return
	}
	n := 1 + (len(frames)-1)/stride*stride
	switch chunk := e.Network.ChunkFrames; {
	case e.FromImage():
		n = 1
	case rolls && n == 1:
		frames = slices.Repeat(frames[:1], e.Frames(chunk))
		n = len(frames)
	case rolls && e.LatentFrames(n) >= chunk:
		n = e.Frames(e.LatentFrames(n) / chunk * chunk)
	}
	p.request.Start = frames[:n]
}

// noteRefresh tells when a model that writes its history again under a new prompt cannot do so with the chosen cache.
func (p *plan) noteRefresh(w io.Writer, e *rollout.Engine, kept chosen, asked rollout.Refresh) {
	if len(p.script) > 1 && asked == rollout.ModelRefresh && e.Refresh > rollout.NoRefresh && kept.kind != "window" {
		fmt.Fprintf(w, "longtake: note: %s writes its window again under a new prompt; %s cannot be, and goes on speaking of the old one (--cache window does not)\n", e.Name, kept.Policy.Cache)
	}
}

// setLength says how many chunks there are, and draws PyTorch's noise for them where that is asked for.
func (p *plan) setLength(e *rollout.Engine, kept chosen, noise string) error {
	c := e.Network.Config
	if !e.FromImage() {
		p.given = p.request.Start
	}
	given := e.LatentFrames(len(p.given))
	left := e.LatentFrames(p.frames) - given
	p.chunks = max((left+c.ChunkFrames-1)/c.ChunkFrames, 0)
	p.request.Chunks = p.chunks
	if noise != "torch-cpu" {
		return nil
	}
	if c.Conv == [3]int{} {
		return usagef("--noise torch-cpu is for models on Wan-2.1")
	}
	stream, latent := sampler.NewTorch(p.request.Seed), sampler.Latent{Channels: c.Conv[0], Rows: 2 * c.Rows, Columns: 2 * c.Columns}
	if !kept.rolls(e) {
		p.request.Noise = stream.Video(p.chunks*c.ChunkFrames, latent)
		return nil
	}
	solver, err := e.NewSolver(p.request.Steps)
	if err != nil {
		return usageError{err}
	}
	p.request.Noise = stream.Rolling(given/c.ChunkFrames, p.chunks, c.ChunkFrames, len(solver.Steps), latent)
	return nil
}

// setStart makes the first frame, width x height as the model wants it.
func (p *plan) setStart(width, height int) {
	var pose world.Pose
	if p.episode != nil {
		pose = p.episode.Poses[0]
	}
	switch p.begin.kind {
	case startSim:
		frame := video.NewFrame(width, height)
		p.episode.World.Render(frame.Pix, pose, width, height)
		p.request.Start, p.request.Heading = []video.Frame{frame}, pose.Heading
	case startNone:
		p.request.Heading = pose.Heading
	case startImage:
		p.request.Start = p.request.Start[:0]
		for _, picture := range p.begin.pictures {
			p.request.Start = append(p.request.Start, crop(picture, width, height))
		}
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
	if i == 0 || i > len(p.actions) {
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
