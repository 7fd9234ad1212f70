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
	"slices"
	"strings"

	"longtake/compare"
	"longtake/report"
	"longtake/world"
)

// evalCommand tests a model's videos.
type evalCommand struct {
	World evalWorldCommand `cmd:"" help:"What policies remember of places that were seen before, against the simulator."`
}

// evalWorldCommand holds the flags of "eval world".
type evalWorldCommand struct {
	Tests string `default:"look-around,walk-and-undo,circles" help:"Ways of leaving and coming back: ${default}."`
	Span  int    `default:"30" help:"Frames one way (of circles: generated ones after a full circle). Default ${default}."`
	Clips int    `default:"4" help:"Worlds of each test. Default ${default}."`
	Seed  uint32 `default:"3000" help:"Seed of the first world; worlds in which the walker touches a wall are left out. Default ${default}."`

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

Without policies: full, and window, tempcache and pose with --tokens latent frames each.`
}

// kinds are the tests by name.
var kinds = map[string]world.Kind{
	world.LookAround.String():  world.LookAround,
	world.WalkAndUndo.String(): world.WalkAndUndo,
	world.Circles.String():     world.Circles,
}

// Run tests.
func (c *evalWorldCommand) Run(ctx context.Context, out *streams) error {
	if err := checkResults(c.Output, ".json", ".html", ".png"); err != nil {
		return err
	}
	var tests []world.Kind
	for name := range strings.SplitSeq(c.Tests, ",") {
		kind, err := named("tests", strings.TrimSpace(name), kinds)
		if err != nil {
			return err
		}
		if !slices.Contains(tests, kind) {
			tests = append(tests, kind)
		}
	}
	if c.Span < 1 || c.Span > 10_000 || c.Clips < 1 || c.Clips > 1000 || c.Tokens < 4 || c.Stills < 0 || c.Stills > 1000 || c.Parallel < 1 {
		return usagef("--span %d --clips %d --tokens %d --stills %d --parallel %d: must be 1 to 10000, 1 to 1000, at least 4, 0 to 1000, and at least 1", c.Span, c.Clips, c.Tokens, c.Stills, c.Parallel)
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
	for _, kind := range tests {
		t, err := compare.Memory(ctx, compare.MemoryOptions{Engine: l.engine, Kind: kind, Span: c.Span, Clips: c.Clips, Seed: c.Seed,
			Steps: c.Steps, Entries: entries, Stills: c.Stills, Parallel: c.Parallel, Progress: func(what string, done, total int) {
				l.screen.hear(kind.String()+", "+what, done, total)
			}})
		l.screen.end()
		if err != nil {
			return err
		}
		r.Tests = append(r.Tests, *t)
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
	if columns == 0 {
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
