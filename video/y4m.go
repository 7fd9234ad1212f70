package video

import (
	"context"
	"fmt"
	"io"

	"longtake/video/internal/outfile"
)

// NewY4M writes an uncompressed YUV4MPEG2 file: 4:2:0 with centred chroma (C420jpeg) or 4:4:4
// (C444), BT.601 limited range, square pixels. A named pipe or device is written as frames come.
func NewY4M(path string, o Options) (AtomicWriter, error) {
	return NewFile(path, o, func(out io.WriteSeeker, o Options) (Encoder, error) {
		return newY4M(out, o), nil
	})
}

// NewY4MStream writes y4m to a writer that is already open, such as standard output; name stands
// for it in errors. The writer is neither closed nor can it be taken back by Abort.
func NewY4MStream(w io.Writer, name string, o Options) (AtomicWriter, error) {
	o, err := o.WithDefaults()
	if err != nil {
		return nil, fmt.Errorf("create %s: %w", name, err)
	}
	out := outfile.Stream{Writer: w}
	return newWriter(name, o, newY4M(out, o), out), nil
}

type y4m struct {
	out    io.Writer
	planes Planes
	chroma Chroma
	buf    []byte // starts with the file header before the first frame
}

func newY4M(out io.Writer, o Options) *y4m {
	layout := "420jpeg"
	if o.Chroma == Chroma444 {
		layout = "444"
	}
	header := fmt.Sprintf("YUV4MPEG2 W%d H%d F%d:%d Ip A1:1 C%s XCOLORRANGE=LIMITED\n",
		o.OutWidth(), o.OutHeight(), o.FPS.Num, o.FPS.Den, layout)
	return &y4m{out: out, chroma: o.Chroma, buf: []byte(header)}
}

// Encode writes a whole frame in one call, so that a reader of a pipe wakes once.
func (e *y4m) Encode(_ context.Context, f Frame) error {
	e.planes.Convert(f, e.chroma)
	e.buf = append(e.buf, "FRAME\n"...)
	e.buf = append(e.buf, e.planes.Y...)
	e.buf = append(e.buf, e.planes.Cb...)
	e.buf = append(e.buf, e.planes.Cr...)
	_, err := e.out.Write(e.buf)
	e.buf = e.buf[:0]
	return err
}

func (e *y4m) Finish() error { return nil }
func (e *y4m) Discard()      {}
