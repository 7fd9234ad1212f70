package annsa_test

import (
	"flag"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"longtake/accel/ann"
	"longtake/accel/annsa"
	"longtake/attention"
	"longtake/compute/cpu"
	"longtake/kvcache"
	"longtake/model/modeltest"
	"longtake/rollout"
	"longtake/video"
	"longtake/video/metric"
	"longtake/world"
)

var (
	measureFlag = flag.Bool("measure", false, "measure on the embedded model and print tables")
	clips       = flag.Int("clips", 3, "clips of a measurement")
	tests       = flag.String("tests", "", "measure only tests whose name contains this")
	only        = flag.String("only", "", "measure only options whose name contains this")
)

// clip is an episode with its true pictures.
type clip struct {
	*world.Episode
	frames []video.Frame
}

func newClip(tb testing.TB, seed uint32, frames int, kind world.Kind, span int) clip {
	tb.Helper()
	e, err := world.NewEpisode(seed, frames, kind, span)
	if err != nil {
		tb.Fatal(err)
	}
	c := clip{Episode: e}
	for _, pose := range e.Poses {
		f := video.NewFrame(64, 64)
		e.World.Render(f.Pix, pose, 64, 64)
		c.frames = append(c.frames, f)
	}
	return c
}

// roll generates the frames after the first known ones, and returns them with the time that they took.
func (c clip) roll(tb testing.TB, e *rollout.Engine, known int, r rollout.Request) ([]video.Frame, time.Duration) {
	tb.Helper()
	r.Prompt, r.Seed, r.Heading, r.Start = c.Prompt(), 7, c.Poses[0].Heading, c.frames[:known]
	for _, a := range c.Actions[:known] {
		r.StartActions = append(r.StartActions, int(a))
	}
	s, err := e.NewSession(tb.Context(), r)
	if err != nil {
		tb.Fatal(err)
	}
	defer s.Close()
	var out []video.Frame
	began := time.Now()
	for _, a := range c.Actions[known:] {
		f, err := s.Next(tb.Context(), int(a))
		if err != nil {
			tb.Fatal(err)
		}
		out = append(out, f...)
	}
	return out, time.Since(began)
}

// psnr returns the PSNR of the mean squared error over all frames.
func psnr(tb testing.TB, a, b []video.Frame) float64 {
	sum := 0.0
	for i := range a {
		d, err := metric.PSNR(a[i], b[i])
		if err != nil {
			tb.Fatal(err)
		}
		sum += math.Pow(10, -d/10)
	}
	return -10 * math.Log10(sum/float64(len(a)))
}

// variant is a row of a table.
type variant struct {
	name    string
	options attention.Maker
}

func variants() []variant {
	var out []variant
	add := func(name string, f func(o *annsa.Options)) {
		o := annsa.Options{Matcher: ann.Scalar(4), Tile: 4, QueryTile: 16, Group: 2, Fraction: 0.1, Recent: 2, Dense: 0.3, Temper: 0.5, Raster: true}
		f(&o)
		out = append(out, variant{name, o})
	}
	for _, tile := range []int{1, 4, 8} {
		for _, m := range []string{"oracle", "exact", "lsh16", "lsh64", "lsh256", "quant2", "quant4", "quant8", "pq8"} {
			add(fmt.Sprintf("matcher %s, tile %d", m, tile), func(o *annsa.Options) {
				if o.Tile, o.Oracle = tile, m == "oracle"; !o.Oracle {
					o.Matcher, _ = ann.Parse(m)
				}
			})
		}
	}
	for _, noDrop := range []bool{false, true} {
		for _, fraction := range []float64{0, 0.02, 0.05, 0.1, 0.2} {
			add(fmt.Sprintf("fraction %g, no-drop %v", fraction, noDrop), func(o *annsa.Options) { o.Fraction, o.NoDrop = fraction, noDrop })
		}
		for _, queries := range []int{8, 32, 0} {
			add(fmt.Sprintf("query tile %d, no-drop %v", queries, noDrop), func(o *annsa.Options) { o.QueryTile, o.NoDrop = queries, noDrop })
		}
		for _, tile := range []int{2, 8, 16} {
			add(fmt.Sprintf("tile %d, no-drop %v", tile, noDrop), func(o *annsa.Options) { o.Tile, o.NoDrop = tile, noDrop })
			add(fmt.Sprintf("tile %d split by keys, no-drop %v", tile, noDrop), func(o *annsa.Options) { o.Tile, o.NoDrop, o.Raster = tile, noDrop, false })
		}
	}
	for _, group := range []int{1, 4, 16} {
		add(fmt.Sprintf("group %d", group), func(o *annsa.Options) { o.Group = group })
	}
	for _, temper := range []float64{0.25, 1} {
		add(fmt.Sprintf("temper %g", temper), func(o *annsa.Options) { o.Temper = temper })
	}
	for _, tile := range []int{4, 8, 16} {
		add(fmt.Sprintf("second order, tile %d", tile), func(o *annsa.Options) { o.NoDrop, o.SecondOrder, o.Tile = true, true, tile })
	}
	add("every pass", func(o *annsa.Options) { o.Refresh = true })
	add("recent 0", func(o *annsa.Options) { o.Recent = 0 })
	return out
}

