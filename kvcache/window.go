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
type Window struct {
	Anchor, Recent int
	// Near reads the anchors as if they lay directly before the recent frames, so that no distance grows with the video
	// (LongLive's positions by place in the window).
	Near bool
	// Room is how many latent frames a full cache has room for at first, for videos whose length is known; 0 means 64. It doubles
	// when it is spent.
	Room int
}

// String returns "full" or "window 16 + 1 anchor".
func (w Window) String() string {
	switch {
	case w.Recent == Full:
		return "full"
	case w.Near:
		return fmt.Sprintf("window %d + %d near anchor", w.Recent, w.Anchor)
	}
	return fmt.Sprintf("window %d + %d anchor", w.Recent, w.Anchor)
}

// Frames returns the most frames that are in view, the chunk in work included; 0 without limit.
func (w Window) Frames(s Shape) int {
	if w.Recent == Full {
		return 0
	}
	return w.Anchor + w.Recent + s.ChunkFrames
}

// firstFrames is the capacity that a full cache begins with when nobody knows how long the video will be.
const firstFrames = 64

// turnFrames is how many frames are rotated again by one operation.
const turnFrames = 128

// frames stores whole latent frames in slots: anchors first, then a ring. It implements Cache.
type frames struct {
	shape  Shape
	policy Window
	device compute.Device
	arena  compute.Arena // tables
	store  compute.Arena // keys and values
	pos    *Positions
	origin compute.Tensor // I32 [turnFrames*tokens, 3]: positions of frames at time 0, for keys at the clamp
	near   compute.Tensor // I32 [anchor tokens, 3]: positions of anchors as they are read (Window.Near)
	host   []byte
	layers []stored
	slots  int // capacity in frames
	done   int // frames committed
	// After a Rewind the frames that were kept, and those from the frame on that it went back to, lie as if nothing had been
	// between them.
	gap     struct{ kept, first, low, high int }
	work    side           // the chunk in work
	before  side           // the one before it, while its clean pass is open (BeginPair)
	earlier compute.Tensor // I32 [chunk tokens, 3]: positions of before
	guard   Guard
}

// stored is one block's storage, each [heads, slots*tokens, headDim]; raw holds unrotated keys of the slots that can be rotated
// again.
type stored struct{ keys, raw, values compute.Tensor }

// side is a chunk that is being written.
type side struct {
	cache  *frames
	span   Span
	parts  []Part
	rope   compute.Rope
	at     compute.Tensor // positions
	near   bool           // anchors are read elsewhere
	late   bool           // old keys are turned layer by layer, at Draft
	layers []frameLayer
}

// frameLayer is one block's side of a chunk.
type frameLayer struct {
	side  *side
	index int
}

// New allocates a cache of whole frames.
func (w Window) New(dev compute.Device, dq compute.Queue, s Shape) (Cache, error) {
	if w.Anchor < 0 || w.Recent < Full || w.Room < 0 || s.ChunkFrames <= 0 {
		return nil, fmt.Errorf("cache of %d anchor and %d recent frames: counts must not be negative", w.Anchor, w.Recent)
	}
	if w.Near && (w.Recent == Full || s.Clamp > 0) {
		return nil, fmt.Errorf("anchors near a window: the model's distances are clamped or the cache is full, so that nothing is far")
	}
	c := newFrames(dev, s, w)
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
	c := newFrames(dev, s, w)
	m := &compute.Meter{Device: dev}
	c.tables(m, nil)
	c.allocate(m, c.firstSlots())
	return m.Bytes()
}

func newFrames(dev compute.Device, s Shape, w Window) *frames {
	c := &frames{shape: s, policy: w, device: dev}
	for _, x := range []*side{&c.work, &c.before} {
		x.cache, x.layers = c, make([]frameLayer, s.Layers)
		for i := range x.layers {
			x.layers[i] = frameLayer{x, i}
		}
	}
	return c
}

func (c *frames) firstSlots() int {
	if c.policy.Recent == Full {
		room := c.policy.Room
		if room == 0 {
			room = firstFrames
		}
		return max(room, c.shape.ChunkFrames)
	}
	return c.policy.Anchor + c.policy.Recent + c.shape.ChunkFrames
}

