package plot

import (
	"fmt"
	"html"
	"math"
	"strconv"
	"strings"
)

// Palettes of series for light and dark ground: blue, vermilion, green, purple, orange, sky (Okabe and Ito, some of them
// lighter or darker for contrast).
var (
	light = [...]string{"#0072b2", "#d55e00", "#00805c", "#a8558a", "#b87f00", "#2f8fc4"}
	dark  = [...]string{"#4aa8e0", "#ff8c42", "#2ec99b", "#e09cc4", "#f0b429", "#8fd0f5"}
)

// Style returns the rules of the classes that drawings use. Pages put it into their style element once.
func Style() string {
	var b strings.Builder
	ground := func(text, grid, face string, palette []string) {
		fmt.Fprintf(&b, ".lt text{fill:%s}.lt .g{stroke:%s}.lt .a{stroke:%s}.lt .r{stroke:%s}.lt .h{stroke:%s}", text, grid, text, text, face)
		for i, c := range palette {
			fmt.Fprintf(&b, ".lt .s%d{stroke:%s}.lt .f%d{fill:%s}", i, c, i, c)
		}
	}
	b.WriteString(".lt{font:12px system-ui,sans-serif}.lt .t{font-weight:600;font-size:13px}.lt line,.lt path{fill:none}.lt .l{stroke-width:1.8}.lt .d{stroke-dasharray:6 3}")
	ground("#333", "#ddd", "#fff", light[:])
	b.WriteString("@media screen and (prefers-color-scheme:dark){")
	ground("#ccc", "#3a3f46", "#15181c", dark[:])
	b.WriteString("}")
	return b.String()
}

// File returns a drawing as an SVG file of its own.
func File(svg string) []byte {
	at := strings.IndexByte(svg, '>') + 1
	return []byte(`<?xml version="1.0" encoding="UTF-8"?>` + "\n" + svg[:at] + "<style>" + Style() + "</style>" + svg[at:] + "\n")
}

// canvas collects elements.
type canvas struct {
	strings.Builder
	width, height float64
}

// open begins a drawing; the title is read aloud by screen readers.
func open(title string, width, height float64) *canvas {
	c := &canvas{width: width, height: height}
	fmt.Fprintf(c, `<svg class="lt" xmlns="http://www.w3.org/2000/svg" role="img" viewBox="0 0 %s %s"><title>%s</title>`, num(width), num(height), escape(title))
	return c
}

func (c *canvas) close() string {
	c.WriteString("</svg>")
	return c.String()
}

func (c *canvas) line(class string, x0, y0, x1, y1 float64) {
	fmt.Fprintf(c, `<line class="%s" x1="%s" y1="%s" x2="%s" y2="%s"/>`, class, num(x0), num(y0), num(x1), num(y1))
}

// text writes s; anchor is start, middle or end.
func (c *canvas) text(class, anchor string, x, y float64, s string) {
	fmt.Fprintf(c, `<text class="%s" text-anchor="%s" x="%s" y="%s">%s</text>`, class, anchor, num(x), num(y), escape(s))
}

func (c *canvas) circle(class string, x, y, r float64) {
	fmt.Fprintf(c, `<circle class="%s" cx="%s" cy="%s" r="%s"/>`, class, num(x), num(y), num(r))
}

// legend writes names in rows from y on and returns the height that they take.
func (c *canvas) legend(y float64, names []string, swatch func(i int, x, y float64)) float64 {
	x, rows := 8.0, 0.0
	for i, name := range names {
		if name == "" {
			continue
		}
		wide := 38 + textWidth(name)
		if x+wide > c.width && x > 8 {
			x, rows = 8, rows+1
		}
		rows = max(rows, 1)
		at := y + 16*(rows-1)
		swatch(i, x, at-4)
		c.text("", "start", x+24, at, name)
		x += wide
	}
	return 16 * rows
}

// series returns the classes of series i: its colour, and dashes when the palette is spent.
func series(i int) string {
	class := "l s" + strconv.Itoa(i%len(light))
	if i >= len(light) {
		class += " d"
	}
	return class
}

func fill(i int) string { return "f" + strconv.Itoa(i%len(light)) }

// textWidth guesses the width of a line of text, on the wide side.
func textWidth(s string) float64 { return 7.4 * float64(len([]rune(s))) }

// escape makes text safe inside an element and an attribute; characters that XML does not know become U+FFFD.
func escape(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' && r != '\t' && r != '\n' && r != '\r' || r == 0xfffe || r == 0xffff {
			return 0xfffd
		}
		return r
	}, s)
	return html.EscapeString(s)
}

// num writes a coordinate with at most two digits.
func num(x float64) string {
	s := strconv.FormatFloat(x, 'f', 2, 64)
	s = strings.TrimRight(strings.TrimRight(s, "0"), ".")
	if s == "-0" {
		return "0"
	}
	return s
}

// Number writes a value for people: three or four significant digits, no exponent between 0.001 and a million.
func Number(x float64) string {
	switch a := math.Abs(x); {
	case math.IsNaN(x):
		return "–"
	case x == 0:
		return "0"
	case math.IsInf(x, 0):
		return strings.Replace(strconv.FormatFloat(x, 'f', 0, 64), "+Inf", "∞", 1)
	case a >= 1e6 || a > 0 && a < 1e-3:
		return strconv.FormatFloat(x, 'g', 3, 64)
	case a >= 100:
		return strconv.FormatFloat(x, 'f', 0, 64)
	case a >= 10:
		return strconv.FormatFloat(x, 'f', 1, 64)
	case a >= 1:
		return strconv.FormatFloat(x, 'f', 2, 64)
	}
	return strconv.FormatFloat(x, 'f', 3, 64)
}
