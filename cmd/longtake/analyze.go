package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"longtake/analyze"
	"longtake/world"
)

// analyzeCommand holds the flags of "analyze".
type analyzeCommand struct {
	Frames  int     `short:"n" default:"64" aliases:"num-frames" help:"Frames of the video, given ones included. Default ${default}."`
	At      []int   `placeholder:"N,..." help:"Frames to examine, counted from 0. Default: the last."`
	Pass    int     `default:"-1" placeholder:"N" help:"Denoising pass to examine, counted from 0. Default: the second."`
	Layers  []int   `placeholder:"N,..." help:"Blocks of the network to examine. Default: all."`
	Seed    uint64  `default:"0" help:"Seed of the noise and, in its lower 32 bits, of the simulator. Default ${default}."`
	Start   string  `default:"sim" placeholder:"WHAT" help:"First frame: sim, sim:SEED, none, or an image file."`
	Given   int     `default:"1" placeholder:"N" help:"Frames of the simulator that the video starts with. Default ${default}."`
	Prompt  *string `placeholder:"TEXT" help:"Description of the world; @FILE reads it. Default: the simulator's own."`
	Actions string  `default:"auto" placeholder:"SCRIPT" help:"What the walker does, as generate takes it."`

	machineFlags `embed:""`

	Thresholds   []float64 `placeholder:"X,..." help:"Cosines above which keys are merged. Default: 0.5,0.6,0.7,0.8,0.85,0.9,0.95,0.98."`
	Accelerators bool      `default:"true" negatable:"" help:"Also try TempCache and the matchers. Default yes."`
	Output       string    `short:"o" default:"analysis" placeholder:"DIR" help:"Folder to write index.html, study.json and the drawings to. Default ${default}."`
	JSON         bool      `name:"json" help:"Print the study as JSON on standard output."`
}

// Help is shown below the flags' summary.
func (*analyzeCommand) Help() string {
	return `How much of the model's attention is redundant: recall against density, similarity of keys before and after rotation, components of keys and queries, cross attention by word, correspondence between frames, merging and matchers by threshold and bits.

  longtake analyze --frames 64 --seed 7 -o analysis
  longtake analyze --given 87 --frames 88 --layers 0,3,5
  longtake analyze --frames 40 --at 10,20,39 --actions 'd30 a30' --no-accelerators`
}

// Run studies.
func (c *analyzeCommand) Run(ctx context.Context, out *streams) error {
	for _, t := range c.Thresholds {
		if !(t >= -1 && t <= 1) {
			return usagef("--thresholds %g: a cosine lies between -1 and 1", t)
		}
	}
	if info, err := os.Stat(c.Output); err == nil && !info.IsDir() {
		return usagef("-o %s: not a folder", c.Output)
	}
	l, err := c.machineFlags.open(out)
	if err != nil {
		return err
	}
	defer l.close()
	flags := sceneFlags{Frames: c.Frames, Seed: c.Seed, Start: c.Start, Given: c.Given, Prompt: c.Prompt, Actions: c.Actions}
	s, err := flags.open(out, l)
	if err != nil {
		return err
	}
	o := analyze.Options{Engine: l.engine, Request: s.request, Actions: s.steps(), Frames: s.frames, At: c.At, Pass: c.Pass, Layers: c.Layers,
		Words: knownWords(s.request.Prompt), Thresholds: c.Thresholds, Progress: l.screen.hear}
	if c.Accelerators {
		thresholds := c.Thresholds
		if len(thresholds) == 0 {
			thresholds = []float64{0.7, 0.8, 0.9, 0.95} // a cache for each, so that they are few
		}
		o.Trials, o.Matchers = triedCaches(thresholds), triedMatchers(l.engine.CacheShape.HeadDim)
	}
	study, err := analyze.Run(ctx, o)
	l.screen.end()
	if err != nil {
		return err
	}
	made := study.Setup
	l.setup(&study.Setup)
	s.setup(&study.Setup)
	study.Setup.Frames, study.Setup.Given, study.Setup.ChunkFrames = made.Frames, made.Given, made.ChunkFrames
	if err := c.write(study); err != nil {
		return err
	}
	if c.JSON {
		return jsonForm(study)(out.out)
	}
	if !c.Quiet {
		fmt.Fprintf(out.err, "%s: open it in a browser\n", filepath.Join(c.Output, "index.html"))
	}
	return nil
}

// write fills the folder; the page comes last.
func (c *analyzeCommand) write(study *analyze.Study) error {
	if err := os.MkdirAll(c.Output, 0o777); err != nil {
		return fmt.Errorf("create %s: %w", c.Output, cause(err))
	}
	page, files := study.Draw()
	place := func(name string, write func(io.Writer) error) error {
		path := filepath.Join(c.Output, name)
		if err := writeWhole(path, write); err != nil {
			return fmt.Errorf("write %s: %w", path, cause(err))
		}
		return nil
	}
	for _, f := range files {
		if err := place(f.Name, func(w io.Writer) error { _, err := w.Write(f.Data); return err }); err != nil {
			return err
		}
	}
	if err := place("study.json", jsonForm(study)); err != nil {
		return err
	}
	return place("index.html", page.Write)
}

// knownWords are the words of a prompt that the embedded model reads, one a token.
func knownWords(prompt string) (out []string) {
	spaced := strings.NewReplacer(":", " : ", ",", " , ", ".", " . ").Replace(strings.ToLower(prompt))
	vocabulary := world.Vocabulary()
	for _, w := range strings.Fields(spaced) {
		if slices.Contains(vocabulary, w) {
			out = append(out, w)
		}
	}
	return out
}
