package rollout

import (
	"fmt"

	"longtake/attention"
	"longtake/compute"
	"longtake/dit"
	"longtake/kvcache"
)

// control is what the network was told of a frame.
type control struct {
	action, heading int
	place           [2]float64
}

// keep hands the latents of the frames from first on, which are history now, to a cache that wants them.
func (s *Session) keep(latent compute.Tensor, first int) {
	cache, ok := s.cache.(kvcache.Recaller)
	if !ok {
		return
	}
	tokens := s.engine.Network.Tokens()
	for f := range latent.Dim(0) / tokens {
		n := cache.Keep(s.dq, first+f, latent.Slice(0, f*tokens, (f+1)*tokens))
		if n < 0 {
			continue
		}
		for len(s.kept) <= n {
			s.kept = append(s.kept, control{})
		}
		s.kept[n] = control{s.actions[f], s.headings[f], [2]float64{s.poses[f].X, s.poses[f].Y}}
	}
}

// recall makes the keys again that the cache wants to show the chunk span and no longer has. Attention is dense: the frame sees itself alone, and
// policies have nothing to choose.
func (s *Session) recall(span kvcache.Span) error {
	cache, ok := s.cache.(kvcache.Recaller)
	if !ok {
		return nil
	}
	s.work.Attend(attention.Dense{}, attention.Dense{})
	defer s.work.Attend(s.self, s.cross)
	for {
		r, ok := cache.Recall(s.dq, span)
		if !ok {
			return nil
		}
		at := s.kept[r.Number]
		s.work.Control(s.dq, []int{at.action}, []int{at.heading}, [][2]float64{at.place})
		s.work.Predict(s.dq, compute.Tensor{}, r.Latent, dit.Pass{Index: len(s.solver.Steps), Clean: true, Chunk: s.chunk}, r.Layers)
		if err := s.dq.Err(); err != nil {
			return fmt.Errorf("keys of an old frame: %w", err)
		}
	}
}
