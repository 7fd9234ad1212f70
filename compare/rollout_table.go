package compare

import (
	"fmt"
	"io"
	"text/tabwriter"
)

// Table writes the report for people: a line for each run and frontier, and one that says where a run stopped.
func (r *RolloutReport) Table(w io.Writer) error {
	fmt.Fprintf(w, "%s, %s, %s; %d frames, %d steps and the clean pass, loop %s; history: %s\n", r.Setup.Model, r.Setup.Device, r.Precision, r.Setup.Frames, r.Setup.Steps, r.Loop, r.Data)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprint(t, "policy\tframe\tfps\tms/chunk\tp50\tp95\tbegin\tdenoise\tclean\tdecode\tself\tcross\tcache MiB\tdevice MiB\tpeak\ttokens\theld\tdensity\trecall\tmerged\tevicted\terror\tmass\t\n")
	mib := func(n int64) float64 { return float64(n) / (1 << 20) }
	for _, run := range r.Runs {
		for _, m := range run.Frontiers {
			fmt.Fprintf(t, "%s\t%d\t%.2f\t%.2f\t%.2f\t%.2f\t%.2f\t%.2f\t%.2f\t%.2f\t%.2f\t%.2f\t%.1f\t%.1f\t%.1f\t%.0f\t%.4f\t%s\t%s\t%s\t%s\t%s\t%s\t\n", run.Policy.Name, m.Frame, m.FPS,
				1e3*m.Mean, 1e3*m.P50, 1e3*m.P95, 1e3*m.Begin, 1e3*m.Denoise, 1e3*m.Commit, 1e3*m.Decode, 1e3*m.Attend, 1e3*m.AttendCross,
				mib(m.CacheBytes), mib(m.DeviceBytes), mib(m.PeakBytes), m.Tokens, m.Held, m.Density, m.Recall, m.Merged, m.Evicted, m.Error, m.Mass)
		}
	}
	if err := t.Flush(); err != nil {
		return err
	}
	for _, run := range r.Runs {
		fmt.Fprintf(w, "%s: opened in %.2f s, first frames after %.2f s, %.1f s in all; weights and session predicted at %.1f MiB", run.Policy.Name, run.Start, run.FirstFrame,
			run.Total, mib(run.Predicted))
		if run.Filled {
			fmt.Fprintf(w, "; history by clean passes, timed chunks are whole")
		}
		if run.Why != "" {
			fmt.Fprintf(w, "; stopped at frame %d: %s", run.Stopped, run.Why)
		}
		fmt.Fprintln(w)
		run.profile(w)
	}
	return nil
}

// mostOps is how many kinds of launches the table shows of a profile.
const mostOps = 30

// profile writes where the device's time went in a chunk after the last frontier.
func (r *RolloutRun) profile(w io.Writer) {
	if len(r.Frontiers) == 0 || len(r.Frontiers[len(r.Frontiers)-1].Ops) == 0 {
		return
	}
	m := r.Frontiers[len(r.Frontiers)-1]
	fmt.Fprintf(w, "%s, the device's launches in a chunk after frame %d:\n", r.Policy.Name, m.Frame)
	rest := 0.0
	for i, op := range m.Ops {
		if i >= mostOps {
			rest += op.Seconds
			continue
		}
		fmt.Fprintf(w, "  %8.3f ms %5d x %8.1f us  %s\n", 1e3*op.Seconds, op.Count, 1e6*op.Seconds/float64(op.Count), op.Name)
	}
	fmt.Fprintf(w, "  %8.3f ms       of all others\n", 1e3*rest)
}
