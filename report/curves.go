package report

import (
	"fmt"
	"math"
	"strconv"

	"longtake/compare"
	"longtake/report/plot"
)

// mostPoints of a curve, roughPoints of one that jumps from frame to frame; longer ones are thinned by means.
const mostPoints, roughPoints = 400, 100

// curves are drawn over the frames of the video.
func curves(r *compare.Report) []Figure {
	chart := func(title, unit string, log bool, points int, value func(*compare.Run) []float64) Figure {
		c := plot.Chart{Title: title, X: "frame", Y: unit, LogY: log, XLimits: [2]float64{0, float64(r.Setup.Frames)}}
		for i, run := range runs(r) {
			y := value(run)
			if len(y) == 0 {
				continue
			}
			x, y := plot.Thin(frames(len(y), r.Setup), y, points)
			c.Series = append(c.Series, plot.Series{Name: run.Policy.Name, X: x, Y: y, Line: true, Colour: i + 1, Reference: run == r.Ceiling})
		}
		note := ""
		if r.Setup.Frames > points {
			note = fmt.Sprintf("Means over %d frames each.", (r.Setup.Frames+points-1)/points)
		}
		return Figure{SVG: c.SVG(), Caption: note}
	}
	psnr := chart("PSNR to the reference", "dB", false, roughPoints, func(run *compare.Run) []float64 { return decibels(run.PSNR) })
	if r.Ceiling != nil {
		psnr.Caption += " The black dashed ceiling is the reference with another order of summation."
	}
	return []Figure{
		psnr,
		chart("Cache", "MiB", true, mostPoints, func(run *compare.Run) []float64 {
			return scaled(run.CacheBytes, 1.0/(1<<20))
		}),
		chart("Time per chunk", "ms", true, mostPoints, func(run *compare.Run) []float64 { return scaled(run.ChunkSeconds, 1000) }),
		chart("Keys that a head sees", "tokens", true, mostPoints, func(run *compare.Run) []float64 { return scaled(run.Tokens, 1) }),
		chart("SSIM to the reference", "", false, roughPoints, func(run *compare.Run) []float64 { return scaled(run.SSIM, 1) }),
	}
}

// frames returns the x of values: one a frame of the whole video, or one a chunk after the given frames.
func frames(values int, s compare.Setup) []float64 {
	x := make([]float64, values)
	for i := range x {
		if values == s.Frames {
			x[i] = float64(i)
		} else {
			x[i] = float64(s.Given + (i+1)*max(s.ChunkFrames, 1) - 1)
		}
	}
	return x
}

// decibels leaves out what was not measured; equal frames have no place on the axis and are drawn at 80 dB.
func decibels(list []compare.Decibel) []float64 {
	out := make([]float64, len(list))
	for i, d := range list {
		out[i] = min(float64(d), 80)
	}
	return out
}

func scaled[T ~int64 | ~float64](list []T, by float64) []float64 {
	out := make([]float64, len(list))
	for i, v := range list {
		out[i] = float64(v) * by
	}
	return out
}

// oneStep shows the fidelity of a single chunk on the reference's own history.
func oneStep(r *compare.Report) Section {
	s := Section{Title: "One-step fidelity", Text: []string{"The history is the reference's own; only the next chunk is made under the policy. Chaos plays no part here, so this is the fairest picture of what a policy loses."}}
	bars := plot.Bars{Title: "PSNR of the next chunk", Y: "dB"}
	for _, f := range r.Frontiers {
		bars.Labels = append(bars.Labels, strconv.Itoa(f))
	}
	found := false
	for i, run := range runs(r) {
		if i == 0 || run == r.Ceiling {
			continue
		}
		b := plot.Series{Name: run.Policy.Name, Colour: i + 1}
		for _, f := range run.Frontiers {
			if f.OneStep == nil {
				b.Y = append(b.Y, 0)
				continue
			}
			found = true
			b.Y = append(b.Y, min(float64(f.OneStep.PSNR), 100))
		}
		bars.Series = append(bars.Series, b)
	}
	if found && r.Ceiling != nil {
		bars.Rules = []plot.Rule{{Name: "ceiling", Y: mean(r.Ceiling.Frontiers, func(f compare.Frontier) float64 {
			if f.OneStep == nil {
				return math.NaN()
			}
			return min(float64(f.OneStep.PSNR), 100)
		})}}
	}
	if found {
		s.Figures = append(s.Figures, Figure{SVG: bars.SVG(), Caption: "By frontier (frame); equal pictures are drawn at 100 dB. The dashed line, where there is one, is the mean of the ceiling."})
	}
	return s
}

