package rollout

import (
	"context"
	"encoding/binary"
	"fmt"
	"math"
	"time"

	"longtake/attention"
	"longtake/compute"
	"longtake/dit"
	"longtake/kvcache"
	"longtake/sampler"
	"longtake/text"
	"longtake/video"
)

// Session is one timeline. It belongs to one goroutine at a time.
type Session struct {
	engine *Engine
	seed   uint64
	dq     compute.Queue
	arena  compute.Arena
	cache  kvcache.Cache
	work   *dit.Work
	solver *sampler.Solver
	vae    Decoder

	self, cross attention.Policy
	renewal     renewal
	kept        []control // by number, of frames whose latents the cache keeps
	imaged      imaged

	latent, pred, scratch compute.Tensor // F32 [chunk tokens, values]
	both                  compute.Tensor // the chunk before, then latent, of an Overlapped

	// Controls of the chunk in work, frame by frame.
	actions, headings []int
	poses             []kvcache.Pose
	where             [][2]float64 // the same as places

	trail    trail // where it matters whether a step failed at a wall
	starting bool  // the chunk in work are start frames

	clean  func(dq compute.Queue, latent compute.Tensor, chunk int)
	staged bool
	begun  time.Time // when the cache had made room for the chunk in work

	chunk   int // chunks done
	place   place
	unknown []text.Unknown
	times   Times
	stats   kvcache.Stats // of a closed session
	closed  bool
}

// Times are the wall-clock times of the last chunk, by stage, as the host sees them: a device may still be at work when a stage
// ends, see Session.Staged. Begin, in which the cache makes room, is a part of Denoise.
type Times struct{ Begin, Denoise, Commit, Decode time.Duration }

// NewSession allocates a timeline, encodes the prompt and runs the start frames through the network.
func (e *Engine) NewSession(ctx context.Context, r Request) (*Session, error) {
	if err := e.check(r); err != nil {
		return nil, err
	}
	r = e.defaults(r)
	r.Loop = Blockwise
	s := new(Session)
	if err := s.init(ctx, e, r); err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

// init makes s a timeline of e.
func (s *Session) init(ctx context.Context, e *Engine, r Request) (err error) {
	s.engine, s.seed, s.place, s.clean = e, r.Seed, startPlace(e, r.Heading), r.Clean
	defer s.guard(&err)
	if s.solver, err = e.NewSolver(r.Steps); err != nil {
		return fmt.Errorf("%w: %w", ErrRequest, err)
	}
	s.solver.Draw = r.Noise
	if s.dq, err = e.Device.NewQueue(); err != nil {
		return err
	}
	if s.arena, err = e.arena(func(a compute.Arena) error { return s.allocate(e, a, r, len(s.solver.Steps)) }); err != nil {
		return fmt.Errorf("session: %w", err)
	}
	if err := s.policies(r); err != nil {
		return err
	}
	s.work.Schedule(s.dq, s.timesteps())
	if err := s.SetPrompt(ctx, r.Prompt); err != nil {
		return err
	}
	return s.start(ctx, r)
}

// policies makes the cache and the attention policies.
func (s *Session) policies(r Request) (err error) {
	e := s.engine
	if s.cache, err = r.Cache.New(e.Device, s.dq, e.CacheShape); err != nil {
		return err
	}
	if s.self, err = r.Self.New(e.Device, s.dq, e.CacheShape); err != nil {
		return err
	}
	if s.cross, err = r.Cross.New(e.Device, s.dq, e.CacheShape); err != nil {
		return err
	}
	s.work.Attend(s.self, s.cross)
	return nil
}

// allocate takes the session's tensors from a: an arena, or a meter that only counts.
func (s *Session) allocate(e *Engine, a compute.Arena, r Request, steps int) (err error) {
	c := e.Network.Config
	if s.renewal, err = newRenewal(e, r); err != nil {
		return err
	}
	n, pair := c.ChunkFrames*c.Tokens(), r.Loop == Overlapping
	s.actions, s.headings, s.poses = make([]int, c.ChunkFrames), make([]int, c.ChunkFrames), make([]kvcache.Pose, c.ChunkFrames)
	s.work = e.Network.NewWork(a, e.Device.Types(), dit.Size{Frames: c.ChunkFrames, Passes: steps + 1, PromptTokens: e.Text.MaxTokens(), Pair: pair, Wide: s.renewal.wide()})
	s.renewal.allocate(e, a)
	s.pred, s.scratch = a.Tensor(compute.F32, n, c.Out), a.Tensor(compute.F32, n, c.In)
	if pair {
		s.both = a.Tensor(compute.F32, 2*n, c.In)
		s.latent = s.both.Slice(0, n, 2*n)
	} else {
		s.latent = a.Tensor(compute.F32, n, c.In)
	}
	if err := s.imaged.allocate(e, a); err != nil {
		return err
	}
	s.vae, err = e.NewDecoder(a, r.Peek)
	return err
}

// timesteps returns the passes of a chunk: every step, then the clean pass at 0.
func (s *Session) timesteps() [][]float32 {
	var out [][]float32
	for _, step := range append(s.solver.Steps[:len(s.solver.Steps):len(s.solver.Steps)], sampler.Step{}) {
		t := make([]float32, s.engine.Network.ChunkFrames)
		for i := range t {
			t[i] = step.Timestep
		}
		out = append(out, t)
	}
	return out
}

// SetPrompt encodes a prompt and uses it from the next chunk on, with the history as Request.Refresh says.
func (s *Session) SetPrompt(ctx context.Context, prompt string) (err error) {
	defer s.guard(&err)
	if s.closed {
		return ErrClosed
	}
	if s.unknown, err = s.engine.setPrompt(ctx, s.dq, s.work, prompt); err != nil {
		return err
	}
	if cache, ok := s.cache.(kvcache.Recaller); ok {
		cache.Outdate()
	}
	return s.renew()
}

// setPrompt encodes a prompt, in turn with other sessions, and gives its keys to work.
func (e *Engine) setPrompt(ctx context.Context, dq compute.Queue, work *dit.Work, prompt string) ([]text.Unknown, error) {
	select {
	case e.text <- struct{}{}:
		defer func() { <-e.text }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	encoded, padded, unknown, err := e.Text.Encode(dq, prompt)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrRequest, err)
	}
	work.Prompt(dq, encoded, padded)
	return unknown, dq.Wait()
}

