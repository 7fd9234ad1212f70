package tempcache

import (
	"math"

	"longtake/compute"
	"longtake/kvcache"
)

// layer is one block's storage, by [heads, slots]. It implements kvcache.Layer and kvcache.Watcher.
type layer struct {
	cache *cache
	desk  *desk
	index int
	slots int   // entries that are laid out for each head
	room  []int // of them, those that a group may use

	keys, values rows // rotated keys; values
	raw          rows // unrotated keys; F32 for running means
	means        rows // F32 [heads, entries]: values as running means, where the cache's type would lose them
	logCount     rows // F32 [heads, slots]
	lengths      rows // I32 [heads], slots of the view
	places       rows // I32 [heads, anchors and entries, 3], where keys are rotated
	unit         rows // F32 [groups, entries, width], what is compared, of unit length
	first        rows // likewise of each entry's first member
	groupLengths rows // I32 [groups], entries
	queries      rows // [heads, ring], rotated queries of the last forward of each frame

	groups        []group
	weight, marks compute.Tensor // Weight and State of compute.MergeStore, where the device merges
	parts         []kvcache.Part
	hidden        int // dense slots of merged frames
	hides         []bool
	most          int // entries of the longest head
	asked         int // newest frame whose queries were seen, -1 for none
}

// group returns the entries of a head.
func (l *layer) group(head int) *group {
	return &l.groups[head*l.cache.groups/l.cache.shape.Heads]
}

// heads returns the heads [lo, hi) of a group.
func (l *layer) heads(g int) (lo, hi int) {
	n := l.cache.shape.Heads / l.cache.groups
	return g * n, (g + 1) * n
}

// all lists what the host reads or writes.
func (l *layer) all() [10]*rows {
	return [10]*rows{&l.keys, &l.values, &l.raw, &l.means, &l.logCount, &l.lengths, &l.places, &l.unit, &l.first, &l.queries}
}

// open gives the host access, and writes what never changes: the places of the anchors.
func (l *layer) open(dq compute.Queue) {
	if l.cache.remote.on {
		l.openRemotely(dq)
		return
	}
	for _, r := range l.all() {
		r.open(dq)
		if !r.mapped && len(r.mem) > 0 {
			r.fetch(dq)
		}
	}
	l.groupLengths.open(dq)
	s := l.cache.shape
	for h := range s.Heads {
		for i := range l.cache.p.Anchor * s.Tokens() {
			frame, token := l.cache.p.Anchor-1-i/s.Tokens(), i%s.Tokens()
			l.setPlace(h, i, frame, token)
		}
	}
	l.places.flush(dq)
}

func (l *layer) setPlace(head, i, frame, token int) {
	columns := l.cache.shape.Columns
	at := l.places.at(head, i)
	copy(ints(l.places.mem)[at:at+3], []int32{int32(frame), int32(token / columns), int32(token % columns)})
}

// take copies what old holds.
func (l *layer) take(dq compute.Queue, old *layer) {
	olds := old.all()
	for i, r := range l.all() {
		o := olds[i]
		if o.tensor.Elems() == 0 {
			continue
		}
		if o.tensor.Rank < 2 {
			dq.Copy(r.tensor, o.tensor)
			continue
		}
		dq.Copy(r.tensor.Slice(1, 0, o.tensor.Dim(1)), o.tensor)
	}
	if l.cache.remote.on {
		l.takeState(dq, old)
	}
	for g := range l.groups {
		l.groups[g].take(&old.groups[g])
	}
	l.hidden, l.hides, l.most, l.asked = old.hidden, old.hides, old.most, old.asked
}

// Draft writes the chunk's keys into its slots.
func (l *layer) Draft(dq compute.Queue, keys, values compute.Tensor) {
	l.write(dq, keys, values, false)
}

// Commit writes the clean chunk's keys into its slots.
func (l *layer) Commit(dq compute.Queue, keys, values compute.Tensor) {
	c := l.cache
	c.guard.Check(dq, keys, l.index, l.index == c.shape.Layers-1, c.span)
	l.write(dq, keys, values, true)
}

func (l *layer) write(dq compute.Queue, keys, values compute.Tensor, clean bool) {
	c := l.cache
	n := c.shape.Tokens()
	rope, pos := c.Rope()
	for f := range c.span.Frames {
		at := c.slot(c.span.Start + f)
		k := keys.Slice(1, f*n, (f+1)*n)
		dq.Rope(l.keys.tensor.Slice(1, at, at+n), k, pos.Slice(0, f*n, (f+1)*n), rope)
	}
	l.store(dq, &l.values, values)
	if clean {
		l.store(dq, &l.raw, keys)
	}
}

// DraftNorm normalises, rotates and writes the chunk's keys into its slots.
func (l *layer) DraftNorm(dq compute.Queue, keys compute.Tensor, n compute.Norm, values compute.Tensor) {
	c := l.cache
	rope, pos := c.Rope()
	if to, ok := l.frames(l.keys.tensor); ok {
		compute.NormRope(dq, to, keys, n, pos, rope)
		l.store(dq, &l.values, values)
		return
	}
	dq.Norm(keys, keys, n)
	l.write(dq, keys.Heads(c.shape.Heads), values, false)
}

