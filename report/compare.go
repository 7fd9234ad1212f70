package report

import (
	"fmt"
	"io"
	"math"
	"strconv"

	"longtake/compare"
	"longtake/report/plot"
)

// Comparison writes the page of a comparison. The error is w's.
func Comparison(w io.Writer, r *compare.Report) error { return comparison(r).Write(w) }

func comparison(r *compare.Report) *Page {
	p := &Page{
		Title: fmt.Sprintf("%d policies, %d frames, %s", len(r.Runs), r.Setup.Frames, r.Setup.Model),
		Lead:  "The same seed, prompt and actions under different policies of cache and attention. The first row is the reference that the others are compared with.",
		Facts: Facts(r.Setup),
	}
	p.Sections = append(p.Sections, Section{Title: "Results", Text: results(r), Tables: []Table{summary(r), policyTable(policies(r))}})
	p.Sections = append(p.Sections, Section{Title: "At frontiers", Tables: frontierTables(r)})
	p.Sections = append(p.Sections, Section{Title: "Over the video", Figures: curves(r)})
	for _, s := range []Section{oneStep(r), shares(r), truth(r), pictures(r)} {
		if len(s.Tables)+len(s.Figures)+len(s.Strips) > 0 {
			p.Sections = append(p.Sections, s)
		}
	}
	return p
}

// Facts lists what was run and on what; empty values are left out.
func Facts(s compare.Setup) (out []Fact) {
	add := func(name, value string) {
		if value != "" {
			out = append(out, Fact{name, value})
		}
	}
	add("Tool", s.Tool)
	add("Model", s.Model)
	add("Weights, SHA-256", s.ModelHash)
	add("Hardware", s.Host)
	add("Device", s.Device)
	if s.Threads > 0 {
		add("Kernels", fmt.Sprintf("%s, %d threads", s.Kernel, s.Threads))
	} else {
		add("Kernels", s.Kernel)
	}
	add("Seed", strconv.FormatUint(s.Seed, 10))
	add("Prompt", s.Prompt)
	add("Start", s.Start)
	add("Actions", shortened(s.Actions, 300))
	if s.Frames > 0 {
		add("Frames", fmt.Sprintf("%d, of which %d given; %d made together in %d steps", s.Frames, s.Given, s.ChunkFrames, s.Steps))
	}
	add("Command", s.Command)
	return out
}

func shortened(s string, most int) string {
	if runes := []rune(s); len(runes) > most {
		return string(runes[:most]) + "…"
	}
	return s
}

// runs returns all runs, the ceiling last.
func runs(r *compare.Report) []*compare.Run {
	var out []*compare.Run
	for i := range r.Runs {
		out = append(out, &r.Runs[i])
	}
	if r.Ceiling != nil {
		out = append(out, r.Ceiling)
	}
	return out
}

func results(r *compare.Report) []string {
	out := []string{fmt.Sprintf("Free-running videos are chaotic: they part even where only the order of summation differs. PSNR, SSIM and MS-SSIM are those of the free run, mean over all generated frames (equal frames count as 100 dB); parted is the first frame below %s dB.", plot.Number(r.DivergedBelow))}
	if r.Parallel > 1 {
		out = append(out, fmt.Sprintf("%d runs at a time shared the machine. Times are those of the chunks that each run made alone, at the start and before every frontier; totals are interpolated between them.", r.Parallel))
	}
	if r.Free > 0 {
		out = append(out, fmt.Sprintf("PSNR, SSIM and MS-SSIM are those of the first %d frames, which all policies made freely: from there on some made single chunks on the reference's history only.", r.Free))
	}
	if r.Asked > 0 {
		out = append(out, fmt.Sprintf("The time sufficed for %d of %d frames.", r.Setup.Frames, r.Asked))
	}
	if r.Ceiling != nil {
		out = append(out, fmt.Sprintf("The ceiling is the reference against itself with another order of summation (%s): no policy can be expected to come closer. One-step fidelity, below, does not depend on chaos.", r.CeilingHow))
	}
	return out
}

// summary is the table of all policies at a glance.
func summary(r *compare.Report) Table {
	t := Table{Head: []string{"policy", "PSNR dB", "SSIM", "MS-SSIM", "parted at", "speed-up", "component", "total s", "first frame s", "fps at the end", "cache MiB", "density", "self recall", "matcher ms", "one step dB"}}
	withTruth := r.TruthFrames > 0
	if withTruth {
		t.Head = append(t.Head, "to the truth dB")
	}
	for i, run := range runs(r) {
		last := compare.Frontier{}
		if n := len(run.Frontiers); n > 0 {
			last = run.Frontiers[n-1]
		}
		psnr, parted := decibel(run.Mean.PSNR), "never"
		if i == 0 {
			psnr, parted = "reference", "–"
		} else if run.FirstDiverged >= 0 {
			parted = strconv.Itoa(run.FirstDiverged)
		}
		row := []string{run.Policy.Name, psnr, fraction(run.Mean.SSIM), fraction(run.Mean.MSSSIM), parted, times(run.Speedup), times(run.ComponentSpeedup), plot.Number(run.Total),
			plot.Number(run.FirstFrame), plot.Number(last.FPS), mebibytes(float64(last.CacheBytes)), density(last), recall(last.Self),
			plot.Number(1000 * (last.Compact + last.Match)), qualityText(last.OneStep)}
		if withTruth {
			row = append(row, decibel(run.TruthMean))
		}
		t.Rows = append(t.Rows, row)
	}
	t.Caption = "Density is the share of query-key pairs of self attention that were computed, at the last frontier, times the share of keys in the cache; recall the share of dense attention's mass on them (none: dense attention over what is in the cache). Matcher: compression and selection, per chunk. Component: how many times faster self attention with the work of its cache is (cross attention, where only that differs)."
	return t
}

