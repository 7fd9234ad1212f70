package file_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"longtake/video"
	"longtake/video/file"
)

func options() video.Options {
	return video.Options{Width: 16, Height: 16, FPS: video.Rate{Num: 16, Den: 1}}
}

func TestExtensionChoosesFormat(t *testing.T) {
	for path, magic := range map[string]string{
		"a.webm": "\x1a\x45\xdf\xa3", "B.GIF": "GIF89a", "c.y4m": "YUV4MPEG2 ",
		"plain": "", "slash/": "", "shots/s_%04d.png": "",
	} {
		full := filepath.Join(t.TempDir(), path)
		if strings.HasSuffix(path, "/") {
			full += "/"
		}
		w, err := file.Create(full, options())
		if err != nil {
			t.Fatal(err)
		}
		f := video.NewFrame(16, 16)
		if err := w.WriteFrame(context.Background(), f); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		switch path {
		case "plain", "slash/":
			full, magic = filepath.Join(full, "frame_000001.png"), "\x89PNG"
		case "shots/s_%04d.png":
			full, magic = filepath.Join(filepath.Dir(full), "s_0001.png"), "\x89PNG"
		}
		data, err := os.ReadFile(full)
		if err != nil || !bytes.HasPrefix(data, []byte(magic)) {
			t.Errorf("%s: starts with %q, %v", path, data[:min(len(data), 10)], err)
		}
	}
}

func TestUnknownExtensionListsKnownOnes(t *testing.T) {
	for _, path := range []string{"a.avi", "a.webm.txt", ""} {
		_, err := file.Create(path, options())
		if err == nil || !strings.Contains(err.Error(), ".webm, .mp4 (needs ffmpeg), .gif, .y4m") {
			t.Errorf("%q: %v", path, err)
		}
		if other := file.Supported(path); other == nil || other.Error() != err.Error() {
			t.Errorf("%q: Supported says %v", path, other)
		}
	}
	if err := file.Supported("-"); err != nil {
		t.Error(err)
	}
}

func TestMP4WithoutFFmpeg(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	if _, err := file.Create("a.mp4", options()); !errors.Is(err, video.ErrNoFFmpeg) {
		t.Errorf("error %v", err)
	}
}

func ExampleCreate() {
	dir, err := os.MkdirTemp("", "example")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "clip.webm")
	w, err := file.Create(path, video.Options{Width: 64, Height: 64, Scale: 4, FPS: video.Rate{Num: 16, Den: 1}})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer w.Abort() // does nothing after Close
	for i := range 16 {
		f := video.NewFrame(64, 64)
		f.Index = i
		if err := w.WriteFrame(context.Background(), f); err != nil {
			fmt.Println(err)
			return
		}
	}
	fmt.Println(w.Close())
	_, err = os.Stat(path)
	fmt.Println(err)
	// Output:
	// <nil>
	// <nil>
}
