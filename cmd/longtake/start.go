package main

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"image"
	_ "image/gif" // decoders of start images
	_ "image/jpeg"
	_ "image/png"
	"io"
	"os"
	"strconv"
	"strings"

	"golang.org/x/image/draw"
	_ "golang.org/x/image/webp" // one more decoder

	"longtake/video"
)

// Limits of start images: a file of a few bytes may ask for gigabytes.
const (
	maxImageBytes  = 64 << 20
	maxImagePixels = 50_000_000
)

// What a video begins with.
const (
	startSim = iota
	startNone
	startImage
)

type start struct {
	kind int
	name string // as --start takes it: "sim:7", "none", a path
	seed uint32 // of the simulator's world; it writes the default prompt and walks, whatever the start is

	picture image.Image // the image, and the SHA-256 of its file
	sum     string
}

// parseStart reads "sim", "sim:SEED", "none" or the path of an image, and the image.
func parseStart(s string, seed uint32) (start, error) {
	number, isSeed := strings.CutPrefix(s, "sim:")
	switch {
	case s == "none":
		return start{kind: startNone, name: s, seed: seed}, nil
	case isSeed:
		n, err := strconv.ParseUint(number, 10, 32)
		if err != nil {
			return start{}, usagef("--start %s: the simulator's seed must be a number from 0 to 4294967295", s)
		}
		seed = uint32(n)
	case s != "sim" && s != "":
		picture, sum, err := readImage(s)
		if err != nil {
			return start{}, usagef("--start %s: %w", s, err)
		}
		return start{startImage, s, seed, picture, sum}, nil
	}
	return start{kind: startSim, name: fmt.Sprintf("sim:%d", seed), seed: seed}, nil
}

// readImage decodes an image file and returns the SHA-256 of its bytes, too.
func readImage(path string) (image.Image, string, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, "", fmt.Errorf("%w (other than an image file: sim, sim:SEED or none)", cause(err))
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxImageBytes+1))
	if err != nil {
		return nil, "", cause(err)
	}
	if len(data) > maxImageBytes {
		return nil, "", fmt.Errorf("larger than %d MiB", maxImageBytes>>20)
	}
	picture, err := decode(data)
	return picture, fmt.Sprintf("%x", sha256.Sum256(data)), err
}

// crop cuts the largest piece of the shape width:height out of the middle of a picture and resizes it to width x height.
func crop(picture image.Image, width, height int) video.Frame {
	dst := image.NewRGBA(image.Rect(0, 0, width, height))
	draw.CatmullRom.Scale(dst, dst.Rect, picture, centre(picture.Bounds(), width, height), draw.Src, nil)
	return video.FromImage(dst)
}

func decode(data []byte) (image.Image, error) {
	config, _, err := image.DecodeConfig(bytes.NewReader(data))
	if err != nil {
		return nil, fmt.Errorf("not a PNG, JPEG, GIF or WebP image: %w", err)
	}
	if config.Width < 1 || config.Height < 1 || config.Width > maxImagePixels/config.Height {
		return nil, fmt.Errorf("image of %dx%d pixels: at most %d megapixels are read", config.Width, config.Height, maxImagePixels/1_000_000)
	}
	picture, _, err := image.Decode(bytes.NewReader(data))
	if err != nil {
		return nil, fmt.Errorf("damaged image: %w", err)
	}
	return picture, nil
}

// centre returns the largest rectangle of the shape width:height in the middle of b.
func centre(b image.Rectangle, width, height int) image.Rectangle {
	w, h := b.Dx(), b.Dy()
	if w*height > h*width {
		w = max(h*width/height, 1)
	} else {
		h = max(w*height/width, 1)
	}
	x, y := b.Min.X+(b.Dx()-w)/2, b.Min.Y+(b.Dy()-h)/2
	return image.Rect(x, y, x+w, y+h)
}
