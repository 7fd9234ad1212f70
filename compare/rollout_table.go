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
	}
	return nil
}
