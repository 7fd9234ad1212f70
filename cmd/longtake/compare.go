package main

import (
	"context"
	"fmt"
	"io"
	"time"

	"longtake/compare"
	"longtake/compute/cpu"
	"longtake/report"
)

// compareCommand holds the flags of "compare".
type compareCommand struct {
	trialFlags `embed:""`
	Reference  string `default:"preset:exact" placeholder:"POLICY" help:"Policy that the others are compared with. Default ${default}."`

	Frontiers    []int         `placeholder:"N,..." help:"Frames to look closely at; the last one always is. Default: 100,500,1000,2000,3000."`
	Span         int           `default:"50" help:"Frames pooled in a mean. Default ${default}."`
	Parted       float64       `default:"30" placeholder:"DB" help:"PSNR below which videos have parted. Default ${default}."`
	Ceiling      string        `default:"order" placeholder:"HOW" help:"Run the reference once more in another order of summation: order (of the keys), a kernel class (${kernels}), or none. Default ${default}."`
	OneStep      bool          `default:"true" negatable:"" help:"Also make single chunks on the reference's own history (costs a clean pass a frame). Default yes."`
	Parallel     int           `default:"1" placeholder:"N" help:"Runs that share the machine. With more than one, all advance from frontier to frontier side by side, and times are those of the chunks at the start and before each frontier that every run makes alone. Default ${default}, one after the other."`
	Limit        time.Duration `placeholder:"TIME" help:"End the report with the last frontier that all runs reach in this time (such as 8m); needs --parallel."`
	TimedThreads int           `placeholder:"N" help:"With --parallel on a CPU: threads of the chunks that are timed. Default: all."`
	Free         int           `placeholder:"N" help:"With --parallel: policies with a full cache, the reference excepted, run freely to this frame only; from there on they make single chunks on the reference's history, which cost a fifth. Default: to the end."`
	Stills       int           `default:"12" help:"Pictures of each video in the report. Default ${default}."`
	Output       []string      `short:"o" placeholder:"PATH" help:"Report to write, .json or .html; may be given twice."`
	JSON         bool          `name:"json" help:"Print the report as JSON on standard output instead of a table."`
}

// Help is shown below the flags' summary.
func (*compareCommand) Help() string {
	return `The same seed, prompt and actions under several policies, each against the reference:

  longtake compare --frames 240 --preset fast
  longtake compare --frames 3000 --policies 'window; tempcache:budget=12f; preset:paper; preset:fast' -o run.json -o run.html
  longtake compare --given 31 --frames 61 --actions 'd30 a30' --policies 'window:window=15; tempcache:budget=16f'

Without policies the presets are compared. Videos of any two policies part in the long run, since rollouts are chaotic: the row "ceiling" shows where rounding alone leads, and the one-step column what a policy changes while the history is still the same.`
}

// Run compares.
func (c *compareCommand) Run(ctx context.Context, out *streams) error {
	if err := checkResults(c.Output, ".json", ".html"); err != nil {
		return err
	}
	if c.Span < 1 || c.Stills < 0 || c.Stills > 1000 {
		return usagef("--span %d --stills %d: must be at least 1, and between 0 and 1000", c.Span, c.Stills)
	}
	if c.Parallel < 1 || c.Parallel > 1000 || c.Limit < 0 {
		return usagef("--parallel %d --limit %v: must be between 1 and 1000, and not negative", c.Parallel, c.Limit)
	}
	l, s, entries, err := c.open(out, []string{c.Reference}, "preset:paper", "preset:balanced", "preset:fast")
	if err != nil {
		return err
	}
	defer l.close()
	o := compare.Options{Engine: l.engine, Request: s.request, Actions: s.steps(), Frames: s.frames, Entries: entries,
		Frontiers: c.Frontiers, Span: c.Span, Diverged: c.Parted, Truth: s.truth, Seen: s.seen, OneStep: c.OneStep,
		Stills: c.Stills, Progress: l.screen.hear}
	c.sideBySide(l, &o)
	ceiling, closed, err := c.ceiling(l)
	if err != nil {
		return err
	}
	defer closed()
	o.Ceiling = ceiling
	if err := o.Check(); err != nil {
		return err
	}
	describe(out.err, l, entries)
	r, err := compare.Policies(ctx, o)
	l.screen.end()
	if err != nil {
		return err
	}
	l.setup(&r.Setup)
	if o.Parallel > 1 && c.TimedThreads > 0 {
		r.Setup.Threads = min(r.Setup.Threads, c.TimedThreads)
	}
	s.setup(&r.Setup)
	if err := writeResults(c.Output, map[string]func(io.Writer) error{
		".json": jsonForm(r), ".html": func(w io.Writer) error { return report.Comparison(w, r) },
	}); err != nil {
		return err
	}
	if c.JSON {
		return jsonForm(r)(out.out)
	}
	return r.Table(out.out)
}

// sideBySide sets how runs share the machine.
func (c *compareCommand) sideBySide(l *lab, o *compare.Options) {
	o.Parallel, o.Free = c.Parallel, c.Free
	if device, ok := l.dev.Device.(*cpu.Device); ok && c.TimedThreads > 0 {
		o.Solo = func(solo bool) {
			threads := 0
			if solo {
				threads = c.TimedThreads
			}
			device.Use(threads)
		}
	}
	if c.Limit > 0 {
		end := time.Now().Add(c.Limit)
		o.Late = func() bool { return time.Now().After(end) }
	}
}

// ceiling opens what the reference is run on once more; closed gives it back.
func (c *compareCommand) ceiling(l *lab) (ceiling *compare.Ceiling, closed func(), err error) {
	nothing := func() {}
	switch c.Ceiling {
	case "none":
		return nil, nothing, nil
	case "order":
		return &compare.Ceiling{How: "the same kernels, the later half of the keys first"}, nothing, nil
	case l.dev.kernel:
		return nil, nil, usagef("--ceiling %s: the reference runs on that class, choose another one", c.Ceiling)
	}
	flags := c.machineFlags
	flags.CPUKernel, flags.Device = c.Ceiling, "cpu"
	dev, err := openCPU(deviceFlags{Options: cpu.Options{Kernel: c.Ceiling, Threads: c.Threads}})
	if err != nil {
		return nil, nil, usagef("--ceiling: %w (other than a kernel class: order, none)", err)
	}
	model, err := modelNamed(&c.modelFlags)
	if err == nil {
		engine, openErr := model.open(dev.Device)
		if openErr == nil {
			return &compare.Ceiling{How: fmt.Sprintf("kernels of class %s instead of %s", c.Ceiling, l.dev.kernel), Engine: engine},
				func() { engine.Close(); dev.Device.Close() }, nil
		}
		err = openErr
	}
	dev.Device.Close()
	return nil, nil, err
}

// describe says in a line each what will run.
func describe(w io.Writer, l *lab, entries []compare.Entry) {
	if l.screen.quiet {
		return
	}
	fmt.Fprintf(w, "%s on %s\n", l.engine.Name, l.dev.Device.Name())
	for _, e := range entries {
		fmt.Fprintf(w, "%s: cache %s; self attention %s, cross attention %s\n", e.Name, e.Policy.Cache, e.Policy.Self, e.Policy.Cross)
	}
}
