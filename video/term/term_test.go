package term

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"testing"

	"longtake/video"
)

// quarters is 2x2: red, green over blue, white.
func quarters() video.Frame {
	return video.Frame{Width: 2, Height: 2, Pix: []byte{255, 0, 0, 0, 255, 0, 0, 0, 255, 255, 255, 255}}
}

func draw(t *testing.T, w *Writer, out *bytes.Buffer, f video.Frame) string {
	t.Helper()
	out.Reset()
	if err := w.WriteFrame(context.Background(), f); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

func TestHalfBlocks(t *testing.T) {
	const hold, release = "\x1b[?2026h", "\x1b[?2026l"
	var out bytes.Buffer
	w := New(&out, Colour24, 2, 10)
	cells := "\x1b[38;2;255;0;0m\x1b[48;2;0;0;255m▀\x1b[38;2;0;255;0m\x1b[48;2;255;255;255m▀\x1b[0m\x1b[K\r\n"
	if got, want := draw(t, w, &out, quarters()), hold+"\x1b[?25l\x1b[2J\x1b[H"+cells+release; got != want {
		t.Errorf("first frame %q, want %q", got, want)
	}
	if got, want := draw(t, w, &out, quarters()), hold+"\x1b[H"+cells+release; got != want {
		t.Errorf("second frame %q, want %q", got, want)
	}
	w = New(&out, Colour256, 2, 10)
	if got := draw(t, w, &out, quarters()); !strings.Contains(got, "\x1b[38;5;196m\x1b[48;5;21m▀\x1b[38;5;46m\x1b[48;5;231m▀") {
		t.Errorf("256 colours: %q", got)
	}
}

func TestPictureFitsTheTerminal(t *testing.T) {
	for _, c := range []struct{ columns, rows, width, height, cells, lines int }{
		{80, 24, 64, 64, 46, 23}, {20, 100, 64, 64, 20, 10}, {80, 24, 832, 480, 80, 23}, {1, 1, 64, 64, 1, 1},
	} {
		var out bytes.Buffer
		w := New(&out, Colour24, c.columns, c.rows)
		got := draw(t, w, &out, video.NewFrame(c.width, c.height))
		if lines, cells := strings.Count(got, "\r\n"), strings.Count(got, "▀"); lines != c.lines || cells != c.lines*c.cells {
			t.Errorf("%+v: %d lines, %d cells", c, lines, cells)
		}
	}
}

func TestKittySendsAllPixels(t *testing.T) {
	var out bytes.Buffer
	f := video.NewFrame(64, 64)
	for i := range f.Pix {
		f.Pix[i] = byte(i * 7)
	}
	got := draw(t, New(&out, Kitty, 80, 24), &out, f)
	var pixels []byte
	chunks := strings.Split(got, "\x1b_G")[1:]
	for i, chunk := range chunks {
		head, rest, _ := strings.Cut(chunk, ";")
		data, _, _ := strings.Cut(rest, "\x1b\\")
		raw, err := base64.StdEncoding.DecodeString(data)
		if err != nil || len(data) > 4096 {
			t.Fatalf("chunk %d: %d characters, %v", i, len(data), err)
		}
		if more := strings.HasSuffix(head, "m=1"); more != (i < len(chunks)-1) {
			t.Errorf("chunk %d: header %s", i, head)
		}
		pixels = append(pixels, raw...)
	}
	if !bytes.Equal(pixels, f.Pix) || !strings.HasPrefix(chunks[0], "a=T,f=24,s=64,v=64,c=46,r=23,") {
		t.Errorf("%d bytes arrived, header %.60s", len(pixels), chunks[0])
	}
}

func TestDetect(t *testing.T) {
	for _, c := range []struct {
		env  string
		want Mode
	}{
		{"TERM=xterm-kitty", Kitty}, {"TERM=xterm-kitty TMUX=x COLORTERM=truecolor", Colour24},
		{"TERM=xterm-256color", Colour256}, {"TERM=xterm COLORTERM=24bit", Colour24},
		{"TERM=xterm-direct", Colour24}, {"TERM=xterm-ghostty", Kitty}, {"TERM_PROGRAM=WezTerm", Kitty}, {"", Colour256},
	} {
		got := Detect(func(name string) string {
			for pair := range strings.FieldsSeq(c.env) {
				if v, ok := strings.CutPrefix(pair, name+"="); ok {
					return v
				}
			}
			return ""
		})
		if got != c.want {
			t.Errorf("%q: mode %d, want %d", c.env, got, c.want)
		}
	}
}

func TestNearestOf256(t *testing.T) {
	for _, c := range []struct{ r, g, b, want int }{
		{0, 0, 0, 16}, {255, 255, 255, 231}, {128, 128, 128, 244}, {8, 8, 8, 232}, {95, 135, 175, 67}, {250, 5, 5, 196},
	} {
		if got := xterm256(c.r, c.g, c.b); got != c.want {
			t.Errorf("%v = %d", c, got)
		}
	}
}

func TestCloseGivesTheCursorBack(t *testing.T) {
	var out bytes.Buffer
	w := New(&out, Colour24, 2, 10)
	draw(t, w, &out, quarters())
	out.Reset()
	if err := w.Close(); err != nil || !strings.Contains(out.String(), "\x1b[?25h") {
		t.Errorf("Close wrote %q, %v", out.String(), err)
	}
	if err := w.WriteFrame(context.Background(), quarters()); !errors.Is(err, video.ErrClosed) {
		t.Errorf("frame after Close: %v", err)
	}
	cancelled, cancel := context.WithCancel(context.Background())
	cancel()
	if err := New(&out, Colour24, 2, 2).WriteFrame(cancelled, quarters()); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

func BenchmarkWriteFrame(b *testing.B) {
	for _, size := range [][2]int{{64, 64}, {832, 480}} {
		b.Run(fmt.Sprintf("size=%dx%d", size[0], size[1]), func(b *testing.B) {
			var out bytes.Buffer
			w := New(&out, Colour24, 120, 40)
			f := video.NewFrame(size[0], size[1])
			for i := range f.Pix {
				f.Pix[i] = byte(i * 31)
			}
			for b.Loop() {
				out.Reset()
				if err := w.WriteFrame(context.Background(), f); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
