package main

import (
	"bytes"
	"context"
	"fmt"
	"image"
	"image/color"
	"image/draw"
	"image/png"
	"io"
	"maps"
	"slices"
	"strings"

	"longtake/compare"
	"longtake/report"
	"longtake/world"
)

// evalCommand tests a model's videos.
type evalCommand struct {
	World evalWorldCommand `cmd:"" help:"What policies remember of places that were seen before, and how the model plays, against the simulator."`
}

// evalWorldCommand holds the flags of "eval world".
type evalWorldCommand struct {
	Tests  string `default:"look-around,walk-and-undo,circles" help:"Ways of leaving and coming back (look-around, walk-and-undo, walk-and-return, circles) and measures of play (next-frame, actions, walls, stroll, stability, prompt, one-step, one-step-own, one-step-true). Default ${default}."`
	Span   int    `default:"30" help:"Frames one way (of circles: generated ones after a full circle). Default ${default}."`
	Frames int    `default:"49" help:"Frames of a clip of play. Default ${default}."`
	Given  int    `default:"1" help:"True frames that a stroll begins with; of actions the least. Default ${default}."`
	Clips  int    `default:"4" help:"Worlds of each test. Default ${default}."`
	Seed   uint32 `default:"3000" help:"Seed of the first world; worlds in which the walker touches a wall are left out. Default ${default}."`

	machineFlags `embed:""`
	Tokens       int `default:"16" placeholder:"N" help:"Latent frames' worth of tokens that window and tempcache get where no policies are given. Default ${default}."`
	listFlags    `embed:""`

	Parallel int      `default:"1" placeholder:"N" help:"Clips that share the machine; more than one makes the fps meaningless. Default ${default}."`
	Stills   int      `default:"10" help:"Columns of the contact sheet. Default ${default}."`
	Output   []string `short:"o" placeholder:"PATH" help:"Report to write, .json, .html or .png (contact sheet: the truth, then a row for each policy); may be given more than once."`
	JSON     bool     `name:"json" help:"Print the report as JSON on standard output instead of a table."`
}

// Help is shown below the flags' summary.
func (*evalWorldCommand) Help() string {
	return `The simulator gives the way there, the model makes the way back; PSNR of the way back against the simulator:

  longtake eval world --tests look-around --span 30 --clips 8
  longtake eval world --policies 'full; window:window=15; tempcache:budget=16f; pose' -o memory.json -o memory.png

Measures of play: next-frame makes each frame after the true ones before it; actions asks whether a picture is the one that its
action leads to; walls walks into what is there, then back, and counts dreams that lock up; stroll walks on after --given frames, stability for so long that pictures early
and late can be held against each other; prompt
turns round on the spot from text alone, and a small network trained on the simulator says what it sees. one-step makes single frames under a policy
and under the first one of the list, on the same history (what the first one dreamt; one-step-own: what the policy itself dreamt; one-step-true: a true
walk), and compares the two, at frames 100, 200, 500, 1000, 2000, 3000 and the last, and at five frames before each:

  longtake eval world --tests next-frame,actions,walls --clips 8
  longtake eval world --tests stroll --frames 300 --given 48 --policies 'window; pose' -o stroll.html
  longtake eval world --tests one-step,one-step-own --frames 500 --policies 'full; window; preset:fast'

Without policies: full, and window, tempcache and pose with --tokens latent frames each.`
}

// kinds are the tests by name.
var kinds = map[string]world.Kind{
	world.LookAround.String():    world.LookAround,
	world.WalkAndUndo.String():   world.WalkAndUndo,
	world.WalkAndReturn.String(): world.WalkAndReturn,
	world.Circles.String():       world.Circles,
}

// measures are the tests of play by name.
var measures = map[string]string{compare.NextFrame: compare.NextFrame, compare.Actions: compare.Actions, compare.Walls: compare.Walls, compare.Stroll: compare.Stroll,
	compare.Stability: compare.Stability,
	compare.Prompt:    compare.Prompt, compare.OneStep: compare.OneStep, compare.OneStepOwn: compare.OneStepOwn, compare.OneStepTrue: compare.OneStepTrue}

