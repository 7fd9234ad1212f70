package rollout

import (
	"context"
	"fmt"
	"time"

	"longtake/attention"
	"longtake/compute"
	"longtake/dit"
	"longtake/kvcache"
	"longtake/sampler"
	"longtake/text"
	"longtake/video"
)

// Rolling is a timeline of Rolling-Forcing (arXiv:2509.25161; upstream pipeline/rolling_forcing_inference.py @ a1477d0, described
// in our words in docs/model/rolling.md): chunks of falling noise go through the network together, one for each denoising step.
// A forward brings each of them one step further; the oldest is then done and leaves, and a chunk of pure noise joins. It
// has the verbs of Session and its rules: one goroutine at a time.
type Rolling struct {
	engine *Engine
	seed   uint64
	dq     compute.Queue
	arena  compute.Arena
	cache  *kvcache.Rolling
	work   *dit.Work
	solver *sampler.Solver
	vae    Decoder
	cross  attention.Policy

	latent, pred, scratch compute.Tensor // F32 [window tokens, values], oldest chunk first

	given   int // chunks of start frames, which come first
	chunks  int // that are made, 0 without end
	window  int // forwards done
	unknown []text.Unknown
	times   Times
	stats   kvcache.Stats // of a closed timeline
	closed  bool
}

// The two passes of a window: its chunks at their levels, oldest and cleanest first, and the clean pass.
const (
	noisyPass = 0
	cleanPass = 1
)

// rollingSpan and rollingSlots are upstream's 21 visible frames and 8 stored chunks, in chunks.
const (
	rollingSpan  = 7
	rollingSlots = 8
)

// NewRolling starts a timeline. Request.Chunks is how many chunks are made, with which the last windows shrink as upstream's do;
// 0 goes on without end. Start frames must fill whole chunks. A request for what the loop cannot do is an error: another cache than
// upstream's, self attention other than dense, actions.
func (e *Engine) NewRolling(ctx context.Context, r Request) (s *Rolling, err error) {
	if err = e.checkRolling(r); err == nil {
		err = e.check(r)
	}
	if err != nil {
		return nil, err
	}
	r = e.defaults(r)
	s = &Rolling{engine: e, seed: r.Seed, chunks: r.Chunks}
	defer func() {
		if err != nil {
			s.Close()
			s = nil
		}
	}()
	defer s.guard(&err)
	if s.solver, err = e.NewSolver(r.Steps); err != nil {
		return s, fmt.Errorf("%w: %w", ErrRequest, err)
	}
	if n := len(s.solver.Steps); n > rollingSpan-2 {
		return s, fmt.Errorf("%w: %d steps: the rolling loop's window has room for %d", ErrRequest, n, rollingSpan-2)
	}
	s.solver.Draw = r.Noise
	if s.dq, err = e.Device.NewQueue(); err != nil {
		return s, err
	}
	if s.arena, err = e.arena(func(a compute.Arena) error { return s.allocate(e, a) }); err != nil {
		return s, fmt.Errorf("session: %w", err)
	}
	if s.cache, err = kvcache.NewRolling(e.Device, s.dq, e.CacheShape, rollingSpan*e.Network.ChunkFrames, rollingSlots); err != nil {
		return s, err
	}
	if s.cross, err = r.Cross.New(e.Device, s.dq, e.rollingShape(len(s.solver.Steps))); err != nil {
		return s, err
	}
	s.work.Attend(attention.Dense{}, s.cross)
	s.work.Schedule(s.dq, s.timesteps())
	if err := s.SetPrompt(ctx, r.Prompt); err != nil {
		return s, err
	}
	return s, s.start(ctx, r)
}

// start runs the start frames through the clean pass, chunk by chunk; the first of them is the anchor.
func (s *Rolling) start(ctx context.Context, r Request) error {
	e := s.engine
	return e.encode(ctx, s.dq, r.Start, e.Network.ChunkFrames, s.chunk(s.latent, 0), func(latent compute.Tensor) error {
		first := s.given * e.Network.ChunkFrames
		if err := s.cache.BeginClean(s.dq, first); err != nil {
			return err
		}
		s.work.Predict(s.dq, compute.Tensor{}, latent, dit.Pass{Index: cleanPass, Clean: true, Chunk: s.given}, s.cache)
		s.given++
		return s.vae.Feed(s.dq, latent, first)
	})
}

