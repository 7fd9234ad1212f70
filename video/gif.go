package video

import (
	"bytes"
	"compress/lzw"
	"context"
	"io"
)

// Palette says when a GIF changes its 255 colours.
type Palette int

const (
	// PaletteShared keeps one palette while it fits and makes a new one only when the mean squared
	// error of a frame has grown to more than one and a half times (and by more than 4) what it was
	// on the frame the palette was made for. Unchanged pixels then stay truly unchanged.
	PaletteShared Palette = iota
	// PaletteFrame fits a palette to each frame.
	PaletteFrame
)

// NewGIF writes an endlessly looping GIF, frame by frame in constant memory. Frames of at most 255
// colours are exact; others are reduced by variance-based quantisation (Xiaolin Wu, Graphics Gems
// II, 1991) and, when Scale is 1, ordered dithering. Only the rectangle that changed is stored.
//
// GIF counts time in 1/100 s: frame i is shown at i/fps rounded to that unit, so single delays vary
// by one unit (16 fps: 6, 7, 6, 6 ...) and the length of the whole is right. Players
// treat delays under 2 units as 10, so above 50 fps each frame takes 2 units and the video is slow.
func NewGIF(path string, o Options) (AtomicWriter, error) {
	return NewFile(path, o, func(out io.WriteSeeker, o Options) (Encoder, error) {
		return newGIF(out, o), nil
	})
}

// transparent is the index that means "as before"; colours use 0-254.
const transparent = 255

type gifEncoder struct {
	out      io.Writer
	opts     Options
	colours  *quantizer
	global   [3 * 256]byte // the table in the file header
	indices  []byte        // of the current frame, unscaled
	shown    []uint32      // colour on screen after the previous frame, 0xRRGGBB
	lzw      *lzw.Writer
	packed   bytes.Buffer // LZW output
	buf      bytes.Buffer // one frame of the file
	line     []byte
	frame    int64
	duration int64 // sum of delays so far, 1/100 s
}

func newGIF(out io.Writer, o Options) *gifEncoder {
	size := o.Width * o.Height
	return &gifEncoder{
		out: out, opts: o, colours: newQuantizer(o.Scale == 1),
		indices: make([]byte, size), shown: make([]uint32, size),
		line: make([]byte, o.OutWidth()),
	}
}

// scalesItself: indices are enlarged after quantisation, which is Scale² times less work and keeps
// dithering away from visible squares.
func (e *gifEncoder) scalesItself() {}

func (e *gifEncoder) Encode(_ context.Context, f Frame) error {
	e.colours.index(e.indices, f, e.opts.Palette == PaletteFrame)
	table := e.colours.table()
	e.buf.Reset()
	if e.frame == 0 {
		e.global = table
		e.header()
	}
	x0, y0, x1, y1, kept := e.changed()
	e.control(kept)
	n := e.opts.Scale
	e.buf.WriteByte(0x2c) // image descriptor
	e.short(x0 * n)
	e.short(y0 * n)
	e.short((x1 - x0) * n)
	e.short((y1 - y0) * n)
	if table == e.global {
		e.buf.WriteByte(0)
	} else {
		e.buf.WriteByte(0x87) // local table of 256 colours
		e.buf.Write(table[:])
	}
	if err := e.pixels(x0, y0, x1, y1, kept); err != nil {
		return err
	}
	e.frame++
	_, err := e.out.Write(e.buf.Bytes())
	return err
}

func (e *gifEncoder) header() {
	e.buf.WriteString("GIF89a")
	e.short(e.opts.OutWidth())
	e.short(e.opts.OutHeight())
	e.buf.Write([]byte{0xf7, 0, 0}) // global table of 256 colours, 8 bits a channel
	e.buf.Write(e.global[:])
	e.buf.WriteString("\x21\xff\x0bNETSCAPE2.0\x03\x01\x00\x00\x00") // loop for ever
}

// control writes the delay of this frame: up to where the next one starts.
func (e *gifEncoder) control(kept bool) {
	delay := max(2, e.opts.FPS.Ticks(e.frame+1, 100)-e.duration)
	delay = min(delay, 0xffff)
	e.duration += delay
	flags := byte(1 << 2) // leave the picture in place
	if kept {
		flags |= 1
	}
	e.buf.Write([]byte{0x21, 0xf9, 4, flags})
	e.short(int(delay))
	e.buf.Write([]byte{transparent, 0})
}

// changed compares with what is on screen and returns the rectangle that differs. kept says that its unchanged pixels are worth marking transparent: they are at least
// 40 % of it, so the longer runs outweigh the new symbol.
func (e *gifEncoder) changed() (x0, y0, x1, y1 int, kept bool) {
	w, h := e.opts.Width, e.opts.Height
	x0, y0 = w, h
	different := 0
	for y := range h {
		for x := range w {
			i := y*w + x
			c := e.colours.rgb(e.indices[i])
			if e.frame > 0 && c == e.shown[i] {
				continue
			}
			different++
			x0, x1 = min(x0, x), max(x1, x+1)
			y0, y1 = min(y0, y), max(y1, y+1)
		}
	}
	if different == 0 {
		// A frame must show something to last: one transparent pixel.
		return 0, 0, 1, 1, true
	}
	kept = e.frame > 0 && 10*different <= 6*(x1-x0)*(y1-y0)
	return x0, y0, x1, y1, kept
}

// pixels compresses the rectangle, enlarged, and updates shown.
func (e *gifEncoder) pixels(x0, y0, x1, y1 int, kept bool) error {
	e.packed.Reset()
	if e.lzw == nil {
		e.lzw = lzw.NewWriter(&e.packed, lzw.LSB, 8).(*lzw.Writer)
	} else {
		e.lzw.Reset(&e.packed, lzw.LSB, 8)
	}
	n := e.opts.Scale
	for y := y0; y < y1; y++ {
		line := e.line[:0]
		for x := x0; x < x1; x++ {
			i := y*e.opts.Width + x
			index := e.indices[i]
			c := e.colours.rgb(index)
			if kept && e.frame > 0 && c == e.shown[i] {
				index = transparent
			}
			e.shown[i] = c
			for range n {
				line = append(line, index)
			}
		}
		for range n {
			if _, err := e.lzw.Write(line); err != nil {
				return err
			}
		}
	}
	if err := e.lzw.Close(); err != nil {
		return err
	}
	e.buf.WriteByte(8)
	for data := e.packed.Bytes(); len(data) > 0; {
		part := data[:min(255, len(data))]
		e.buf.WriteByte(byte(len(part)))
		e.buf.Write(part)
		data = data[len(part):]
	}
	e.buf.WriteByte(0)
	return nil
}

func (e *gifEncoder) short(v int) { e.buf.Write([]byte{byte(v), byte(v >> 8)}) }

func (e *gifEncoder) Finish() error {
	_, err := e.out.Write([]byte{0x3b})
	return err
}

func (e *gifEncoder) Discard() {}
