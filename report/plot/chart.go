package plot

import (
	"fmt"
	"strings"
)

// Series is a run of points with a name. X and Y are of one length; a point that is not finite, or not positive on a
// logarithmic axis, is left out and interrupts the line.
type Series struct {
	Name string
	X, Y []float64
	// Line joins the points, Marks shows them.
	Line, Marks bool
	// Colour, if above 0, is one more than the place in the palette; 0 counts the series.
	Colour int
	// Reference draws the line dashed, in the colour of text.
	Reference bool
}

// Rule is a horizontal line across a chart.
type Rule struct {
	Name string
	Y    float64
}

// Chart is a drawing of points and lines over two axes.
type Chart struct {
	Title, X, Y string // title and names of the axes
	LogX, LogY  bool
	// XLimits and YLimits are the ends of the axes; equal ends mean round numbers around the data.
	XLimits, YLimits [2]float64
	Series           []Series
	Rules            []Rule
}

// Size of charts in units of their own.
const (
	chartWidth  = 560
	chartHeight = 300
)

// SVG draws the chart.
func (c Chart) SVG() string {
	names := make([]string, len(c.Series))
	var xs, ys []float64
	for i, s := range c.Series {
		names[i] = s.Name
		xs, ys = append(xs, s.X...), append(ys, s.Y...)
	}
	for _, r := range c.Rules {
		ys = append(ys, r.Y)
	}
	// The legend's height is known when it is drawn: once on a canvas that is thrown away.
	tall := open("", chartWidth, 0).legend(0, names, func(int, float64, float64) {})
	top := 30 + tall
	height := chartHeight + tall
	out := open(c.Title, chartWidth, height)
	out.text("t", "start", 8, 16, c.Title)
	out.legend(34, names, func(i int, x, y float64) { c.swatch(out, i, x, y) })
	bottom := height - 40
	yAxis := newAxis(ys, c.LogY, c.YLimits, bottom, top+8, 6)
	left := 24.0
	for _, v := range yAxis.ticks {
		left = max(left, 30+textWidth(yAxis.label(v)))
	}
	xAxis := newAxis(xs, c.LogX, c.XLimits, left, chartWidth-14, 8)
	c.frame(out, xAxis, yAxis)
	for i, s := range c.Series {
		s.draw(out, i, xAxis, yAxis)
	}
	rules(out, c.Rules, xAxis, yAxis)
	return out.close()
}

// rules draws horizontal lines with their names.
func rules(out *canvas, list []Rule, x, y axis) {
	for _, r := range list {
		if y.shows(r.Y) {
			out.line("r d", x.from, y.at(r.Y), x.to, y.at(r.Y))
			out.text("", "end", x.to-4, y.at(r.Y)-4, r.Name)
		}
	}
}

func (c Chart) swatch(out *canvas, i int, x, y float64) {
	s := c.Series[i]
	if s.Line {
		out.line(s.class(i), x, y, x+18, y)
	}
	if s.Marks || !s.Line {
		out.circle(fill(s.colour(i)), x+9, y, 3.5)
	}
}

// frame draws axes, grid and names.
func (c Chart) frame(out *canvas, x, y axis) {
	for _, v := range y.ticks {
		p := y.at(v)
		out.line("g", x.from, p, x.to, p)
		out.text("", "end", x.from-6, p+4, y.label(v))
	}
	last := -1e9
	for _, v := range x.ticks {
		p, label := x.at(v), x.label(v)
		out.line("a", p, y.from, p, y.from+4)
		if half := textWidth(label) / 2; p-half > last+4 {
			out.text("", "middle", p, y.from+17, label)
			last = p + half
		}
	}
	out.line("a", x.from, y.from, x.to, y.from)
	out.text("", "middle", (x.from+x.to)/2, y.from+34, c.X)
	mid := (y.from + y.to) / 2
	fmt.Fprintf(out, `<text text-anchor="middle" transform="translate(13 %s) rotate(-90)">%s</text>`, num(mid), escape(c.Y))
}

func (s Series) colour(i int) int {
	if s.Colour > 0 {
		return s.Colour - 1
	}
	return i
}

// class returns the classes of the line.
func (s Series) class(i int) string {
	if s.Reference {
		return "l r d"
	}
	return series(s.colour(i))
}

func (s Series) draw(out *canvas, i int, x, y axis) {
	class := s.class(i)
	i = s.colour(i)
	var path strings.Builder
	pen := "M"
	for j := range s.X {
		if !x.shows(s.X[j]) || !y.shows(s.Y[j]) {
			pen = "M"
			continue
		}
		fmt.Fprintf(&path, "%s%s %s", pen, num(x.at(s.X[j])), num(y.at(s.Y[j])))
		pen = "L"
	}
	if s.Line && path.Len() > 0 {
		fmt.Fprintf(out, `<path class="%s" d="%s"/>`, class, path.String())
	}
	if !s.Marks {
		return
	}
	for j := range s.X {
		if x.shows(s.X[j]) && y.shows(s.Y[j]) {
			out.circle(fill(i), x.at(s.X[j]), y.at(s.Y[j]), 3.2)
		}
	}
}

// Thin returns at most n points, each the mean of equally many neighbours; a mean over anything that is not finite leaves that
// out. Short runs come back as they are.
func Thin(x, y []float64, n int) (tx, ty []float64) {
	if len(x) <= n || n < 1 {
		return x, y
	}
	each := (len(x) + n - 1) / n
	for lo := 0; lo < len(x); lo += each {
		hi := min(lo+each, len(x))
		tx, ty = append(tx, mean(x[lo:hi])), append(ty, mean(y[lo:hi]))
	}
	return tx, ty
}
