package webm

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	xvp8 "golang.org/x/image/vp8"

	"longtake/video"
	"longtake/video/metric"
)

var ctx = context.Background()

func scene(width, height, index int) video.Frame {
	f := video.NewFrame(width, height)
	f.Index = index
	for y := range height {
		for x := range width {
			p := f.Pix[3*(y*width+x):]
			p[0] = byte(255 * (x + index) / (width + index + 1))
			p[1] = byte(255 * y / height)
			p[2] = byte(90 + 60*math.Sin(float64(x+y+3*index)/9))
		}
	}
	return f
}

// node is a parsed EBML element. The parser below shares no code with the writer.
type node struct {
	id       uint64
	at       int // of the id, in the file
	data     []byte
	children []node
}

// masters are the elements that hold elements.
var masters = map[uint64]bool{
	0x1A45DFA3: true, 0x18538067: true, 0x114D9B74: true, 0x4DBB: true, 0x1549A966: true, 0x1654AE6B: true,
	0xAE: true, 0xE0: true, 0x55B0: true, 0x1F43B675: true, 0x1C53BB6B: true, 0xBB: true, 0xB7: true,
}

func vint(t *testing.T, b []byte, keepMarker bool) (v uint64, n int) {
	t.Helper()
	if len(b) == 0 || b[0] == 0 {
		t.Fatal("bad variable-length number")
	}
	for n = 1; b[0]>>(8-n) == 0; n++ {
	}
	for i := range n {
		v = v<<8 | uint64(b[i])
	}
	if !keepMarker {
		v &^= 1 << (7 * n)
	}
	return v, n
}

func parse(t *testing.T, b []byte, from int) (nodes []node) {
	t.Helper()
	for i := 0; i < len(b); {
		id, n := vint(t, b[i:], true)
		size, m := vint(t, b[i+n:], false)
		start := i + n + m
		if uint64(len(b)-start) < size {
			t.Fatalf("element %x at %d: size %d runs past its parent", id, from+i, size)
		}
		x := node{id: id, at: from + i, data: b[start : start+int(size)]}
		if masters[id] {
			x.children = parse(t, x.data, from+start)
		}
		nodes = append(nodes, x)
		i = start + int(size)
	}
	return nodes
}

func (x node) all(path ...uint64) (found []node) {
	if len(path) == 0 {
		return []node{x}
	}
	for _, c := range x.children {
		if c.id == path[0] {
			found = append(found, c.all(path[1:]...)...)
		}
	}
	return found
}

func (x node) number(t *testing.T, path ...uint64) (v uint64) {
	t.Helper()
	found := x.all(path...)
	if len(found) != 1 {
		t.Fatalf("%d elements at %x, want 1", len(found), path)
	}
	for _, c := range found[0].data {
		v = v<<8 | uint64(c)
	}
	return v
}

// decode reads one VP8 frame with golang.org/x/image/vp8.
func decode(t *testing.T, data []byte) video.Frame {
	t.Helper()
	d := xvp8.NewDecoder()
	d.Init(bytes.NewReader(data), len(data))
	if _, err := d.DecodeFrameHeader(); err != nil {
		t.Fatal(err)
	}
	m, err := d.DecodeFrame()
	if err != nil {
		t.Fatal(err)
	}
	p := video.Planes{Width: m.Rect.Dx(), Height: m.Rect.Dy()}
	cw, ch := p.ChromaSize()
	for y := range p.Height {
		p.Y = append(p.Y, m.Y[y*m.YStride:][:p.Width]...)
	}
	for y := range ch {
		p.Cb = append(p.Cb, m.Cb[y*m.CStride:][:cw]...)
		p.Cr = append(p.Cr, m.Cr[y*m.CStride:][:cw]...)
	}
	return p.RGB()
}

type block struct {
	millis int64
	data   []byte
}

