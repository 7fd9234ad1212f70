package vae

import (
	"encoding/binary"
	"fmt"
	"math"

	"longtake/compute"
	"longtake/video"
)

// Encoder is one session's way from frames to latents. The first frame gives a latent frame, then every fourth does: a video
// of 1+4n frames is 1+n latent frames. It belongs to one goroutine at a time; its memory is the arena's it was made with.
type Encoder struct {
	chain
	options Options
	tokens  tokens
	wan     *Wan
	seen    int
	latent  compute.Tensor // where the latent frame in work goes
	full    bool
	host    []byte
}

// NewEncoder makes a session's encoder; with a compute.Meter it only counts. At 832x480 and F32 it takes
// 3.2 GB, 0.9 for a single frame. The error wraps compute.ErrUnsupported for a VAE
// that was loaded without its encoder.
func (m *Wan) NewEncoder(a compute.Arena, t compute.Types, o Options) (*Encoder, error) {
	if err := o.check(); err != nil {
		return nil, err
	}
	if m.encoder == nil {
		return nil, fmt.Errorf("encode with a VAE loaded for decoding only: %w", compute.ErrUnsupported)
	}
	depth, frames := 2, 17 // of which a rehearsal sees every memory full and every stage at work
	if o.Single {
		depth, frames = 0, 1
	}
	e := &Encoder{options: o, wan: m, tokens: newTokens(a, o.latent(), len(m.config.Mean), true)}
	e.work, e.stages = newWork(a, t, o.Patches), stages(m.encoder, t.Activation, depth)
	e.out = e.finish
	e.latent = compute.NewTensor(nil, 0, compute.F32, e.tokens.count(), e.tokens.width())
	for range frames {
		e.one(nil)
	}
	if err := e.rehearsed(); err != nil {
		return nil, fmt.Errorf("encoder: %w", err)
	}
	e.Reset()
	return e, nil
}

// Reset makes the next frame the first of a video.
func (e *Encoder) Reset() {
	e.reset()
	e.seen = 0
}

// Push takes the next frame; one without pixels is grey. When a latent frame is complete it is written to latent, the tokens F32 [tokens, 64], and full is
// true: after the first frame and every fourth one from there.
func (e *Encoder) Push(dq compute.Queue, latent compute.Tensor, frame video.Frame) (full bool, err error) {
	if frame.Width != e.options.Width || frame.Height != e.options.Height {
		return false, fmt.Errorf("start frame is %dx%d, the model makes %dx%d", frame.Width, frame.Height, e.options.Width, e.options.Height)
	}
	if e.options.Single && e.seen > 0 {
		return false, fmt.Errorf("start frame %d: the encoder was made for a single one", e.seen)
	}
	if latent.Rank != 2 || latent.DType != compute.F32 || latent.Shape[0] != e.tokens.count() || latent.Shape[1] != e.tokens.width() || !latent.Contiguous() {
		panic(fmt.Sprintf("vae: encode into %v, want tokens f32[%d %d]", latent, e.tokens.count(), e.tokens.width()))
	}
	b := e.host[:0]
	for _, v := range frame.Pix {
		b = binary.LittleEndian.AppendUint32(b, math.Float32bits(float32(v)/127.5-1))
	}
	if frame.Pix == nil { // zeros
		b = append(b, make([]byte, 12*frame.Width*frame.Height)...)
	}
	e.host = b
	return e.push(dq, latent, b)
}

// push is Push for pixels F32 [height*width, 3] in [-1, 1].
func (e *Encoder) push(dq compute.Queue, latent compute.Tensor, pixels []byte) (bool, error) {
	e.dq, e.latent, e.full = dq, latent, false
	e.tokens.prepare(dq)
	e.one(pixels)
	return e.full, dq.Err()
}

// one runs a frame through the network.
func (e *Encoder) one(pixels []byte) {
	g := grid{e.options.Height, e.options.Width}
	x := e.take(compute.F32, g.pixels(), 3)
	e.dq.Upload(x, pixels)
	if e.dt != compute.F32 {
		y := e.take(e.dt, g.pixels(), 3)
		e.dq.Copy(y, x)
		e.put(x)
		x = y
	}
	e.seen++
	e.stages[0].push(&e.chain, 0, x, g)
}

// finish takes mean and log variance of a latent frame, F32 [pixels, 2*channels]: the mean, normalised, is the latent.
func (e *Encoder) finish(x compute.Tensor, g grid) {
	z := e.take(compute.F32, g.pixels(), e.tokens.channels)
	e.affine(z, x.Slice(1, 0, e.tokens.channels), e.wan.unscale, e.wan.unshift)
	e.dq.Gather(e.latent.Reshape(g.pixels(), e.tokens.channels), z, e.tokens.index, false)
	e.put(z)
	e.full = true
}
