// Package file opens the writer that fits a path.
//
// What enters: a path as a user types it and [video.Options]. What leaves: a [video.AtomicWriter].
// This is the one place that knows all formats; it imports them so that package video need not.
package file

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"longtake/video"
	"longtake/video/webm"
)

// Known says, in words for a help text or an error, which paths Create takes.
const Known = ".webm, .mp4 (needs ffmpeg), .gif, .y4m, - (y4m to standard output), a folder or name_%06d.png"

type create func(string, video.Options) (video.AtomicWriter, error)

var formats = map[string]create{
	".webm": webm.New,
	".mp4":  video.NewMP4,
	".gif":  video.NewGIF,
	".y4m":  video.NewY4M,
	".png":  video.NewPNG,
}

// Create opens path for writing and checks everything that can be checked before the first frame.
// The format follows from the extension, in either case. "-" writes y4m to standard output. An
// existing folder, a path ending in a slash, and a path whose last part has no dot at all become a
// PNG sequence. An unknown extension is an error that lists the known ones.
func Create(path string, o video.Options) (video.AtomicWriter, error) {
	if path == "-" {
		return video.NewY4MStream(os.Stdout, "standard output", o)
	}
	open, err := format(path)
	if err != nil {
		return nil, err
	}
	return open(path, o)
}

// Supported returns the error that Create would return for path's extension, without touching the
// disk beyond a look at what is there.
func Supported(path string) error {
	if path == "-" {
		return nil
	}
	_, err := format(path)
	return err
}

func format(path string) (create, error) {
	if path == "" {
		return nil, fmt.Errorf("create video: no path given: known are %s", Known)
	}
	if info, err := os.Stat(path); err == nil && info.IsDir() || os.IsPathSeparator(path[len(path)-1]) {
		return video.NewPNG, nil
	}
	ext := strings.ToLower(filepath.Ext(path))
	if ext == "" {
		return video.NewPNG, nil
	}
	if open := formats[ext]; open != nil {
		return open, nil
	}
	return nil, fmt.Errorf("create %s: unknown extension %q: known are %s", path, ext, Known)
}
