package main

import (
	"bytes"
	"context"
	"io"
	"os"
	"strconv"

	"longtake/compare"
)

// benchCommand holds the flags of "bench".
type benchCommand struct {
	trialFlags `embed:""`

	Frontiers []int    `placeholder:"N,..." help:"Frames at which to measure; the last one always is. Default: 100,500,1000,2000,3000."`
	Span      int      `default:"50" help:"Frames up to a frontier that are measured. Default ${default}."`
	Turn      int      `default:"10" help:"Chunks that a policy makes before the next one's turn comes. Default ${default}."`
	Together  bool     `help:"Measure all frontiers at the same time, too, with a session for each: a drift of the machine's speed then falls on all alike."`
	Count     int      `default:"1" help:"Repeat everything, for benchstat. Default ${default}."`
	Output    []string `short:"o" placeholder:"PATH" help:"Also write the result to a file, .json or .txt (benchmark lines; .json keeps the last repetition)."`
	JSON      bool     `name:"json" help:"Print JSON on standard output instead of benchmark lines, an object for each repetition."`
}

// Help is shown below the flags' summary.
func (*benchCommand) Help() string {
	return `Speed and size at frontiers, as lines of a Go benchmark:

  longtake bench --frames 240 --policies 'full; window; preset:fast' --count 5 >new.txt
  benchstat old.txt new.txt

Policies run in turns within one process, so that whatever else the machine does falls on all alike; their caches are in memory together. Given frames are not counted.`
}

// Run measures.
func (c *benchCommand) Run(ctx context.Context, out *streams) error {
	if err := checkResults(c.Output, ".json", ".txt"); err != nil {
		return err
	}
	if c.Span < 1 || c.Turn < 1 || c.Count < 1 || c.Count > 1000 {
		return usagef("--span %d --turn %d --count %d: all must be at least 1, and the count at most 1000", c.Span, c.Turn, c.Count)
	}
	l, s, entries, err := c.open(out, nil, "window")
	if err != nil {
		return err
	}
	defer l.close()
	describe(out.err, l, entries)
	var last *compare.BenchReport
	var lines bytes.Buffer
	for range c.Count {
		last, err = compare.Bench(ctx, compare.BenchOptions{Engine: l.engine, Request: s.request, Actions: s.steps(), Frames: s.frames,
			Entries: entries, Frontiers: c.Frontiers, Span: c.Span, Turn: c.Turn, Together: c.Together, Progress: l.screen.hear})
		l.screen.end()
		if err != nil {
			return err
		}
		l.setup(&last.Setup)
		s.setup(&last.Setup)
		last.PeakRSS = peakRSS()
		write := last.WriteLines
		if c.JSON {
			write = jsonForm(last)
		}
		if err := write(out.out); err != nil {
			return err
		}
		if err := last.WriteLines(&lines); err != nil {
			return err
		}
	}
	return writeResults(c.Output, map[string]func(io.Writer) error{
		".json": jsonForm(last), ".txt": func(w io.Writer) error { _, err := w.Write(lines.Bytes()); return err },
	})
}

// peakRSS returns the most memory that this process had at a time, in bytes; 0 where the system does not tell in a file.
func peakRSS() int64 {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0
	}
	for line := range bytes.Lines(status) {
		if rest, ok := bytes.CutPrefix(line, []byte("VmHWM:")); ok && len(bytes.Fields(rest)) > 0 {
			kib, _ := strconv.ParseInt(string(bytes.Fields(rest)[0]), 10, 64)
			return kib << 10
		}
	}
	return 0
}
