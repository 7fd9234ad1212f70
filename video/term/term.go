// Package term draws frames in a terminal.
//
// What enters: [video.Frame] values. What leaves: escape sequences on the io.Writer given: two
// pixels a character cell with half blocks in 24-bit or 256 colours, or whole pictures by the kitty
// graphics protocol (https://sw.kovidgoyal.net/kitty/graphics-protocol/). The package looks at
// nothing by itself: the caller knows whether the writer is a terminal, how large it is, and hands
// over the environment. It must not be used on anything that is not a terminal.
package term

import (
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"strconv"
	"strings"

	"longtake/video"
)

// Mode is a way of showing pictures.
type Mode int

// The modes, worst first.
const (
	Colour256 Mode = iota // half blocks, xterm's 6x6x6 cube and greys
	Colour24              // half blocks, 24-bit colour
	Kitty                 // true pixels
)

// Detect picks a mode from environment variables: KITTY_WINDOW_ID or TERM naming kitty, ghostty or
// WezTerm by TERM_PROGRAM mean Kitty (not inside tmux or screen, which swallow pictures); COLORTERM
// truecolor or 24bit and a TERM ending in -direct mean Colour24.
func Detect(getenv func(string) string) Mode {
	name, program := getenv("TERM"), getenv("TERM_PROGRAM")
	inside := getenv("TMUX") != "" || strings.HasPrefix(name, "screen") || strings.HasPrefix(name, "tmux")
	if !inside && (getenv("KITTY_WINDOW_ID") != "" || strings.Contains(name, "kitty") ||
		strings.Contains(name, "ghostty") || program == "WezTerm") {
		return Kitty
	}
	switch c := getenv("COLORTERM"); {
	case c == "truecolor", c == "24bit", strings.HasSuffix(name, "-direct"):
		return Colour24
	}
	return Colour256
}

// Writer is a video.Writer onto a terminal. Each frame is drawn over the one before.
type Writer struct {
	out           io.Writer
	mode          Mode
	columns, rows int
	buf           []byte
	small         video.Frame
	drawn         bool
	closed        bool
}

// New returns a writer for a terminal of the given size in character cells; one row is left free
// for a status line. The picture keeps its shape, taking a cell to be twice as high as wide.
func New(out io.Writer, mode Mode, columns, rows int) *Writer {
	w := &Writer{out: out, mode: mode}
	w.Resize(columns, rows)
	return w
}

// Resize tells the writer of a new terminal size; the next frame clears the screen first.
func (w *Writer) Resize(columns, rows int) {
	w.columns, w.rows, w.drawn = max(columns, 1), max(rows-1, 1), false
}

// fit returns the size in half-cells (width = columns, height = 2 x rows) that f will take.
func (w *Writer) fit(f video.Frame) (width, height int) {
	width, height = w.columns, w.columns*f.Height/f.Width
	if height > 2*w.rows {
		width, height = 2*w.rows*f.Width/f.Height, 2*w.rows
	}
	width = max(width, 1)
	height = max(height+height%2, 2)
	return width, min(height, 2*w.rows)
}

// WriteFrame implements video.Writer with a single Write.
func (w *Writer) WriteFrame(ctx context.Context, f video.Frame) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if w.closed {
		return fmt.Errorf("draw frame %d: %w", f.Index, video.ErrClosed)
	}
	if err := f.Check(); err != nil {
		return fmt.Errorf("draw: %w", err)
	}
	b := append(w.buf[:0], "\x1b[?2026h"...) // hold the screen until the frame is complete
	if !w.drawn {
		b = append(b, "\x1b[?25l\x1b[2J"...) // hide the cursor, clear
		w.drawn = true
	}
	b = append(b, "\x1b[H"...)
	width, height := w.fit(f)
	if w.mode == Kitty {
		b = kitty(b, f, width, height/2)
	} else {
		w.small = shrink(w.small, f, width, height)
		b = w.halfBlocks(b)
	}
	w.buf = append(b, "\x1b[?2026l"...)
	if _, err := w.out.Write(w.buf); err != nil {
		return fmt.Errorf("draw frame %d: %w", f.Index, err)
	}
	return nil
}

// Close shows the cursor again and leaves the last frame on the screen.
func (w *Writer) Close() error {
	if w.closed {
		return nil
	}
	w.closed = true
	if !w.drawn {
		return nil
	}
	_, err := io.WriteString(w.out, "\x1b[0m\x1b[?25h\n")
	return err
}