// Unknown returns the words of the prompt that the model does not know.
func (s *Session) Unknown() []text.Unknown { return s.unknown }

// Next makes the next chunk. Actions lead to its frames, one each; missing ones are 0 (stand still), and so is the one of a
// video's very first frame. A cancelled context ends the chunk early and leaves the session as it was before.
func (s *Session) Next(ctx context.Context, actions ...int) (frames []video.Frame, err error) {
	defer s.guard(&err)
	began := time.Now()
	end, err := s.denoise(ctx, actions)
	if err != nil {
		return nil, err
	}
	denoised := s.now()
	s.replace()
	if err := s.commit(s.latent, end); err != nil {
		return nil, err
	}
	committed := s.now()
	frames, err = s.vae.Decode(s.dq, s.latent, s.done()-s.engine.Network.ChunkFrames)
	s.times = Times{s.begun.Sub(began), denoised.Sub(began), committed.Sub(denoised), time.Since(committed)}
	return frames, err
}

// Staged makes Next wait for the device after every stage, so that Times are the stages' own. That costs what host and device
// gain by working side by side.
func (s *Session) Staged(on bool) {
	s.staged = on
	s.now()
}

// Profile has the device time its launches one by one, and returns what it timed when that ends, see compute.Profiler; nothing where
// the device cannot.
func (s *Session) Profile(on bool) []compute.OpTime {
	if p, ok := s.dq.(compute.Profiler); ok {
		return p.Profile(on)
	}
	return nil
}

// now is the time, of a staged session when the device has done all that was asked.
func (s *Session) now() time.Time {
	if s.staged {
		s.dq.Wait() // its error stays in the queue
	}
	return time.Now()
}

// Peek makes the next chunk as Next would, and leaves the session as it was before.
func (s *Session) Peek(ctx context.Context, actions ...int) (frames []video.Frame, err error) {
	defer s.guard(&err)
	if !s.closed && !s.vae.Again() {
		return nil, fmt.Errorf("%w: peek at a chunk: the session was started without Request.Peek", ErrRequest)
	}
	if _, err := s.denoise(ctx, actions); err != nil {
		return nil, err
	}
	return s.vae.Decode(s.dq, s.latent, s.done())
}

// done is the latent frames so far.
func (s *Session) done() int { return kvcache.Frames(s.cache) }