func (c *frames) tables(a compute.Arena, dq compute.Queue) {
	wide := c.shape // positions of forwards over a whole window (Redo), and of near anchors
	if c.policy.Recent != Full {
		wide.ChunkFrames = c.firstSlots()
	}
	c.pos = NewPositions(a, dq, wide)
	c.guard.Allocate(a, c.shape)
	c.earlier = a.Tensor(compute.I32, c.shape.ChunkFrames*c.shape.Tokens(), 3)
	if c.policy.Near {
		c.near = a.Tensor(compute.I32, max(c.policy.Anchor, 1)*c.shape.Tokens(), 3)
	}
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

// raws is how many slots of so many keep unrotated keys.
func (c *frames) raws(slots int) int {
	switch {
	case c.turns():
		return slots
	case c.policy.Near:
		return c.policy.Anchor
	}
	return 0
}

func (c *frames) allocate(a compute.Arena, slots int) []stored {
	s := c.shape
	layers := make([]stored, s.Layers)
	for i := range layers {
		l := &layers[i]
		l.keys = a.Tensor(s.DType, s.Heads, slots*s.Tokens(), s.HeadDim)
		l.values = a.Tensor(s.DType, s.Heads, slots*s.Tokens(), s.HeadDim)
		if n := c.raws(slots); n > 0 {
			l.raw = a.Tensor(s.DType, s.Heads, n*s.Tokens(), s.HeadDim)
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
func (c *frames) used() int { return min(c.place(c.done), c.slots) }

// place is the number of frame f among those that were not forgotten by Rewind.
func (c *frames) place(f int) int {
	if f < c.gap.first {
		return f - c.gap.low
	}
	return f - c.gap.high
}

// slot returns where frame f lies.
func (c *frames) slot(f int) int {
	if f = c.place(f); f < c.slots {
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
	if err := c.room(dq, span); err != nil {
		return err
	}
	c.open(dq, span)
	c.work.late = false
	for i := range c.layers {
		c.turn(dq, &c.work, i)
	}
	return nil
}

// room grows a full cache.
func (c *frames) room(dq compute.Queue, span Span) error {
	if c.policy.Recent == Full && c.place(span.Start+span.Frames) > c.slots {
		return c.grow(dq, 2*c.slots)
	}
	return nil
}

// open makes span the chunk in work.
func (c *frames) open(dq compute.Queue, span Span) {
	c.pos.Begin(dq, span)
	c.work.span, c.work.rope, c.work.at = span, c.pos.Rope(), c.pos.Chunk(span.Frames*c.shape.Tokens())
	c.partition(&c.work)
	anchors := c.policy.Anchor
	recent := min(c.place(span.Start+span.Frames), c.slots) - anchors - span.Frames
	at := span.Start - recent - anchors // where near anchors are read
	if c.work.near = c.policy.Near && recent >= 0 && at != c.frameAt(0, span.Start); !c.work.near {
		return
	}
	b := c.host[:0]
	for f := range anchors {
		b = c.pos.appendFrame(b, at+f)
	}
	c.host = b
	dq.Upload(c.near, b)
}

// partition lists what lies in the used slots: every kept frame is Recent in a window; a full cache calls what is before the
// newest chunk History.
func (c *frames) partition(x *side) {
	x.parts = x.parts[:0]
	n, end := c.shape.Tokens(), x.span.Start+x.span.Frames
	slots := min(c.place(end), c.slots)
	for s := range slots {
		f := c.frameAt(s, end)
		kind := Recent
		switch {
		case f >= x.span.Start:
			kind = Current
		case s < c.policy.Anchor:
			kind = Anchor
		case c.policy.Recent == Full && f < x.span.Start-c.shape.ChunkFrames:
			kind = History
		}
		x.parts = append(x.parts, Part{Kind: kind, Lo: s * n, Hi: (s + 1) * n, Frame: f})
	}
}

// turn rotates the keys of a layer again that a chunk reads elsewhere: frames beyond the clamp as if they were that old, near
// anchors directly before the window.
func (c *frames) turn(dq compute.Queue, x *side, layer int) {
	n, l := c.shape.Tokens(), &c.layers[layer]
	if x.near {
		a := c.policy.Anchor * n
		dq.Rope(l.keys.Slice(1, 0, a), l.raw, c.near.Slice(0, 0, a), x.rope)
	}
	if !c.turns() {
		return
	}
	used := min(c.place(x.span.Start), c.slots)
	old := func(slot int) bool { return c.frameAt(slot, x.span.Start) < x.rope.MinTime }
	for lo := 0; lo < used; {
		if !old(lo) {
			lo++
			continue
		}
		hi := lo + 1
		for hi < used && hi < lo+turnFrames && old(hi) {
			hi++
		}
		dq.Rope(l.keys.Slice(1, lo*n, hi*n), l.raw.Slice(1, lo*n, hi*n), c.origin.Slice(0, 0, (hi-lo)*n), x.rope)
		lo = hi
	}
}

// frameAt returns the frame that lies in slot s when frames up to end have been written.
func (c *frames) frameAt(s, end int) int {
	f := s
	if end = c.place(end); end > c.slots && s >= c.policy.Anchor {
		ring := c.slots - c.policy.Anchor
		last := (end - 1 - c.policy.Anchor) % ring // ring place of the newest frame
		f = end - 1 - ((last-(s-c.policy.Anchor))%ring+ring)%ring
	}
	if f < c.gap.kept {
		return f + c.gap.low
	}
	return f + c.gap.high
}

// End counts the chunk as history.
func (c *frames) End() {
	if c.before.span.Frames > 0 {
		c.endPair()
		return
	}
	if !c.guard.Bad() {
		c.done += c.work.span.Frames
	}
	c.work.span = Span{Start: c.done}
}

// Layer returns block i's side.
func (c *frames) Layer(i int) Layer { return &c.work.layers[i] }

// Rope returns the tables and the positions of the chunk in work.
func (c *frames) Rope() (compute.Rope, compute.Tensor) { return c.work.Rope() }

// Layer returns block i's side.
func (x *side) Layer(i int) Layer { return &x.layers[i] }

// Rope returns the tables and the chunk's positions. These are never beyond the clamp; without it the same operations come
// again every chunk, which compute.Batcher rewards.
func (x *side) Rope() (compute.Rope, compute.Tensor) {
	rope := x.rope
	rope.MinTime = math.MinInt32
	return rope, x.at
}

// Stats returns the sizes now.
func (c *frames) Stats() Stats {
	return Stats{Bytes: c.arena.Bytes() + c.store.Bytes(), Tokens: float64(c.used() * c.shape.Tokens()), Frames: c.done}
}

// Reset forgets all frames.
func (c *frames) Reset() {
	c.guard.Take()
	c.done, c.work.span, c.before.span = 0, Span{}, Span{}
	c.gap.kept, c.gap.first, c.gap.low, c.gap.high = 0, 0, 0, 0
	c.pos.Reset()
}

// Close gives the memory back.
func (c *frames) Close() {
	c.store.Free()
	c.arena.Free()
}

// Draft writes the chunk's keys into its slots.
func (l *frameLayer) Draft(dq compute.Queue, keys, values compute.Tensor) {
	l.settle(dq)
	l.write(dq, keys, values, false)
}

// settle turns keys that the chunk before had to see first.
func (l *frameLayer) settle(dq compute.Queue) {
	if l.side.late {
		l.side.cache.turn(dq, l.side, l.index)
	}
}

// Commit writes the clean chunk's keys into its slots.
func (l *frameLayer) Commit(dq compute.Queue, keys, values compute.Tensor) {
	c := l.side.cache
	c.guard.Check(dq, keys, l.index, l.index == c.shape.Layers-1, l.side.span)
	l.write(dq, keys, values, true)
}

func (l *frameLayer) write(dq compute.Queue, keys, values compute.Tensor, clean bool) {
	x, c := l.side, l.side.cache
	n, to := c.shape.Tokens(), &c.layers[l.index]
	rope, _ := x.Rope()
	for f := 0; f < x.span.Frames; {
		at, lo, hi := x.run(f)
		dq.Rope(to.keys.Slice(1, at, at+hi-lo), keys.Slice(1, lo, hi), x.at.Slice(0, lo, hi), rope)
		dq.Copy(to.values.Slice(1, at, at+hi-lo), values.Slice(1, lo, hi))
		f = hi / n
	}
	if !clean {
		return
	}
	for f := range x.span.Frames {
		if slot := c.slot(x.span.Start + f); slot < c.raws(c.slots) {
			dq.Copy(to.raw.Slice(1, slot*n, (slot+1)*n), keys.Slice(1, f*n, (f+1)*n))
		}
	}
}

// DraftNorm normalises, rotates and writes the chunk's keys into its slots.
func (l *frameLayer) DraftNorm(dq compute.Queue, keys compute.Tensor, n compute.Norm, values compute.Tensor) {
	l.settle(dq)
	x, to := l.side, &l.side.cache.layers[l.index]
	rope, _ := x.Rope()
	for f := 0; f < x.span.Frames; {
		at, lo, hi := x.run(f)
		compute.NormRope(dq, to.keys.Slice(1, at, at+hi-lo), keys.Slice(0, lo, hi), n, x.at.Slice(0, lo, hi), rope)
		dq.Copy(to.values.Slice(1, at, at+hi-lo), values.Slice(1, lo, hi))
		f = hi / x.cache.shape.Tokens()
	}
}

// run returns the token at which frame f of the chunk is stored, and which of the chunk's tokens [lo, hi) lie together from
// there on.
func (x *side) run(f int) (at, lo, hi int) {
	n, first := x.cache.shape.Tokens(), x.cache.slot(x.span.Start+f)
	last := f + 1
	for last < x.span.Frames && x.cache.slot(x.span.Start+last) == first+last-f {
		last++
	}
	return first * n, f * n, last * n
}

// View returns the used slots.
func (l *frameLayer) View() View {
	x, c := l.side, l.side.cache
	n := min(c.place(x.span.Start+x.span.Frames), c.slots) * c.shape.Tokens()
	s := &c.layers[l.index]
	return View{Keys: s.keys.Slice(1, 0, n), Values: s.values.Slice(1, 0, n), Parts: x.parts}
}
