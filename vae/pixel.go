// Package vae turns latents into frames and frames into latents. Pixels is the trivial one: latents that are pixels.
package vae

import (
	"encoding/binary"
	"fmt"
	"math"

	"longtake/compute"
	"longtake/video"
)

// Pixels is the decoder of models whose tokens are patches of pixels in [-1, 1], row-major, each patch (row, column, channel).
// It is not safe for concurrent use: one for each session.
type Pixels struct {
	Rows, Columns, Patch int
	host                 []byte
}

// Width is the columns of pixels of a frame.
func (p *Pixels) Width() int { return p.Columns * p.Patch }

// Height is the rows of pixels of a frame.
func (p *Pixels) Height() int { return p.Rows * p.Patch }

// Feed does nothing: a latent frame is decoded without what came before.
func (p *Pixels) Feed(compute.Queue, compute.Tensor, int) error { return nil }

// Again is true for the same reason.
func (p *Pixels) Again() bool { return true }

// Decode downloads the chunk's latents F32 [frames*tokens, patch*patch*3] and returns its frames, numbered from first. The
// frames own their pixels.
func (p *Pixels) Decode(dq compute.Queue, latent compute.Tensor, first int) ([]video.Frame, error) {
	tokens, values := p.Rows*p.Columns, p.Patch*p.Patch*3
	if n := int(latent.Bytes()); cap(p.host) < n {
		p.host = make([]byte, n)
	}
	host := p.host[:latent.Bytes()]
	dq.Download(host, latent)
	if err := dq.Err(); err != nil {
		return nil, err
	}
	frames := make([]video.Frame, latent.Dim(0)/tokens)
	for f := range frames {
		frame := video.NewFrame(p.Width(), p.Height())
		frame.Index = first + f
		for t := range tokens {
			if !p.patch(frame.Pix, t, host[(f*tokens+t)*values*4:]) {
				return nil, fmt.Errorf("frame %d: the network's output is not a number at token %d", frame.Index, t)
			}
		}
		frames[f] = frame
	}
	return frames, nil
}

// patch writes token t's pixels: round((x+1)*127.5), as train/infer.py. It reports false if one is NaN.
func (p *Pixels) patch(pix []byte, t int, values []byte) bool {
	i := 0
	for y := range p.Patch {
		row := ((t/p.Columns*p.Patch+y)*p.Width() + t%p.Columns*p.Patch) * 3
		for x := range 3 * p.Patch {
			v := float64(math.Float32frombits(binary.LittleEndian.Uint32(values[4*i:])))
			if v != v {
				return false
			}
			pix[row+x] = uint8(math.RoundToEven(min(max((v+1)*127.5, 0), 255)))
			i++
		}
	}
	return true
}

// Push uploads a frame as latent tokens F32 [tokens, patch*patch*3]: x/127.5 - 1. Every frame is a latent frame.
func (p *Pixels) Push(dq compute.Queue, latent compute.Tensor, frame video.Frame) (full bool, err error) {
	if frame.Width != p.Width() || frame.Height != p.Height() {
		return false, fmt.Errorf("start frame is %dx%d, the model makes %dx%d", frame.Width, frame.Height, p.Width(), p.Height())
	}
	b := make([]byte, 0, latent.Bytes())
	for t := range p.Rows * p.Columns {
		for y := range p.Patch {
			row := ((t/p.Columns*p.Patch+y)*p.Width() + t%p.Columns*p.Patch) * 3
			for _, v := range frame.Pix[row : row+3*p.Patch] {
				b = binary.LittleEndian.AppendUint32(b, math.Float32bits(float32(v)/127.5-1))
			}
		}
	}
	dq.Upload(latent, b)
	return true, dq.Err()
}
