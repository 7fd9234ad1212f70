package kvcache

import (
	"fmt"

	"longtake/compute"
)

// Rewinder is a Cache whose newest frames can be written again: under another prompt, or alone, without what they once saw.
// Between chunks only.
type Rewinder interface {
	Cache
	// Again returns how many of the newest frames can be written again, and how many frames before all others are kept
	// beside them (anchors).
	Again() (frames, anchors int)
	// Rewind forgets all frames but the first keep, which are at most the anchors; the next chunk is frame first.
	Rewind(first, keep int) error
	// Redo opens the frames from first on for one forward in which they all see each other and what is kept before them. Its
	// clean keys replace theirs; End closes it.
	Redo(dq compute.Queue, first int) error
}

// Again returns what is in view beside the anchors; of a full cache everything.
func (c *frames) Again() (frames, anchors int) {
	anchors = min(c.policy.Anchor, c.done)
	return c.used() - anchors, anchors
}

// Rewind forgets.
func (c *frames) Rewind(first, keep int) error {
	g := &c.gap
	if c.work.span.Frames > 0 || first < keep || first > c.done || keep < 0 || keep > min(c.policy.Anchor, c.place(c.done)) || keep > 0 && g.kept > 0 && keep != g.kept {
		return fmt.Errorf("rewind to latent frame %d of %d keeping %d of %d anchors: possible between chunks, with all anchors or none", first, c.done, keep, c.policy.Anchor)
	}
	if g.kept == 0 {
		g.low = g.high // where the frames lie that may now be kept
	}
	g.kept, g.first, g.high = keep, first, first-keep
	c.pos.Rewind(first)
	c.done, c.work.span = first, Span{Start: first}
	return nil
}

// Redo opens frames again.
func (c *frames) Redo(dq compute.Queue, first int) error {
	if err := c.guard.Take(); err != nil {
		return err
	}
	frames, _ := c.Again()
	if c.work.span.Frames > 0 || c.policy.Recent == Full || c.turns() || first < c.done-frames || first >= c.done {
		return fmt.Errorf("write latent frames %d to %d again in one forward: the cache does so for the newest %d of a window without clamp", first, c.done-1, frames)
	}
	span := Span{Start: first, Frames: c.done - first}
	c.pos.Rewind(first)
	c.open(dq, span)
	c.work.late = false
	for i := range c.layers {
		c.turn(dq, &c.work, i)
	}
	c.done = first
	return nil
}
