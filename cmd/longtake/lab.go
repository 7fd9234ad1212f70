package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"longtake/compare"
	"longtake/compute/cpu"
	"longtake/rollout"
	"longtake/video"
	"longtake/world"
)

// What the commands that measure have alike: compare, bench and eval.

// machineFlags choose model and device.
type machineFlags struct {
	modelFlags
	Device    string `default:"auto" help:"Device: ${devices}."`
	Precision string `default:"bf16" placeholder:"TYPE" help:"How a GPU multiplies: bf16 (the embedded model in float32), or fp8 (e4m3; half the memory of the network's blocks and faster, less exact). Default: ${default}."`
	CPUKernel string `name:"cpu-kernel" placeholder:"CLASS" help:"Kernel class of the CPU; this machine has ${kernels}. Default: the first."`
	Threads   int    `placeholder:"N" help:"CPU threads. Default: all cores."`
	Steps     int    `aliases:"num-inference-steps,sample-steps" placeholder:"N" help:"Denoising steps a frame. Default: the model's own."`
	Quiet     bool   `short:"q" help:"Print results and errors only."`
}

// sceneFlags choose the video.
type sceneFlags struct {
	Frames  int     `short:"n" default:"240" aliases:"num-frames" help:"Frames of each video, given ones included. Default ${default}."`
	Seed    uint64  `default:"0" help:"Seed of the noise and, in its lower 32 bits, of the simulator. Default ${default}."`
	Start   string  `default:"" placeholder:"WHAT" help:"First frame: sim, sim:SEED, none, or an image file. Default: sim, none of models without a simulator."`
	Given   int     `default:"1" placeholder:"N" help:"Frames of the simulator that the videos start with. Default ${default}."`
	Prompt  *string `placeholder:"TEXT" help:"Description of the world; @FILE reads it. Default: the simulator's own."`
	Actions string  `default:"auto" placeholder:"SCRIPT" help:"What the walker does, as generate takes it."`
}

// listFlags choose the policies.
type listFlags struct {
	Policies string `placeholder:"LIST" help:"Policies, separated by ';': a kind of cache or preset:NAME, then flags of the policy without dashes, such as 'window:window=16; tempcache:budget=12f,threshold=0.9 as merged; preset:fast'; reports use the name after \"as\"."`
	policyFlags
}

// trialFlags are those of the commands that run one video under several policies.
type trialFlags struct {
	sceneFlags   `embed:""`
	machineFlags `embed:""`
	listFlags    `embed:""`
}

// open gives the model on its device, which the caller closes, the video, and the policies as entries does.
func (f *trialFlags) open(out *streams, first []string, otherwise ...string) (*lab, *scene, []compare.Entry, error) {
	l, err := f.machineFlags.open(out)
	if err != nil {
		return nil, nil, nil, err
	}
	s, err := f.sceneFlags.open(out, l)
	if err == nil {
		var entries []compare.Entry
		if entries, err = f.entries(l.engine, first, otherwise...); err == nil {
			return l, s, entries, nil
		}
	}
	l.close()
	return nil, nil, nil, err
}

// entries are the policies of the flags, after those of first.
func (f listFlags) entries(e *rollout.Engine, first []string, otherwise ...string) ([]compare.Entry, error) {
	items := first
	switch {
	case f.Policies != "" && f.given():
		return nil, usagef("--policies and single flags of a policy (%s) exclude each other", f.text())
	case f.given():
		items = append(items, f.text())
	case f.Policies != "":
		listed, _, err := parsePolicies(f.Policies)
		if err != nil {
			return nil, err
		}
		items = append(items, without(listed, first)...)
	default:
		items = append(items, without(otherwise, first)...)
	}
	var out []compare.Entry
	for _, item := range items {
		policy, label, labelled := strings.Cut(item, " as ")
		if !labelled {
			label = item
		}
		p, err := parsePolicy(strings.TrimSpace(policy))
		if err != nil {
			return nil, err
		}
		c, err := p.entryOf(strings.TrimSpace(label), e)
		if err != nil {
			return nil, err
		}
		out = append(out, c.Entry)
	}
	return out, nil
}

