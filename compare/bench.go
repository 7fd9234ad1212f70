package compare

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"longtake/rollout"
)

// BenchOptions says what Bench measures. Fields are those of Options.
type BenchOptions struct {
	Engine    *rollout.Engine
	Request   rollout.Request
	Actions   []int
	Frames    int
	Entries   []Entry
	Frontiers []int
	Span      int
	// Turn is how many chunks an entry makes before the next one's turn comes, 0 for DefaultTurn: whatever else the machine
	// does then falls on all of them alike.
	Turn int
	// Together measures all frontiers at the same time, too: every entry has a session for each, which first runs up to the frames
	// that are measured. Then even a slow drift of the machine's speed does not look like one of the policy's.
	Together bool
	Progress func(what string, done, total int)
}

// DefaultTurn is a compromise: short turns are fairer on a busy machine, long ones keep an entry's cache in the processor's.
const DefaultTurn = 10

// Bench runs all entries side by side, in turns, and measures speed and size. Their sessions are in memory together.
func Bench(ctx context.Context, b BenchOptions) (*BenchReport, error) {
	o := Options{Engine: b.Engine, Request: b.Request, Actions: b.Actions, Frames: b.Frames, Entries: b.Entries,
		Frontiers: b.Frontiers, Span: b.Span, Progress: b.Progress}
	if err := o.Check(); err != nil {
		return nil, err
	}
	if b.Turn <= 0 {
		b.Turn = DefaultTurn
	}
	r := &BenchReport{Turn: b.Turn}
	r.Setup = Setup{Frames: o.Frames, Given: len(o.Request.Start), ChunkFrames: o.Engine.Network.ChunkFrames}
	var list []*racer // frontier by frontier of each entry, or one for all frontiers
	defer func() {
		for _, a := range list {
			if a.take != nil {
				a.Close()
			}
		}
	}()
	ends := []int{o.Frames}
	if b.Together {
		ends = o.Frontiers
	}
	for _, entry := range o.Entries {
		for _, end := range ends {
			list = append(list, &racer{clock: newClock(o.Engine), entry: entry, end: end})
		}
	}
	if err := race(ctx, &o, list, b); err != nil {
		return nil, err
	}
	for i := 0; i < len(list); i += len(ends) {
		a := list[i+len(ends)-1]
		run := BenchRun{Policy: a.entry.Policy, FirstFrame: a.first.Seconds(), Total: a.total().Seconds()}
		for j, f := range o.Frontiers {
			run.Frontiers = append(run.Frontiers, list[i+min(j, len(ends)-1)].speed(f, o.Span))
		}
		r.Runs = append(r.Runs, run)
	}
	return r, nil
}

// race lets all racers reach their ends in turns.
func race(ctx context.Context, o *Options, list []*racer, b BenchOptions) error {
	given := len(o.Request.Start)
	if b.Together {
		for i, a := range list {
			if err := a.turn(ctx, o, max(a.end-o.Span-given, 0)/o.Engine.Network.ChunkFrames); err != nil {
				return err
			}
			o.Progress("run up", i+1, len(list))
		}
	}
	for running := true; running; {
		running = false
		for _, a := range list {
			if err := a.turn(ctx, o, b.Turn); err != nil {
				return err
			}
			running = running || a.n < a.end
		}
		last := list[len(list)-1]
		o.Progress("bench", min(last.n, last.end), last.end)
	}
	return nil
}

// racer is an entry in a bench, up to the frame that is its end.
type racer struct {
	*take
	clock
	entry Entry
	end   int
}

// turn makes a few chunks; the first turn starts the session.
func (a *racer) turn(ctx context.Context, o *Options, chunks int) (err error) {
	if err := a.run(ctx, o, chunks); err != nil {
		return fmt.Errorf("policy %s: %w", a.entry.Name, err)
	}
	return nil
}

func (a *racer) run(ctx context.Context, o *Options, chunks int) (err error) {
	began := time.Now()
	if a.take == nil {
		if a.take, err = newTake(ctx, o.Engine, a.entry.timed(&a.clock).Request(o.Request), o.Actions); err != nil {
			return err
		}
	}
	for range chunks {
		if a.n >= a.end {
			return nil
		}
		if _, err := a.step(ctx, &a.clock); err != nil {
			return fmt.Errorf("frame %d: %w", a.n, err)
		}
		if a.first == 0 {
			a.first = time.Since(began)
		}
	}
	return nil
}

// WriteLines writes the report in the format of Go benchmarks (golang.org/x/perf, "Go Benchmark Data Format"), which benchstat
// reads: a header, and a line for each entry and frontier.
func (r *BenchReport) WriteLines(w io.Writer) error {
	var b strings.Builder
	s := r.Setup
	for _, line := range [][2]string{{"pkg", "longtake"}, {"host", s.Host}, {"device", s.Device}, {"kernel", s.Kernel}, {"model", s.Model},
		{"steps", strconv.Itoa(s.Steps)}, {"given", strconv.Itoa(s.Given)}, {"tool", s.Tool}} {
		if line[1] != "" {
			fmt.Fprintf(&b, "%s: %s\n", line[0], line[1])
		}
	}
	b.WriteString("Unit fps better=higher\nUnit tokens better=lower\n")
	for _, run := range r.Runs {
		for _, f := range run.Frontiers {
			fmt.Fprintf(&b, "BenchmarkRollout/policy=%s/frames=%d-%d\t%d", word(run.Policy.Name), f.Frame, max(s.Threads, 1), max(f.Chunks, 1))
			perFrame := 1e9
			if f.FPS > 0 {
				perFrame = f.Mean * f.FPS // seconds a chunk, frames a second: frames a chunk
				perFrame = 1e9 / perFrame
			}
			for _, v := range []struct {
				value float64
				unit  string
			}{
				{f.Mean * perFrame, "ns/frame"}, {f.FPS, "fps"}, {f.P50 * 1e9, "p50-ns/chunk"}, {f.P95 * 1e9, "p95-ns/chunk"},
				{run.FirstFrame * 1e9, "first-frame-ns"}, {f.Denoise * perFrame, "denoise-ns/frame"}, {f.Commit * perFrame, "commit-ns/frame"},
				{f.Decode * perFrame, "decode-ns/frame"}, {f.Compact * perFrame, "compact-ns/frame"}, {f.Match * perFrame, "match-ns/frame"},
				{float64(f.CacheBytes), "cache-bytes"}, {float64(f.SessionBytes), "session-bytes"}, {f.Tokens, "tokens"}, {float64(r.PeakRSS), "peak-rss-bytes"},
			} {
				fmt.Fprintf(&b, "\t%.6g %s", v.value, v.unit)
			}
			b.WriteByte('\n')
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// word makes a policy's name one word of a benchmark's name.
func word(name string) string {
	return strings.Map(func(r rune) rune {
		if r <= ' ' || r == '/' || r == 0x7f {
			return '_'
		}
		return r
	}, name)
}
