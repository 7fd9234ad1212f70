package main

import (
	"context"
	"fmt"
	"io"

	"longtake/compare"
	"longtake/compute"
	"longtake/report"
	"longtake/rollout"
	"longtake/weights"
)

// benchCommands are what "bench" measures: by itself, policies in turns; "bench rollout", long videos one after the other.
type benchCommands struct {
	Turns   benchCommand        `cmd:"" default:"withargs" help:"Policies in turns, as Go benchmark lines (without a word of its own)."`
	Rollout rolloutBenchCommand `cmd:"" help:"Thousands of frames under each policy, one after the other: speed, stages, memory and what is looked at, at frame numbers."`
}

// rolloutBenchCommand holds the flags of "bench rollout".
type rolloutBenchCommand struct {
	trialFlags `embed:""`

	Frontiers []int    `placeholder:"N,..." help:"Frames at which to measure; the last one always is. Default: 100,500,1000,2000,3000."`
	Span      int      `default:"96" help:"Frames up to a frontier whose chunks are pooled. Default ${default}."`
	Latents   string   `placeholder:"FILE" help:"Safetensors with a clip's latents [frames, channels, rows, columns]: its pictures, moved about, are stored and decoded in place of what the network makes, which is made all the same. For weights that are not trained."`
	Loop      string   `default:"auto" help:"How chunks are made: blockwise, ahead (decoding beside the next chunk, which begins before its turn), or auto: ahead of models without controls. Default ${default}."`
	Fill      bool     `help:"Write histories by clean passes alone, with --latents of every cache, else of those that keep everything; the chunks that are timed are whole."`
	Launches  bool     `help:"Also time one chunk after every frontier launch by launch, where the device can."`
	Exact     bool     `help:"Make each history again and compare attention at the frontiers with that over the whole past: error of the outputs and share of the mass."`
	Output    []string `short:"o" placeholder:"PATH" help:"Also write the result to a file, .json or .html."`
	JSON      bool     `name:"json" help:"Print JSON on standard output instead of a table."`
}

// Help is shown below the flags' summary.
func (*rolloutBenchCommand) Help() string {
	return `Speed and memory along a long video, policy by policy:

  longtake bench rollout --frames 3000 --policies 'tempcache:budget=12f,window=4; window' -o rollout.html

Each policy has the device to itself. A cache that keeps everything takes all the memory that its frames will need at once, or as much as there is; the report says at which frame it ended. Recall is the share of exact attention's mass on the keys that sparse attention computed, sampled in a chunk of its own after each frontier.`
}

// Run measures.
func (c *rolloutBenchCommand) Run(ctx context.Context, out *streams) error {
	if err := checkResults(c.Output, ".json", ".html"); err != nil {
		return err
	}
	if c.Span < 1 {
		return usagef("--span %d: must be at least 1", c.Span)
	}
	l, s, entries, err := c.open(out, nil, "window")
	if err != nil {
		return err
	}
	defer l.close()
	if s.request.Loop, err = c.loop(l); err != nil {
		return err
	}
	clip, err := c.clip(l)
	if err != nil {
		return err
	}
	if clip != nil {
		defer clip.Close()
	}
	describe(out.err, l, entries)
	r, err := compare.Rollout(ctx, compare.RolloutOptions{Engine: l.engine, Request: s.request, Actions: s.steps(), Frames: s.frames,
		Entries: entries, Frontiers: c.Frontiers, Span: c.Span, Clip: clip, Fill: c.Fill, Exact: c.Exact, Profile: c.Launches, Progress: l.screen.hear, Found: l.found(out)})
	l.screen.end()
	if err != nil {
		return err
	}
	l.setup(&r.Setup)
	s.setup(&r.Setup)
	r.Precision = l.products()
	if err := writeResults(c.Output, map[string]func(io.Writer) error{
		".json": jsonForm(r), ".html": func(w io.Writer) error { return report.Rollout(w, r) },
	}); err != nil {
		return err
	}
	if c.JSON {
		return jsonForm(r)(out.out)
	}
	return r.Table(out.out)
}

// found tells the user of a measure when it is taken.
func (l *lab) found(out *streams) func(string, compare.RolloutMeasure) {
	if l.screen.quiet {
		return nil
	}
	return func(policy string, m compare.RolloutMeasure) {
		l.screen.end()
		fmt.Fprintf(out.err, "%s, frame %d: %.2f fps, %.2f ms a chunk (p50 %.2f, p95 %.2f), device %d MiB\n", policy, m.Frame, m.FPS, 1e3*m.Mean, 1e3*m.P50, 1e3*m.P95, m.DeviceBytes>>20)
	}
}

// products says how the device multiplies.
func (l *lab) products() string {
	if l.dev.kind == "cpu" {
		return l.dev.kernel
	}
	return l.flags.Precision
}

// loop reads --loop.
func (c *rolloutBenchCommand) loop(l *lab) (rollout.Loop, error) {
	switch controls := len(l.engine.Turns) > 0; {
	case c.Loop == "blockwise", c.Loop == "auto" && controls:
		return rollout.Blockwise, nil
	case c.Loop == "ahead" && controls:
		return 0, usagef("--loop ahead: chunks of %s wait for their actions", l.engine.Name)
	case c.Loop == "ahead", c.Loop == "auto":
		return rollout.AheadOfTime, nil
	}
	return 0, usagef("--loop %q: use auto, blockwise or ahead", c.Loop)
}

// clip reads --latents; nil without.
func (c *rolloutBenchCommand) clip(l *lab) (*compare.Clip, error) {
	if c.Latents == "" {
		return nil, nil
	}
	if len(l.engine.Turns) > 0 {
		return nil, usagef("--latents: model %s has no latents but its pictures", l.engine.Name)
	}
	f, err := weights.Open(c.Latents)
	if err != nil {
		return nil, usageError{err}
	}
	defer f.Close()
	h, err := f.Tensor("latents")
	if err != nil {
		return nil, usagef("--latents %s: %w", c.Latents, err)
	}
	if len(h.Shape) != 4 || h.Elems() == 0 || h.DType != compute.F32 && h.DType != compute.BF16 && h.DType != compute.F16 {
		return nil, usagef("--latents %s: tensor \"latents\" is %v, want [frames, channels, rows, columns] of numbers", c.Latents, h.Shape)
	}
	values, err := weights.Floats(h)
	if err != nil {
		return nil, usagef("--latents %s: %w", c.Latents, err)
	}
	clip, err := compare.NewClip(l.engine, values, [4]int(h.Shape), c.Seed)
	if err != nil {
		return nil, usageError{fmt.Errorf("--latents %s: %w", c.Latents, err)}
	}
	return clip, nil
}
