package kvcache

import (
	"fmt"

	"longtake/compute"
)

// Paired is a Cache that can close a chunk while the next one is begun, for loops that run the clean pass of a chunk inside the
// first step of the next.
type Paired interface {
	Cache
	// BeginPair makes room for the chunk that follows the one in work, which stays open for its clean keys. In every layer
	// these are committed, and seen, through Before, and then the next chunk's keys are drafted through Layer. End
	// makes the first chunk history and leaves the second in work; if the first had keys that are not finite, both are
	// left out and the next Begin says why.
	BeginPair(dq compute.Queue, next Span) error
	// Before is the side of the chunk that stays open.
	Before() Layers
}

// BeginPair opens next behind the chunk in work.
func (c *frames) BeginPair(dq compute.Queue, next Span) error {
	if err := c.guard.Take(); err != nil {
		return err
	}
	open := c.work.span
	if open.Frames == 0 || next.Start != open.Start+open.Frames || next.Frames <= 0 || next.Frames > c.shape.ChunkFrames {
		return fmt.Errorf("chunk of %d latent frames at %d behind one of %d at %d that is in work", next.Frames, next.Start, open.Frames, open.Start)
	}
	if err := c.room(dq, next); err != nil {
		return err
	}
	b := c.host[:0]
	for f := range open.Frames {
		b = c.pos.appendFrame(b, open.Start+f)
	}
	c.host = b
	c.before.at = c.earlier.Slice(0, 0, open.Frames*c.shape.Tokens())
	dq.Upload(c.before.at, b)
	c.before.span, c.before.rope = open, c.work.rope
	c.partition(&c.before)
	c.open(dq, next)
	c.work.late = true
	return nil
}

// Before returns the side of the chunk whose clean pass is open.
func (c *frames) Before() Layers { return &c.before }

// endPair counts the first chunk as history.
func (c *frames) endPair() {
	if c.guard.Bad() {
		c.work.span = Span{Start: c.done}
	} else {
		c.done += c.before.span.Frames
	}
	c.before.span, c.work.late = Span{}, false
}
