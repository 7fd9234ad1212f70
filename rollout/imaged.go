package rollout

import (
	"encoding/binary"
	"fmt"
	"math"

	"longtake/compute"
	"longtake/kvcache"
	"longtake/video"
)

// imaged is what a network that makes videos from an image (dit.Config.Given) is given beside the noise: of every latent frame a mask, 1
// where the frame is given, and the encoder's latents of a video that is the image and then grey (Wan-Video, wan/image2video.py).
// The image is no history: the network makes the first frame, too.
type imaged struct {
	encoder Encoder
	image   video.Frame
	next    int            // latent frame that the encoder gives next
	first   int            // of the chunk that given holds, -1 for none
	held    compute.Tensor // F32 [tokens, values]: the encoder's newest latent frame
	given   compute.Tensor // F32 [chunk tokens, places, channels given]
	ones    compute.Tensor // F32 [tokens, places, channels of mask]
	zeros   compute.Tensor // likewise
	filled  bool           // ones are
}

// steadyLatents is after how many latent frames the grey ones no longer change: the encoder of Wan-2.1 sees less than that of the past.
const steadyLatents = 32

// FromImage reports whether the network makes videos from an image, which is then the one start frame of a request and no frame of
// the video.
func (e *Engine) FromImage() bool { return e.Network.Given > 0 }

// places are the values of a token that a channel has.
func (e *Engine) places() int { return e.Network.Conv[1] * e.Network.Conv[2] }

func (x *imaged) allocate(e *Engine, a compute.Arena) (err error) {
	c := e.Network.Config
	if !e.FromImage() {
		return nil
	}
	if e.NewEncoder == nil {
		return fmt.Errorf("%w: model %s makes videos from an image: it needs a start frame, and its encoder, which is not loaded", ErrRequest, e.Name)
	}
	if x.encoder, err = e.NewEncoder(a, 2); err != nil {
		return err
	}
	n, places := c.Tokens(), e.places()
	mask := c.Given - c.In/places
	x.held, x.given = a.Tensor(compute.F32, n, c.In), a.Tensor(compute.F32, c.ChunkFrames*n, places, c.Given)
	x.ones, x.zeros, x.first = a.Tensor(compute.F32, n, places, mask), a.Tensor(compute.F32, n, places, mask), -1
	return nil
}

// see gives the network what belongs to the latent frames of span, which follow those of the call before or are the same.
func (s *Session) see(span kvcache.Span) error {
	e, x := s.engine, &s.imaged
	if !e.FromImage() {
		return nil
	}
	n, places := e.Network.Tokens(), e.places()
	mask := x.ones.Dim(2)
	if x.first != span.Start {
		if span.Start != x.next {
			return fmt.Errorf("latent frame %d after %d: a video from an image is made in order", span.Start, x.next-1)
		}
		x.fill(s.dq)
		for f := range span.Frames {
			if err := x.push(s.dq, max(e.Stride, 1)); err != nil {
				return err
			}
			to, known := x.given.Slice(0, f*n, (f+1)*n), x.zeros
			if span.Start+f == 0 {
				known = x.ones
			}
			s.dq.Copy(to.Slice(2, 0, mask), known)
			s.dq.Copy(to.Slice(2, mask, e.Network.Given), x.held.Reshape(n, places, e.Network.In/places))
		}
		x.first = span.Start
	}
	s.work.Given(s.dq, x.given.Slice(0, 0, span.Frames*n).Reshape(span.Frames*n, places*e.Network.Given))
	return s.dq.Err()
}

// push brings the encoder to the next latent frame.
func (x *imaged) push(dq compute.Queue, stride int) error {
	frames := stride
	switch {
	case x.next == 0:
		frames = 1
	case x.next >= steadyLatents:
		frames = 0 // as the one before
	}
	for i := range frames {
		frame := video.Frame{Width: x.image.Width, Height: x.image.Height} // grey
		if x.next == 0 {
			frame = x.image
		}
		full, err := x.encoder.Push(dq, x.held, frame)
		if err != nil {
			return fmt.Errorf("start image, latent frame %d: %w", x.next, err)
		}
		if full != (i == frames-1) {
			return fmt.Errorf("start image, latent frame %d: the encoder does not keep to %d frames", x.next, stride)
		}
	}
	x.next++
	return nil
}

// fill writes the ones.
func (x *imaged) fill(dq compute.Queue) {
	if x.filled {
		return
	}
	x.filled = true
	b := make([]byte, 0, x.ones.Bytes())
	for range x.ones.Elems() {
		b = binary.LittleEndian.AppendUint32(b, math.Float32bits(1))
	}
	dq.Upload(x.ones, b)
}
