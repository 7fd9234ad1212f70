package rollout

import (
	"context"
	"fmt"
	"time"

	"longtake/compute"
	"longtake/dit"
	"longtake/kvcache"
	"longtake/video"
)

// Overlapped is a Session whose clean passes are late: the one of a chunk runs inside the first step of the next, as one forward
// of twice the tokens. The chunks are Session's up to rounding, because the clean keys of a layer are in the cache before the next
// chunk's queries of that layer ask for them (TestOverlappedEqualsSession); a chunk takes as many forwards as steps, not one
// more. Work's memory doubles. The cache must be a kvcache.Paired.
type Overlapped struct {
	Session
	open bool // the last chunk has had no clean pass yet
}

// NewOverlapped starts a timeline.
func (e *Engine) NewOverlapped(ctx context.Context, r Request) (*Overlapped, error) {
	r = e.defaults(r)
	r.Loop = Overlapping
	s := new(Overlapped)
	err := s.init(ctx, e, r)
	if err == nil {
		if _, ok := s.cache.(kvcache.Paired); !ok {
			err = fmt.Errorf("%w: the overlapping loop needs a cache that can have two chunks open, %v cannot: use a window, or the blockwise loop", ErrRequest, r.Cache)
		}
	}
	if err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

// Next makes the next chunk, as Session.Next.
func (s *Overlapped) Next(ctx context.Context, actions ...int) (frames []video.Frame, err error) {
	defer s.guard(&err)
	if s.closed {
		return nil, ErrClosed
	}
	began := time.Now()
	if err := s.denoise(ctx, actions); err != nil {
		return nil, err
	}
	denoised := time.Now()
	frames, err = s.vae.Decode(s.dq, s.latent, s.done())
	s.times = Times{Denoise: denoised.Sub(began), Decode: time.Since(denoised)}
	return frames, err
}

// denoise makes the next chunk's latents and leaves the chunk open.
func (s *Overlapped) denoise(ctx context.Context, actions []int) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	end, rest, err := s.first(actions)
	if err != nil {
		return err
	}
	for _, step := range s.solver.Steps[rest:] {
		if err := ctx.Err(); err != nil {
			return err
		}
		s.work.Predict(s.dq, s.pred, s.latent, dit.Pass{Index: step.Index, Chunk: s.chunk}, s.cache)
		s.solver.Advance(s.dq, s.latent, s.pred, s.scratch, step, s.key())
	}
	s.open, s.place = true, end
	return s.dq.Err()
}

func (s *Overlapped) key() compute.NoiseKey {
	return compute.NoiseKey{Seed: s.seed, Chunk: uint32(s.chunk)}
}

// first begins the next chunk. If the one before it is open, its clean pass and the chunk's first step are one forward; rest is
// the step to go on with.
func (s *Overlapped) first(actions []int) (end place, rest int, err error) {
	if s.due() {
		if err := s.close(); err != nil {
			return end, 0, err
		}
		if err := s.restart(); err != nil {
			return end, 0, err
		}
	}
	if !s.open {
		end, err = s.begin(s.span(), actions)
		if err == nil {
			s.solver.Noise(s.dq, s.latent, s.key())
		}
		return end, 0, err
	}
	cache, next := s.cache.(kvcache.Paired), s.span()
	next.Start += next.Frames // behind the open one
	if end, err = s.beginBy(cache.BeginPair, next, actions); err != nil {
		return end, 0, err
	}
	s.dq.Copy(s.both.Slice(0, 0, s.latent.Dim(0)), s.latent)
	s.open, s.chunk = false, s.chunk+1
	s.solver.Noise(s.dq, s.latent, s.key())
	s.work.PredictPair(s.dq, s.pred, s.both, s.chunk-1, cache)
	if err := s.dq.Err(); err != nil {
		return end, 0, fmt.Errorf("chunk %d: %w", s.chunk, err)
	}
	s.remember(s.both.Slice(0, 0, s.latent.Dim(0)))
	if cache.End(); s.done() < next.Start { // left out: the cache says why
		return end, 0, cache.Begin(s.dq, s.span())
	}
	s.solver.Advance(s.dq, s.latent, s.pred, s.scratch, s.solver.Steps[0], s.key())
	return end, 1, nil
}

// close gives an open chunk its clean pass, so that the state is Session's.
func (s *Overlapped) close() error {
	if s.closed {
		return ErrClosed
	}
	if !s.open {
		return nil
	}
	s.open = false
	return s.commit(s.latent, s.place)
}

// SetPrompt uses another prompt from the next chunk on.
func (s *Overlapped) SetPrompt(ctx context.Context, prompt string) (err error) {
	defer s.guard(&err)
	if err := s.close(); err != nil {
		return err
	}
	return s.Session.SetPrompt(ctx, prompt)
}

// Peek is Session's.
func (s *Overlapped) Peek(ctx context.Context, actions ...int) (frames []video.Frame, err error) {
	defer s.guard(&err)
	if err := s.close(); err != nil {
		return nil, err
	}
	return s.Session.Peek(ctx, actions...)
}

// Force is Session's.
func (s *Overlapped) Force(ctx context.Context, latent []float32, actions ...int) (err error) {
	defer s.guard(&err)
	if err := s.close(); err != nil {
		return err
	}
	return s.Session.Force(ctx, latent, actions...)
}
