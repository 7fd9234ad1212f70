package video

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"
)

// fake puts a shell script in the place of ffmpeg.
func fake(t *testing.T, script string) string {
	t.Helper()
	if runtime.GOOS == "windows" {
		t.Skip("needs a shell of Unix: runs on Linux and macOS")
	}
	path := filepath.Join(t.TempDir(), "ffmpeg")
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+script), 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestMP4WithoutFFmpegNamesAlternatives(t *testing.T) {
	o := opts(32, 16)
	o.FFmpeg = filepath.Join(t.TempDir(), "none")
	_, err := NewMP4("a.mp4", o)
	if !errors.Is(err, ErrNoFFmpeg) || !strings.Contains(err.Error(), ".webm") {
		t.Errorf("error %v", err)
	}
}

func TestMP4RefusesOddSides(t *testing.T) {
	if _, err := NewMP4("a.mp4", opts(31, 16)); err == nil || !strings.Contains(err.Error(), "even") {
		t.Errorf("error %v", err)
	}
}

func TestMP4QuotesStandardError(t *testing.T) {
	dir := t.TempDir()
	o := opts(640, 480)
	// More noise than a pipe holds, then the reason: both must be drained, the reason kept.
	o.FFmpeg = fake(t, `i=0; while [ $i -lt 2000 ]; do echo "noise noise noise noise noise noise noise" >&2; i=$((i+1)); done
echo "Unknown encoder 'libx264'" >&2; exit 3`)
	w, err := NewMP4(filepath.Join(dir, "a.mp4"), o)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < 10 && err == nil; i++ {
		err = w.WriteFrame(ctx, scene(640, 480, i))
	}
	if err == nil {
		err = w.Close()
	}
	if err == nil || !strings.Contains(err.Error(), "Unknown encoder 'libx264'") || strings.Contains(err.Error(), "\n") ||
		!strings.Contains(err.Error(), "exit status 3") || !strings.Contains(err.Error(), "a.mp4") {
		t.Errorf("error %v", err)
	}
	wantEmpty(t, dir)
}

func TestMP4CancelKillsAProcessThatHangs(t *testing.T) {
	dir := t.TempDir()
	o := opts(640, 480)
	o.FFmpeg = fake(t, "exec sleep 60")
	w, err := NewMP4(filepath.Join(dir, "a.mp4"), o)
	if err != nil {
		t.Fatal(err)
	}
	short, cancel := context.WithTimeout(ctx, 100*time.Millisecond)
	defer cancel()
	start := time.Now()
	if err := w.WriteFrame(short, scene(640, 480, 0)); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error %v", err)
	}
	if took := time.Since(start); took > 10*time.Second {
		t.Errorf("took %v", took)
	}
	wantEmpty(t, dir)
}

func TestMP4WatchdogStopsAProcessThatHangs(t *testing.T) {
	dir := t.TempDir()
	o := opts(640, 480)
	o.FFmpeg = fake(t, "exec sleep 60")
	w, err := NewMP4(filepath.Join(dir, "a.mp4"), o)
	if err != nil {
		t.Fatal(err)
	}
	w.(*writer).enc.(*ffmpeg).stall = 100 * time.Millisecond
	if err := w.WriteFrame(ctx, scene(640, 480, 0)); err == nil || !strings.Contains(err.Error(), "took no frame for 100ms") {
		t.Errorf("error %v", err)
	}
	wantEmpty(t, dir)
}

func TestMP4AbortLeavesNothing(t *testing.T) {
	dir := t.TempDir()
	o := opts(32, 16)
	o.FFmpeg = fake(t, "exec cat >/dev/null")
	w, err := NewMP4(filepath.Join(dir, "a.mp4"), o)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.WriteFrame(ctx, scene(32, 16, 0)); err != nil {
		t.Fatal(err)
	}
	if err := w.Abort(); err != nil {
		t.Error(err)
	}
	wantEmpty(t, dir)
}

func TestMP4RoundTrip(t *testing.T) {
	program, err := exec.LookPath("ffmpeg")
	if err != nil {
		t.Skip("needs ffmpeg on PATH; the tests beside it run with a stand-in")
	}
	path := filepath.Join(t.TempDir(), "a b:c.mp4") // a colon must not be read as a protocol
	o := opts(64, 48)
	o.Scale = 2
	in := scenes(64, 48, 8)
	w, err := NewMP4(path, o)
	write(t, w, err, in...)
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if at := bytes.Index(data, []byte("moov")); at < 0 || at > bytes.Index(data, []byte("mdat")) {
		t.Error("moov does not come first: no faststart")
	}
	raw, err := exec.Command(program, "-v", "error", "-i", "file:"+path, "-f", "rawvideo", "-pix_fmt", "rgb24", "-").Output()
	if err != nil {
		t.Fatal(err)
	}
	size := 3 * 128 * 96
	if len(raw) != 8*size {
		t.Fatalf("%d bytes decoded, want %d", len(raw), 8*size)
	}
	for i, f := range in {
		got := Frame{Width: 128, Height: 96, Pix: raw[i*size : (i+1)*size]}
		if db := psnr(got, f.Upscale(2, nil)); db < 30 {
			t.Errorf("frame %d: %.1f dB", i, db)
		}
	}
	for entry := range strings.FieldsSeq(names(t, filepath.Dir(path))) {
		if strings.HasPrefix(entry, ".") {
			t.Errorf("left behind: %s", entry)
		}
	}
}
