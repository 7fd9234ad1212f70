package analyze

import (
	"fmt"
	"image"
	"slices"
	"strconv"
	"strings"

	"longtake/report"
	"longtake/report/plot"
)

// File is a drawing of its own.
type File struct {
	Name string
	Data []byte
}

// mostWords are drawn as maps, wordsALine beside each other.
const mostWords, wordsALine = 16, 8

// sign stands for what is no word in names of files.
const sign = "sign"

// Draw returns the page of a study, and its drawings as files. Fill in Setup first.
func (s *Study) Draw() (*report.Page, []File) {
	d := &drawing{s: s, page: &report.Page{
		Title: "Redundancy of attention in " + s.Setup.Model,
		Lead: fmt.Sprintf("A session over a full cache with dense attention, examined in denoising pass %d (from 0) of the chunks at latent frame %s. Means are over heads and queries.",
			s.Pass, list(s.At)),
		Facts: report.Facts(s.Setup),
	}}
	d.recall()
	d.similarity()
	d.components()
	d.prompt()
	d.matches()
	d.merging()
	d.matchers()
	return d.page, d.files
}

// list writes numbers as "10, 20, 39".
func list(numbers []int) string {
	var out []string
	for _, n := range numbers {
		out = append(out, strconv.Itoa(n))
	}
	return strings.Join(out, ", ")
}

// drawing collects sections and files.
type drawing struct {
	s     *Study
	page  *report.Page
	files []File
}

func (d *drawing) add(s report.Section) { d.page.Sections = append(d.page.Sections, s) }

// svg makes a figure and its file.
func (d *drawing) svg(name, svg, caption string) report.Figure {
	d.files = append(d.files, File{name + ".svg", plot.File(svg)})
	return report.Figure{SVG: svg, Caption: caption}
}

func (d *drawing) recall() {
	t := report.Table{Caption: "Share of attention on past keys that the strongest keys of each query hold, and where it lies", Head: []string{"layer"}}
	for _, v := range densities[:len(densities)-1] {
		t.Head = append(t.Head, fmt.Sprintf("top %g %%", 100*v))
	}
	t.Head = append(t.Head, "own chunk (of all)", "frame before", "last 8", "older than 32")
	mean := make([]float64, len(t.Head)-1)
	for _, r := range d.s.Recall {
		values := append(append([]float64{}, r.Mass[:len(densities)-1]...), r.Own, r.Previous, r.Last8, r.Older32)
		t.Rows = append(t.Rows, numbers(strconv.Itoa(r.Layer), values, mean, len(d.s.Recall)))
	}
	t.Rows = append(t.Rows, numbers("mean", mean, nil, 1))
	d.add(report.Section{Title: "Recall against density", Text: []string{"The best that any selection of keys could do: for every query its own strongest keys (figure 2 of the paper)."},
		Figures: []report.Figure{d.svg("recall", d.s.recallChart().SVG(), "")}, Tables: []report.Table{t}})
}

// numbers writes a row, and adds it to a mean over so many rows.
func numbers(name string, values, mean []float64, rows int) []string {
	out := []string{name}
	for i, v := range values {
		out = append(out, strconv.FormatFloat(v, 'f', 3, 64))
		if mean != nil {
			mean[i] += v / float64(rows)
		}
	}
	return out
}

func (d *drawing) similarity() {
	var tables []report.Table
	for sp := range spaces {
		t := report.Table{Caption: "Cosine of a new latent frame's keys with earlier keys, head by head, " + sp.String(),
			Head: []string{"layer", "same place, frame before", "best in frame before", "best in all", "best above 0.9", "any pair"}}
		mean := make([]float64, len(t.Head)-1)
		for _, v := range d.s.Similarity {
			if v.Space == sp.String() {
				t.Rows = append(t.Rows, numbers(strconv.Itoa(v.Layer), []float64{v.Same[0], v.Best[0], v.BestAll, v.Above90, v.Pair}, mean, len(d.s.Layers)))
			}
		}
		t.Rows = append(t.Rows, numbers("mean", mean, nil, 1))
		tables = append(tables, t)
	}
	d.add(report.Section{Title: "Similarity of keys",
		Text: []string{"Rotation moves equal content apart, by time most of all: keys are best compared before it. The cosine of any two keys shows how much of a high value is a common mean."},
		Figures: []report.Figure{d.svg("similarity-same", d.s.lagChart(false).SVG(), "Mean over layers."),
			d.svg("similarity-best", d.s.lagChart(true).SVG(), "Mean over layers.")}, Tables: tables})
}

