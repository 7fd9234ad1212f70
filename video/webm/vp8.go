package webm

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"image"
	"sync"

	"github.com/deepteams/webp"

	"longtake/video"
)

// KeyFrameEncoder makes one VP8 key frame (RFC 6386: the raw bit stream, no container) of each
// picture. The slice it returns is valid until the next call. It is used by one goroutine.
type KeyFrameEncoder interface {
	EncodeKeyFrame(f video.Frame) ([]byte, error)
}

// DefaultQuality is used when none is asked for.
const DefaultQuality = 85

// method is the encoder's effort, 0-6. 3 is the least that gives a frame the same bytes whatever was
// encoded before: below it, and in its one-worker path, the encoder reuses buffers that still hold
// the previous picture's choices (seen with v1.1.0; the stream is valid all the same).
const method = 3

// NewVP8 returns an encoder of the given quality, 1-100; 0 means DefaultQuality. It converts RGB to
// BT.601 limited-range 4:2:0, averaging chroma in linear light as libwebp does.
func NewVP8(quality int) KeyFrameEncoder {
	if quality == 0 {
		quality = DefaultQuality
	}
	o := webp.DefaultOptions()
	o.Quality = float32(quality)
	o.Method = method
	return &vp8{opts: o}
}

// fillTables makes the encoder fill in its tables, which it does at its first picture without a lock.
var fillTables = sync.OnceFunc(func() {
	e := &vp8{opts: webp.DefaultOptions()}
	e.opts.Method = method
	_, _ = e.encode(video.NewFrame(64, 64)) // the next picture tells
})

type vp8 struct {
	opts *webp.EncoderOptions
	rgba *image.RGBA
	buf  bytes.Buffer
}

func (e *vp8) EncodeKeyFrame(f video.Frame) ([]byte, error) {
	fillTables()
	return e.encode(f)
}

func (e *vp8) encode(f video.Frame) ([]byte, error) {
	e.rgba = f.RGBA(e.rgba)
	e.buf.Reset()
	if err := webp.Encode(&e.buf, e.rgba, e.opts); err != nil {
		return nil, err
	}
	data, err := vp8Chunk(e.buf.Bytes())
	if err != nil {
		return nil, err
	}
	if len(data) < 10 || data[0]&1 != 0 || !bytes.Equal(data[3:6], []byte{0x9d, 0x01, 0x2a}) {
		return nil, errors.New("vp8: encoder did not return a key frame")
	}
	return data, nil
}

// vp8Chunk finds the bit stream in a WebP file: RIFF, then chunks of four letters, size, data,
// padded to even length.
func vp8Chunk(file []byte) ([]byte, error) {
	if len(file) < 12 || string(file[:4]) != "RIFF" || string(file[8:12]) != "WEBP" {
		return nil, errors.New("vp8: encoder did not return a webp file")
	}
	for rest := file[12:]; len(rest) >= 8; {
		size := int64(binary.LittleEndian.Uint32(rest[4:]))
		if size > int64(len(rest)-8) {
			return nil, fmt.Errorf("vp8: chunk of %d bytes is cut short", size)
		}
		if string(rest[:4]) == "VP8 " {
			return rest[8 : 8+size], nil
		}
		rest = rest[min(8+size+size&1, int64(len(rest))):]
	}
	return nil, errors.New("vp8: no lossy picture in webp file")
}