// frames views the slots of the chunk in work as [heads, frames, tokens of one, headDim]: a frame lies before the one before it. It
// reports false for a chunk that lies at both ends of the ring, or among the anchors.
func (l *layer) frames(t compute.Tensor) (compute.Tensor, bool) {
	c := l.cache
	n, first, last := c.shape.Tokens(), c.slot(c.span.Start), c.slot(c.span.Start+c.span.Frames-1)
	if first-last != (c.span.Frames-1)*n || c.span.Start < c.p.Anchor {
		return t, false
	}
	t.Offset += first * t.Stride[1]
	t.Rank, t.Shape = 4, [compute.MaxRank]int{t.Shape[0], c.span.Frames, n, t.Shape[2]}
	t.Stride = [compute.MaxRank]int{t.Stride[0], -n * t.Stride[1], t.Stride[1], t.Stride[2]}
	return t, true
}

// store copies what the chunk has of rows, [heads, tokens, headDim], to its slots.
func (l *layer) store(dq compute.Queue, r *rows, from compute.Tensor) {
	c := l.cache
	n := c.shape.Tokens()
	if to, ok := l.frames(r.tensor); ok {
		s := from
		from.Rank, from.Shape = 4, to.Shape
		from.Stride = [compute.MaxRank]int{s.Stride[0], n * s.Stride[1], s.Stride[1], s.Stride[2]}
		dq.Copy(to, from)
		return
	}
	for f := range c.span.Frames {
		at := c.slot(c.span.Start + f)
		dq.Copy(r.tensor.Slice(1, at, at+n), from.Slice(1, f*n, (f+1)*n))
	}
}

// Watch keeps the queries of a forward.
func (l *layer) Watch(dq compute.Queue, query compute.Tensor) {
	c := l.cache
	n := c.shape.Tokens()
	for f := range c.span.Frames {
		if c.span.Start+f < c.p.Anchor {
			continue
		}
		at := c.slot(c.span.Start + f)
		dq.Copy(l.queries.tensor.Slice(1, at, at+n), query.Slice(1, f*n, (f+1)*n))
		l.asked = c.span.Start + f
	}
}

// View returns the dense slots in use and the entries.
func (l *layer) View() kvcache.View {
	c := l.cache
	lo, hi := c.low(), c.dense()+l.most
	v := kvcache.View{Keys: l.keys.tensor.Slice(1, lo, hi), Values: l.values.tensor.Slice(1, lo, hi), Parts: c.parts}
	if c.asks() {
		v.Watcher = l
	}
	if l.most == 0 && l.hidden == 0 {
		return v
	}
	v.LogCount, v.Lengths = l.logCount.tensor.Slice(1, lo, hi), l.lengths.tensor
	l.parts = append(append(l.parts[:0], c.parts...), kvcache.Part{Kind: kvcache.History, Lo: c.dense() - lo, Hi: hi - lo, Frame: -1})
	v.Parts = l.parts
	return v
}

// hide sets whether the dense frame at slot at is out of sight.
func (l *layer) hide(dq compute.Queue, at int, hidden bool) {
	n := l.cache.shape.Tokens()
	if l.hides[at/n] == hidden {
		return
	}
	l.hides[at/n] = hidden
	count := float32(0)
	if hidden {
		l.hidden += n
		count = float32(math.Inf(-1))
	} else {
		l.hidden -= n
	}
	if l.cache.remote.on {
		l.fillRemotely(dq, at, n, count)
		return
	}
	for h := range l.cache.shape.Heads {
		row := floats(l.logCount.mem)[l.logCount.at(h, at):][:n]
		for i := range row {
			row[i] = count
		}
	}
}

// publish tells the device where heads end.
func (l *layer) publish(dq compute.Queue) {
	c := l.cache
	if c.remote.on {
		l.most = 0
		l.most = l.mostRemotely()
		return
	}
	l.most = 0
	for h := range c.shape.Heads {
		n := l.group(h).n
		l.most = max(l.most, n)
		ints(l.lengths.mem)[h] = int32(c.dense() - c.low() + n)
	}
	l.lengths.flush(dq)
	l.logCount.flush(dq)
}

// turn rotates keys beyond the clamp as if they were as old as the clamp.
func (l *layer) turn(dq compute.Queue) {
	c := l.cache
	rope := c.pos.Rope()
	if c.shape.Clamp == 0 || c.done == 0 {
		return
	}
	old, most := c.p.Anchor > 0 && rope.MinTime > 0, 0
	if c.remote.on && c.merged > c.p.Anchor { // the oldest entry may be as old as the first frame
		old, most = old || c.p.Anchor < rope.MinTime, l.mostRemotely()
	}
	for g := range l.groups {
		g := &l.groups[g]
		most = max(most, g.n)
		for _, t := range g.time[:g.n] {
			old = old || int(t) < rope.MinTime
		}
	}
	if !old {
		return
	}
	anchors := c.p.Anchor * c.shape.Tokens()
	turn := func(first, end, n int) { // heads, entries
		lo, hi := c.dense()-anchors, c.dense()+n
		dq.Rope(l.keys.tensor.Slice(0, first, end).Slice(1, lo, hi), l.raw.tensor.Slice(0, first, end).Slice(1, lo, hi),
			l.places.tensor.Slice(0, first, end).Slice(1, 0, anchors+n), rope)
	}
	if c.remote.on {
		turn(0, c.shape.Heads, most)
		return
	}
	for h := range c.shape.Heads {
		turn(h, h+1, l.group(h).n)
	}
}