func (d *drawing) components() {
	s := d.s
	frames := s.clip.drawn
	strip := report.Strips{Caption: "Principal components of all heads together, over the frames shown: the first as red, the second as green, the third as blue"}
	video := report.StripRow{Name: "video"}
	for _, f := range frames {
		strip.Columns = append(strip.Columns, "frame "+strconv.Itoa(f))
		video.PNGs = append(video.PNGs, encoded(copied(s.clip.frame(f, s.Setup.Frames))))
	}
	strip.Rows = []report.StripRow{video}
	for _, layer := range s.Layers {
		rows := s.componentRows(layer, frames)
		for _, r := range rows {
			row := report.StripRow{Name: fmt.Sprintf("%s (%.0f %% of the variance)", r.name, 100*r.explained), PNGs: make([][]byte, len(frames))}
			for i, f := range frames {
				for j, have := range r.frames {
					if have == f {
						row.PNGs[i] = encoded(r.pictures[j])
					}
				}
			}
			strip.Rows = append(strip.Rows, row)
		}
		d.files = append(d.files, File{fmt.Sprintf("components-layer%d.png", layer), encoded(s.sheet(frames, rows))})
	}
	d.add(report.Section{Title: "Components of keys and queries", Strips: []report.Strips{strip},
		Text: []string{"What has the same colour has similar keys (figure 3 of the paper). Both are taken before the rotation; keys are those of the clean pass, queries those of the examined pass."}})
}

func (d *drawing) prompt() {
	s := d.s
	if len(s.maps) == 0 {
		return
	}
	t := report.Table{Caption: "Share of the prompt's tokens that hold so much of the cross attention", Head: []string{"layer", "frame 90 %", "frame 95 %", "frame 99 %", "one query 90 %"}}
	mean := make([]float64, 4)
	for _, u := range s.Prompt {
		t.Rows = append(t.Rows, numbers(strconv.Itoa(u.Layer), []float64{u.Frame90, u.Frame95, u.Frame99, u.Query90}, mean, len(s.Prompt)))
	}
	t.Rows = append(t.Rows, numbers("mean", mean, nil, 1))
	words := report.Table{Caption: "Words with the most attention, mean over layers; even shares would be " + plot.Number(1/float64(len(s.maps))), Head: []string{"word", "place in the prompt", "share"}}
	heavy := slices.Clone(s.maps)
	slices.SortStableFunc(heavy, func(a, b promptMap) int { return -cmpFloat(a.mass, b.mass) })
	for _, m := range heavy[:min(len(heavy), 8)] {
		words.Rows = append(words.Rows, []string{m.word, strconv.Itoa(m.at + 1), strconv.FormatFloat(m.mass, 'f', 3, 64)})
	}
	maps := s.maps[:min(len(s.maps), mostWords)]
	var strips []report.Strips
	for i, m := range maps {
		if i%wordsALine == 0 {
			strips = append(strips, report.Strips{Rows: []report.StripRow{{}}})
		}
		picture := heat(s.clip.geometry, m.place)
		line := &strips[len(strips)-1]
		line.Columns = append(line.Columns, fmt.Sprintf("%s (%d)", m.word, m.at+1))
		line.Rows[0].PNGs = append(line.Rows[0].PNGs, encoded(picture))
		large := image.NewRGBA(image.Rect(0, 0, 4*tile*s.clip.Columns, 4*tile*s.clip.Rows))
		enlarge(large, large.Rect, picture)
		d.files = append(d.files, File{fmt.Sprintf("prompt-%02d-%s.png", i, plain(m.word)), encoded(large)})
	}
	strips[0].Caption = "Where in the picture words are looked at, mean over layers and heads; each from its least (dark) to its most (yellow). Of all words, numbered by their place in the prompt, those with the most definite place in the picture."
	d.add(report.Section{Title: "Cross attention", Strips: strips, Tables: []report.Table{t, words},
		Text:    []string{"How much of the prompt a frame needs, and which words (figure 4 of the paper)."},
		Figures: []report.Figure{d.svg("prompt", s.promptChart().SVG(), "Mean over heads and queries.")}})
}

// plain keeps what may stand in the name of any file.
func plain(s string) string {
	out := []rune{}
	for _, r := range s {
		if 'a' <= r && r <= 'z' || '0' <= r && r <= '9' || r == '-' {
			out = append(out, r)
		}
	}
	if len(out) == 0 {
		return sign
	}
	return string(out[:min(len(out), 40)])
}

