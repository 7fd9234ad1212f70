package kvcache

import (
	"fmt"

	"longtake/compute"
)

// Rolling is the cache of Rolling-Forcing (arXiv:2509.25161; upstream wan/modules/causal_model.py @ a1477d0, described in
// docs/model/rolling.md): one forward takes a window of several chunks of falling noise, of which only the first, cleanest chunk is
// ever stored. The first chunk of the video is the anchor: noisy windows read it as if it lay directly before them.
//
// A window sees the anchor, the newest stored chunks and itself, Span frames in all; a clean pass of the first chunk sees the
// newest Span frames of the store, at their true positions.
type Rolling struct {
	shape  Shape
	span   int // frames that a forward sees at most
	slots  int // chunks in the store
	arena  compute.Arena
	pos    *Positions
	anchor compute.Tensor // I32 [chunk tokens, 3]: positions of the anchor as read
	layers []rollingLayer

	start, frames int // of the forward in work
	others        []placed
	host          []byte
}

// rollingLayer is one block's storage: the view, and the store with the anchor in slot 0, each [heads, frames*tokens, headDim].
type rollingLayer struct {
	c                      *Rolling
	keys, values           compute.Tensor
	stored, kept, unturned compute.Tensor // rotated keys and values; the anchor's unrotated keys
}

// placed is a stored chunk in the view, behind the forward's own frames; shift is the frame at which an anchor is read as if it
// began there, -1 for its true position.
type placed struct{ slot, shift int }

// RollingBytes returns the memory that NewRolling takes.
func RollingBytes(dev compute.Device, s Shape, span, slots int) int64 {
	m := &compute.Meter{Device: dev}
	new(Rolling).allocate(m, nil, s, span, slots)
	return m.Bytes()
}

// NewRolling allocates a cache for forwards that see up to span frames, over a store of slots chunks (upstream: 21 and 8).
// Shape.ChunkFrames is the chunk; forwards may have up to span frames.
func NewRolling(dev compute.Device, dq compute.Queue, s Shape, span, slots int) (*Rolling, error) {
	if slots < 2 || span < 2*s.ChunkFrames || span%s.ChunkFrames != 0 {
		return nil, fmt.Errorf("rolling cache of %d chunks seen by %d frames: want at least 2 chunks, and whole chunks", slots, span)
	}
	arena, err := dev.NewArena(RollingBytes(dev, s, span, slots))
	if err != nil {
		return nil, fmt.Errorf("rolling cache: %w", err)
	}
	c := new(Rolling)
	c.allocate(arena, dq, s, span, slots)
	if err := arena.Err(); err != nil {
		arena.Free()
		return nil, fmt.Errorf("rolling cache: %w", err)
	}
	return c, nil
}

func (c *Rolling) allocate(a compute.Arena, dq compute.Queue, s Shape, span, slots int) {
	c.shape, c.span, c.slots, c.arena = s, span, slots, a
	wide := s // positions for forwards as long as the span, and anchors read up to a span before them
	wide.ChunkFrames, wide.Clamp = span, 0
	c.pos = NewPositions(a, dq, wide)
	chunk := s.ChunkFrames * s.Tokens()
	c.anchor = a.Tensor(compute.I32, chunk, 3)
	for range s.Layers {
		c.layers = append(c.layers, rollingLayer{
			c:    c,
			keys: a.Tensor(s.DType, s.Heads, span*s.Tokens(), s.HeadDim), values: a.Tensor(s.DType, s.Heads, span*s.Tokens(), s.HeadDim),
			stored: a.Tensor(s.DType, s.Heads, slots*chunk, s.HeadDim), kept: a.Tensor(s.DType, s.Heads, slots*chunk, s.HeadDim),
			unturned: a.Tensor(s.DType, s.Heads, chunk, s.HeadDim),
		})
	}
}

// slot returns where chunk b is stored: the anchor for ever in 0, the others in a ring.
func (c *Rolling) slot(b int) int {
	if b == 0 {
		return 0
	}
	return 1 + (b-1)%(c.slots-1)
}

// BeginWindow prepares a noisy forward of whole chunks from frame span.Start on.
func (c *Rolling) BeginWindow(dq compute.Queue, span Span) error {
	if err := c.begin(dq, span); err != nil {
		return err
	}
	chunk := c.shape.ChunkFrames
	first := span.Start / chunk
	if first == 0 {
		return nil
	}
	room := (c.span-span.Frames)/chunk - 1 // beside the anchor
	working := min(first-1, room, c.slots-2)
	c.others = append(c.others, placed{slot: 0, shift: span.Start - (working+1)*chunk})
	for b := first - working; b < first; b++ {
		c.others = append(c.others, placed{slot: c.slot(b), shift: -1})
	}
	c.fill(dq)
	return nil
}

