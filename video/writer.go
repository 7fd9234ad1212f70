package video

import (
	"context"
	"errors"
	"fmt"
	"io"

	"longtake/video/internal/outfile"
)

// Writer takes frames in order and puts them somewhere: a file, a terminal, a viewer's connection.
// WriteFrame must not keep f.Pix after it returns. Close ends the output and reports whether all of
// it arrived. A Writer is used by one goroutine at a time.
type Writer interface {
	WriteFrame(ctx context.Context, f Frame) error
	Close() error
}

// AtomicWriter is a Writer whose output appears at Close or not at all. After a failed WriteFrame
// (a cancelled context is one) everything is already cleaned away and Close returns the same error.
// Abort discards the output; after a Close it does nothing, so `defer w.Abort()` is the usual call.
type AtomicWriter interface {
	Writer
	Abort() error
}

// Errors that callers may test for with errors.Is.
var (
	ErrClosed   = errors.New("writer is closed")
	ErrAborted  = errors.New("writing was aborted")
	ErrNoFrames = errors.New("no frames were written")
)

// Options describe the video to write. Width, Height and FPS are required.
type Options struct {
	Width, Height int  // of the frames that will be given, before Scale; every frame must match
	FPS           Rate // frames per second

	// Scale enlarges every pixel to a Scale x Scale square (nearest neighbour). 0 means 1.
	Scale int
	// Quality runs from 1 (small) to 100 (good); 0 takes the format's default. WebM: VP8 quality,
	// default 85. MP4: x264 crf 40 - 0.3 Quality, default crf 17. Others are not affected.
	Quality int
	// Overwrite lets a PNG sequence go into a folder that holds other files. Single files are
	// always replaced.
	Overwrite bool
	// Chroma is the layout of a y4m file.
	Chroma Chroma
	// Palette says when a GIF changes its colours.
	Palette Palette
	// FFmpeg names the program for MP4; empty means ffmpeg on PATH.
	FFmpeg string
}

// MaxSide is the largest width or height after scaling that all formats can hold (VP8's limit).
const MaxSide = 16383

// WithDefaults returns o with zero values replaced, or an error that says which value is bad.
func (o Options) WithDefaults() (Options, error) {
	if o.Scale == 0 {
		o.Scale = 1
	}
	if o.Scale < 1 || o.Scale > 64 {
		return o, fmt.Errorf("scale %d: must be between 1 and 64", o.Scale)
	}
	if o.Width < 1 || o.Height < 1 || o.Width > MaxSide/o.Scale || o.Height > MaxSide/o.Scale {
		return o, fmt.Errorf("frame size %dx%d at scale %d: sides must be between 1 and %d after scaling",
			o.Width, o.Height, o.Scale, MaxSide)
	}
	if o.Quality < 0 || o.Quality > 100 {
		return o, fmt.Errorf("quality %d: must be between 1 and 100", o.Quality)
	}
	if o.Chroma != Chroma420 && o.Chroma != Chroma444 {
		return o, fmt.Errorf("chroma layout %d: unknown", int(o.Chroma))
	}
	if o.Palette != PaletteShared && o.Palette != PaletteFrame {
		return o, fmt.Errorf("palette mode %d: unknown", int(o.Palette))
	}
	return o, o.FPS.Check()
}

// OutWidth is the width of the file's picture.
func (o Options) OutWidth() int { return o.Width * max(o.Scale, 1) }

// OutHeight is the height of the file's picture.
func (o Options) OutHeight() int { return o.Height * max(o.Scale, 1) }

// Encoder is one file format at work. Encode gets frames that are of the promised size and already
// scaled. Finish writes what the format keeps for the end. Discard is called instead of Finish, or
// after a failed Finish, to let go of resources; files are removed by the caller, which also adds
// the path to every error.
type Encoder interface {
	Encode(ctx context.Context, f Frame) error
	Finish() error
	Discard()
}

// target is where bytes go: outfile.File, outfile.Stream, or a folder.
type target interface {
	Commit() error
	Abort() error
}

// NewFile makes the atomic writer of a format that fills one seekable file front to back. open gets
// the hidden temporary file.
func NewFile(path string, o Options, open func(io.WriteSeeker, Options) (Encoder, error)) (AtomicWriter, error) {
	o, err := o.WithDefaults()
	if err != nil {
		return nil, fmt.Errorf("create %s: %w", path, err)
	}
	out, err := outfile.Create(path)
	if err != nil {
		return nil, err
	}
	enc, err := open(out, o)
	if err != nil {
		out.Abort()
		return nil, fmt.Errorf("create %s: %w", path, err)
	}
	return newWriter(path, o, enc, out), nil
}

// scalesItself marks encoders that want frames as they are and apply Options.Scale on their own.
type scalesItself interface{ scalesItself() }

// writer is the part that all formats share: order of calls, sizes, scaling, and cleaning up.
type writer struct {
	path   string
	opts   Options
	enc    Encoder
	out    target
	frames int
	scaled []byte
	done   bool  // nothing is open any more
	err    error // why, if not a successful Close
}

func newWriter(path string, o Options, enc Encoder, out target) *writer {
	w := &writer{path: path, opts: o, enc: enc, out: out}
	if _, ok := enc.(scalesItself); !ok && o.Scale > 1 {
		w.scaled = make([]byte, 3*o.OutWidth()*o.OutHeight())
	}
	return w
}

// WriteFrame implements Writer.
func (w *writer) WriteFrame(ctx context.Context, f Frame) error {
	if w.done {
		if w.err != nil {
			return w.err
		}
		return w.named(ErrClosed)
	}
	if err := w.encode(ctx, f); err != nil {
		return w.fail(err)
	}
	w.frames++
	return nil
}

func (w *writer) encode(ctx context.Context, f Frame) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := f.Check(); err != nil {
		return err
	}
	if f.Width != w.opts.Width || f.Height != w.opts.Height {
		return fmt.Errorf("frame %d is %dx%d, the video is %dx%d", f.Index, f.Width, f.Height, w.opts.Width, w.opts.Height)
	}
	if w.scaled != nil {
		f = f.Upscale(w.opts.Scale, w.scaled)
	}
	return w.enc.Encode(ctx, f)
}

// Close implements Writer. Without any frame it is an error, for no format can say "nothing".
func (w *writer) Close() error {
	if w.done {
		return w.err
	}
	if w.frames == 0 {
		return w.fail(ErrNoFrames)
	}
	if err := w.enc.Finish(); err != nil {
		return w.fail(err)
	}
	w.done = true
	if err := w.out.Commit(); err != nil {
		w.err = w.named(err)
	}
	return w.err
}

// Abort implements AtomicWriter.
func (w *writer) Abort() error {
	if w.done {
		return nil
	}
	if err := w.discard(w.named(ErrAborted)); err != nil {
		return fmt.Errorf("remove unfinished %s: %w", w.path, err)
	}
	return nil
}

// fail cleans up and returns err with the path; every later call returns the same.
func (w *writer) fail(err error) error {
	w.discard(w.named(err))
	return w.err
}

func (w *writer) discard(why error) error {
	w.done, w.err = true, why
	w.enc.Discard()
	return w.out.Abort()
}

func (w *writer) named(err error) error { return fmt.Errorf("write %s: %w", w.path, err) }