// without is list without what is in other: the reference may be listed again.
func without(list, other []string) []string {
	return slices.DeleteFunc(slices.Clone(list), func(s string) bool { return slices.Contains(other, s) })
}

// lab is a model on a device.
type lab struct {
	flags  *machineFlags
	dev    processor
	engine *rollout.Engine
	model  catalogued
	screen *screen
}

func (m *machineFlags) open(out *streams) (*lab, error) {
	if m.Steps < 0 {
		return nil, usagef("--steps %d: must not be negative", m.Steps)
	}
	m.Takes = true
	catalogued, err := modelNamed(&m.modelFlags)
	if err != nil {
		return nil, err
	}
	l := &lab{flags: m, model: catalogued, screen: newScreen(out, m.Quiet)}
	l.dev, err = openDevice(m.Device, deviceFlags{
		Options: cpu.Options{Kernel: m.CPUKernel, Threads: m.Threads}, precision: m.Precision, small: catalogued.small,
		progress: func(line string) { fmt.Fprintln(out.err, line) },
	})
	if err != nil {
		return nil, err
	}
	if l.engine, err = catalogued.open(l.dev.Device); err != nil {
		l.dev.Device.Close()
		return nil, fmt.Errorf("model %s: %w", m.Model, err)
	}
	if _, err := l.engine.NewSolver(m.Steps); err != nil {
		l.close()
		return nil, usageError{err}
	}
	return l, nil
}

func (l *lab) close() {
	l.screen.end()
	l.engine.Close()
	l.dev.Device.Close()
}

// setup writes down what is run, on what.
func (l *lab) setup(s *compare.Setup) {
	t := tool()
	s.Tool = strings.TrimSpace(fmt.Sprintf("%s %s %.12s", t.Name, t.Version, t.Revision))
	s.Host = fmt.Sprintf("%s/%s, %s, %d cores", runtime.GOOS, runtime.GOARCH, cpuName(), runtime.NumCPU())
	s.Device, s.Kernel, s.Threads = l.dev.Device.Name(), l.dev.kernel, l.flags.Threads
	if s.Threads == 0 {
		s.Threads = runtime.GOMAXPROCS(0)
	}
	s.Model, s.ModelHash, s.FPS = l.engine.Name, l.engine.Hash(), l.engine.FPS
	if solver, err := l.engine.NewSolver(l.flags.Steps); err == nil {
		s.Steps = len(solver.Steps)
	}
	s.Command = strings.Join(os.Args, " ")
}

// scene is a video to be made, with the simulator's view of it where there is one.
type scene struct {
	*plan
	poses []world.Pose // the simulator's, frame by frame; nil without one
	truth func(i int) video.Frame
	seen  []bool
}

// open reads the flags and makes the given frames.
func (f *sceneFlags) open(out *streams, l *lab) (*scene, error) {
	if f.Frames < 2 || f.Frames > maxFrames {
		return nil, usagef("--frames %d: must be between 2 and %d", f.Frames, maxFrames)
	}
	if f.Given < 1 || f.Given >= f.Frames {
		return nil, usagef("--given %d: must be at least 1 and less than --frames %d", f.Given, f.Frames)
	}
	g := generateCommand{Frames: &f.Frames, Seed: f.Seed, Start: f.Start, Prompt: f.Prompt, Actions: f.Actions, Steps: l.flags.Steps}
	g.Model = l.flags.Model
	p, err := g.makePlan(out.in, l.model)
	if err != nil {
		return nil, err
	}
	if err := p.known(len(l.engine.Turns)); err != nil {
		return nil, err
	}
	if l.engine.FromImage() {
		return nil, usagef("model %s makes videos from an image, which is none of their frames: longtake generate --image makes them; they are not compared or measured yet", l.engine.Name)
	}
	s := &scene{plan: p}
	p.setStart(l.engine.Width, l.engine.Height)
	p.fitStart(l.engine, false)
	if p.begin.kind != startSim {
		if f.Given > 1 {
			return nil, usagef("--given %d: only the simulator gives more than one frame, --start is %s", f.Given, p.begin.name)
		}
		return s, nil
	}
	w := p.episode.World
	s.poses = []world.Pose{p.episode.Poses[0]}
	for i, a := range p.actions {
		s.poses = append(s.poses, w.Step(s.poses[i], a))
	}
	s.truth = func(i int) video.Frame {
		frame := video.NewFrame(l.engine.Width, l.engine.Height)
		w.Render(frame.Pix, s.poses[i], frame.Width, frame.Height)
		return frame
	}
	p.request.Start = nil
	for i := range f.Given {
		p.request.Start = append(p.request.Start, s.truth(i))
		p.request.StartActions = append(p.request.StartActions, p.action(i))
	}
	for _, at := range world.Revisits(s.poses, f.Given) {
		s.seen = append(s.seen, at >= 0)
	}
	return s, nil
}

