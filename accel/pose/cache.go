package pose

import (
	"encoding/binary"
	"fmt"
	"math"
	"slices"

	"longtake/compute"
	"longtake/kvcache"
)

// cache implements kvcache.Cache, kvcache.Posed and kvcache.Recaller.
//
// The view of a layer holds Window+ChunkFrames frames in a ring and, behind them, Top retrieved frames, keys rotated at the
// time they are read at. The store holds the latents of every remembered frame, and unrotated keys and values of those of the window and of
// the old ones that were seen last (recall.go).
type cache struct {
	policy Policy
	shape  kvcache.Shape
	arena  compute.Arena
	pos    *kvcache.Positions
	at     compute.Tensor // I32 [tokens, 3]: positions of a frame at some date
	bias   compute.Tensor // F32 [1, keys of the view]
	layers []layer

	latents compute.Tensor // BF16 [frames*tokens, latent], by number
	latent  compute.Tensor // F32 [tokens, latent], of a frame that is recalled
	origin  compute.Tensor // F32 [1, pairs, 2], the turns of time 0

	stored []stored // by frame
	free   []int    // unused slots of the store
	unused []int    // numbers that no frame has
	recall recall
	looks  int     // how often frames were chosen to be seen
	opened int     // the chunk that Recall was last called for, by its first frame
	window []dated // of every ring place of the view
	top    []dated // of every retrieved place
	parts  []kvcache.Part
	poses  []kvcache.Pose // of the chunk in work
	span   kvcache.Span
	guard  kvcache.Guard
	done   int
	host   []byte
	best   []match
}

// layer is one block's storage, each [heads, frames*tokens, headDim].
type layer struct {
	c            *cache
	index        int
	keys, values compute.Tensor // the view
	raw, kept    compute.Tensor // the store: unrotated keys, values
}

// stored is a remembered frame. Its latents are those of its number, its keys in its slot, -1 where they were given up. seen counts
// with looks. Of frames older than the window, covered says how well a newer one of them covers it, by which.
type stored struct {
	frame, number, slot, seen int
	pose                      kvcache.Pose
	covered                   float64
	by                        int
}

// dated is what lies in a place of the view: a frame, its slot in the store, and the time its keys are rotated at.
type dated struct {
	frame, slot, date int
	bias              float64
}

func (c *cache) allocate(a compute.Arena, dq compute.Queue, s kvcache.Shape, p Policy) {
	c.policy, c.shape, c.arena = p, s, a
	c.pos = kvcache.NewPositions(a, dq, s)
	n := s.Tokens()
	places := p.Window + s.ChunkFrames + p.Top
	c.recall.c = c
	c.latents, c.latent = a.Tensor(compute.BF16, p.frames(s)*n, s.Latent), a.Tensor(compute.F32, n, s.Latent)
	c.origin = a.Tensor(compute.F32, 1, s.Pairs[0], 2)
	if dq != nil && a.Err() == nil {
		dq.Upload(c.origin, origin(s))
	}
	c.at = a.Tensor(compute.I32, n, 3)
	c.bias = a.Tensor(compute.F32, 1, places*n)
	c.guard.Allocate(a, s)
	for i := range s.Layers {
		c.layers = append(c.layers, layer{
			c: c, index: i,
			keys: a.Tensor(s.DType, s.Heads, places*n, s.HeadDim), values: a.Tensor(s.DType, s.Heads, places*n, s.HeadDim),
			raw: a.Tensor(s.DType, s.Heads, p.slots(s)*n, s.HeadDim), kept: a.Tensor(s.DType, s.Heads, p.slots(s)*n, s.HeadDim),
		})
	}
	c.window, c.top = make([]dated, p.Window+s.ChunkFrames), make([]dated, p.Top)
	c.host = make([]byte, 0, max(places*n*4, n*12))
	c.Reset()
}

// origin is the row of time 0 of a rotation table.
func origin(s kvcache.Shape) (b []byte) {
	for j := range s.Pairs[0] {
		cos, sin := s.Turn(0, 0, j)
		b = binary.LittleEndian.AppendUint32(b, math.Float32bits(cos))
		b = binary.LittleEndian.AppendUint32(b, math.Float32bits(sin))
	}
	return b
}

