package rollout

import (
	"context"
	"fmt"
	"time"

	"longtake/compute"
	"longtake/text"
	"longtake/video"
)

// Ahead is a Session that decodes a chunk beside the next one, on a queue of its own: Next has the following chunk made before it
// waits for its frames, so that the device is never without work between two calls. The frames are Session's. It is for models
// without controls, since a chunk begins before its turn; a new prompt makes the chunk in work begin again. It takes a second copy of
// a chunk's latents and another queue's work space.
type Ahead struct {
	Session
	beside compute.Queue  // decodes
	shown  compute.Tensor // clean latents that are decoded, F32 [chunk tokens, values]
	store  compute.Arena
	open   bool // a chunk is in work whose keys are not history yet
	end    place
	chunks int // of the video, 0 without end
}

// NewAhead starts a timeline.
func (e *Engine) NewAhead(ctx context.Context, r Request) (*Ahead, error) {
	if err := e.check(r); err != nil {
		return nil, err
	}
	if len(e.Turns) > 0 {
		return nil, fmt.Errorf("%w: the loop ahead begins chunks before their actions are known: %s needs another", ErrRequest, e.Name)
	}
	r = e.defaults(r)
	r.Loop, r.Peek = AheadOfTime, false
	s := &Ahead{chunks: r.Chunks}
	err := s.init(ctx, e, r)
	if err == nil {
		s.beside, err = e.Device.NewQueue()
	}
	if err == nil {
		s.store, err = e.arena(func(a compute.Arena) error {
			s.shown = a.Tensor(compute.F32, s.latent.Dim(0), s.latent.Dim(1))
			return nil
		})
	}
	if err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

// Next returns the frames of the next chunk, and leaves the one after it in work. A cancelled context ends the chunk in work
// early; it is begun again by the next call.
func (s *Ahead) Next(ctx context.Context, _ ...int) (frames []video.Frame, err error) {
	defer s.guard(&err)
	began := time.Now()
	if s.chunks > 0 && s.chunk >= s.chunks {
		return nil, ctx.Err()
	}
	if err := s.launch(ctx); err != nil {
		return nil, err
	}
	first, err := s.land()
	if err != nil {
		return nil, err
	}
	landed := time.Now()
	if first == 0 { // nothing is on the screen yet: its frames do not wait for the chunk after it
		if frames, err = s.vae.Decode(s.beside, s.shown, first); err != nil {
			return nil, err
		}
	}
	if s.chunks == 0 || s.chunk < s.chunks {
		if err := s.launch(ctx); err != nil && ctx.Err() == nil {
			return nil, err
		}
	}
	if first > 0 {
		frames, err = s.vae.Decode(s.beside, s.shown, first)
	}
	s.times = Times{Denoise: landed.Sub(began), Decode: time.Since(landed)}
	return frames, err
}

// launch has the next chunk made, unless one is in work.
func (s *Ahead) launch(ctx context.Context) (err error) {
	if s.open {
		return nil
	}
	if s.end, err = s.denoise(ctx, nil); err != nil {
		return err
	}
	s.replace()
	if s.end, err = s.write(s.latent, s.end); err != nil {
		return err
	}
	s.open = true
	return nil
}

// land makes the chunk in work history and gives its latents to the decoder. It returns its first latent frame.
func (s *Ahead) land() (first int, err error) {
	s.dq.Copy(s.shown, s.latent)
	compute.Follow(s.beside, s.dq)
	first, s.open = s.done(), false
	s.finish(s.latent, s.end)
	return first, s.dq.Err()
}

// Settle gives up the chunk in work, so that the state is Session's after the frames that were returned.
func (s *Ahead) Settle() { s.open = false }

// Force is Session's.
func (s *Ahead) Force(ctx context.Context, latent []float32, actions ...int) error {
	s.Settle()
	return s.Session.Force(ctx, latent, actions...)
}

// SetPrompt uses another prompt from the next chunk on that is begun.
func (s *Ahead) SetPrompt(ctx context.Context, prompt string) error {
	s.Settle()
	return s.Session.SetPrompt(ctx, prompt)
}

// Unknown are the words of the prompt that the model does not know.
func (s *Ahead) Unknown() []text.Unknown { return s.Session.Unknown() }

// Latent returns the clean latents of the chunk whose frames were returned last; Latents downloads it.
func (s *Ahead) Latent() compute.Tensor { return s.shown }

// Latents downloads Latent.
func (s *Ahead) Latents() ([]float32, error) { return Download(s.beside, s.shown) }

// Bytes returns the memory of the session.
func (s *Ahead) Bytes() int64 {
	if s.store == nil {
		return s.Session.Bytes()
	}
	return s.Session.Bytes() + s.store.Bytes()
}

// Close gives everything back. It may be called twice.
func (s *Ahead) Close() {
	if s.beside != nil {
		s.beside.Close()
		s.beside = nil
	}
	s.Session.Close()
	if s.store != nil {
		s.store.Free()
		s.store = nil
	}
}
