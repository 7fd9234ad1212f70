package video

import (
	"bytes"
	"context"
	"fmt"
	"image"
	"image/png"
	"path/filepath"
	"regexp"
	"strings"

	"longtake/video/internal/outfile"
)

// defaultPattern names the files of a PNG sequence when the path is a folder.
const defaultPattern = "frame_%06d.png"

var patternVerb = regexp.MustCompile(`%(0\d{1,2})?d`)

// NewPNG writes one PNG for each frame, numbered from 1, and puts the folder in place at Close.
// path is a folder ("out/frames": files frame_000001.png and on) or a folder with a pattern that
// holds one %d or %06d ("out/frames/shot_%04d.png"). A folder left by an earlier run is replaced as
// a whole; a folder with any other file in it is refused unless Options.Overwrite is set, and then
// other files stay and only files of the pattern are replaced, one by one.
//
// The folder also receives a hidden .longtake.json with size, frame rate and number of frames,
// which the pictures alone do not tell; it is also how a later run knows the folder.
func NewPNG(path string, o Options) (AtomicWriter, error) {
	o, err := o.WithDefaults()
	if err != nil {
		return nil, fmt.Errorf("create %s: %w", path, err)
	}
	dir, pattern := path, defaultPattern
	if strings.EqualFold(filepath.Ext(path), ".png") {
		dir, pattern = filepath.Split(path)
		if dir == "" {
			dir = "."
		}
	}
	at := patternVerb.FindAllStringIndex(pattern, -1)
	if len(at) != 1 || strings.Count(pattern, "%") != 1 {
		return nil, fmt.Errorf("create %s: a PNG sequence wants a folder or a name with one number in it, such as shot_%%06d.png", path)
	}
	ours := regexp.MustCompile("^" + regexp.QuoteMeta(pattern[:at[0][0]]) + `\d+` +
		regexp.QuoteMeta(pattern[at[0][1]:]) + "$")
	out, err := outfile.CreateDir(dir, o.Overwrite, ours.MatchString)
	if err != nil {
		return nil, err
	}
	enc := &pngSequence{out: out, pattern: pattern, opts: o}
	enc.png = png.Encoder{CompressionLevel: png.BestSpeed, BufferPool: enc}
	return newWriter(path, o, enc, enc), nil
}

type pngSequence struct {
	out     *outfile.Dir
	pattern string
	opts    Options
	png     png.Encoder
	state   *png.EncoderBuffer
	rgba    *image.RGBA
	buf     bytes.Buffer
	frames  int
}

// Encode goes through RGBA because the standard encoder has a fast path for it and, finding every
// pixel opaque, writes plain RGB.
func (e *pngSequence) Encode(_ context.Context, f Frame) error {
	e.rgba = f.RGBA(e.rgba)
	e.buf.Reset()
	if err := e.png.Encode(&e.buf, e.rgba); err != nil {
		return err
	}
	e.frames++
	return e.out.WriteFile(fmt.Sprintf(e.pattern, e.frames), e.buf.Bytes())
}

func (e *pngSequence) Finish() error { return nil }
func (e *pngSequence) Discard()      {}

// Commit implements target.
func (e *pngSequence) Commit() error {
	return e.out.Commit(struct {
		Width  int    `json:"width"`
		Height int    `json:"height"`
		FPS    string `json:"fps"`
		Frames int    `json:"frames"`
		Files  string `json:"files"`
	}{e.opts.OutWidth(), e.opts.OutHeight(), e.opts.FPS.String(), e.frames, e.pattern})
}

// Abort implements target.
func (e *pngSequence) Abort() error { return e.out.Abort() }

// Get and Put let the encoder keep its buffers from frame to frame.
func (e *pngSequence) Get() *png.EncoderBuffer  { return e.state }
func (e *pngSequence) Put(b *png.EncoderBuffer) { e.state = b }
