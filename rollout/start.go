package rollout

import (
	"context"
	"fmt"

	"longtake/compute"
	"longtake/kvcache"
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
	var encoder Encoder
	arena, err := e.arena(func(a compute.Arena) error {
		encoder, err = e.NewEncoder(a, len(r.Start))
		return err
	})
	if err != nil {
		return fmt.Errorf("start frames: %w", err)
	}
	defer arena.Free()
	latents, tokens := e.LatentFrames(len(r.Start)), e.Network.Tokens()
	size, held := (latents-1)%e.Network.ChunkFrames+1, 0
	for i, frame := range r.Start {
		if err := ctx.Err(); err != nil {
			return err
		}
		full, err := encoder.Push(s.dq, s.latent.Slice(0, held*tokens, (held+1)*tokens), frame)
		if err != nil {
			return fmt.Errorf("start frame %d: %w", i, err)
		}
		if full {
			held++
		}
		if held < size {
			continue
		}
		if err := s.given(s.latent.Slice(0, 0, size*tokens), size, r.StartActions); err != nil {
			return err
		}
		size, held = e.Network.ChunkFrames, 0
	}
	return s.dq.Wait() // the encoder's memory goes
}

// given makes latents of so many frames history; actions are those of all start frames.
func (s *Session) given(latent compute.Tensor, frames int, actions []int) error {
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
