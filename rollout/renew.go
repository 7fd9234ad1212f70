package rollout

import (
	"fmt"

	"longtake/attention"
	"longtake/compute"
	"longtake/dit"
	"longtake/kvcache"
)

// Restart begins the history anew when it and the next chunk would be more than After latent frames: only the newest Overlap of
// them stay, and go through the clean pass again without what they once saw (CausVid's long videos). The zero value never does.
type Restart struct{ After, Overlap int }

// renewal is what a session needs to write its history again: under a new prompt, or cut short.
type renewal struct {
	refresh Refresh
	restart Restart
	frames  int            // latents that are kept
	latents compute.Tensor // F32 [frames*tokens, values], a ring by latent frame
	staged  compute.Tensor // F32 [wide*tokens, values], frames in order
}

// refreshFor is the model's refresh, or what comes nearest to it with a request's policies.
func (e *Engine) refreshFor(r Request) Refresh {
	windowed, _ := r.Cache.(kvcache.Window)
	switch {
	case e.Refresh <= NoRefresh || len(e.Turns) > 0 || e.FromImage() || windowed.Frames(e.CacheShape) == 0 || r.Cache != windowed:
		return NoRefresh
	case e.Refresh == RefreshWindow && (!dense(r) || e.CacheShape.Clamp > 0):
		return RefreshChunks
	}
	return e.Refresh
}

func dense(r Request) bool { return attention.Whole(r.Self) && attention.Whole(r.Cross) }

// newRenewal checks what a request wants.
func newRenewal(e *Engine, r Request) (n renewal, err error) {
	n.refresh, n.restart = r.Refresh, r.Restart
	window, ok := r.Cache.(kvcache.Window)
	chunk := e.Network.ChunkFrames
	switch {
	case n.refresh <= NoRefresh && n.restart == (Restart{}):
		return n, nil
	case len(e.Turns) > 0:
		return n, fmt.Errorf("%w: the history of a model with actions cannot be written again", ErrRequest)
	case e.FromImage():
		return n, fmt.Errorf("%w: the history of a video from an image is not written again (refresh %v, restart %+v): use refresh none", ErrRequest, n.refresh, n.restart)
	case !ok:
		return n, fmt.Errorf("%w: %v cannot be written again (refresh %v, restart %+v): use a window, or refresh none, under which what it keeps goes on speaking of the old prompt", ErrRequest, r.Cache, n.refresh, n.restart)
	case n.refresh > NoRefresh && window.Frames(e.CacheShape) == 0:
		return n, fmt.Errorf("%w: refresh %v of a history without end: use a window", ErrRequest, n.refresh)
	case n.refresh == RefreshWindow && (!dense(r) || e.CacheShape.Clamp > 0):
		return n, fmt.Errorf("%w: refresh %v needs dense attention and a model without clamp: use refresh %v", ErrRequest, n.refresh, RefreshChunks)
	case n.restart != (Restart{}) && (n.restart.Overlap < 0 || n.restart.Overlap+chunk > n.restart.After):
		return n, fmt.Errorf("%w: restart after %d latent frames with %d of them: want at least a chunk of %d more", ErrRequest, n.restart.After, n.restart.Overlap, chunk)
	}
	n.frames = n.restart.Overlap
	if n.refresh > NoRefresh {
		n.frames = max(n.frames, window.Frames(e.CacheShape))
	}
	return n, nil
}

// wide is the frames of the widest forward.
func (n *renewal) wide() int {
	if n.refresh == RefreshWindow {
		return n.frames
	}
	return 0
}

func (n *renewal) allocate(e *Engine, a compute.Arena) {
	if c := e.Network.Config; n.frames > 0 {
		n.latents = a.Tensor(compute.F32, n.frames*c.Tokens(), c.In)
		n.staged = a.Tensor(compute.F32, max(n.wide(), c.ChunkFrames)*c.Tokens(), c.In)
	}
}

// remember keeps the latents of the chunk that is about to become history.
func (s *Session) remember(latent compute.Tensor) {
	n, tokens := &s.renewal, s.engine.Network.Tokens()
	if n.frames == 0 {
		return
	}
	for f := range latent.Dim(0) / tokens {
		at := (s.done() + f) % n.frames * tokens
		s.dq.Copy(n.latents.Slice(0, at, at+tokens), latent.Slice(0, f*tokens, (f+1)*tokens))
	}
}

// stage returns the latents of frames that are still kept.
func (s *Session) stage(span kvcache.Span) compute.Tensor {
	n, tokens := &s.renewal, s.engine.Network.Tokens()
	for f := range span.Frames {
		at := (span.Start + f) % n.frames * tokens
		s.dq.Copy(n.staged.Slice(0, f*tokens, (f+1)*tokens), n.latents.Slice(0, at, at+tokens))
	}
	return n.staged.Slice(0, 0, span.Frames*tokens)
}

// renew writes the history again under the prompt that is now set.
func (s *Session) renew() error {
	done := s.done()
	if done == 0 || s.renewal.refresh <= NoRefresh {
		return nil
	}
	cache := s.cache.(kvcache.Rewinder)
	frames, anchors := cache.Again()
	if s.renewal.refresh == RefreshWindow {
		// LongLive @ e52d9ef with a global sink: the anchors stay as they were, all others see each other.
		if frames == 0 {
			return nil
		}
		span := kvcache.Span{Start: done - frames, Frames: frames}
		return s.again(span, func() error { return cache.Redo(s.dq, span.Start) })
	}
	if frames+anchors == done {
		return s.replay(cache, 0, 0)
	}
	return s.replay(cache, done-frames, anchors)
}

// due reports whether the history must begin anew before the next chunk.
func (s *Session) due() bool {
	r := s.renewal.restart
	if r.After == 0 {
		return false
	}
	frames, anchors := s.cache.(kvcache.Rewinder).Again()
	return frames+anchors+s.engine.Network.ChunkFrames > r.After
}

// restart cuts a history that has become too long.
func (s *Session) restart() error {
	if !s.due() {
		return nil
	}
	return s.replay(s.cache.(kvcache.Rewinder), s.done()-s.renewal.restart.Overlap, 0)
}

// replay forgets all but the first keep frames and writes those from first on again, chunk by chunk.
func (s *Session) replay(cache kvcache.Rewinder, first, keep int) error {
	end, chunk := s.done(), s.engine.Network.ChunkFrames
	if err := cache.Rewind(first, keep); err != nil {
		return err
	}
	for at := first; at < end; {
		span := kvcache.Span{Start: at, Frames: (end-at-1)%chunk + 1} // as start frames: what is no chunk comes first
		if err := s.again(span, func() error { return cache.Begin(s.dq, span) }); err != nil {
			return err
		}
		at += span.Frames
	}
	return nil
}

// again runs the clean pass of frames that are kept. Half-way there is no history to go on with, so an error ends the session.
func (s *Session) again(span kvcache.Span, begin func() error) error {
	err := begin()
	if err == nil {
		s.work.Predict(s.dq, compute.Tensor{}, s.stage(span), dit.Pass{Index: len(s.solver.Steps), Clean: true, Chunk: s.chunk}, s.cache)
		err = s.dq.Err()
	}
	if err != nil {
		s.closed = true
		return fmt.Errorf("latent frames %d to %d again: %w", span.Start, span.Start+span.Frames-1, err)
	}
	s.cache.End()
	return nil
}