// Force goes on with a chunk that was made elsewhere instead of its own: latent holds the clean tokens [tokens, values] of a
// whole chunk. It runs the clean pass alone.
func (s *Session) Force(ctx context.Context, latent []float32, actions ...int) (err error) {
	defer s.guard(&err)
	if s.closed {
		return ErrClosed
	}
	if len(latent) != s.latent.Elems() {
		return fmt.Errorf("%w: chunk of %d values, the model's has %d", ErrRequest, len(latent), s.latent.Elems())
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	end, err := s.begin(s.span(), actions)
	if err != nil {
		return err
	}
	b := make([]byte, 0, 4*len(latent))
	for _, v := range latent {
		b = binary.LittleEndian.AppendUint32(b, math.Float32bits(v))
	}
	s.dq.Upload(s.latent, b)
	if err := s.commit(s.latent, end); err != nil {
		return err
	}
	return s.vae.Feed(s.dq, s.latent, s.done()-s.engine.Network.ChunkFrames)
}

// span is the next chunk.
func (s *Session) span() kvcache.Span {
	return kvcache.Span{Start: s.done(), Frames: s.engine.Network.ChunkFrames}
}

// denoise makes the next chunk's latents and returns where its actions lead; the session is as before until commit.
func (s *Session) denoise(ctx context.Context, actions []int) (end place, err error) {
	if s.closed {
		return end, ErrClosed
	}
	if err := s.restart(); err != nil {
		return end, err
	}
	if end, err = s.begin(s.span(), actions); err != nil {
		return end, err
	}
	s.begun = s.now()
	key := compute.NoiseKey{Seed: s.seed, Chunk: uint32(s.chunk)}
	s.solver.Noise(s.dq, s.latent, key)
	for _, step := range s.solver.Steps {
		if err := ctx.Err(); err != nil {
			return end, err
		}
		s.work.Predict(s.dq, s.pred, s.latent, dit.Pass{Index: step.Index, Chunk: s.chunk}, s.cache)
		s.solver.Advance(s.dq, s.latent, s.pred, s.scratch, step, key)
	}
	return end, s.dq.Err()
}

// replace writes a request's own latents over those that were made.
func (s *Session) replace() {
	if s.clean != nil {
		s.clean(s.dq, s.latent, s.chunk)
	}
}

// commit runs the clean pass on latent, whose keys then stay, and closes the chunk.
func (s *Session) commit(latent compute.Tensor, end place) (err error) {
	if end, err = s.write(latent, end); err != nil {
		return err
	}
	s.finish(latent, end)
	return nil
}

// write runs the clean pass on latent, whose keys then stay.
func (s *Session) write(latent compute.Tensor, end place) (place, error) {
	end, err := s.settle(latent, end, latent.Dim(0)/s.engine.Network.Tokens())
	if err != nil {
		return end, fmt.Errorf("chunk %d: %w", s.chunk, err)
	}
	s.work.Predict(s.dq, compute.Tensor{}, latent, dit.Pass{Index: len(s.solver.Steps), Clean: true, Chunk: s.chunk}, s.cache)
	if err := s.dq.Err(); err != nil {
		return end, fmt.Errorf("chunk %d: %w", s.chunk, err)
	}
	return end, nil
}

// finish closes the chunk in work.
func (s *Session) finish(latent compute.Tensor, end place) {
	s.remember(latent)
	first := s.done()
	s.cache.End()
	s.keep(latent, first)
	s.place = end
	s.chunk++
}

// Stats returns the cache's sizes; of a closed session the last ones.
func (s *Session) Stats() kvcache.Stats {
	if s.cache == nil {
		return s.stats
	}
	return s.cache.Stats()
}

// Latent returns the clean latents of the last chunk, F32 [tokens, values], valid until the next call that makes one.
func (s *Session) Latent() compute.Tensor { return s.latent }

// Latents downloads Latent.
func (s *Session) Latents() ([]float32, error) { return Download(s.dq, s.latent) }

// Download copies an F32 tensor to the host.
func Download(dq compute.Queue, t compute.Tensor) ([]float32, error) {
	if dq == nil {
		return nil, ErrClosed
	}
	b := make([]byte, t.Bytes())
	dq.Download(b, t)
	out := make([]float32, t.Elems())
	for i := range out {
		out[i] = math.Float32frombits(binary.LittleEndian.Uint32(b[4*i:]))
	}
	return out, dq.Err()
}

// Times returns how long the stages of the last chunk took.
func (s *Session) Times() Times { return s.times }

// Heading returns the direction after the last frame.
func (s *Session) Heading() int { return s.place.heading }

// Pose returns where the actions have led, by dead reckoning without the steps that failed: cells from the first frame. It is zero for
// models whose actions give no pose.
func (s *Session) Pose() kvcache.Pose { return s.place.pose }

// Bytes returns the memory of the session.
func (s *Session) Bytes() int64 {
	if s.arena == nil {
		return 0
	}
	return s.arena.Bytes() + s.cache.Stats().Bytes
}

// guard turns a programmer error below into an error of this session, which ends.
func (s *Session) guard(err *error) {
	if r := recover(); r != nil {
		*err = fmt.Errorf("chunk %d: internal fault: %v", s.chunk, r)
		s.closed = true
	}
}

// Close gives the session's memory back. It may be called twice.
func (s *Session) Close() {
	s.closed = true
	for _, p := range []attention.Policy{s.self, s.cross} {
		if p != nil {
			p.Close()
		}
	}
	s.self, s.cross = nil, nil
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

// Chart lists the keys in view, see kvcache.Charted; it returns false if the cache cannot say.
func (s *Session) Chart(layer, head int, f func(key, token, stands int)) bool {
	c, ok := s.cache.(kvcache.Charted)
	if ok {
		c.Chart(layer, head, f)
	}
	return ok
}