// Reset forgets everything.
func (c *cache) Reset() {
	c.stored, c.free = c.stored[:0], c.free[:0]
	for i := c.policy.slots(c.shape) - 1; i >= 0; i-- {
		c.free = append(c.free, i)
	}
	c.unused = c.unused[:0]
	for i := c.policy.frames(c.shape) - 1; i >= 0; i-- {
		c.unused = append(c.unused, i)
	}
	for _, places := range [][]dated{c.window, c.top} {
		for i := range places {
			places[i] = dated{frame: -1}
		}
	}
	c.opened = -1
	c.done, c.span, c.poses, c.parts = 0, kvcache.Span{}, c.poses[:0], c.parts[:0]
	c.guard.Take()
	c.pos.Reset()
}

// SetPoses gives the poses of the next chunk's frames.
func (c *cache) SetPoses(p []kvcache.Pose) { c.poses = append(c.poses[:0], p...) }

// Begin chooses what the chunk sees, by the pose of its last frame.
func (c *cache) Begin(dq compute.Queue, span kvcache.Span) error {
	if err := c.guard.Take(); err != nil {
		return err
	}
	if span.Start != c.done || span.Frames <= 0 || span.Frames > c.shape.ChunkFrames {
		return fmt.Errorf("chunk of %d latent frames at %d: the cache holds %d and takes up to %d", span.Frames, span.Start, c.done, c.shape.ChunkFrames)
	}
	if len(c.poses) != span.Frames {
		return fmt.Errorf("pose memory needs the pose of every frame: have %d of %d (the model has no actions that give one?)", len(c.poses), span.Frames)
	}
	c.span = span
	c.pos.Begin(dq, span)
	target := c.poses[span.Frames-1]
	c.readWindow(dq, target)
	c.retrieve(dq, target)
	c.publish(dq)
	return nil
}

// readWindow gives the frames of the window their dates and bonuses.
func (c *cache) readWindow(dq compute.Queue, target kvcache.Pose) {
	for i := range c.window {
		d := &c.window[i]
		if d.frame < 0 || d.frame >= c.span.Start {
			continue
		}
		s := c.stored[c.find(d.frame)]
		c.read(dq, i, d, c.policy.logMatch(s.pose, target))
	}
}

// read rotates the keys of the frame at a place of the view if its date has changed, and sets its bonus.
func (c *cache) read(dq compute.Queue, place int, d *dated, logW float64) {
	p := c.policy
	w := p.weight(logW, c.span.Start-d.frame)
	date := d.frame
	if c.shape.Clamp > 0 {
		date = max(date, c.span.Start-c.shape.Clamp)
	}
	if w > p.MoveMin {
		date = c.span.Start - p.Move
	}
	d.bias = p.Gamma * w
	if date == d.date {
		return
	}
	d.date = date
	n := c.shape.Tokens()
	dq.Upload(c.at, c.positions(date))
	for i := range c.layers {
		l := &c.layers[i]
		dq.Rope(l.keys.Slice(1, place*n, (place+1)*n), l.raw.Slice(1, d.slot*n, (d.slot+1)*n), c.at, c.pos.Rope())
	}
}

func (c *cache) positions(time int) []byte {
	b := c.host[:0]
	for i := range c.shape.Tokens() {
		for _, v := range [3]int{time, i / c.shape.Columns, i % c.shape.Columns} {
			b = binary.LittleEndian.AppendUint32(b, uint32(int32(v)))
		}
	}
	return b
}

// choose finds the frames older than the window that match best.
func (c *cache) choose(target kvcache.Pose) {
	c.best = c.best[:0]
	for i, s := range c.stored[:c.old()] {
		if logW := c.policy.logMatch(s.pose, target); logW > c.policy.LogMin {
			c.best = append(c.best, match{i, logW})
		}
	}
	// Best first; of equals the oldest, which is nearest to the first sight of the place.
	slices.SortStableFunc(c.best, func(a, b match) int {
		switch {
		case a.logW > b.logW:
			return -1
		case a.logW < b.logW:
			return 1
		}
		return 0
	})
	c.best = c.best[:min(len(c.best), c.policy.Top)]
}