// BeginClean prepares the clean pass of the chunk at frame start.
func (c *Rolling) BeginClean(dq compute.Queue, start int) error {
	chunk := c.shape.ChunkFrames
	if err := c.begin(dq, Span{start, chunk}); err != nil {
		return err
	}
	first := start / chunk
	oldest := max(first-(c.slots-2), 0) // chunks still in the ring; the anchor too while nothing has been dropped
	if kept := c.span/chunk - 1; first-oldest > kept {
		oldest = first - kept
	}
	for b := oldest; b < first; b++ {
		c.others = append(c.others, placed{slot: c.slot(b), shift: -1})
	}
	c.fill(dq)
	return nil
}

func (c *Rolling) begin(dq compute.Queue, span Span) error {
	chunk := c.shape.ChunkFrames
	if span.Start < 0 || span.Frames <= 0 || span.Start%chunk != 0 || span.Frames%chunk != 0 || span.Frames > c.span {
		return fmt.Errorf("rolling forward of %d frames at %d: want up to %d, in whole chunks of %d", span.Frames, span.Start, c.span, chunk)
	}
	c.start, c.frames, c.others = span.Start, span.Frames, c.others[:0]
	c.pos.Begin(dq, span)
	return nil
}

// fill copies the stored chunks behind the forward's own frames; an anchor that is read elsewhere is rotated there.
func (c *Rolling) fill(dq compute.Queue) {
	chunk := c.shape.ChunkFrames * c.shape.Tokens()
	for i, o := range c.others {
		lo := c.frames*c.shape.Tokens() + i*chunk
		if o.shift >= 0 {
			b := c.host[:0]
			for f := range c.shape.ChunkFrames {
				b = c.pos.appendFrame(b, o.shift+f)
			}
			c.host = b
			dq.Upload(c.anchor, b)
		}
		for j := range c.layers {
			l := &c.layers[j]
			keys := l.keys.Slice(1, lo, lo+chunk)
			if o.shift >= 0 {
				dq.Rope(keys, l.unturned, c.anchor, c.pos.Rope())
			} else {
				dq.Copy(keys, l.stored.Slice(1, o.slot*chunk, (o.slot+1)*chunk))
			}
			dq.Copy(l.values.Slice(1, lo, lo+chunk), l.kept.Slice(1, o.slot*chunk, (o.slot+1)*chunk))
		}
	}
}

// Layer returns block i's side.
func (c *Rolling) Layer(i int) Layer { return &c.layers[i] }

// Rope returns the tables and the positions of the forward in work.
func (c *Rolling) Rope() (compute.Rope, compute.Tensor) {
	return c.pos.Rope(), c.pos.Chunk(c.frames * c.shape.Tokens())
}

// Stats returns the sizes now.
func (c *Rolling) Stats() Stats {
	return Stats{Bytes: c.arena.Bytes(), Tokens: float64((c.frames + len(c.others)*c.shape.ChunkFrames) * c.shape.Tokens()), Frames: c.start}
}

// Reset starts again at frame 0.
func (c *Rolling) Reset() {
	c.start, c.frames, c.others = 0, 0, c.others[:0]
	c.pos.Reset()
}

// Close gives the memory back.
func (c *Rolling) Close() { c.arena.Free() }

// Draft writes the forward's keys into the view, and its first chunk into the store.
func (l *rollingLayer) Draft(dq compute.Queue, keys, values compute.Tensor) {
	c := l.c
	n, chunk := c.frames*c.shape.Tokens(), c.shape.ChunkFrames*c.shape.Tokens()
	rope, pos := c.Rope()
	dq.Rope(l.keys.Slice(1, 0, n), keys, pos, rope)
	dq.Copy(l.values.Slice(1, 0, n), values)
	at := c.slot(c.start/c.shape.ChunkFrames) * chunk
	dq.Copy(l.stored.Slice(1, at, at+chunk), l.keys.Slice(1, 0, chunk))
	dq.Copy(l.kept.Slice(1, at, at+chunk), values.Slice(1, 0, chunk))
	if c.start == 0 {
		dq.Copy(l.unturned, keys.Slice(1, 0, chunk))
	}
}

// Commit writes the clean chunk's keys; later windows read them.
func (l *rollingLayer) Commit(dq compute.Queue, keys, values compute.Tensor) {
	l.Draft(dq, keys, values)
}

// View returns the forward's own frames and the stored ones.
func (l *rollingLayer) View() View {
	n := (l.c.frames + len(l.c.others)*l.c.shape.ChunkFrames) * l.c.shape.Tokens()
	return View{Keys: l.keys.Slice(1, 0, n), Values: l.values.Slice(1, 0, n)}
}