// halfBlocks prints "▀" with the upper pixel as foreground and the lower as background, naming a
// colour only where it changes.
func (w *Writer) halfBlocks(b []byte) []byte {
	f := w.small
	for y := 0; y < f.Height; y += 2 {
		top, low := f.Pix[3*f.Width*y:], f.Pix[3*f.Width*(y+1):]
		fore, back := -1, -1
		for x := range f.Width {
			if c := w.colour(top[3*x:]); c != fore {
				b, fore = w.setColour(b, "38", c), c
			}
			if c := w.colour(low[3*x:]); c != back {
				b, back = w.setColour(b, "48", c), c
			}
			b = append(b, "▀"...)
		}
		b = append(b, "\x1b[0m\x1b[K\r\n"...)
	}
	return b
}

func (w *Writer) colour(p []byte) int {
	if w.mode == Colour24 {
		return int(p[0])<<16 | int(p[1])<<8 | int(p[2])
	}
	return xterm256(int(p[0]), int(p[1]), int(p[2]))
}

func (w *Writer) setColour(b []byte, layer string, c int) []byte {
	b = append(append(b, "\x1b["...), layer...)
	if w.mode != Colour24 {
		return append(strconv.AppendInt(append(b, ";5;"...), int64(c), 10), 'm')
	}
	b = append(b, ";2"...)
	for shift := 16; shift >= 0; shift -= 8 {
		b = strconv.AppendInt(append(b, ';'), int64(c>>shift&255), 10)
	}
	return append(b, 'm')
}

// xterm256 returns the nearest of xterm's 6x6x6 colour cube (16-231) and 24 greys (232-255).
func xterm256(r, g, b int) int {
	levels := [6]int{0, 95, 135, 175, 215, 255}
	nearest := func(v int) int {
		if v < 48 {
			return 0
		}
		if v < 115 {
			return 1
		}
		return (v - 35) / 40
	}
	square := func(x, y, z int) int { return (x-r)*(x-r) + (y-g)*(y-g) + (z-b)*(z-b) }
	i, j, k := nearest(r), nearest(g), nearest(b)
	grey := min(max(((r+g+b)/3-3)/10, 0), 23)
	if level := 8 + 10*grey; square(level, level, level) < square(levels[i], levels[j], levels[k]) {
		return 232 + grey
	}
	return 16 + 36*i + 6*j + k
}

// shrink resamples f to the given size, each output pixel the mean of the input pixels it covers,
// or the nearest one when enlarging. It reuses dst's pixels.
func shrink(dst, f video.Frame, width, height int) video.Frame {
	if dst.Width != width || dst.Height != height {
		dst = video.NewFrame(width, height)
	}
	for y := range height {
		y0 := y * f.Height / height
		y1 := max((y+1)*f.Height/height, y0+1)
		for x := range width {
			x0 := x * f.Width / width
			x1 := max((x+1)*f.Width/width, x0+1)
			var sum [3]int
			for v := y0; v < y1; v++ {
				for u := x0; u < x1; u++ {
					p := f.Pix[3*(v*f.Width+u):]
					sum[0], sum[1], sum[2] = sum[0]+int(p[0]), sum[1]+int(p[1]), sum[2]+int(p[2])
				}
			}
			n := (y1 - y0) * (x1 - x0)
			for c, s := range sum {
				dst.Pix[3*(y*width+x)+c] = byte((s + n/2) / n)
			}
		}
	}
	return dst
}

// kitty sends the picture as raw RGB in chunks of at most 4096 characters and places it, stretched
// by the terminal, over columns x rows cells. One image number is used again and again, so memory
// in the terminal does not grow; q=2 keeps the terminal from answering on standard input.
func kitty(b []byte, f video.Frame, columns, rows int) []byte {
	const rawBytes = 4096 / 4 * 3
	first := true
	for data := f.Pix; len(data) > 0; {
		part := data[:min(rawBytes, len(data))]
		data = data[len(part):]
		more := 0
		if len(data) > 0 {
			more = 1
		}
		b = append(b, "\x1b_G"...)
		if first {
			b = fmt.Appendf(b, "a=T,f=24,s=%d,v=%d,c=%d,r=%d,i=7361,p=1,q=2,C=1,", f.Width, f.Height, columns, rows)
			first = false
		}
		b = fmt.Appendf(b, "m=%d;", more)
		b = base64.StdEncoding.AppendEncode(b, part)
		b = append(b, "\x1b\\"...)
	}
	return fmt.Appendf(b, "\x1b[%d;1H", rows+1)
}
