package report

import (
	"fmt"
	"io"
	"strconv"

	"longtake/compare"
	"longtake/report/plot"
)

// Rollout writes the page of a long rollout. The error is w's.
func Rollout(w io.Writer, r *compare.RolloutReport) error {
	p := &Page{
		Title: fmt.Sprintf("%d frames, %s", r.Setup.Frames, r.Setup.Model),
		Lead:  "Speed and memory along a rollout. Every number belongs to the frame beside it; nothing is extrapolated.",
		Facts: append(Facts(r.Setup), Fact{"Products", r.Precision}, Fact{"Loop", r.Loop}, Fact{"History", r.Data}),
		Sections: []Section{{Title: "At a frame", Text: append([]string{fmt.Sprintf("Times pool the chunks of the %d frames before. Stages are those of a chunk after them, in which the device was waited for after each, attention that of another one; "+
			"they do not add up to the time of a chunk, in which host and device work side by side. Error and mass compare the outputs of self attention, and the mass of the keys in use, with attention over the whole past, in one head of three layers.", r.Span)}, stops(r)...), Tables: rolloutTables(r)},
			{Title: "Curves", Figures: rolloutCurves(r)}},
	}
	var list []compare.Policy
	for _, run := range r.Runs {
		list = append(list, run.Policy)
	}
	p.Sections = append(p.Sections, Section{Title: "Policies", Tables: []Table{policyTable(list)}})
	return p.Write(w)
}

// stops says where runs ended before the video did.
func stops(r *compare.RolloutReport) (out []string) {
	for _, run := range r.Runs {
		if run.Why != "" {
			out = append(out, fmt.Sprintf("%s stopped at frame %d: %s.", run.Policy.Name, run.Stopped, run.Why))
		}
		if run.Filled {
			out = append(out, run.Policy.Name+": the history between the timed chunks was written by clean passes alone.")
		}
	}
	return out
}

func rolloutTables(r *compare.RolloutReport) (out []Table) {
	ms := func(s float64) string { return plot.Number(1000 * s) }
	for _, run := range r.Runs {
		t := Table{Caption: run.Policy.Name + ": milliseconds a chunk, MiB, keys of the past a head holds and their share of all, pairs computed of those and the attention's mass on them",
			Head: []string{"frame", "fps", "mean", "median", "95th percentile", "making room", "denoising", "clean pass", "decoding", "self attention", "cross attention",
				"cache", "device", "peak", "keys", "share", "density", "recall", "merged", "forgotten", "error", "mass"}}
		for _, m := range run.Frontiers {
			t.Rows = append(t.Rows, []string{strconv.Itoa(m.Frame), plot.Number(m.FPS), ms(m.Mean), ms(m.P50), ms(m.P95), ms(m.Begin), ms(m.Denoise), ms(m.Commit), ms(m.Decode),
				ms(m.Attend), ms(m.AttendCross), mebibytes(float64(m.CacheBytes)), mebibytes(float64(m.DeviceBytes)), mebibytes(float64(m.PeakBytes)), plot.Number(m.Tokens), plot.Number(m.Held),
				fraction(m.Density), fraction(m.Recall), fraction(m.Merged), fraction(m.Evicted), fraction(m.Error), fraction(m.Mass)})
		}
		out = append(out, t)
	}
	return out
}

func rolloutCurves(r *compare.RolloutReport) (out []Figure) {
	limits := [2]float64{0, float64(r.Setup.Frames)}
	chunks := plot.Chart{Title: "Time per chunk", X: "frame", Y: "ms", LogY: true, XLimits: limits}
	for i, run := range r.Runs {
		x := make([]float64, len(run.ChunkFrames))
		for k, f := range run.ChunkFrames {
			x[k] = float64(f)
		}
		x, y := plot.Thin(x, scaled(run.ChunkSeconds, 1000), mostPoints)
		chunks.Series = append(chunks.Series, plot.Series{Name: run.Policy.Name, X: x, Y: y, Line: true, Colour: i + 1})
	}
	out = append(out, Figure{SVG: chunks.SVG(), Caption: "Whole chunks; where a history was written by clean passes there are none between the frontiers."})
	for _, c := range []struct {
		title, unit string
		value       func(compare.RolloutMeasure) float64
	}{
		{"Frames per second", "fps", func(m compare.RolloutMeasure) float64 { return m.FPS }},
		{"Memory of the device", "MiB", func(m compare.RolloutMeasure) float64 { return float64(m.DeviceBytes) / (1 << 20) }},
		{"Keys of the past that a head holds", "tokens", func(m compare.RolloutMeasure) float64 { return m.Tokens }},
	} {
		chart := plot.Chart{Title: c.title, X: "frame", Y: c.unit, LogY: true, XLimits: limits}
		for i, run := range r.Runs {
			s := plot.Series{Name: run.Policy.Name, Line: true, Marks: true, Colour: i + 1}
			for _, m := range run.Frontiers {
				s.X, s.Y = append(s.X, float64(m.Frame)), append(s.Y, c.value(m))
			}
			chart.Series = append(chart.Series, s)
		}
		out = append(out, Figure{SVG: chart.SVG()})
	}
	return out
}