// density is the cache's density times the attention's own.
func density(f compare.Frontier) string {
	own := mean(f.Self, func(s compare.Share) float64 { return float64(s.Density) })
	if math.IsNaN(own) {
		own = 1
	}
	return plot.Number(f.Density * own)
}

func recall(list []compare.Share) string {
	return plot.Number(mean(list, func(s compare.Share) float64 { return float64(s.Recall) }))
}

// mean is NaN of nothing.
func mean[T any](list []T, value func(T) float64) float64 {
	sum, n := 0.0, 0.0
	for _, v := range list {
		if x := value(v); !math.IsNaN(x) {
			sum, n = sum+x, n+1
		}
	}
	return sum / n
}

func policies(r *compare.Report) (out []compare.Policy) {
	for _, run := range runs(r) {
		out = append(out, run.Policy)
	}
	return out
}

// policyTable says what the names stand for.
func policyTable(list []compare.Policy) Table {
	t := Table{Caption: "What the names stand for", Words: true, Head: []string{"policy", "preset", "cache", "self attention", "cross attention"}}
	for _, p := range list {
		t.Rows = append(t.Rows, []string{p.Name, p.Preset, p.Cache, p.Self, p.Cross})
	}
	return t
}

// frontierTables have a row for each policy and a column for each frontier.
func frontierTables(r *compare.Report) (out []Table) {
	for _, c := range []struct {
		caption string
		value   func(compare.Frontier) string
	}{
		{fmt.Sprintf("Frames per second, over the %d frames before", r.Span), func(f compare.Frontier) string { return plot.Number(f.FPS) }},
		{"Milliseconds per chunk, median / 95th percentile", func(f compare.Frontier) string {
			return plot.Number(1000*f.P50) + " / " + plot.Number(1000*f.P95)
		}},
		{"Cache, MiB", func(f compare.Frontier) string { return mebibytes(float64(f.CacheBytes)) }},
		{"Keys that a head sees, and their share of a full cache", func(f compare.Frontier) string {
			return plot.Number(f.Tokens) + " (" + plot.Number(f.Density) + ")"
		}},
		{fmt.Sprintf("PSNR of the free run, dB, over the %d frames before", r.Span), func(f compare.Frontier) string { return qualityText(&f.Quality) }},
		{"One-step fidelity, dB: the next chunk on the reference's own history", func(f compare.Frontier) string { return qualityText(f.OneStep) }},
		{"Milliseconds per chunk in self attention + cross attention", func(f compare.Frontier) string {
			return plot.Number(1000*f.Attend) + " + " + plot.Number(1000*f.AttendCross)
		}},
		{"Milliseconds per chunk: denoise + commit + decode", func(f compare.Frontier) string {
			return plot.Number(1000*f.Denoise) + " + " + plot.Number(1000*f.Commit) + " + " + plot.Number(1000*f.Decode)
		}},
		{"Of them, milliseconds per chunk for compression + selection", func(f compare.Frontier) string {
			return plot.Number(1000*f.Compact) + " + " + plot.Number(1000*f.Match)
		}},
	} {
		t := Table{Caption: c.caption, Head: []string{"policy"}}
		for _, f := range r.Frontiers {
			t.Head = append(t.Head, "frame "+strconv.Itoa(f))
		}
		for _, run := range runs(r) {
			row := []string{run.Policy.Name}
			for _, f := range run.Frontiers {
				row = append(row, c.value(f))
			}
			t.Rows = append(t.Rows, row)
		}
		out = append(out, t)
	}
	return out
}

func decibel(d compare.Decibel) string { return plot.Number(float64(d)) }

func fraction(f compare.Fraction) string {
	if math.IsNaN(float64(f)) {
		return "–"
	}
	return strconv.FormatFloat(float64(f), 'f', 4, 64)
}

func qualityText(q *compare.Quality) string {
	switch {
	case q == nil:
		return "–"
	case q.Frames > 0 && q.Equal == q.Frames:
		return "equal"
	}
	return decibel(q.PSNR)
}

func times(x float64) string { return plot.Number(x) + "×" }

func mebibytes(b float64) string { return plot.Number(b / (1 << 20)) }
