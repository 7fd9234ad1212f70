package compare

import (
	"fmt"
	"io"
	"math"
	"slices"
	"text/tabwriter"
)

// Table writes the report for people: a line for each run, then one for each run and frontier.
func (r *Report) Table(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprint(t, "policy\tPSNR\tSSIM\tMS-SSIM\tequal\tparted at\ttruth\tfirst frame\ttotal\tspeed-up\tcomponent\t\n")
	line := func(run Run) {
		q, parted := run.Mean, "-"
		if run.FirstDiverged >= 0 {
			parted = fmt.Sprint(run.FirstDiverged)
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%d/%d\t%s\t%s\t%.2f s\t%.1f s\t%.2fx\t%.2fx\t\n", run.Policy.Name, q.PSNR, q.SSIM, q.MSSSIM, q.Equal, q.Frames,
			parted, run.TruthMean, run.FirstFrame, run.Total, run.Speedup, run.ComponentSpeedup)
	}
	for _, run := range r.Runs {
		line(run)
	}
	if r.Ceiling != nil {
		line(*r.Ceiling)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	if r.Parallel > 1 {
		fmt.Fprintf(w, "%d runs at a time; times are of chunks that had the machine to themselves, totals interpolated between them\n", r.Parallel)
	}
	if r.Free > 0 {
		fmt.Fprintf(w, "PSNR, SSIM and MS-SSIM of the first %d frames, which all made freely\n", r.Free)
	}
	if r.Asked > 0 {
		fmt.Fprintf(w, "the time sufficed for %d of %d frames\n", r.Setup.Frames, r.Asked)
	}
	fmt.Fprintln(w)
	fmt.Fprint(t, "policy\tframe\tfps\tp50\tp95\tcache\ttokens\tdensity\tPSNR here\tone step\taround\tself density/recall\tcross density/recall\tself\tcross\tdeciding\tcompacting\t\n")
	runs := r.Runs
	if r.Ceiling != nil {
		runs = append(runs[:len(runs):len(runs)], *r.Ceiling)
	}
	for _, run := range runs {
		for _, f := range run.Frontiers {
			step := Unmeasured
			if f.OneStep != nil {
				step = f.OneStep.PSNR
			}
			fmt.Fprintf(t, "%s\t%d\t%.2f\t%s\t%s\t%.1f MiB\t%.0f\t%.4f\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t\n", run.Policy.Name, f.Frame, f.FPS, milli(f.P50), milli(f.P95),
				float64(f.CacheBytes)/(1<<20), f.Tokens, f.Density, f.Quality.PSNR, step, f.around(), shares(f.Self), shares(f.Cross), milli(f.Attend), milli(f.AttendCross), milli(f.Match), milli(f.Compact))
		}
	}
	return t.Flush()
}

// around is the mean and the least of the single chunks before the frontier and the one that ends there.
func (f Frontier) around() string {
	if len(f.Around) == 0 || f.OneStep == nil {
		return "-"
	}
	list := append(slices.Clone(f.Around), f.OneStep.PSNR)
	return fmt.Sprintf("%s (%s)", meanDecibel(list), slices.Min(list))
}

// String writes one decimal, "equal" for what is capped or infinite, "-" for what was not measured.
func (d Decibel) String() string {
	switch {
	case !d.Measured():
		return "-"
	case d >= equalDecibels:
		return "equal"
	}
	return fmt.Sprintf("%.1f", float64(d))
}

// String writes four decimals, "-" for what was not measured.
func (f Fraction) String() string {
	if math.IsNaN(float64(f)) {
		return "-"
	}
	return fmt.Sprintf("%.4f", float64(f))
}

func milli(seconds float64) string { return fmt.Sprintf("%.1f ms", seconds*1e3) }

// shares is the mean over layers, "0.051/0.912".
func shares(list []Share) string {
	if len(list) == 0 {
		return "-"
	}
	density, recall := 0.0, 0.0
	for _, s := range list {
		density, recall = density+float64(s.Density), recall+float64(s.Recall)
	}
	n := float64(len(list))
	return fmt.Sprintf("%.3f/%.3f", density/n, recall/n)
}

// Table writes the report for people.
func (r *MemoryReport) Table(w io.Writer) error {
	for _, test := range r.Tests {
		fmt.Fprintf(w, "%s: %d true frames, then %d generated; %d clips, seeds %d to %d\n", test.Kind, test.Given, test.Made,
			len(test.Seeds), test.Seeds[0], test.Seeds[len(test.Seeds)-1])
		t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
		fmt.Fprint(t, "policy\ttokens\tcache\tPSNR\tgain\tseen before\tnever seen\tearly\tmiddle\tlate\tlast 5\tworst clip\tto the first\tfps\t\n")
		for i, row := range test.Rows {
			gain := "-"
			if i > 0 {
				gain = fmt.Sprintf("%+.2f ± %.2f", row.Gain, row.GainError)
			}
			fmt.Fprintf(t, "%s\t%.0f\t%.1f MiB\t%.2f ± %.2f\t%s\t%.2f ± %.2f\t%.1f %%\t%s\t%s\t%s\t%s\t%s\t%s\t%.1f\t\n", row.Policy.Name, row.Tokens, float64(row.CacheBytes)/(1<<20), float64(row.PSNR), row.Error, gain,
				float64(row.Seen), row.SeenError, 100*float64(row.New),
				row.Thirds[0], row.Thirds[1], row.Thirds[2], row.Last, row.Worst, row.ToFirst, row.FPS)
		}
		if err := t.Flush(); err != nil {
			return err
		}
	}
	for _, test := range r.Play {
		fmt.Fprintf(w, "%s: clips of %d frames in %d worlds, seeds %d to %d\n", test.Measure, test.Frames, len(test.Seeds), test.Seeds[0], test.Seeds[len(test.Seeds)-1])
		t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
		for _, row := range test.Rows {
			for _, f := range row.Findings {
				fmt.Fprintf(t, "%s\t%s\t%.3f\t± %.3f\t%d clips\t\n", row.Policy.Name, f.Name, float64(f.Mean), float64(f.SE), f.N)
			}
			fmt.Fprintf(t, "%s\tkeys a head sees, cache at most\t%.0f\t%.1f MiB\t\t\n", row.Policy.Name, row.Tokens, float64(row.CacheBytes)/(1<<20))
		}
		if err := t.Flush(); err != nil {
			return err
		}
	}
	return nil
}
