package video

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"longtake/video/internal/outfile"
)

// ErrNoFFmpeg says that an MP4 was asked for and no ffmpeg program was found.
var ErrNoFFmpeg = errors.New("ffmpeg was not found on PATH")

// How long ffmpeg may take no frame, and how long it may take to finish the file.
const (
	ffmpegStall  = 60 * time.Second
	ffmpegFinish = 5 * time.Minute
)

// NewMP4 writes H.264 (libx264, yuv420p, BT.709 limited and tagged so, +faststart) by handing raw
// RGB to an ffmpeg process on its standard input. Width and height after scaling must be even. The
// process is killed when the context of a WriteFrame is cancelled, on Abort, or when it takes no
// frame for a minute; what it said on standard error ends up in the error.
func NewMP4(path string, o Options) (AtomicWriter, error) {
	o, err := o.WithDefaults()
	if err != nil {
		return nil, fmt.Errorf("create %s: %w", path, err)
	}
	if o.OutWidth()%2 != 0 || o.OutHeight()%2 != 0 {
		return nil, fmt.Errorf("create %s: mp4 needs even sides, not %dx%d: use --scale 2 or another format",
			path, o.OutWidth(), o.OutHeight())
	}
	program := o.FFmpeg
	if program == "" {
		program = "ffmpeg"
	}
	program, err = exec.LookPath(program)
	if err != nil {
		return nil, fmt.Errorf("create %s: %w: install it, or write .webm, .gif, .y4m or a folder of PNG, which need nothing",
			path, ErrNoFFmpeg)
	}
	out, err := outfile.Create(path)
	if err != nil {
		return nil, err
	}
	if out.Direct() {
		out.Abort()
		return nil, fmt.Errorf("create %s: mp4 needs a regular file", path)
	}
	temp, err := filepath.Abs(out.Temp())
	if err != nil {
		out.Abort()
		return nil, fmt.Errorf("create %s: %w", path, err)
	}
	enc, err := startFFmpeg(exec.Command(program, ffmpegArgs(o, temp)...))
	if err != nil {
		out.Abort()
		return nil, fmt.Errorf("create %s: start ffmpeg: %w", path, err)
	}
	return newWriter(path, o, enc, out), nil
}

func ffmpegArgs(o Options, temp string) []string {
	quality := o.Quality
	if quality == 0 {
		quality = 77
	}
	crf := int(math.Round(40 - 0.3*float64(quality)))
	return []string{
		"-hide_banner", "-loglevel", "error", "-nostdin", "-y",
		"-f", "rawvideo", "-pix_fmt", "rgb24",
		"-s", fmt.Sprintf("%dx%d", o.OutWidth(), o.OutHeight()),
		"-r", fmt.Sprintf("%d/%d", o.FPS.Num, o.FPS.Den), "-i", "pipe:0",
		"-vf", "scale=out_color_matrix=bt709:out_range=tv:flags=bicubic+accurate_rnd+full_chroma_inp",
		"-c:v", "libx264", "-crf", strconv.Itoa(crf), "-pix_fmt", "yuv420p",
		"-colorspace", "bt709", "-color_primaries", "bt709", "-color_trc", "bt709", "-color_range", "tv",
		"-movflags", "+faststart",
		// "file:" keeps a colon in the name from being read as a protocol.
		"file:" + temp,
	}
}

// ffmpeg is a running process that takes frames on stdin.
type ffmpeg struct {
	cmd    *exec.Cmd
	stdin  io.WriteCloser
	stderr *tail
	exited chan struct{} // closed once wait is set
	wait   error
	stall  time.Duration
	finish time.Duration
}

func startFFmpeg(cmd *exec.Cmd) (*ffmpeg, error) {
	e := &ffmpeg{cmd: cmd, stderr: &tail{}, exited: make(chan struct{}),
		stall: ffmpegStall, finish: ffmpegFinish}
	cmd.Stderr = e.stderr
	// If a grandchild keeps stderr open after a kill, do not wait for it.
	cmd.WaitDelay = 2 * time.Second
	detach(cmd)
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	e.stdin = stdin
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		e.wait = cmd.Wait()
		close(e.exited)
	}()
	return e, nil
}

// Encode blocks until ffmpeg has taken the frame, ctx is done, or the watchdog bites.
func (e *ffmpeg) Encode(ctx context.Context, f Frame) error {
	stalled := false
	var mu sync.Mutex
	dog := time.AfterFunc(e.stall, func() {
		mu.Lock()
		defer mu.Unlock()
		stalled = true
		e.cmd.Process.Kill()
	})
	defer dog.Stop()
	stop := context.AfterFunc(ctx, func() { e.cmd.Process.Kill() })
	defer stop()
	if _, err := e.stdin.Write(f.Pix); err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		mu.Lock()
		defer mu.Unlock()
		if stalled {
			return e.failure(fmt.Errorf("took no frame for %v and was stopped", e.stall))
		}
		// A process that stops reading is about to end; how it ended says more than "broken pipe".
		select {
		case <-e.exited:
			if e.wait != nil {
				err = e.wait
			}
		case <-time.After(5 * time.Second):
		}
		return e.failure(err)
	}
	return nil
}

// Finish closes stdin, which is how ffmpeg learns of the end, and waits for it to write the rest.
func (e *ffmpeg) Finish() error {
	closeErr := e.stdin.Close()
	select {
	case <-e.exited:
	case <-time.After(e.finish):
		e.cmd.Process.Kill()
		return e.failure(fmt.Errorf("did not finish within %v and was stopped", e.finish))
	}
	if e.wait != nil {
		return e.failure(e.wait)
	}
	if closeErr != nil {
		return e.failure(closeErr)
	}
	return nil
}

// Discard kills the process and waits until it is gone, so that it cannot write to a file that is
// about to be removed.
func (e *ffmpeg) Discard() {
	e.cmd.Process.Kill()
	e.stdin.Close()
	<-e.exited
}

// failure builds a one-line error from what we saw and what ffmpeg said.
func (e *ffmpeg) failure(seen error) error {
	if said := e.stderr.line(); said != "" {
		return fmt.Errorf("ffmpeg: %w: %s", seen, said)
	}
	return fmt.Errorf("ffmpeg: %w", seen)
}

// tail keeps the last bytes written to it, so that a talkative process never blocks or fills memory.
type tail struct {
	mu  sync.Mutex
	buf []byte
}

const tailBytes = 2048

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.buf = append(t.buf, p...)
	if over := len(t.buf) - tailBytes; over > 0 {
		t.buf = append(t.buf[:0], t.buf[over:]...)
	}
	return len(p), nil
}

// line returns the kept text as one line.
func (t *tail) line() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	var parts []string
	for line := range strings.Lines(string(t.buf)) {
		if line = strings.TrimSpace(line); line != "" {
			parts = append(parts, line)
		}
	}
	return strings.Join(parts, "; ")
}