// retrieve puts the best matching frames behind the window, those whose keys are at hand: all, if nothing was left to Recall.
func (c *cache) retrieve(dq compute.Queue, target kvcache.Pose) {
	c.choose(target)
	c.best = slices.DeleteFunc(c.best, func(m match) bool { return c.stored[m.at].slot < 0 })
	n := c.shape.Tokens()
	for i := range c.top {
		d := &c.top[i]
		if i >= len(c.best) {
			d.frame = -1
			continue
		}
		s, place := c.stored[c.best[i].at], len(c.window)+i
		if d.frame != s.frame || d.slot != s.slot {
			*d = dated{frame: s.frame, slot: s.slot, date: -1}
			for j := range c.layers {
				l := &c.layers[j]
				dq.Copy(l.values.Slice(1, place*n, (place+1)*n), l.kept.Slice(1, s.slot*n, (s.slot+1)*n))
			}
		}
		c.read(dq, place, d, c.best[i].logW)
	}
}

// publish writes the bonuses and lists the parts of the view.
func (c *cache) publish(dq compute.Queue) {
	n, chunk := c.shape.Tokens(), c.span
	for f := range chunk.Frames {
		place := &c.window[c.ring(chunk.Start+f)]
		if place.frame == chunk.Start+f && place.slot >= 0 {
			c.free = append(c.free, place.slot) // the chunk was interrupted in its clean pass and begins anew
		}
		*place = dated{frame: chunk.Start + f, slot: -1, date: chunk.Start + f}
	}
	c.parts = c.parts[:0]
	b := c.host[:0]
	for place, d := range c.view() {
		if d.frame < 0 {
			break // places fill in order, and frames are retrieved only when the window is full
		}
		kind := kvcache.Recent
		switch {
		case d.frame >= chunk.Start+chunk.Frames: // drafted by a longer chunk that was interrupted
			d.bias = math.Inf(-1)
		case d.frame >= chunk.Start:
			kind = kvcache.Current
		case place >= len(c.window):
			kind = kvcache.History
		}
		c.parts = append(c.parts, kvcache.Part{Kind: kind, Lo: place * n, Hi: (place + 1) * n, Frame: d.frame})
		for range n {
			b = binary.LittleEndian.AppendUint32(b, math.Float32bits(float32(d.bias)))
		}
	}
	dq.Upload(c.bias.Slice(1, 0, len(c.parts)*n), b)
}

// view yields the view's places in order.
func (c *cache) view() func(yield func(int, dated) bool) {
	return func(yield func(int, dated) bool) {
		for i := range len(c.window) + len(c.top) {
			d := dated{}
			if i < len(c.window) {
				d = c.window[i]
			} else {
				d = c.top[i-len(c.window)]
			}
			if !yield(i, d) {
				return
			}
		}
	}
}

// ring returns the place of frame f in the view.
func (c *cache) ring(f int) int { return f % len(c.window) }

// find returns the index of a stored frame.
func (c *cache) find(frame int) int {
	i, _ := slices.BinarySearchFunc(c.stored, frame, func(s stored, f int) int { return s.frame - f })
	return i
}

// End counts the chunk as history and forgets what is superfluous.
func (c *cache) End() {
	if c.guard.Bad() {
		c.span, c.poses = kvcache.Span{}, c.poses[:0]
		return // the slots are given back when the chunk begins anew
	}
	for f := range c.span.Frames {
		place := &c.window[c.ring(c.span.Start+f)]
		last := len(c.unused) - 1
		c.stored = append(c.stored, stored{frame: place.frame, number: c.unused[last], slot: place.slot, pose: c.poses[f], covered: math.Inf(-1)})
		c.unused = c.unused[:last]
	}
	c.done += c.span.Frames
	for f := c.done - c.span.Frames - c.policy.Window; f < c.done-c.policy.Window; f++ {
		c.leave(f)
	}
	c.span, c.poses = kvcache.Span{}, c.poses[:0]
}

// leave decides about a frame that leaves the window: an older frame that covers its pose makes it superfluous; otherwise its latents
// stay, and while there is no room the frame that a newer one covers best is forgotten, of equals the oldest.
func (c *cache) leave(frame int) {
	if frame < 0 {
		return
	}
	i := c.find(frame)
	for _, s := range c.stored[:i] {
		if c.policy.logMatch(s.pose, c.stored[i].pose) > math.Log(c.policy.Cover) {
			c.forget(i)
			return
		}
	}
	c.drop(i)
	for j := range i {
		c.cover(j, i)
	}
	if len(c.unused) < c.shape.ChunkFrames {
		worst := 0
		for j := range i + 1 {
			if c.stored[j].covered > c.stored[worst].covered {
				worst = j
			}
		}
		c.forget(worst)
	}
}

