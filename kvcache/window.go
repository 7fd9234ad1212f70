package kvcache

import (
	"fmt"
	"math"

	"longtake/compute"
)

// Full, as Window.Recent, keeps every frame: the dense reference, whose memory and time grow with the video.
const Full = -1

// Window is the policy of Self-Forcing and LongLive: the first Anchor latent frames stay for ever, beside the Recent newest
// ones before the chunk in work. (Upstream counts differently: local_attn_size = Anchor + Recent + frames of a chunk.)
type Window struct{ Anchor, Recent int }

// String returns "full" or "window 16 + 1 anchor".
func (w Window) String() string {
	if w.Recent == Full {
		return "full"
	}
	return fmt.Sprintf("window %d + %d anchor", w.Recent, w.Anchor)
}

// firstFrames is the capacity that a full cache begins with; it doubles when it is spent.
const firstFrames = 64

// turnFrames is how many frames are rotated again by one operation.
const turnFrames = 32

// frames stores whole latent frames in slots: anchors first, then a ring. It implements Cache.
type frames struct {
	shape  Shape
	policy Window
	device compute.Device
	arena  compute.Arena // tables
	store  compute.Arena // keys and values
	pos    *Positions
	origin compute.Tensor // I32 [turnFrames*tokens, 3]: positions of frames at time 0, for keys at the clamp
	layers []frameLayer
	slots  int // capacity in frames
	done   int // frames committed
	span   Span
	parts  []Part // of the chunk in work
	guard  Guard
}

// frameLayer is one block's storage, each [heads, slots*tokens, headDim]; raw holds unrotated keys where a kept frame can
// become older than the clamp.
type frameLayer struct {
	cache             *frames
	index             int
	keys, raw, values compute.Tensor
}

// New allocates a cache of whole frames.
func (w Window) New(dev compute.Device, dq compute.Queue, s Shape) (Cache, error) {
	if w.Anchor < 0 || w.Recent < Full || s.ChunkFrames <= 0 {
		return nil, fmt.Errorf("cache of %d anchor and %d recent frames: counts must not be negative", w.Anchor, w.Recent)
	}
	c := &frames{shape: s, policy: w, device: dev}
	arena, err := dev.NewArena(0)
	if err != nil {
		return nil, fmt.Errorf("cache tables: %w", err)
	}
	c.arena = arena
	c.tables(arena, dq)
	if err := arena.Err(); err != nil {
		return nil, fmt.Errorf("cache tables: %w", err)
	}
	if err := c.grow(dq, c.firstSlots()); err != nil {
		arena.Free()
		return nil, err
	}
	return c, nil
}

// Bytes returns the memory that New takes: all of it for a window, the first part of a full cache.
func (w Window) Bytes(dev compute.Device, s Shape) int64 {
	c := &frames{shape: s, policy: w}
	m := &compute.Meter{Device: dev}
	c.tables(m, nil)
	c.allocate(m, c.firstSlots())
	return m.Bytes()
}

func (c *frames) firstSlots() int {
	if c.policy.Recent == Full {
		return max(firstFrames, c.shape.ChunkFrames)
	}
	return c.policy.Anchor + c.policy.Recent + c.shape.ChunkFrames
}

func (c *frames) tables(a compute.Arena, dq compute.Queue) {
	c.pos = NewPositions(a, dq, c.shape)
	if !c.turns() {
		return
	}
	c.origin = a.Tensor(compute.I32, turnFrames*c.shape.Tokens(), 3)
	if dq != nil && a.Err() == nil {
		var b []byte
		for range turnFrames {
			b = c.pos.appendFrame(b, 0)
		}
		dq.Upload(c.origin, b)
	}
}

// turns reports whether a kept frame can become older than the clamp, so that its keys must be rotated again.
func (c *frames) turns() bool {
	w := c.policy
	return c.shape.Clamp > 0 && (w.Recent == Full || w.Anchor > 0 || w.Recent+c.shape.ChunkFrames > c.shape.Clamp)
}

