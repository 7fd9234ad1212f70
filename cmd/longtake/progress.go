package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/cwriter"
	"github.com/vbauerster/mpb/v8/decor"

	"longtake/video"
	"longtake/video/term"
)

// progress tells the user how far the video is. Methods may be called from two goroutines: frame by the one that makes frames,
// show by the one that writes them.
type progress interface {
	// frame says that n frames are made and how large the cache is.
	frame(n int, cacheBytes int64)
	// show gets every frame once it is written.
	show(ctx context.Context, f video.Frame)
	// end cleans up; it may be called twice.
	end()
}

// newProgress chooses the way by what the flags ask and what standard error is.
func newProgress(g *generateCommand, out *streams, total int) progress {
	m := &meter{total: total}
	screen, isTerminal := terminal(out.err)
	switch {
	case g.Preview:
		return newPreview(m, screen)
	case g.Quiet:
		return silent{}
	case isTerminal && showsLines(screen):
		return newBar(m, screen)
	}
	return &lines{meter: m, out: out.err, next: time.Now().Add(lineEvery)}
}

// terminal returns w as a file when it is a terminal.
func terminal(w io.Writer) (*os.File, bool) {
	f, ok := w.(*os.File)
	return f, ok && cwriter.IsTerminal(int(f.Fd()))
}

// showsLines reports whether a terminal says that it has lines; on one that does not know its size nothing could be drawn.
func showsLines(f *os.File) bool {
	columns, rows, err := cwriter.GetSize(int(f.Fd()))
	return err == nil && columns > 0 && rows > 1
}

// meter measures the rate.
type meter struct {
	mu    sync.Mutex
	total int
	done  int
	cache int64
	first int       // frames done when the clock started
	began time.Time // when the first frame was made: start-up is not part of the rate
	last  time.Time // when the latest one was
}

func (m *meter) set(n int, cache int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.last = time.Now()
	if m.began.IsZero() {
		m.first, m.began = n, m.last
	}
	m.done, m.cache = n, cache
}

// rate returns frames per second and the time left; zeros while unknown.
func (m *meter) rate() (fps float64, left time.Duration) {
	if m.done <= m.first || !m.last.After(m.began) {
		return 0, 0
	}
	fps = float64(m.done-m.first) / m.last.Sub(m.began).Seconds()
	return fps, time.Duration(float64(m.total-m.done) / fps * float64(time.Second))
}

// String returns "15.2 fps, 7s left, cache 26 MiB".
func (m *meter) String() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	fps, left := m.rate()
	if fps == 0 {
		return "cache " + bytesText(m.cache)
	}
	return fmt.Sprintf("%.1f fps, %v left, cache %s", fps, left.Round(time.Second), bytesText(m.cache))
}

// silent says nothing.
type silent struct{}

func (silent) frame(int, int64)                  {}
func (silent) show(context.Context, video.Frame) {}
func (silent) end()                              {}

// lineEvery is the pause between lines where there is no terminal.
const lineEvery = 5 * time.Second

// lines prints a plain line now and then.
type lines struct {
	silent
	*meter
	out  io.Writer
	next time.Time
}

func (l *lines) frame(n int, cache int64) {
	l.set(n, cache)
	if now := time.Now(); now.After(l.next) && n < l.total {
		l.next = now.Add(lineEvery)
		fmt.Fprintf(l.out, "frame %d/%d, %v\n", n, l.total, l.meter)
	}
}

// bar is a line in a terminal that renews itself.
type bar struct {
	silent
	*meter
	all   *mpb.Progress
	bar   *mpb.Bar
	ended bool
}

func newBar(m *meter, screen *os.File) *bar {
	all := mpb.New(mpb.WithOutput(screen), mpb.WithWidth(80), mpb.WithRefreshRate(200*time.Millisecond))
	return &bar{meter: m, all: all, bar: all.New(int64(m.total), mpb.BarStyle().Rbound("|").Lbound("|"),
		mpb.PrependDecorators(decor.CountersNoUnit("frame %d/%d ")),
		mpb.AppendDecorators(decor.Any(func(decor.Statistics) string { return " " + m.String() })))}
}

func (b *bar) frame(n int, cache int64) {
	b.set(n, cache)
	b.bar.SetCurrent(int64(n))
}

func (b *bar) end() {
	if b.ended {
		return
	}
	b.ended = true
	b.bar.Abort(false) // nothing happens if it is complete
	b.all.Wait()
}

// preview draws the frames, with a line below them.
type preview struct {
	*meter
	out    io.Writer
	screen *term.Writer
}

func newPreview(m *meter, f *os.File) *preview {
	columns, rows, err := cwriter.GetSize(int(f.Fd()))
	if err != nil || columns < 1 || rows < 2 {
		columns, rows = 80, 24
	}
	return &preview{meter: m, out: f, screen: term.New(f, term.Detect(os.Getenv), columns, rows)}
}

func (p *preview) frame(n int, cache int64) { p.set(n, cache) }

// show draws; a terminal that fails does not end the video.
func (p *preview) show(ctx context.Context, f video.Frame) {
	if p.screen.WriteFrame(ctx, f) == nil {
		fmt.Fprintf(p.out, "\x1b[0m\x1b[Kframe %d/%d, %v", f.Index+1, p.total, p.meter)
	}
}

func (p *preview) end() { p.screen.Close() }