// rolls are the options that whole rollouts are made with.
func rolls(e *rollout.Engine) []variant {
	var out []variant
	add := func(name string, f func(o *annsa.Options)) {
		o := annsa.Default()
		o.From = 0
		f(&o)
		out = append(out, variant{name, o})
	}
	add("default", func(*annsa.Options) {})
	add("clean", func(o *annsa.Options) { o.Clean = true })
	add("clean, 20 %", func(o *annsa.Options) { o.Clean, o.Fraction = true, 0.2 })
	add("fine", func(o *annsa.Options) { o.QueryTile, o.Tile, o.Group = 8, 4, 4 })
	add("fine, clean", func(o *annsa.Options) { o.QueryTile, o.Tile, o.Group, o.Clean = 8, 4, 4, true })
	add("5 %", func(o *annsa.Options) { o.Fraction = 0.05 })
	add("20 %", func(o *annsa.Options) { o.Fraction = 0.2 })
	add("no-drop", func(o *annsa.Options) { o.NoDrop = true })
	add("no-drop, second order", func(o *annsa.Options) { o.NoDrop, o.SecondOrder = true, true })
	for _, m := range []string{"lsh64", "lsh256", "quant4"} {
		add(m, func(o *annsa.Options) { o.Matcher, _ = ann.Parse(m) })
	}
	add("lsh64 of tokens", func(o *annsa.Options) { o.Matcher, o.Tile = ann.LSH{Bits: 64}, 1 })
	add("quant2 of tokens", func(o *annsa.Options) { o.Matcher, o.Tile = ann.Scalar(2), 1 })
	add("one list for all queries", func(o *annsa.Options) { o.QueryTile = 0 })
	add("no pass dense", func(o *annsa.Options) { o.Dense = 0 })
	add("profile", func(o *annsa.Options) { o.Profile, _ = annsa.Shipped(e.Name, e.Hash()) })
	add("paper", func(o *annsa.Options) { *o = annsa.Paper() })
	return out
}

// TestMeasure prints what README.md's tables hold: go test ./accel/annsa -run Measure -measure -v -timeout 1h
func TestMeasure(t *testing.T) {
	if !*measureFlag {
		t.Skip("minutes of measuring: -run Measure -measure -v -timeout 1h")
	}
	e := modeltest.TinyWorld(t, cpu.Options{Threads: 2})
	full := kvcache.Window{Recent: kvcache.Full}
	for _, test := range []struct {
		name                string
		kind                world.Kind
		span, known, frames int
	}{{"look back", world.LookAround, 30, 31, 61}, {"mixed", world.Mixed, 0, 88, 96}} {
		if !strings.Contains(test.name, *tests) {
			continue
		}
		var all []clip
		var dense [][]video.Frame
		var took time.Duration
		truth := 0.0
		for i := range *clips {
			c := newClip(t, uint32(61000+i), test.frames, test.kind, test.span)
			f, d := c.roll(t, e, test.known, rollout.Request{Cache: full})
			all, dense, took = append(all, c), append(dense, f), took+d
			truth += psnr(t, f, c.frames[test.known:]) / float64(*clips)
		}
		t.Logf("%s: dense %.2f dB to the truth, %.0f ms a frame", test.name, truth, ms(took, *clips*(test.frames-test.known)))
		t.Logf("| options | to dense | to truth | density | recall | ms a frame | deciding, ms a pass |")
		for _, v := range rolls(e) {
			if !strings.Contains(v.name, *only) {
				continue
			}
			probe := &attention.Probe{Inner: v.options, Every: 4}
			toDense, toTruth := 0.0, 0.0
			var took time.Duration
			for i, c := range all {
				f, d := c.roll(t, e, test.known, rollout.Request{Cache: full, Self: probe})
				toDense += psnr(t, f, dense[i]) / float64(*clips)
				toTruth += psnr(t, f, c.frames[test.known:]) / float64(*clips)
				took += d
			}
			density, recall, calls := 0.0, 0.0, 0.0
			var deciding time.Duration
			for _, m := range probe.Results() {
				density += m.ThinnedDensity / 6
				recall += m.ThinnedRecall / 6
				deciding += m.Deciding
				calls = max(calls, float64(m.Calls))
			}
			t.Logf("| %s | %.1f | %.2f | %.3f | %.3f | %.0f | %.1f |", v.name, toDense, toTruth, density, recall,
				ms(took, *clips*(test.frames-test.known)), deciding.Seconds()*1e3/calls)
		}
	}
}

func ms(d time.Duration, n int) float64 { return d.Seconds() * 1e3 / float64(n) }