func (c *frames) allocate(a compute.Arena, slots int) []frameLayer {
	s := c.shape
	layers := make([]frameLayer, s.Layers)
	for i := range layers {
		l := &layers[i]
		l.cache, l.index = c, i
		l.keys = a.Tensor(s.DType, s.Heads, slots*s.Tokens(), s.HeadDim)
		l.values = a.Tensor(s.DType, s.Heads, slots*s.Tokens(), s.HeadDim)
		if c.turns() {
			l.raw = a.Tensor(s.DType, s.Heads, slots*s.Tokens(), s.HeadDim)
		}
	}
	return layers
}

// grow moves the store to one of more slots.
func (c *frames) grow(dq compute.Queue, slots int) error {
	meter := &compute.Meter{Device: c.device}
	c.allocate(meter, slots)
	store, err := c.device.NewArena(meter.Bytes())
	if err != nil {
		return fmt.Errorf("cache of %d latent frames, %d MiB: %w", slots, meter.Bytes()>>20, err)
	}
	layers := c.allocate(store, slots)
	if err := store.Err(); err != nil {
		store.Free()
		return fmt.Errorf("cache of %d latent frames: %w", slots, err)
	}
	if c.store != nil {
		used := c.used() * c.shape.Tokens()
		for i, old := range c.layers {
			for j, t := range [3]compute.Tensor{old.keys, old.values, old.raw} {
				if !t.IsZero() && used > 0 {
					dst := [3]compute.Tensor{layers[i].keys, layers[i].values, layers[i].raw}[j]
					dq.Copy(dst.Slice(1, 0, used), t.Slice(1, 0, used))
				}
			}
		}
		if err := dq.Wait(); err != nil {
			store.Free()
			return err
		}
		c.store.Free()
	}
	c.store, c.layers, c.slots = store, layers, slots
	return nil
}

// used returns the frames in the store, the chunk in work not counted.
func (c *frames) used() int { return min(c.done, c.slots) }

// slot returns where frame f lies.
func (c *frames) slot(f int) int {
	if f < c.slots {
		return f
	}
	ring := c.slots - c.policy.Anchor
	return c.policy.Anchor + (f-c.policy.Anchor)%ring
}

// Begin makes room for span and rotates again what has become older than the clamp.
func (c *frames) Begin(dq compute.Queue, span Span) error {
	if err := c.guard.Take(); err != nil {
		return err
	}
	if span.Start != c.done || span.Frames <= 0 || span.Frames > c.shape.ChunkFrames {
		return fmt.Errorf("chunk of %d latent frames at %d: the cache holds %d and takes up to %d", span.Frames, span.Start, c.done, c.shape.ChunkFrames)
	}
	if c.policy.Recent == Full && c.done+span.Frames > c.slots {
		if err := c.grow(dq, 2*c.slots); err != nil {
			return err
		}
	}
	c.span = span
	c.pos.Begin(dq, span)
	if c.turns() {
		c.turn(dq)
	}
	c.partition()
	return nil
}

// partition lists what lies in the used slots: every kept frame is Recent in a window; a full cache calls what is before the
// newest chunk History.
func (c *frames) partition() {
	c.parts = c.parts[:0]
	n, end := c.shape.Tokens(), c.span.Start+c.span.Frames
	slots := min(end, c.slots)
	for s := range slots {
		f := c.frameAt(s, end)
		kind := Recent
		switch {
		case f >= c.span.Start:
			kind = Current
		case f < c.policy.Anchor:
			kind = Anchor
		case c.policy.Recent == Full && f < c.span.Start-c.shape.ChunkFrames:
			kind = History
		}
		c.parts = append(c.parts, Part{Kind: kind, Lo: s * n, Hi: (s + 1) * n, Frame: f})
	}
}