// steps are the actions that lead to the frames.
func (s *scene) steps() []int {
	out := make([]int, s.frames)
	for i := range out {
		out[i] = s.action(i)
	}
	return out
}

// setup adds the video to what is written down.
func (s *scene) setup(to *compare.Setup) {
	to.Prompt, to.Seed, to.Start, to.Actions = s.request.Prompt, s.request.Seed, s.begin.name, world.FormatActions(s.actions)
}

// screen tells the user how far a measurement is.
type screen struct {
	out      io.Writer
	terminal bool
	quiet    bool
	what     string
	runs     int
	next     time.Time
	meter    *meter
}

func newScreen(out *streams, quiet bool) *screen {
	_, isTerminal := terminal(out.err)
	return &screen{out: out.err, terminal: isTerminal, quiet: quiet}
}

// drawEvery is the pause between two drawings in a terminal.
const drawEvery = 200 * time.Millisecond

// hear is a progress function of package compare.
func (s *screen) hear(what string, done, total int) {
	if s.quiet {
		return
	}
	if what != s.what || s.meter == nil {
		s.end()
		s.what, s.meter = what, &meter{total: total}
		s.runs++
		s.next = time.Now()
		if !s.terminal {
			s.next = s.next.Add(lineEvery)
		}
	}
	s.meter.set(done, 0)
	now := time.Now()
	if now.Before(s.next) && (done < total || !s.terminal) {
		return
	}
	left, every, end := "\r\x1b[K", drawEvery, ""
	if !s.terminal {
		left, every, end = "", lineEvery, "\n"
	}
	s.next = now.Add(every)
	fps, rest := s.meter.rate()
	fmt.Fprintf(s.out, "%srun %d, %s: frame %d/%d, %.1f fps, %v left%s", left, s.runs, what, done, total, fps, rest.Round(time.Second), end)
}

// end leaves the line.
func (s *screen) end() {
	if s.terminal && s.meter != nil {
		fmt.Fprintln(s.out)
	}
	s.meter = nil
}

// checkResults refuses paths that a report cannot be written to, before anything is run.
func checkResults(paths []string, kinds ...string) error {
	for _, p := range paths {
		ok := false
		for _, k := range kinds {
			ok = ok || strings.EqualFold(filepath.Ext(p), k)
		}
		if !ok {
			return usagef("-o %s: known endings are %s", p, strings.Join(kinds, ", "))
		}
		if info, err := os.Stat(filepath.Dir(p)); err != nil {
			return usagef("-o %s: %w", p, cause(err))
		} else if !info.IsDir() {
			return usagef("-o %s: %s is not a folder", p, filepath.Dir(p))
		}
	}
	return nil
}

// writeResults writes a report to every path in the form of its ending. No file is left half written.
func writeResults(paths []string, forms map[string]func(io.Writer) error) error {
	for _, p := range paths {
		if err := writeWhole(p, forms[strings.ToLower(filepath.Ext(p))]); err != nil {
			return fmt.Errorf("write %s: %w", p, cause(err))
		}
	}
	return nil
}

func writeWhole(path string, write func(io.Writer) error) error {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*.part")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // nothing happens once it has its name
	err = write(f)
	if err == nil {
		err = f.Chmod(0o644)
	}
	if closed := f.Close(); err == nil {
		err = closed
	}
	if err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

// jsonForm writes v as JSON.
func jsonForm(v any) func(io.Writer) error {
	return func(w io.Writer) error {
		_, err := w.Write(jsonText(v))
		return err
	}
}