// checkRolling says what of a request the loop cannot do.
func (e *Engine) checkRolling(r Request) error {
	window, windowed := r.Cache.(kvcache.Window)
	switch {
	case r.Chunks < 0:
		return fmt.Errorf("%w: a video of %d chunks", ErrRequest, r.Chunks)
	case e.LatentFrames(len(r.Start))%e.Network.ChunkFrames != 0:
		n := e.Frames(e.Network.ChunkFrames)
		return fmt.Errorf("%w: %d start frames: the rolling loop starts from whole chunks: %d frames, or %d more for every further chunk", ErrRequest, len(r.Start), n, e.Network.ChunkFrames*max(e.Stride, 1))
	case e.FromImage():
		return fmt.Errorf("%w: the rolling loop makes no videos from an image: use the blockwise loop", ErrRequest)
	case len(e.Turns) > 0:
		return fmt.Errorf("%w: the rolling loop makes chunks ahead of the actions that this model follows", ErrRequest)
	case r.Cache != nil && (!windowed || e.Cache != window):
		return fmt.Errorf("%w: cache %v: the rolling loop keeps its first chunk and the newest %d by itself, two of which a window sees: there is nothing to merge or drop", ErrRequest, r.Cache, rollingSlots-1)
	case r.Self != nil && r.Self != attention.Dense{}:
		return fmt.Errorf("%w: self attention %v: a rolling window sees two chunks of history, all of which are kept: use dense", ErrRequest, r.Self)
	case r.Refresh > NoRefresh || r.Restart != Restart{}:
		return fmt.Errorf("%w: the rolling loop does not write its history again (refresh, restart)", ErrRequest)
	}
	return nil
}

// rollingShape is what cross attention's policy is made for: all frames of a window together.
func (e *Engine) rollingShape(steps int) kvcache.Shape {
	s := e.CacheShape
	s.ChunkFrames *= steps
	return s
}

func (s *Rolling) allocate(e *Engine, a compute.Arena) (err error) {
	c := e.Network.Config
	frames := c.ChunkFrames * len(s.solver.Steps)
	n := frames * c.Tokens()
	s.work = e.Network.NewWork(a, e.Device.Types(), dit.Size{Frames: frames, Passes: 2, PromptTokens: e.Text.MaxTokens()})
	s.latent, s.pred, s.scratch = a.Tensor(compute.F32, n, c.In), a.Tensor(compute.F32, n, c.Out), a.Tensor(compute.F32, n, c.In)
	s.vae, err = e.NewDecoder(a, false)
	return err
}

// SetPrompt encodes a prompt and uses it from the next window on.
func (s *Rolling) SetPrompt(ctx context.Context, prompt string) (err error) {
	defer s.guard(&err)
	if s.closed {
		return ErrClosed
	}
	s.unknown, err = s.engine.setPrompt(ctx, s.dq, s.work, prompt)
	return err
}

// Unknown returns the words of the prompt that the model does not know.
func (s *Rolling) Unknown() []text.Unknown { return s.unknown }

// timesteps are the levels of a full window, the last step first, and those of the clean pass.
func (s *Rolling) timesteps() [][]float32 {
	c := s.engine.Network.Config
	steps := len(s.solver.Steps)
	levels, clean := make([]float32, steps*c.ChunkFrames), make([]float32, steps*c.ChunkFrames)
	for i := range levels {
		levels[i] = s.solver.Steps[steps-1-i/c.ChunkFrames].Timestep
	}
	return [][]float32{levels, clean}
}

// chunk is the part of a window's tensor that belongs to its i-th chunk.
func (s *Rolling) chunk(t compute.Tensor, i int) compute.Tensor {
	n := s.engine.Network.ChunkFrames * s.engine.Network.Tokens()
	return t.Slice(0, i*n, (i+1)*n)
}

