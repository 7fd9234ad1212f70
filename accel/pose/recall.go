package pose

import (
	"longtake/compute"
	"longtake/kvcache"
)

// Of frames older than the window the store has the latents alone, as bfloat16, and some slots for keys: those of the frames in view, and of
// some more that were seen lately, since a player who turns to and fro wants the same ones again.

// recall is the side of one frame in its clean pass: it writes to its slot, and to a place of the view that Begin writes again.
type recall struct {
	c           *cache
	slot, place int
	layer       recalledLayer
	parts       [1]kvcache.Part
}

// recalledLayer is one block's storage for it.
type recalledLayer struct {
	*recall
	of *layer
}

// Keep stores a frame's latents.
func (c *cache) Keep(dq compute.Queue, frame int, latent compute.Tensor) int {
	i := c.find(frame)
	if i == len(c.stored) || c.stored[i].frame != frame {
		return -1
	}
	n, number := c.shape.Tokens(), c.stored[i].number
	dq.Copy(c.latents.Slice(0, number*n, (number+1)*n), latent)
	return number
}

// Recall opens the best match whose keys are missing. If the chunk wants none it opens one that the next chunk may want: two in one chunk would be late.
func (c *cache) Recall(dq compute.Queue, span kvcache.Span) (r kvcache.Recalled, ok bool) {
	if len(c.poses) == 0 || len(c.poses) != span.Frames || span.Start != c.done {
		return r, false // Begin says what is wrong
	}
	now := c.poses[len(c.poses)-1]
	c.choose(now)
	c.looks++
	for _, m := range c.best {
		c.stored[m.at].seen = c.looks
	}
	r, ok = c.open(dq)
	if !ok && c.opened != span.Start && len(c.stored) > 0 && c.slotsOfOld() > c.policy.Top {
		c.choose(onward(c.stored[len(c.stored)-1].pose, now))
		r, ok = c.open(dq)
	}
	c.opened = span.Start
	return r, ok
}

// open opens the best of the chosen frames whose keys are missing.
func (c *cache) open(dq compute.Queue) (r kvcache.Recalled, ok bool) {
	for i, m := range c.best {
		s := &c.stored[m.at]
		if s.slot >= 0 {
			continue
		}
		c.spare()
		last, n := len(c.free)-1, c.shape.Tokens()
		s.slot, c.free, s.seen = c.free[last], c.free[:last], c.looks
		c.recall.slot, c.recall.place = s.slot, len(c.window)+i
		c.top[i] = dated{frame: -1} // what lies there is overwritten
		dq.Upload(c.at, c.positions(0))
		dq.Copy(c.latent, c.latents.Slice(0, s.number*n, (s.number+1)*n))
		return kvcache.Recalled{Number: s.number, Latent: c.latent, Layers: &c.recall}, true
	}
	return r, false
}

// onward is where a player who was at one pose and is at another will be.
func onward(was, now kvcache.Pose) kvcache.Pose {
	now.X, now.Y, now.Heading = 2*now.X-was.X, 2*now.Y-was.Y, 2*now.Heading-was.Heading
	return now
}

// Outdate gives up all keys of old frames.
func (c *cache) Outdate() {
	for i := range c.old() {
		c.drop(i)
	}
}

// old returns how many of the stored frames are older than the window; they come first.
func (c *cache) old() int { return c.find(c.done - c.policy.Window) }

// spare leaves a slot for an old frame's keys: those that were seen longest ago are given up.
func (c *cache) spare() {
	held, last := 0, -1
	for i := range c.old() {
		if s := c.stored[i]; s.slot >= 0 {
			if held++; last < 0 || s.seen < c.stored[last].seen {
				last = i
			}
		}
	}
	if held >= c.slotsOfOld() {
		c.drop(last)
	}
}

// slotsOfOld is how many old frames have room for their keys.
func (c *cache) slotsOfOld() int {
	return c.policy.slots(c.shape) - c.policy.Window - c.shape.ChunkFrames
}

// drop gives up a frame's keys.
func (c *cache) drop(i int) {
	if s := &c.stored[i]; s.slot >= 0 {
		c.free = append(c.free, s.slot)
		s.slot = -1
	}
}

// Rope returns the tables and the positions of the frame. It is always at time 0: all that it sees is itself, but roundings differ with the time.
func (r *recall) Rope() (compute.Rope, compute.Tensor) {
	rope := r.c.pos.Rope()
	rope.Time, rope.MinTime = r.c.origin, 0
	return rope, r.c.at
}

// Layer returns block i's side.
func (r *recall) Layer(i int) kvcache.Layer {
	r.layer = recalledLayer{r, &r.c.layers[i]}
	return &r.layer
}

// Draft writes the frame's keys for it to see.
func (l *recalledLayer) Draft(dq compute.Queue, keys, values compute.Tensor) {
	seen, kept := l.seen()
	rope, pos := l.Rope()
	dq.Rope(seen, keys, pos, rope)
	dq.Copy(kept, values)
}

// Commit writes them into the store, too.
func (l *recalledLayer) Commit(dq compute.Queue, keys, values compute.Tensor) {
	l.Draft(dq, keys, values)
	lo, hi := l.slot*l.c.shape.Tokens(), (l.slot+1)*l.c.shape.Tokens()
	dq.Copy(l.of.raw.Slice(1, lo, hi), keys)
	dq.Copy(l.of.kept.Slice(1, lo, hi), values)
}

// seen is the frame's place in the view.
func (l *recalledLayer) seen() (keys, values compute.Tensor) {
	lo, hi := l.place*l.c.shape.Tokens(), (l.place+1)*l.c.shape.Tokens()
	return l.of.keys.Slice(1, lo, hi), l.of.values.Slice(1, lo, hi)
}

// View returns the frame itself.
func (l *recalledLayer) View() kvcache.View {
	keys, values := l.seen()
	l.parts[0] = kvcache.Part{Kind: kvcache.Current, Hi: l.c.shape.Tokens(), Frame: l.c.done}
	return kvcache.View{Keys: keys, Values: values, Parts: l.parts[:]}
}
