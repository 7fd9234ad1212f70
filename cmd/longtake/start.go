package main

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"image"
	_ "image/gif" // decoders of start images
	_ "image/jpeg"
	_ "image/png"
	"io"
	"os"
	"path/filepath"
	"slices"
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
	// maxFolderPixels are 500 frames of 832x480.
	maxFolderPixels = 200_000_000
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

	pictures []image.Image // the image, or those of a folder in the order of their names; and the SHA-256 of the files behind each other
	sum      string
}

// parseStart reads "sim", "sim:SEED", "none" or the path of an image or of a folder of images, and the images.
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
		pictures, sum, err := readImages(s)
		if err != nil {
			return start{}, usagef("--start %s: %w", s, err)
		}
		return start{startImage, s, seed, pictures, sum}, nil
	}
	return start{kind: startSim, name: fmt.Sprintf("sim:%d", seed), seed: seed}, nil
}

// readImages decodes an image file, or those of a folder, and returns the SHA-256 of their bytes, too.
func readImages(path string) (pictures []image.Image, sum string, err error) {
	files, hash, pixels := []string{path}, sha256.New(), 0
	if entries, err := os.ReadDir(path); err == nil {
		files = files[:0]
		for _, e := range entries {
			if ext := strings.ToLower(filepath.Ext(e.Name())); slices.Contains([]string{".png", ".jpg", ".jpeg", ".webp", ".gif"}, ext) {
				files = append(files, filepath.Join(path, e.Name()))
			}
		}
		if len(files) == 0 {
			return nil, "", errors.New("no image in the folder")
		}
	}
	for _, file := range files {
		picture, err := readImage(file, hash)
		if err == nil {
			if pixels += picture.Bounds().Dx() * picture.Bounds().Dy(); pixels > maxFolderPixels && len(files) > 1 {
				err = fmt.Errorf("more than %d megapixels in the folder", maxFolderPixels/1_000_000)
			}
		}
		if err != nil {
			if len(files) > 1 {
				err = fmt.Errorf("%s: %w", filepath.Base(file), err)
			}
			return nil, "", err
		}
		pictures = append(pictures, picture)
	}
	return pictures, fmt.Sprintf("%x", hash.Sum(nil)), nil
}

// readImage decodes an image file and tells its bytes to hash.
func readImage(path string, hash io.Writer) (image.Image, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("%w (other than an image file or a folder of images: sim, sim:SEED or none)", cause(err))
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxImageBytes+1))
	if err != nil {
		return nil, cause(err)
	}
	if len(data) > maxImageBytes {
		return nil, fmt.Errorf("larger than %d MiB", maxImageBytes>>20)
	}
	_, _ = hash.Write(data) // hashes take everything
	return decode(data)
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
