package video

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"image/gif"
	"image/png"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

var ctx = context.Background()

// formats are the writers of this package that need no program.
var formats = map[string]func(string, Options) (AtomicWriter, error){
	"clip.y4m": NewY4M, "clip.gif": NewGIF, "frames": NewPNG,
}

func opts(width, height int) Options {
	return Options{Width: width, Height: height, FPS: Rate{16, 1}}
}

func write(t testing.TB, w AtomicWriter, err error, frames ...Frame) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range frames {
		if err := w.WriteFrame(ctx, f); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
}

func scenes(width, height, n int) []Frame {
	frames := make([]Frame, n)
	for i := range frames {
		frames[i] = scene(width, height, i)
	}
	return frames
}

func wantEmpty(t *testing.T, dir string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		t.Errorf("left behind: %s", e.Name())
	}
}

func TestNothingIsLeftAfterAFailure(t *testing.T) {
	cancelled, cancel := context.WithCancel(ctx)
	cancel()
	for name, open := range formats {
		for how, fail := range map[string]func(AtomicWriter) error{
			"abort":           func(w AtomicWriter) error { w.Abort(); return w.Close() },
			"cancelled":       func(w AtomicWriter) error { return w.WriteFrame(cancelled, scene(32, 16, 1)) },
			"wrong size":      func(w AtomicWriter) error { return w.WriteFrame(ctx, scene(16, 32, 1)) },
			"broken frame":    func(w AtomicWriter) error { return w.WriteFrame(ctx, Frame{Width: 32, Height: 16}) },
			"abort, no close": func(w AtomicWriter) error { w.Abort(); return w.WriteFrame(ctx, scene(32, 16, 1)) },
		} {
			t.Run(name+"/"+how, func(t *testing.T) {
				dir := t.TempDir()
				w, err := open(filepath.Join(dir, name), opts(32, 16))
				if err != nil {
					t.Fatal(err)
				}
				if err := w.WriteFrame(ctx, scene(32, 16, 0)); err != nil {
					t.Fatal(err)
				}
				first := fail(w)
				if first == nil || !strings.Contains(first.Error(), name) || strings.Contains(first.Error(), "\n") {
					t.Errorf("error %q: want one line that names the path", first)
				}
				if again := w.Close(); again == nil || again.Error() != first.Error() {
					t.Errorf("Close after failure = %v, want %v", again, first)
				}
				if err := w.Abort(); err != nil {
					t.Error(err)
				}
				wantEmpty(t, dir)
			})
		}
	}
}

func TestCancelledContextIsRecognisable(t *testing.T) {
	cancelled, cancel := context.WithCancel(ctx)
	cancel()
	w, err := NewGIF(filepath.Join(t.TempDir(), "a.gif"), opts(32, 16))
	if err != nil {
		t.Fatal(err)
	}
	if err := w.WriteFrame(cancelled, scene(32, 16, 0)); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v is not context.Canceled", err)
	}
}

func TestOldFileStaysUntilClose(t *testing.T) {
	path := filepath.Join(t.TempDir(), "clip.y4m")
	if err := os.WriteFile(path, []byte("old"), 0o640); err != nil {
		t.Fatal(err)
	}
	w, err := NewY4M(path, opts(32, 16))
	if err != nil {
		t.Fatal(err)
	}
	w.WriteFrame(ctx, scene(32, 16, 0))
	if data, _ := os.ReadFile(path); string(data) != "old" {
		t.Error("the old file changed before Close")
	}
	w.Abort()
	if data, _ := os.ReadFile(path); string(data) != "old" {
		t.Error("the old file changed by Abort")
	}
	w, err = NewY4M(path, opts(32, 16))
	write(t, w, err, scene(32, 16, 0))
	if data, _ := os.ReadFile(path); !bytes.HasPrefix(data, []byte("YUV4MPEG2 ")) {
		t.Error("the old file was not replaced by Close")
	}
	if err := w.WriteFrame(ctx, scene(32, 16, 0)); !errors.Is(err, ErrClosed) {
		t.Errorf("frame after Close: %v", err)
	}
	if err := w.Close(); err != nil {
		t.Errorf("second Close: %v", err)
	}
}