// shares draws density against recall, layer by layer.
func shares(r *compare.Report) Section {
	s := Section{Title: "Density and recall", Text: []string{"One point for each layer: the share of query-key pairs that were computed, and the share of dense attention's mass that lay on them, at the last frontier."}}
	for _, kind := range []struct {
		title string
		list  func(compare.Frontier) []compare.Share
	}{
		{"Self attention", func(f compare.Frontier) []compare.Share { return f.Self }},
		{"Cross attention", func(f compare.Frontier) []compare.Share { return f.Cross }},
	} {
		c := plot.Chart{Title: kind.title + ", one point per layer", X: "density", Y: "recall", XLimits: [2]float64{0, 1}, YLimits: [2]float64{0, 1}}
		t := Table{Caption: kind.title + ": density / recall by layer, at the last frontier", Head: []string{"policy"}}
		for i, run := range runs(r) {
			if len(run.Frontiers) == 0 {
				continue
			}
			list := kind.list(run.Frontiers[len(run.Frontiers)-1])
			if len(list) == 0 {
				continue
			}
			points, row := plot.Series{Name: run.Policy.Name, Marks: true, Colour: i + 1}, []string{run.Policy.Name}
			for _, v := range list {
				points.X, points.Y = append(points.X, float64(v.Density)), append(points.Y, float64(v.Recall))
				row = append(row, plot.Number(float64(v.Density))+" / "+plot.Number(float64(v.Recall)))
				if len(t.Head) < len(row) {
					t.Head = append(t.Head, "layer "+strconv.Itoa(v.Layer))
				}
			}
			c.Series, t.Rows = append(c.Series, points), append(t.Rows, row)
		}
		if len(c.Series) > 0 {
			s.Figures, s.Tables = append(s.Figures, Figure{SVG: c.SVG()}), append(s.Tables, t)
		}
	}
	return s
}

// truth draws the distance to the simulator where it can be known.
func truth(r *compare.Report) Section {
	s := Section{Title: "Against the truth", Text: []string{fmt.Sprintf("PSNR against the simulator on frames whose view was seen before in a given frame; there are %d of them.", r.TruthFrames)}}
	c := plot.Chart{Title: "PSNR to the simulator", X: "frame", Y: "dB"}
	if r.TruthFrames == 0 {
		return s
	}
	for i, run := range runs(r) {
		c.Series = append(c.Series, plot.Series{Name: run.Policy.Name, X: frames(len(run.Truth), r.Setup), Y: decibels(run.Truth), Marks: true, Colour: i + 1})
	}
	s.Figures = []Figure{{SVG: c.SVG()}}
	return s
}

// pictures shows frames of all runs below each other.
func pictures(r *compare.Report) Section {
	var rows []namedStrip
	for i, run := range runs(r) {
		name := run.Policy.Name
		if i == 0 {
			name += " (reference)"
		}
		rows = append(rows, namedStrip{name, run.Strip})
	}
	if len(r.TruthStrip) > 0 {
		rows = append(rows, namedStrip{"simulator", r.TruthStrip})
	}
	s := Section{Title: "Frames"}
	if t, ok := strips(rows); ok {
		s.Strips = []Strips{t}
	}
	return s
}

type namedStrip struct {
	name  string
	strip compare.Strip
}

// strips puts pictures of the same frame below each other.
func strips(rows []namedStrip) (t Strips, any bool) {
	at := map[int]int{}
	for _, row := range rows {
		for _, still := range row.strip {
			if _, known := at[still.Frame]; !known {
				at[still.Frame] = len(t.Columns)
				t.Columns = append(t.Columns, "frame "+strconv.Itoa(still.Frame))
			}
		}
	}
	for _, row := range rows {
		out := StripRow{Name: row.name, PNGs: make([][]byte, len(t.Columns))}
		for _, still := range row.strip {
			out.PNGs[at[still.Frame]] = still.PNG
		}
		t.Rows = append(t.Rows, out)
	}
	return t, len(t.Columns) > 0
}
