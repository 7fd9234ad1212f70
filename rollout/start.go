package rollout

import (
	"context"
	"fmt"

	"longtake/compute"
	"longtake/kvcache"
	"longtake/video"
)

// start encodes the start frames and runs their latents through the clean pass, in chunks like any other; what does not fill
// a chunk comes first, so that a start image is a chunk of one latent frame (Self-Forcing: independent first frame).
func (s *Session) start(ctx context.Context, r Request) (err error) {
	if len(r.Start) == 0 {
		return nil
	}
	e := s.engine
	if e.FromImage() {
		s.imaged.image = r.Start[0]
		return nil
	}
	return e.encode(ctx, s.dq, r.Start, (e.LatentFrames(len(r.Start))-1)%e.Network.ChunkFrames+1, s.latent, func(latent compute.Tensor) error {
		return s.given(latent, latent.Dim(0)/e.Network.Tokens(), r.StartActions)
	})
}

// encode brings frames to latents and hands them to take, first so many latent frames, then chunk by chunk; they lie in latent, which has
// room for a chunk.
func (e *Engine) encode(ctx context.Context, dq compute.Queue, frames []video.Frame, size int, latent compute.Tensor, take func(compute.Tensor) error) (err error) {
	if len(frames) == 0 {
		return nil
	}
	var encoder Encoder
	arena, err := e.arena(func(a compute.Arena) error {
		encoder, err = e.NewEncoder(a, len(frames))
		return err
	})
	if err != nil {
		return fmt.Errorf("start frames: %w", err)
	}
	defer arena.Free()
	tokens, held := e.Network.Tokens(), 0
	for i, frame := range frames {
		if err := ctx.Err(); err != nil {
			return err
		}
		full, err := encoder.Push(dq, latent.Slice(0, held*tokens, (held+1)*tokens), frame)
		if err != nil {
			return fmt.Errorf("start frame %d: %w", i, err)
		}
		if full {
			held++
		}
		if held < size {
			continue
		}
		if err := take(latent.Slice(0, 0, size*tokens)); err != nil {
			return err
		}
		size, held = e.Network.ChunkFrames, 0
	}
	return dq.Wait() // the encoder's memory goes
}

// given makes latents of so many frames history; actions are those of all start frames.
func (s *Session) given(latent compute.Tensor, frames int, actions []int) error {
	s.starting = true
	defer func() { s.starting = false }()
	first := s.done()
	end, err := s.begin(kvcache.Span{Start: first, Frames: frames}, actions[min(first, len(actions)):])
	if err != nil {
		return err
	}
	if err := s.commit(latent, end); err != nil {
		return err
	}
	return s.vae.Feed(s.dq, latent, first)
}