func TestNoFramesIsAnError(t *testing.T) {
	for name, open := range formats {
		dir := t.TempDir()
		w, err := open(filepath.Join(dir, name), opts(32, 16))
		if err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); !errors.Is(err, ErrNoFrames) {
			t.Errorf("%s: %v", name, err)
		}
		wantEmpty(t, dir)
	}
}

func TestBadPathsAndOptions(t *testing.T) {
	dir := t.TempDir()
	plain := filepath.Join(dir, "plain")
	os.WriteFile(plain, nil, 0o600)
	for name, open := range formats {
		for _, path := range []string{filepath.Join(dir, "missing", name), filepath.Join(plain, name)} {
			if _, err := open(path, opts(32, 16)); err == nil || !strings.Contains(err.Error(), path) {
				t.Errorf("%s: error %v does not name it", path, err)
			}
		}
		if _, err := open(filepath.Join(dir, "missing", name), opts(32, 16)); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("missing folder: %v is not fs.ErrNotExist", err)
		}
		for _, o := range []Options{{}, {Width: 8, Height: 8}, {Width: 0, Height: 8, FPS: Rate{1, 1}},
			{Width: 8000, Height: 8, Scale: 3, FPS: Rate{1, 1}}, {Width: 8, Height: 8, Scale: -1, FPS: Rate{1, 1}},
			{Width: 8, Height: 8, FPS: Rate{1, 1}, Quality: 101}, {Width: 8, Height: 8, FPS: Rate{1, 1}, Chroma: 9},
			{Width: 8, Height: 8, FPS: Rate{1, 1}, Palette: 9}} {
			if _, err := open(filepath.Join(dir, name), o); err == nil {
				t.Errorf("%s with %+v: no error", name, o)
			}
		}
	}
	if _, err := NewGIF(dir, opts(8, 8)); err == nil || !strings.Contains(err.Error(), "is a folder") {
		t.Errorf("gif onto a folder: %v", err)
	}
	if _, err := NewPNG(plain, opts(8, 8)); err == nil || !strings.Contains(err.Error(), "is a file") {
		t.Errorf("png folder onto a file: %v", err)
	}
	os.Remove(plain)
	wantEmpty(t, dir)
}

