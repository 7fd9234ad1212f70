package report

import (
	"fmt"
	"io"
	"strconv"

	"longtake/compare"
	"longtake/report/plot"
)

// Memory writes the page of a memory test. The error is w's.
func Memory(w io.Writer, r *compare.MemoryReport) error {
	p := &Page{
		Title: "What is remembered: " + r.Setup.Model,
		Lead:  "The simulator's frames lead away from a place; the way back is generated. Each of its views has a true picture to be compared with; what of it the given frames have shown is counted, and compared by itself as well.",
		Facts: Facts(r.Setup),
	}
	var list []compare.Policy
	for i, t := range r.Tests {
		p.Sections = append(p.Sections, memorySection(t))
		for _, row := range t.Rows {
			if i == 0 {
				list = append(list, row.Policy)
			}
		}
	}
	for i, t := range r.Play {
		p.Sections = append(p.Sections, playSection(t))
		for _, row := range t.Rows {
			if i == 0 && len(r.Tests) == 0 {
				list = append(list, row.Policy)
			}
		}
	}
	p.Sections = append(p.Sections, Section{Title: "Policies", Tables: []Table{policyTable(list)}})
	return p.Write(w)
}

// playText says what a measure of play is.
var playText = map[string]string{
	compare.NextFrame: "Every frame is made after the true ones before it and compared with the true one.",
	compare.Actions:   "From a true frame every action is asked for; it is obeyed where the simulator's picture of that action is nearest to the one made.",
	compare.Walls:     "From one true frame the player walks straight into what is there, then back. A dream is locked where the way back neither moves nor shows anything.",
	compare.Prompt:    "From text alone the player turns round on the spot; a small network, trained on the simulator's frames, says whether walls, floor and sky are those of the prompt. Its own accuracy is that of the simulator's turn.",
	compare.Stability: "After the given true frames the walk goes on for long: statistics of 50 frames up to some marks, in the dream and where the same actions lead in true worlds whose walls they do not know. Ratios are of the means over all worlds.",
	compare.Stroll:    "After the given true frames the walk goes on in the dream, beside the same walk in the simulator.",
}

func playSection(t compare.PlayTest) Section {
	s := Section{Title: fmt.Sprintf("%s, %d frames", t.Measure, t.Frames), Text: []string{playText[t.Measure], fmt.Sprintf("%d worlds.", len(t.Seeds))}}
	table := Table{Caption: "Mean and standard error over the worlds", Head: []string{"policy", "measure", "mean", "standard error", "worlds"}}
	rows := []namedStrip{{"simulator", t.TruthStrip}}
	for _, row := range t.Rows {
		for _, f := range row.Findings {
			table.Rows = append(table.Rows, []string{row.Policy.Name, f.Name, plot.Number(float64(f.Mean)), plot.Number(float64(f.SE)), strconv.Itoa(f.N)})
		}
		table.Rows = append(table.Rows, []string{row.Policy.Name, "keys a head sees at the end", plot.Number(row.Tokens), "", ""},
			[]string{row.Policy.Name, "cache at most, MiB", mebibytes(float64(row.CacheBytes)), "", ""})
		rows = append(rows, namedStrip{row.Policy.Name, row.Strip})
	}
	s.Tables = []Table{table}
	if st, ok := strips(rows); ok {
		st.Caption = "World " + strconv.FormatUint(uint64(first(t.Seeds)), 10)
		s.Strips = []Strips{st}
	}
	return s
}

func memorySection(t compare.MemoryTest) Section {
	s := Section{Title: fmt.Sprintf("%s, %d frames", t.Kind, t.Span),
		Text: []string{fmt.Sprintf("%d worlds, %d true frames each, then %d generated ones.", len(t.Seeds), t.Given, t.Made)}}
	table := Table{Caption: "PSNR to the truth, dB, ± standard error over the worlds; gain is on the first policy, world by world; seen before is the PSNR of the pixels that a given frame has shown, never seen the share of the others; thirds are the early, middle and late part",
		Head: []string{"policy", "keys a head sees", "cache MiB", "PSNR", "gain", "seen before", "never seen", "thirds", "last 5", "worst clip", "to the first row", "fps"}}
	c := plot.Chart{Title: "PSNR to the truth", X: "generated frame", Y: "dB"}
	rows := []namedStrip{{"simulator", t.TruthStrip}}
	for i, row := range t.Rows {
		table.Rows = append(table.Rows, []string{row.Policy.Name, plot.Number(row.Tokens), mebibytes(float64(row.CacheBytes)), fmt.Sprintf("%.2f ± %.2f", float64(row.PSNR), row.Error), gain(i, row),
			fmt.Sprintf("%.2f ± %.2f", float64(row.Seen), row.SeenError), fmt.Sprintf("%.1f %%", 100*float64(row.New)),
			decibel(row.Thirds[0]) + " / " + decibel(row.Thirds[1]) + " / " + decibel(row.Thirds[2]), decibel(row.Last), decibel(row.Worst),
			decibel(row.ToFirst), plot.Number(row.FPS)})
		y := decibels(row.Frames)
		x := make([]float64, len(y))
		for j := range x {
			x[j] = float64(j + 1)
		}
		c.Series = append(c.Series, plot.Series{Name: row.Policy.Name, X: x, Y: y, Line: true, Colour: i + 1})
		rows = append(rows, namedStrip{row.Policy.Name, row.Strip})
	}
	s.Tables, s.Figures = []Table{table}, []Figure{{SVG: c.SVG(), Caption: "Mean over the worlds."}}
	if st, ok := strips(rows); ok {
		st.Caption = "World " + strconv.FormatUint(uint64(first(t.Seeds)), 10)
		s.Strips = []Strips{st}
	}
	return s
}

// gain is on the first row.
func gain(i int, row compare.MemoryRow) string {
	if i == 0 {
		return "–"
	}
	return fmt.Sprintf("%+.2f ± %.2f", row.Gain, row.GainError)
}

func first(list []uint32) uint32 {
	if len(list) == 0 {
		return 0
	}
	return list[0]
}