func (d *drawing) matches() {
	s := d.s
	t := report.Table{Caption: "Where the queries of a frame look in the frame before: the strongest key, mean over heads", Head: []string{"frame, layer", "own place", "within one token", "mean shift in tokens"}}
	sec := report.Section{Title: "Correspondence", Text: []string{"Arrows lead from a token to the place in the frame before that it attends to most (figure 5 of the paper); a dot alone looks at its own place."}}
	last := s.Matches[len(s.Matches)-1].Frame
	for _, m := range s.Matches {
		t.Rows = append(t.Rows, numbers(fmt.Sprintf("%d, %d", m.Frame, m.Layer), []float64{m.Same, m.Near, m.Shift}, nil, 1))
		if m.Frame == last {
			sec.Figures = append(sec.Figures, d.svg(fmt.Sprintf("correspondence-layer%d", m.Layer), s.arrows(m), "Layer "+strconv.Itoa(m.Layer)+"."))
		}
	}
	sec.Tables = []report.Table{t}
	d.add(sec)
}

func (d *drawing) merging() {
	s := d.s
	sec := report.Section{Title: "Merging keys, by threshold", Text: []string{
		"Recall of merging is the overlap of attention over past keys before and after: for each entry the smaller of what its members held and what it holds. Every head decides for itself, with exact search; the two newest frames are never merged."}}
	names := []string{"merging-threshold", "merging-kept"}
	if len(s.Merging) > 0 {
		for i, c := range s.mergingCharts() {
			sec.Figures = append(sec.Figures, d.svg(names[i], c.SVG(), ""))
		}
		sec.Tables = append(sec.Tables, s.mergingTable())
	}
	if len(s.Trials) > 0 {
		sec.Text = append(sec.Text, "The caches themselves, run beside the full one on the same keys and asked the same queries, are compared by their attention outputs.")
		for i, c := range s.trialCharts() {
			sec.Figures = append(sec.Figures, d.svg([]string{"cache-threshold", "cache-kept"}[i], c.SVG(), ""))
		}
		t := report.Table{Caption: "Attention outputs of caches against dense attention over all keys", Head: []string{"cache", "keys in view over all", "relative error", "cosine"}}
		for _, r := range s.Trials {
			t.Rows = append(t.Rows, numbers(r.Name, []float64{r.Kept, r.Error, r.Cosine}, nil, 1))
		}
		sec.Tables = append(sec.Tables, t)
	}
	d.add(sec)
}

// mergingTable has a column for each threshold.
func (s *Study) mergingTable() report.Table {
	t := report.Table{Caption: "Recall (entries per past token) at the last examined frame, by threshold", Head: []string{"keys compared, kept"}}
	for _, m := range s.Merging {
		name := m.Space + ", " + m.Keep
		if n := len(t.Rows); n == 0 || t.Rows[n-1][0] != name {
			t.Rows = append(t.Rows, []string{name})
		}
		row := &t.Rows[len(t.Rows)-1]
		*row = append(*row, fmt.Sprintf("%.3f (%.3f)", m.Recall, m.Kept))
		if len(t.Rows) == 1 {
			t.Head = append(t.Head, plot.Number(m.Threshold))
		}
	}
	return t
}

func (d *drawing) matchers() {
	s := d.s
	if len(s.Matchers) == 0 {
		return
	}
	sec := report.Section{Title: "Matchers, by bits", Text: []string{"Share of attention on past keys that is held by the keys which an index ranks first, at the last examined frame. The line is exact ranking."}}
	for i, c := range s.matcherCharts() {
		sec.Figures = append(sec.Figures, d.svg(fmt.Sprintf("matchers-%d", i), c.SVG(), ""))
	}
	t := report.Table{Head: []string{"matcher", "bits per key", "keys ranked"}}
	for _, v := range matcherDensities {
		t.Head = append(t.Head, fmt.Sprintf("recall at %g %%", 100*v))
	}
	for _, m := range s.Matchers {
		bits := "all"
		if m.Bits > 0 {
			bits = plot.Number(m.Bits)
		}
		row := append([]string{m.Name, bits}, numbers("", append([]float64{m.Looked}, m.Mass...), nil, 1)[1:]...)
		t.Rows = append(t.Rows, row)
	}
	sec.Tables = []report.Table{t}
	d.add(sec)
}