func TestUnwritableFolder(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("needs /proc, where nobody may create files: runs on Linux")
	}
	for name, open := range formats {
		if _, err := open("/proc/"+name, opts(8, 8)); err == nil || !strings.Contains(err.Error(), "/proc/"+name) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestFullDisk(t *testing.T) {
	if _, err := os.Stat("/dev/full"); err != nil {
		t.Skip("needs /dev/full: runs on Linux")
	}
	for _, name := range []string{"clip.y4m", "clip.gif"} {
		dir := t.TempDir()
		path := filepath.Join(dir, name)
		if err := os.Symlink("/dev/full", path); err != nil {
			t.Fatal(err)
		}
		w, err := formats[name](path, opts(32, 16))
		if err == nil {
			err = w.WriteFrame(ctx, scene(32, 16, 0))
		}
		if err == nil || !strings.Contains(err.Error(), path+": no space left on device") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestClosedPipe(t *testing.T) {
	r, pipe, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer pipe.Close()
	r.Close()
	w, err := NewY4MStream(pipe, "standard output", opts(32, 16))
	if err != nil {
		t.Fatal(err)
	}
	err = w.WriteFrame(ctx, scene(32, 16, 0))
	if err == nil || err.Error() != "write standard output: broken pipe" {
		t.Errorf("error %q", err)
	}
}

// readY4M parses what NewY4M wrote.
func readY4M(t *testing.T, data []byte, chroma Chroma) (header string, frames []Frame) {
	t.Helper()
	line, rest, _ := bytes.Cut(data, []byte("\n"))
	header = string(line)
	p := Planes{Chroma: chroma}
	if _, err := fmt.Sscanf(header, "YUV4MPEG2 W%d H%d", &p.Width, &p.Height); err != nil {
		t.Fatal(err)
	}
	cw, ch := p.ChromaSize()
	for len(rest) > 0 {
		luma, colour := p.Width*p.Height, cw*ch
		if !bytes.HasPrefix(rest, []byte("FRAME\n")) || len(rest) < 6+luma+2*colour {
			t.Fatalf("frame %d is broken", len(frames))
		}
		rest = rest[6:]
		p.Y, p.Cb, p.Cr = rest[:luma], rest[luma:luma+colour], rest[luma+colour:luma+2*colour]
		rest = rest[luma+2*colour:]
		frames = append(frames, p.RGB())
	}
	return header, frames
}

func TestY4MRoundTrip(t *testing.T) {
	for _, c := range []struct {
		chroma Chroma
		tag    string
		atDB   float64
	}{{Chroma420, "C420jpeg", 30}, {Chroma444, "C444", 48}} {
		o := opts(33, 17)
		o.Chroma, o.Scale, o.FPS = c.chroma, 2, Rate{30000, 1001}
		var out bytes.Buffer
		w, err := NewY4MStream(&out, "test", o)
		frames := scenes(33, 17, 3)
		write(t, w, err, frames...)
		header, got := readY4M(t, out.Bytes(), c.chroma)
		if want := "YUV4MPEG2 W66 H34 F30000:1001 Ip A1:1 " + c.tag + " XCOLORRANGE=LIMITED"; header != want {
			t.Errorf("header %q, want %q", header, want)
		}
		if len(got) != 3 {
			t.Fatalf("%d frames", len(got))
		}
		for i, f := range got {
			if db := psnr(f, frames[i].Upscale(2, nil)); db < c.atDB {
				t.Errorf("%v frame %d: %.1f dB", c.chroma, i, db)
			}
		}
	}
}

func TestPNGRoundTrip(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "frames")
	o := opts(31, 17)
	o.Scale = 2
	frames := scenes(31, 17, 3)
	w, err := NewPNG(dir, o)
	write(t, w, err, frames...)
	for i, f := range frames {
		data, err := os.ReadFile(filepath.Join(dir, fmt.Sprintf("frame_%06d.png", i+1)))
		if err != nil {
			t.Fatal(err)
		}
		if data[25] != 2 {
			t.Errorf("colour type %d, want 2 (RGB without alpha)", data[25])
		}
		m, err := png.Decode(bytes.NewReader(data))
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(FromImage(m).Pix, f.Upscale(2, nil).Pix) {
			t.Errorf("frame %d differs", i)
		}
	}
	about, err := os.ReadFile(filepath.Join(dir, ".longtake.json"))
	if want := `{"width":62,"height":34,"fps":"16","frames":3,"files":"frame_%06d.png"}` + "\n"; string(about) != want {
		t.Errorf("marker %q, %v", about, err)
	}
}

func names(t *testing.T, dir string) string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, e := range entries {
		all = append(all, e.Name())
	}
	return strings.Join(all, " ")
}

func TestPNGFolderOfAnEarlierRunIsReplaced(t *testing.T) {
	parent := t.TempDir()
	dir := filepath.Join(parent, "out")
	os.Mkdir(dir, 0o777) // an empty folder is free to take
	w, err := NewPNG(dir+"/", opts(16, 16))
	write(t, w, err, scenes(16, 16, 3)...)
	w, err = NewPNG(dir, opts(16, 16))
	write(t, w, err, scenes(16, 16, 1)...)
	if got := names(t, dir); got != ".longtake.json frame_000001.png" {
		t.Errorf("folder holds %s", got)
	}
	if got := names(t, parent); got != "out" {
		t.Errorf("parent holds %s", got)
	}
}

func TestPNGFolderOfOthersIsRefused(t *testing.T) {
	dir := t.TempDir()
	os.WriteFile(filepath.Join(dir, "shot_0009.png"), []byte("mine"), 0o600)
	os.WriteFile(filepath.Join(dir, "notes.txt"), []byte("mine"), 0o600)
	path := filepath.Join(dir, "shot_%04d.png")
	_, err := NewPNG(path, opts(16, 16))
	if err == nil || !strings.Contains(err.Error(), dir) || !strings.Contains(err.Error(), "not empty") {
		t.Fatalf("error %v", err)
	}
	o := opts(16, 16)
	o.Overwrite = true
	w, err := NewPNG(path, o)
	if err != nil {
		t.Fatal(err)
	}
	w.WriteFrame(ctx, scene(16, 16, 0))
	w.Abort()
	if got := names(t, dir); got != "notes.txt shot_0009.png" {
		t.Errorf("after abort the folder holds %s", got)
	}
	w, err = NewPNG(path, o)
	write(t, w, err, scenes(16, 16, 2)...)
	if got := names(t, dir); got != "notes.txt shot_0001.png shot_0002.png" {
		t.Errorf("folder holds %s", got)
	}
	if _, err := NewPNG(path, opts(16, 16)); err == nil {
		t.Error("a shared folder became replaceable")
	}
}

func TestPNGPatterns(t *testing.T) {
	dir := t.TempDir()
	for _, bad := range []string{"one.png", "a%d_%d.png", "a%s.png", "a%%.png", "a%6d.png"} {
		if _, err := NewPNG(filepath.Join(dir, bad), opts(16, 16)); err == nil || !strings.Contains(err.Error(), bad) {
			t.Errorf("%s: %v", bad, err)
		}
	}
	if _, err := NewPNG(filepath.Join(dir, "sub", "a.b[%03d].png"), opts(16, 16)); err != nil {
		t.Error(err)
	}
}

func readGIF(t *testing.T, path string) (frames []Frame, g *gif.GIF) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	g, err = gif.DecodeAll(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	screen := NewFrame(g.Config.Width, g.Config.Height)
	for _, m := range g.Image {
		b := m.Bounds()
		for y := b.Min.Y; y < b.Max.Y; y++ {
			for x := b.Min.X; x < b.Max.X; x++ {
				if r, gr, bl, a := m.At(x, y).RGBA(); a != 0 {
					i := 3 * (y*screen.Width + x)
					screen.Pix[i], screen.Pix[i+1], screen.Pix[i+2] = byte(r>>8), byte(gr>>8), byte(bl>>8)
				}
			}
		}
		frames = append(frames, screen.Clone())
	}
	return frames, g
}

func TestGIFRoundTrip(t *testing.T) {
	for _, palette := range []Palette{PaletteShared, PaletteFrame} {
		for _, scale := range []int{1, 3} {
			path := filepath.Join(t.TempDir(), "a.gif")
			o := opts(64, 48)
			o.Palette, o.Scale = palette, scale
			in := scenes(64, 48, 17)
			w, err := NewGIF(path, o)
			write(t, w, err, in...)
			out, g := readGIF(t, path)
			if len(out) != 17 || g.LoopCount != 0 {
				t.Fatalf("%d frames, loop count %d", len(out), g.LoopCount)
			}
			worst := 100.0
			for i, f := range out {
				worst = min(worst, psnr(f, in[i].Upscale(scale, nil)))
			}
			if worst < 31.5 {
				t.Errorf("palette %d scale %d: worst frame %.1f dB", palette, scale, worst)
			}
			total := 0
			for _, d := range g.Delay {
				total += d
			}
			if total != 106 { // 17 frames at 16 a second are 106.25 hundredths
				t.Errorf("delays %v sum to %d", g.Delay, total)
			}
		}
	}
}

func TestGIFOfFewColoursIsExactAndSmall(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.gif")
	var in []Frame
	for i := range 8 {
		f := NewFrame(64, 64)
		for y := range 8 {
			for x := range 8 {
				copy(f.Pix[3*((y+20)*64+x+4*(i/2)):], []byte{200, byte(x), byte(y)})
			}
		}
		in = append(in, f)
	}
	w, err := NewGIF(path, opts(64, 64))
	write(t, w, err, in...)
	out, g := readGIF(t, path)
	for i := range in {
		if !bytes.Equal(out[i].Pix, in[i].Pix) {
			t.Errorf("frame %d differs", i)
		}
	}
	// Frame 1 repeats frame 0; frame 2 moves the square by four pixels.
	if b := g.Image[1].Bounds(); b.Dx() != 1 || b.Dy() != 1 {
		t.Errorf("a repeated frame stores %v", b)
	}
	if b := g.Image[2].Bounds(); b.Dx() != 12 || b.Dy() != 8 {
		t.Errorf("a moved square stores %v", b)
	}
}

func TestGIFAboveFiftyFramesASecondKeepsTheLeastDelay(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.gif")
	o := opts(16, 16)
	o.FPS = Rate{60, 1}
	w, err := NewGIF(path, o)
	write(t, w, err, scenes(16, 16, 4)...)
	if _, g := readGIF(t, path); fmt.Sprint(g.Delay) != "[2 2 2 2]" {
		t.Errorf("delays %v", g.Delay)
	}
}
