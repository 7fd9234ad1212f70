package serve

import (
	"bytes"
	"fmt"
	"image/jpeg"
	"image/png"
	"sync"

	"longtake/api"
	"longtake/video"
)

// jpegQuality keeps small frames clean.
const jpegQuality = 94

// picture is a published frame. Its encodings are made once, by whoever asks first.
type picture struct {
	header api.FrameHeader
	frame  video.Frame
	from   *viewer // whose control the frame is the first to obey
	echo   float64

	mu      sync.Mutex
	encoded map[string]encoding
}

type encoding struct {
	data          []byte
	width, height int
}

// formats are the names of the encodings.
func knownFormat(name string) bool { return name == "jpeg" || name == "png" || name == "raw" }

// encode returns the frame in a format. The bytes are shared and must not be changed.
func (p *picture) encode(format string) (encoding, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if e, ok := p.encoded[format]; ok {
		return e, nil
	}
	e, err := encodeFrame(p.frame, format)
	if err != nil {
		return e, err
	}
	if p.encoded == nil {
		p.encoded = map[string]encoding{}
	}
	p.encoded[format] = e
	return e, nil
}

// encodeFrame encodes a frame. Small ones are doubled for JPEG, so that its halved colour grid is the frame's own.
func encodeFrame(f video.Frame, format string) (e encoding, err error) {
	var b bytes.Buffer
	switch format {
	case "raw":
		return encoding{f.Pix, f.Width, f.Height}, nil
	case "none": // for viewers who see the frames in another way
		return encoding{nil, f.Width, f.Height}, nil
	case "png":
		coder := png.Encoder{CompressionLevel: png.BestSpeed}
		err = coder.Encode(&b, f.RGBA(nil))
	case "jpeg":
		if f.Width <= 256 && f.Height <= 256 {
			f = f.Upscale(2, nil)
		}
		err = jpeg.Encode(&b, f.RGBA(nil), &jpeg.Options{Quality: jpegQuality})
	default:
		return e, badf("unknown format %.20q: jpeg, png and raw are known", format)
	}
	if err != nil {
		return e, fmt.Errorf("encode frame as %s: %w", format, err)
	}
	return encoding{b.Bytes(), f.Width, f.Height}, nil
}