// Next runs windows until a chunk is done, and returns its frames: the first takes as many windows as there are steps, every
// later one a single window. After the last chunk of a finite video it returns no frames. It follows no actions.
func (s *Rolling) Next(ctx context.Context, _ ...int) (frames []video.Frame, err error) {
	defer s.guard(&err)
	if s.closed {
		return nil, ErrClosed
	}
	began, steps := time.Now(), len(s.solver.Steps)
	for s.chunks == 0 || s.window < s.chunks+steps-1 {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		first := max(0, s.window-steps+1)
		last := s.window
		if s.chunks > 0 {
			last = min(last, s.chunks-1)
		}
		if err := s.advance(first, last); err != nil {
			return nil, err
		}
		done := s.window-first == steps-1
		s.window++
		if done {
			denoised := time.Now()
			frames, err = s.vae.Decode(s.dq, s.chunk(s.latent, 0), (s.given+first)*s.engine.Network.ChunkFrames)
			s.times = Times{Denoise: denoised.Sub(began), Decode: time.Since(denoised)}
			s.dq.Copy(s.chunk(s.scratch, 0), s.chunk(s.latent, 0))
			for i := range last - first {
				s.dq.Copy(s.chunk(s.latent, i), s.chunk(s.latent, i+1))
			}
			return frames, err
		}
	}
	return nil, nil
}

// advance brings the chunks first to last one step further and stores clean keys of the first.
func (s *Rolling) advance(first, last int) error {
	c := s.engine.Network.Config
	n, count := c.ChunkFrames*c.Tokens(), last-first+1
	if last == s.window { // a new chunk joins
		s.solver.Noise(s.dq, s.chunk(s.latent, last-first), compute.NoiseKey{Seed: s.seed, Chunk: uint32(s.given + last)})
	}
	span := kvcache.Span{Start: (s.given + first) * c.ChunkFrames, Frames: count * c.ChunkFrames}
	if err := s.cache.BeginWindow(s.dq, span); err != nil {
		return err
	}
	skip := (len(s.solver.Steps) - 1 - (s.window - first)) * c.ChunkFrames
	s.work.Predict(s.dq, s.pred.Slice(0, 0, count*n), s.latent.Slice(0, 0, count*n), dit.Pass{Index: noisyPass, Skip: skip, Chunk: s.given + first}, s.cache)
	for i := range count {
		key := compute.NoiseKey{Seed: s.seed, Chunk: uint32(s.given + first + i)}
		s.solver.Advance(s.dq, s.chunk(s.latent, i), s.chunk(s.pred, i), s.chunk(s.scratch, i), s.solver.Steps[s.window-first-i], key)
	}
	// Advance leaves the clean estimate where the prediction was.
	if err := s.cache.BeginClean(s.dq, span.Start); err != nil {
		return err
	}
	s.work.Predict(s.dq, compute.Tensor{}, s.chunk(s.pred, 0), dit.Pass{Index: cleanPass, Clean: true, Chunk: s.given + first}, s.cache)
	if err := s.dq.Err(); err != nil {
		return fmt.Errorf("window %d: %w", s.window, err)
	}
	return nil
}

// Latent returns the latents of the chunk that the last Next returned, valid until the next call.
func (s *Rolling) Latent() compute.Tensor { return s.chunk(s.scratch, 0) }

// Latents downloads Latent.
func (s *Rolling) Latents() ([]float32, error) { return Download(s.dq, s.Latent()) }

// Stats returns the cache's sizes; of a closed timeline the last ones.
func (s *Rolling) Stats() kvcache.Stats {
	if s.cache == nil {
		return s.stats
	}
	return s.cache.Stats()
}

// Times returns how long the stages of the last chunk took; the clean pass counts as denoising.
func (s *Rolling) Times() Times { return s.times }

// Bytes returns the memory of the timeline.
func (s *Rolling) Bytes() int64 {
	if s.arena == nil {
		return 0
	}
	return s.arena.Bytes() + s.cache.Stats().Bytes
}

func (s *Rolling) guard(err *error) {
	if r := recover(); r != nil {
		*err = fmt.Errorf("window %d: internal fault: %v", s.window, r)
		s.closed = true
	}
}

// Close gives the memory back. It may be called twice.
func (s *Rolling) Close() {
	s.closed = true
	if s.cross != nil {
		s.cross.Close()
		s.cross = nil
	}
	if s.cache != nil {
		s.stats = s.cache.Stats()
		s.cache.Close()
		s.cache = nil
	}
	if s.arena != nil {
		s.arena.Free()
		s.arena = nil
	}
	if s.dq != nil {
		s.dq.Close()
		s.dq = nil
	}
}