// turn rotates the keys of all frames beyond the clamp as if they were that old.
func (c *frames) turn(dq compute.Queue) {
	rope, n := c.pos.Rope(), c.shape.Tokens()
	for lo := 0; lo < c.used(); {
		if c.frameAt(lo, c.done) >= rope.MinTime {
			lo++
			continue
		}
		hi := lo + 1
		for hi < c.used() && hi < lo+turnFrames && c.frameAt(hi, c.done) < rope.MinTime {
			hi++
		}
		for _, l := range c.layers {
			dq.Rope(l.keys.Slice(1, lo*n, hi*n), l.raw.Slice(1, lo*n, hi*n), c.origin.Slice(0, 0, (hi-lo)*n), rope)
		}
		lo = hi
	}
}

// frameAt returns the frame that lies in slot s when frames up to end have been written.
func (c *frames) frameAt(s, end int) int {
	if end <= c.slots || s < c.policy.Anchor {
		return s
	}
	ring := c.slots - c.policy.Anchor
	last := (end - 1 - c.policy.Anchor) % ring // ring place of the newest frame
	return end - 1 - ((last-(s-c.policy.Anchor))%ring+ring)%ring
}

// End counts the chunk as history.
func (c *frames) End() {
	if c.guard.Bad() {
		c.span = Span{}
		return
	}
	c.done += c.span.Frames
	c.span = Span{}
}

// Layer returns block i's side.
func (c *frames) Layer(i int) Layer { return &c.layers[i] }

// Rope returns the tables and the positions of the chunk in work. These are never beyond the clamp; without it the same
// operations come again every chunk, which compute.Batcher rewards.
func (c *frames) Rope() (compute.Rope, compute.Tensor) {
	rope := c.pos.Rope()
	rope.MinTime = math.MinInt32
	return rope, c.pos.Chunk(c.span.Frames * c.shape.Tokens())
}

// Stats returns the sizes now.
func (c *frames) Stats() Stats {
	return Stats{Bytes: c.arena.Bytes() + c.store.Bytes(), Tokens: float64(c.used() * c.shape.Tokens()), Frames: c.done}
}

// Reset forgets all frames.
func (c *frames) Reset() {
	c.guard = Guard{}
	c.done, c.span = 0, Span{}
	c.pos.Reset()
}

// Close gives the memory back.
func (c *frames) Close() {
	c.store.Free()
	c.arena.Free()
}

// Draft writes the chunk's keys into its slots.
func (l *frameLayer) Draft(dq compute.Queue, keys, values compute.Tensor) {
	l.write(dq, keys, values, false)
}

// Commit writes the clean chunk's keys into its slots.
func (l *frameLayer) Commit(dq compute.Queue, keys, values compute.Tensor) {
	l.cache.guard.Check(dq, keys, l.index, l.index == l.cache.shape.Layers-1, l.cache.span)
	l.write(dq, keys, values, true)
}

func (l *frameLayer) write(dq compute.Queue, keys, values compute.Tensor, clean bool) {
	c := l.cache
	n := c.shape.Tokens()
	rope, pos := c.Rope()
	for f := range c.span.Frames {
		at := c.slot(c.span.Start+f) * n
		k, p := keys.Slice(1, f*n, (f+1)*n), pos.Slice(0, f*n, (f+1)*n)
		dq.Rope(l.keys.Slice(1, at, at+n), k, p, rope)
		dq.Copy(l.values.Slice(1, at, at+n), values.Slice(1, f*n, (f+1)*n))
		if clean && !l.raw.IsZero() {
			dq.Copy(l.raw.Slice(1, at, at+n), k)
		}
	}
}

// View returns the used slots.
func (l *frameLayer) View() View {
	n := min(l.cache.done+l.cache.span.Frames, l.cache.slots) * l.cache.shape.Tokens()
	return View{Keys: l.keys.Slice(1, 0, n), Values: l.values.Slice(1, 0, n), Parts: l.cache.parts}
}
