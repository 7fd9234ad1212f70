package plot

import (
	"fmt"
	"math"
)

// Bars draws for every label one bar of each series (Series.Y by label; X is not used).
type Bars struct {
	Title, Y string
	Labels   []string
	Series   []Series
	YLimits  [2]float64
	Rules    []Rule
}

// SVG draws the bars; values that are not finite have none.
func (b Bars) SVG() string {
	names := make([]string, len(b.Series))
	ys := []float64{0}
	for i, s := range b.Series {
		names[i] = s.Name
		ys = append(ys, s.Y...)
	}
	tall := open("", chartWidth, 0).legend(0, names, func(int, float64, float64) {})
	height := chartHeight + tall
	out := open(b.Title, chartWidth, height)
	out.text("t", "start", 8, 16, b.Title)
	out.legend(34, names, func(i int, x, y float64) {
		fmt.Fprintf(out, `<rect class="%s" x="%s" y="%s" width="16" height="9"/>`, fill(b.Series[i].colour(i)), num(x), num(y-5))
	})
	for _, r := range b.Rules {
		ys = append(ys, r.Y)
	}
	y := newAxis(ys, false, b.YLimits, height-40, 38+tall, 6)
	left := 24.0
	for _, v := range y.ticks {
		left = max(left, 30+textWidth(y.label(v)))
	}
	x := axis{lo: 0, hi: float64(max(len(b.Labels), 1)), from: left, to: chartWidth - 14}
	Chart{Y: b.Y}.frame(out, x, y)
	wide := 0.8 * (x.to - x.from) / x.hi / float64(max(len(b.Series), 1))
	for j, label := range b.Labels {
		start := x.at(float64(j) + 0.1)
		for i, s := range b.Series {
			if j >= len(s.Y) || !y.shows(s.Y[j]) {
				continue
			}
			top, foot := y.at(max(s.Y[j], 0)), y.at(min(s.Y[j], 0))
			fmt.Fprintf(out, `<rect class="%s" x="%s" y="%s" width="%s" height="%s"/>`, fill(s.colour(i)),
				num(start+wide*float64(i)), num(top), num(wide), num(max(foot-top, 0.5)))
		}
		out.text("", "middle", x.at(float64(j)+0.5), y.from+17, label)
	}
	rules(out, b.Rules, x, y)
	return out.close()
}

// Heat draws a matrix as colours from dark blue (Lo) to yellow (Hi); values that are not finite stay empty.
type Heat struct {
	Title, X, Y   string
	Rows, Columns []string // names; may be empty
	Values        [][]float64
	Lo, Hi        float64 // equal: the data's own
	// Numbers writes every value into its cell.
	Numbers bool
}

// SVG draws the matrix.
func (h Heat) SVG() string {
	columns := 0
	for _, row := range h.Values {
		columns = max(columns, len(row))
	}
	lo, hi := h.Lo, h.Hi
	if lo >= hi {
		lo, hi = h.limits()
	}
	left := 30.0
	for _, r := range h.Rows {
		left = max(left, 32+textWidth(r))
	}
	cell := (chartWidth - 14 - left) / float64(max(columns, 1))
	tall := min(max(cell, 15), 26)
	height := 30 + tall*float64(len(h.Values)) + 40
	out := open(h.Title, chartWidth, height)
	out.text("t", "start", 8, 16, fmt.Sprintf("%s (%s to %s)", h.Title, Number(lo), Number(hi)))
	for i, row := range h.Values {
		y := 26 + tall*float64(i)
		if i < len(h.Rows) {
			out.text("", "end", left-6, y+tall/2+4, h.Rows[i])
		}
		for j, v := range row {
			if math.IsNaN(v) || math.IsInf(v, 0) {
				continue
			}
			share := (v - lo) / (hi - lo)
			fmt.Fprintf(out, `<rect x="%s" y="%s" width="%s" height="%s" fill="%s"/>`, num(left+cell*float64(j)), num(y), num(cell+0.3), num(tall+0.3), Viridis(share).hex())
			if h.Numbers {
				ink := "#fff"
				if share > 0.6 {
					ink = "#000"
				}
				fmt.Fprintf(out, `<text text-anchor="middle" style="fill:%s" x="%s" y="%s">%s</text>`, ink, num(left+cell*(float64(j)+0.5)), num(y+tall/2+4), Number(v))
			}
		}
	}
	foot := 26 + tall*float64(len(h.Values))
	last := -1e9
	for j, name := range h.Columns {
		if x, half := left+cell*(float64(j)+0.5), textWidth(name)/2; name != "" && x-half > last+4 {
			out.text("", "middle", x, foot+15, name)
			last = x + half
		}
	}
	out.text("", "middle", (left+chartWidth-14)/2, foot+32, h.X)
	fmt.Fprintf(out, `<text text-anchor="middle" transform="translate(13 %s) rotate(-90)">%s</text>`, num((26+foot)/2), escape(h.Y))
	return out.close()
}

func (h Heat) limits() (lo, hi float64) {
	lo, hi = math.Inf(1), math.Inf(-1)
	for _, row := range h.Values {
		for _, v := range row {
			if !math.IsNaN(v) && !math.IsInf(v, 0) {
				lo, hi = min(lo, v), max(hi, v)
			}
		}
	}
	if lo > hi {
		return 0, 1
	}
	return lo, max(hi, lo+1e-9)
}

// RGB is a colour, 0 to 255 each.
type RGB [3]uint8

func (c RGB) hex() string { return fmt.Sprintf("#%02x%02x%02x", c[0], c[1], c[2]) }

// viridis at equal distances.
var viridis = [...]RGB{{68, 1, 84}, {72, 40, 120}, {62, 74, 137}, {49, 104, 142}, {38, 130, 142}, {31, 158, 137}, {53, 183, 121}, {110, 206, 88}, {181, 222, 43}, {253, 231, 37}}

// Viridis returns the colour of a share between 0 and 1; others are clamped.
func Viridis(share float64) RGB {
	if !(share > 0) {
		share = 0
	}
	at := min(share, 1) * float64(len(viridis)-1)
	i := min(int(at), len(viridis)-2)
	var c RGB
	for j := range c {
		a, b := float64(viridis[i][j]), float64(viridis[i+1][j])
		c[j] = uint8(math.Round(a + (b-a)*(at-float64(i))))
	}
	return c
}

// mean leaves out what is not finite; NaN of nothing.
func mean(v []float64) float64 {
	sum, n := 0.0, 0.0
	for _, x := range v {
		if !math.IsNaN(x) && !math.IsInf(x, 0) {
			sum, n = sum+x, n+1
		}
	}
	return sum / n
}