// Run tests.
func (c *evalWorldCommand) Run(ctx context.Context, out *streams) error {
	if err := checkResults(c.Output, ".json", ".html", ".png"); err != nil {
		return err
	}
	tests, err := c.tests()
	if err != nil {
		return err
	}
	if c.Span < 1 || c.Span > 10_000 || c.Clips < 1 || c.Clips > 1000 || c.Tokens < 4 || c.Stills < 0 || c.Stills > 1000 || c.Parallel < 1 {
		return usagef("--span %d --clips %d --tokens %d --stills %d --parallel %d: must be 1 to 10000, 1 to 1000, at least 4, 0 to 1000, and at least 1", c.Span, c.Clips, c.Tokens, c.Stills, c.Parallel)
	}
	if c.Frames < 25 || c.Frames > maxFrames || c.Given < 1 || c.Given >= c.Frames {
		return usagef("--frames %d --given %d: must be between 25 and %d, and at least 1 and fewer", c.Frames, c.Given, maxFrames)
	}
	l, err := c.machineFlags.open(out)
	if err != nil {
		return err
	}
	defer l.close()
	entries, err := c.entries(l.engine, nil, "full", fmt.Sprintf("window:window=%d", c.Tokens-1), fmt.Sprintf("tempcache:budget=%df", c.Tokens),
		fmt.Sprintf("pose:window=%d", c.Tokens-3))
	if err != nil {
		return err
	}
	describe(out.err, l, entries)
	r := &compare.MemoryReport{}
	for _, name := range tests {
		if err := c.test(ctx, name, l, entries, r); err != nil {
			return err
		}
	}
	l.setup(&r.Setup)
	r.Setup.Seed, r.Setup.ChunkFrames = uint64(c.Seed), l.engine.Network.ChunkFrames
	if err := writeResults(c.Output, map[string]func(io.Writer) error{
		".json": jsonForm(r), ".html": func(w io.Writer) error { return report.Memory(w, r) },
		".png": func(w io.Writer) error { return contactSheet(w, r) },
	}); err != nil {
		return err
	}
	if c.JSON {
		return jsonForm(r)(out.out)
	}
	return r.Table(out.out)
}

// tests reads --tests.
func (c *evalWorldCommand) tests() (list []string, err error) {
	for name := range strings.SplitSeq(c.Tests, ",") {
		name = strings.TrimSpace(name)
		if _, ok := measures[name]; !ok {
			if _, err := named("tests", name, kinds); err != nil {
				return nil, usagef("%w, and %s", err, strings.Join(slices.Sorted(maps.Keys(measures)), ", "))
			}
		}
		if !slices.Contains(list, name) {
			list = append(list, name)
		}
	}
	return list, nil
}

// test runs one test under all policies.
func (c *evalWorldCommand) test(ctx context.Context, name string, l *lab, entries []compare.Entry, r *compare.MemoryReport) error {
	defer l.screen.end()
	progress := func(what string, done, total int) { l.screen.hear(name+", "+what, done, total) }
	if measure, ok := measures[name]; ok {
		t, err := compare.Play(ctx, compare.PlayOptions{Engine: l.engine, Measure: measure, Frames: c.Frames, Given: c.Given, Clips: c.Clips, Seed: c.Seed,
			Steps: c.Steps, Entries: entries, Stills: c.Stills, Parallel: c.Parallel, Progress: progress})
		if err != nil {
			return err
		}
		r.Play = append(r.Play, *t)
		return nil
	}
	t, err := compare.Memory(ctx, compare.MemoryOptions{Engine: l.engine, Kind: kinds[name], Span: c.Span, Clips: c.Clips, Seed: c.Seed,
		Steps: c.Steps, Entries: entries, Stills: c.Stills, Parallel: c.Parallel, Progress: progress})
	if err != nil {
		return err
	}
	r.Tests = append(r.Tests, *t)
	return nil
}

// gap is the space between the rows of different tests on a contact sheet, in pixels.
const gap = 8

// contactSheet draws the truth and below it a row for each policy, test by test.
func contactSheet(w io.Writer, r *compare.MemoryReport) error {
	var groups [][]compare.Strip
	columns, rows := 0, 0
	for _, t := range r.Tests {
		strips := []compare.Strip{t.TruthStrip}
		for _, row := range t.Rows {
			strips = append(strips, row.Strip)
		}
		groups, rows, columns = append(groups, strips), rows+len(strips), max(columns, len(t.TruthStrip))
	}
	for _, t := range r.Play {
		strips := []compare.Strip{t.TruthStrip}
		for _, row := range t.Rows {
			strips = append(strips, row.Strip)
			columns = max(columns, len(row.Strip))
		}
		groups, rows = append(groups, strips), rows+len(strips)
	}
	if columns == 0 || len(groups[0][0]) == 0 {
		return usagef("a contact sheet needs pictures: --stills is 0")
	}
	first, err := png.Decode(bytes.NewReader(groups[0][0][0].PNG))
	if err != nil {
		return err
	}
	size := first.Bounds().Size()
	sheet := image.NewRGBA(image.Rect(0, 0, columns*size.X, rows*size.Y+(len(groups)-1)*gap))
	draw.Draw(sheet, sheet.Rect, image.NewUniform(color.White), image.Point{}, draw.Src)
	y := 0
	for _, strips := range groups {
		for _, strip := range strips {
			for i, still := range strip {
				picture, err := png.Decode(bytes.NewReader(still.PNG))
				if err != nil {
					return err
				}
				draw.Draw(sheet, image.Rect(i*size.X, y, (i+1)*size.X, y+size.Y), picture, picture.Bounds().Min, draw.Src)
			}
			y += size.Y
		}
		y += gap
	}
	return png.Encode(w, sheet)
}