func readFile(t *testing.T, path string) (segment node, blocks []block) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	top := parse(t, data, 0)
	if len(top) != 2 || top[0].id != 0x1A45DFA3 || top[1].id != 0x18538067 {
		t.Fatalf("top level: %d elements", len(top))
	}
	if got := top[0].all(0x4282); len(got) != 1 || string(got[0].data) != "webm" {
		t.Error("DocType is not webm")
	}
	segment = top[1]
	for _, c := range segment.all(0x1F43B675) {
		started := int64(c.number(t, 0xE7))
		for _, b := range c.all(0xA3) {
			if b.data[0] != 0x81 || b.data[3] != 0x80 {
				t.Errorf("block header % x: want track 1, key frame", b.data[:4])
			}
			offset := int64(int16(binary.BigEndian.Uint16(b.data[1:])))
			blocks = append(blocks, block{started + offset, b.data[4:]})
		}
	}
	return segment, blocks
}

func TestRoundTrip(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.webm")
	o := video.Options{Width: 36, Height: 28, Scale: 2, FPS: video.Rate{Num: 30000, Den: 1001}}
	w, err := New(path, o)
	if err != nil {
		t.Fatal(err)
	}
	const frames = 200 // 6.7 s: several clusters
	for i := range frames {
		if err := w.WriteFrame(ctx, scene(36, 28, i)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	segment, blocks := readFile(t, path)
	if len(blocks) != frames {
		t.Fatalf("%d blocks", len(blocks))
	}
	for i, b := range blocks {
		if want := int64(math.Round(float64(i) * 1001 / 30)); b.millis != want {
			t.Errorf("frame %d at %d ms, want %d", i, b.millis, want)
		}
		if i%20 != 0 {
			continue
		}
		got := decode(t, b.data)
		db, err := metric.PSNR(got, scene(36, 28, i).Upscale(2, nil))
		if err != nil || db < 33 {
			t.Errorf("frame %d: %.1f dB, %v", i, db, err)
		}
	}
	if w, h := segment.number(t, 0x1654AE6B, 0xAE, 0xE0, 0xB0), segment.number(t, 0x1654AE6B, 0xAE, 0xE0, 0xBA); w != 72 || h != 56 {
		t.Errorf("track is %dx%d", w, h)
	}
	if got := segment.number(t, 0x1654AE6B, 0xAE, 0x23E383); got != 33366667 {
		t.Errorf("default duration %d ns", got)
	}
	duration := math.Float64frombits(segment.number(t, 0x1549A966, 0x4489))
	if want := 200 * 1001 / 30.0; math.Abs(duration-want) > 1e-9 {
		t.Errorf("duration %v ms, want %v", duration, want)
	}
	checkIndex(t, segment)
}

// checkIndex follows every position in SeekHead and Cues to the element it should lead to.
func checkIndex(t *testing.T, segment node) {
	t.Helper()
	first := segment.children[0].at // positions count from here
	at := map[int]node{}
	for _, c := range segment.children {
		at[c.at-first] = c
	}
	seeks := segment.all(0x114D9B74, 0x4DBB)
	if len(seeks) != 3 {
		t.Errorf("%d seek entries", len(seeks))
	}
	for _, s := range seeks {
		id, position := s.number(t, 0x53AB), int(s.number(t, 0x53AC))
		if at[position].id != id {
			t.Errorf("seek entry for %x leads to %x", id, at[position].id)
		}
	}
	clusters, cues := segment.all(0x1F43B675), segment.all(0x1C53BB6B, 0xBB)
	if len(cues) != len(clusters) || len(clusters) < 3 {
		t.Errorf("%d cues for %d clusters", len(cues), len(clusters))
	}
	for _, c := range cues {
		target := at[int(c.number(t, 0xB7, 0xF1))]
		if target.id != 0x1F43B675 || target.number(t, 0xE7) != c.number(t, 0xB3) {
			t.Errorf("cue at %d ms leads elsewhere", c.number(t, 0xB3))
		}
	}
}

func TestSizesThatAreNotMultiplesOfSixteen(t *testing.T) {
	for _, size := range [][2]int{{1, 1}, {17, 5}, {33, 64}, {64, 64}} {
		f := scene(size[0], size[1], 0)
		data, err := NewVP8(95).EncodeKeyFrame(f)
		if err != nil {
			t.Fatal(err)
		}
		got := decode(t, data)
		if db, err := metric.PSNR(got, f); err != nil || db < 25 {
			t.Errorf("%v: %.1f dB, %v", size, db, err)
		}
	}
}

func TestQualityChangesSize(t *testing.T) {
	f := scene(128, 128, 3)
	sizes := []int{}
	for _, q := range []int{20, 0, 100} {
		data, err := NewVP8(q).EncodeKeyFrame(f)
		if err != nil {
			t.Fatal(err)
		}
		sizes = append(sizes, len(data))
	}
	if !(sizes[0] < sizes[1] && sizes[1] < sizes[2]) {
		t.Errorf("bytes at quality 20, default, 100: %v", sizes)
	}
}

func TestSameFramesGiveSameBytes(t *testing.T) {
	if runtime.GOMAXPROCS(0) < 2 {
		t.Skip("needs two processors, as CI has: the encoder's one-worker path keeps state between frames")
	}
	want := [][]byte{}
	for round := range 2 {
		e := NewVP8(0)
		for i := range 6 {
			data, err := e.EncodeKeyFrame(scene(96, 80, i))
			if err != nil {
				t.Fatal(err)
			}
			if round == 0 {
				want = append(want, bytes.Clone(data))
			} else if !bytes.Equal(data, want[i]) {
				t.Errorf("frame %d differs in the second run", i)
			}
		}
	}
}

func TestNothingIsLeftAfterAFailure(t *testing.T) {
	o := video.Options{Width: 32, Height: 32, FPS: video.Rate{Num: 16, Den: 1}}
	cancelled, cancel := context.WithCancel(ctx)
	cancel()
	for name, fail := range map[string]func(video.AtomicWriter) error{
		"abort":      func(w video.AtomicWriter) error { w.Abort(); return w.Close() },
		"cancelled":  func(w video.AtomicWriter) error { return w.WriteFrame(cancelled, scene(32, 32, 1)) },
		"wrong size": func(w video.AtomicWriter) error { return w.WriteFrame(ctx, scene(16, 32, 1)) },
	} {
		dir := t.TempDir()
		w, err := New(filepath.Join(dir, "a.webm"), o)
		if err != nil {
			t.Fatal(err)
		}
		if err := w.WriteFrame(ctx, scene(32, 32, 0)); err != nil {
			t.Fatal(err)
		}
		if err := fail(w); err == nil || !strings.Contains(err.Error(), "a.webm") {
			t.Errorf("%s: %v", name, err)
		}
		if entries, _ := os.ReadDir(dir); len(entries) != 0 {
			t.Errorf("%s: left behind %v", name, entries)
		}
	}
}

type broken struct{}

func (broken) EncodeKeyFrame(video.Frame) ([]byte, error) { return nil, errors.New("out of ideas") }

func TestEncoderErrorsNameFileAndFrame(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.webm")
	w, err := NewWith(path, video.Options{Width: 8, Height: 8, FPS: video.Rate{Num: 1, Den: 1}}, broken{})
	if err != nil {
		t.Fatal(err)
	}
	err = w.WriteFrame(ctx, scene(8, 8, 4))
	if want := fmt.Sprintf("write %s: encode frame 4: out of ideas", path); err == nil || err.Error() != want {
		t.Errorf("error %v, want %s", err, want)
	}
}

func TestFullDisk(t *testing.T) {
	if _, err := os.Stat("/dev/full"); err != nil {
		t.Skip("needs /dev/full: runs on Linux")
	}
	path := filepath.Join(t.TempDir(), "a.webm")
	if err := os.Symlink("/dev/full", path); err != nil {
		t.Fatal(err)
	}
	_, err := New(path, video.Options{Width: 8, Height: 8, FPS: video.Rate{Num: 1, Den: 1}})
	if want := "create " + path + ": no space left on device"; err == nil || err.Error() != want {
		t.Errorf("error %v, want %s", err, want)
	}
}

func TestSizesAvoidTheUnknownSize(t *testing.T) {
	for n, want := range map[int]string{0: "80", 126: "fe", 127: "407f", 16382: "7ffe", 16383: "203fff"} {
		if got := fmt.Sprintf("%x", appendSize(nil, n)); got != want {
			t.Errorf("size %d = %s, want %s", n, got, want)
		}
	}
}

func BenchmarkWriteFrame(b *testing.B) {
	for _, c := range []video.Options{{Width: 64, Height: 64, Scale: 4, FPS: video.Rate{Num: 16, Den: 1}}, {Width: 832, Height: 480, FPS: video.Rate{Num: 16, Den: 1}}} {
		for _, n := range []int{1, atOnce(c)} {
			b.Run(fmt.Sprintf("size=%dx%d/scale=%d/encoders=%d", c.Width, c.Height, max(c.Scale, 1), n), func(b *testing.B) {
				var encoders []KeyFrameEncoder
				for range n {
					encoders = append(encoders, NewVP8(0))
				}
				w, err := NewWith(filepath.Join(b.TempDir(), "a.webm"), c, encoders...)
				if err != nil {
					b.Fatal(err)
				}
				defer w.Abort()
				frames := []video.Frame{scene(c.Width, c.Height, 0), scene(c.Width, c.Height, 1)}
				i := 0
				for b.Loop() {
					if err := w.WriteFrame(ctx, frames[i%2]); err != nil {
						b.Fatal(err)
					}
					i++
				}
				b.ReportMetric(float64(b.Elapsed().Microseconds())/1000/float64(b.N), "ms/frame")
			})
		}
	}
}

// TestFramesEncodedTogetherGiveTheSameFile writes a video with encoders for one frame at a time and for several.
func TestFramesEncodedTogetherGiveTheSameFile(t *testing.T) {
	for _, o := range []video.Options{{Width: 64, Height: 64, Scale: 4}, {Width: 208, Height: 120}} {
		o.FPS = video.Rate{Num: 16, Den: 1}
		var want []byte
		for _, n := range []int{1, 2, 3, 8} {
			var encoders []KeyFrameEncoder
			for range n {
				encoders = append(encoders, NewVP8(0))
			}
			path := filepath.Join(t.TempDir(), "a.webm")
			w, err := NewWith(path, o, encoders...)
			if err != nil {
				t.Fatal(err)
			}
			frame := video.NewFrame(o.Width, o.Height)
			for i := range 13 {
				copy(frame.Pix, scene(o.Width, o.Height, i).Pix) // one buffer for all, as callers may
				if err := w.WriteFrame(ctx, frame); err != nil {
					t.Fatal(err)
				}
			}
			if err := w.Close(); err != nil {
				t.Fatal(err)
			}
			got, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if want == nil {
				want = got
			}
			if !bytes.Equal(got, want) {
				t.Errorf("%dx%d: %d encoders make another file than one", o.Width, o.Height, n)
			}
		}
	}
}

// stuck is an encoder that panics.
type stuck struct{}

func (stuck) EncodeKeyFrame(video.Frame) ([]byte, error) { panic("no room") }

func TestAFaultOfAnEncoderIsAnError(t *testing.T) {
	w, err := NewWith(filepath.Join(t.TempDir(), "a.webm"), video.Options{Width: 64, Height: 64, FPS: video.Rate{Num: 1, Den: 1}}, stuck{}, stuck{})
	if err != nil {
		t.Fatal(err)
	}
	for err == nil {
		err = w.WriteFrame(ctx, scene(64, 64, 0))
	}
	if !strings.Contains(err.Error(), "encode frame 0: internal fault: no room") {
		t.Errorf("error %v", err)
	}
	if again := w.Close(); again == nil || again.Error() != err.Error() {
		t.Errorf("Close: %v", again)
	}
}
