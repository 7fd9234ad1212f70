package main

import (
	"context"
	"fmt"
	"io"
	"strings"

	"longtake/rollout"
	"longtake/video"
	"longtake/world"
)

// calibrateCommand holds the flags of "calibrate".
type calibrateCommand struct {
	Clips   int     `default:"8" help:"Worlds of the simulator to measure in. Default ${default}."`
	Frames  int     `default:"96" help:"Frames of the simulator that a clip begins with. Default ${default}."`
	Made    int     `default:"4" help:"Frames that are then made, in which attention is measured. Default ${default}."`
	Seed    uint32  `default:"6000" help:"Seed of the first world. Default ${default}."`
	For     string  `default:"annsa" enum:"annsa,tempcache" help:"What to measure for: annsa, which heads look at a small part of the history; tempcache, which ignore it. Default ${default}."`
	Density float64 `default:"0.05" help:"Share of the history that is kept, chosen by its true attention. Default ${default}."`
	Dense   float64 `default:"0.3" help:"Share of the heads that stay dense: those in which the least attention is kept. Default ${default}."`

	Recent int     `default:"2" help:"For tempcache: newest latent frames before a chunk that are no history yet. Default ${default}."`
	Least  float64 `default:"0.01" help:"For tempcache: share of a head's attention on older keys that no call may exceed, in the mean over its queries, for the head to count as one that ignores history. Default ${default}."`

	machineFlags `embed:""`
	Output       string `short:"o" placeholder:"PATH" help:"Profile to write. Default: annsa.json or tempcache.json."`
}

// Help is shown below the flags' summary.
func (*calibrateCommand) Help() string {
	return `Measures, head by head, how much of self attention lies on a small part of the history, and writes which heads are worth
thinning:

  longtake calibrate -o annsa.json
  longtake generate --self annsa --profile annsa.json

With --for tempcache, how much of it lies on history at all, and which heads need none:

  longtake calibrate --for tempcache -o routing.json
  longtake generate --cache tempcache --routing routing.json

A profile belongs to the weights that it was measured on; another model refuses it.`
}

// Run measures.
func (c *calibrateCommand) Run(ctx context.Context, out *streams) error {
	if c.Output == "" {
		c.Output = c.For + ".json"
	}
	if err := checkResults([]string{c.Output}, ".json"); err != nil {
		return err
	}
	switch {
	case c.Recent < 0 || !(c.Least >= 0 && c.Least <= 1):
		return usagef("--recent %d --least %v: must be at least 0, and a share from 0 to 1", c.Recent, c.Least)
	case c.Clips < 1 || c.Clips > 1000 || c.Frames < 1 || c.Frames > 10_000 || c.Made < 1 || c.Made > 1000:
		return usagef("--clips %d --frames %d --made %d: must be 1 to 1000, 1 to 10000 and 1 to 1000", c.Clips, c.Frames, c.Made)
	case !(c.Density > 0 && c.Density < 1) || !(c.Dense >= 0 && c.Dense <= 1):
		return usagef("--density %v --dense %v: must be a share between 0 and 1, and from 0 to 1", c.Density, c.Dense)
	}
	l, err := c.machineFlags.open(out)
	if err != nil {
		return err
	}
	defer l.close()
	gauge := c.gauge()
	for i := range c.Clips {
		if err := c.clip(ctx, l, c.Seed+uint32(i), gauge.request, func(done int) {
			l.screen.hear("calibrate", i*c.Made+done, c.Clips*c.Made)
		}); err != nil {
			return err
		}
	}
	l.screen.end()
	raw, table, err := gauge.profile(l.engine, c.Clips*c.Made)
	if err != nil {
		return err
	}
	if err := writeWhole(c.Output, func(w io.Writer) error { _, err := w.Write(raw); return err }); err != nil {
		return fmt.Errorf("write %s: %w", c.Output, cause(err))
	}
	_, err = io.WriteString(out.out, table)
	return err
}

// clip walks through a world as the simulator sees it, and makes a few frames more.
func (c *calibrateCommand) clip(ctx context.Context, l *lab, seed uint32, policies func(rollout.Request) rollout.Request, hear func(done int)) error {
	episode, err := world.NewEpisode(seed, c.Frames+c.Made, world.Mixed, 0)
	if err != nil {
		return usageError{err}
	}
	r := rollout.Request{Prompt: episode.Prompt(), Seed: uint64(seed), Steps: c.Steps, Heading: episode.Poses[0].Heading}
	for i := range c.Frames {
		frame := video.NewFrame(l.engine.Width, l.engine.Height)
		episode.World.Render(frame.Pix, episode.Poses[i], frame.Width, frame.Height)
		r.Start, r.StartActions = append(r.Start, frame), append(r.StartActions, int(episode.Actions[i]))
	}
	s, err := l.engine.NewSession(ctx, policies(r))
	if err != nil {
		return err
	}
	defer s.Close()
	for i := range c.Made {
		if _, err := s.Next(ctx, int(episode.Actions[c.Frames+i])); err != nil {
			return err
		}
		hear(i + 1)
	}
	return nil
}

// headTable lists shares by layer and head, and marks some.
func headTable(title string, shares [][]float64, marked func(v float64) bool) string {
	var b strings.Builder
	b.WriteString(title + "\n")
	for i, layer := range shares {
		fmt.Fprintf(&b, "layer %d", i)
		for _, v := range layer {
			mark := " "
			if marked(v) {
				mark = "*"
			}
			fmt.Fprintf(&b, "  %.4f%s", v, mark)
		}
		b.WriteByte('\n')
	}
	return b.String()
}