// cover notes how well the newer frame i covers j.
func (c *cache) cover(j, i int) {
	s := &c.stored[j]
	if m := c.policy.logMatch(s.pose, c.stored[i].pose); m > s.covered {
		s.covered, s.by = m, c.stored[i].frame
	}
}

// forget gives up a frame that is older than the window or leaves it.
func (c *cache) forget(i int) {
	gone := c.stored[i].frame
	c.drop(i)
	c.unused = append(c.unused, c.stored[i].number)
	c.stored = slices.Delete(c.stored, i, i+1)
	for j := range c.stored[:i] {
		if s := &c.stored[j]; s.by == gone && !math.IsInf(s.covered, -1) {
			s.covered = math.Inf(-1)
			for k := j + 1; k < c.old(); k++ {
				c.cover(j, k)
			}
		}
	}
}

// Rope returns the tables and the positions of the chunk in work.
func (c *cache) Rope() (compute.Rope, compute.Tensor) {
	return c.pos.Rope(), c.pos.Chunk(c.span.Frames * c.shape.Tokens())
}

// Stats returns the sizes now.
func (c *cache) Stats() kvcache.Stats {
	return kvcache.Stats{Bytes: c.arena.Bytes(), Tokens: float64(len(c.parts) * c.shape.Tokens()), Frames: c.done}
}

// Close gives the memory back.
func (c *cache) Close() { c.arena.Free() }

// Layer returns block i's side.
func (c *cache) Layer(i int) kvcache.Layer { return &c.layers[i] }

// Commit writes them into the store, and into the view as all later readings do, out of the store: what lies there may be rounded, and a frame that
// a given-up chunk read at another date must come back as it was.
func (l *layer) Commit(dq compute.Queue, keys, values compute.Tensor) {
	l.c.guard.Check(dq, keys, l.index, l.index == l.c.shape.Layers-1, l.c.span)
	c, n := l.c, l.c.shape.Tokens()
	for f := range c.span.Frames {
		place := &c.window[c.ring(c.span.Start+f)]
		if place.slot < 0 { // the first layer takes the slot
			last := len(c.free) - 1
			place.slot, c.free = c.free[last], c.free[:last]
		}
		raw := l.raw.Slice(1, place.slot*n, (place.slot+1)*n)
		dq.Copy(raw, keys.Slice(1, f*n, (f+1)*n))
		dq.Copy(l.kept.Slice(1, place.slot*n, (place.slot+1)*n), values.Slice(1, f*n, (f+1)*n))
		l.show(dq, f, raw, values.Slice(1, f*n, (f+1)*n))
	}
}

// Draft writes the chunk's keys into the view.
func (l *layer) Draft(dq compute.Queue, keys, values compute.Tensor) {
	n := l.c.shape.Tokens()
	for f := range l.c.span.Frames {
		l.show(dq, f, keys.Slice(1, f*n, (f+1)*n), values.Slice(1, f*n, (f+1)*n))
	}
}

// show writes keys and values of the chunk's frame f into the view.
func (l *layer) show(dq compute.Queue, f int, keys, values compute.Tensor) {
	c, n := l.c, l.c.shape.Tokens()
	rope, pos := c.Rope()
	at := c.ring(c.span.Start+f) * n
	dq.Rope(l.keys.Slice(1, at, at+n), keys, pos.Slice(0, f*n, (f+1)*n), rope)
	dq.Copy(l.values.Slice(1, at, at+n), values)
}

// View returns the chosen frames.
func (l *layer) View() kvcache.View {
	c := l.c
	n := len(c.parts) * c.shape.Tokens()
	bias := c.bias.Slice(1, 0, n)
	bias.Shape[0], bias.Stride[0] = c.shape.Heads, 0 // one row for all heads
	return kvcache.View{Keys: l.keys.Slice(1, 0, n), Values: l.values.Slice(1, 0, n), LogCount: bias, Parts: c.parts}
}
