package tempcache

import (
	"math"

	"longtake/compute"
)

// hit is what the search found for one token.
type hit struct {
	slot   int32 // -1 for none
	joins  bool
	cosine float32
	moved  float64 // how far joining would move logits
}

// A frame moves from the ring into the entries in these steps: fetch, describe, match, find, weigh, settle, flush. Describe, find and
// settle work on the host and touch nothing but the layer and its desk.

// fetch brings what the host reads.
func (l *layer) fetch(dq compute.Queue) {
	for _, r := range [4]*rows{&l.keys, &l.values, &l.raw, &l.queries} {
		r.fetch(dq)
	}
}

// flush gives back what the host wrote.
func (l *layer) flush(dq compute.Queue) {
	for _, r := range l.all() {
		r.flush(dq)
	}
}

// match finds the nearest entries of the frame's tokens where that is the queue's work.
func (l *layer) match(dq compute.Queue, frame int) {
	for g := range l.groups {
		ints(l.groupLengths.mem)[g] = int32(l.groups[g].n)
	}
	if l.cache.p.Search == Exact {
		l.desk.turns.at(frame) // queries are turned back from there
		l.matchAll(dq, l.cache.slot(frame), l.askedFor(frame))
	}
}

// askedFor reports whether a frame's tokens are matched by their queries.
func (l *layer) askedFor(frame int) bool { return l.cache.p.ByQuery && l.asked >= frame }

// find fills in the hits of the frame's tokens, and writes down what weigh needs.
func (l *layer) find(dq compute.Queue, frame int) {
	at := l.cache.slot(frame)
	l.desk.turns.at(frame)
	for g := range l.groups {
		if !l.cache.p.local(l.index, g) {
			l.search(dq, g, at, l.askedFor(frame))
		}
	}
	l.differ(at)
}

// settle lets tokens near an entry join it, all against the entries as they were before the frame; the others become entries in
// the order of tokens.
func (l *layer) settle(frame int) {
	at := l.cache.slot(frame)
	l.desk.turns.at(frame)
	for g := range l.groups {
		if c := l.cache; c.p.local(l.index, g) {
			l.groups[g].entered += int64(c.shape.Tokens())
			l.groups[g].evicted += int64(c.shape.Tokens())
			continue
		}
		l.accept(g, at)
		l.join(g, at, frame)
		l.found(g, at, frame)
	}
}

// describe writes the unit vectors of the frame at slot at.
func (l *layer) describe(at int) {
	c := l.cache
	d, n := c.shape.HeadDim, c.shape.Tokens()
	for g := range l.groups {
		if c.p.local(l.index, g) {
			continue
		}
		lo, hi := l.heads(g)
		for i := range n {
			row := l.desk.probe.f32(g, i)
			for h := lo; h < hi; h++ {
				l.compared(row[(h-lo)*d:][:d], h, at+i, i)
				l.unitise(row[(h-lo)*d:][:d], hi-lo)
			}
		}
	}
}

// compared writes the key at a slot of a head in the form in which keys are compared.
func (l *layer) compared(dst []float32, head, slot, token int) {
	c := l.cache
	if c.p.Space == Rotated {
		l.keys.load(dst, head, slot)
		return
	}
	l.raw.load(dst, head, slot)
	if c.p.Space == Spatial {
		l.desk.turns.spatial(dst, token)
	}
}

// unitise scales a vector to length 1/sqrt(heads), so that the dot product of vectors of several heads is their mean cosine.
func (l *layer) unitise(x []float32, heads int) {
	if s := l.cache.do.Squares(x) * float32(heads); s > 0 {
		l.cache.do.Scale(x, x, float32(1/math.Sqrt(float64(s))))
	}
}

// dot has four sums, for speed.
func dot(a, b []float32) float32 {
	var s0, s1, s2, s3 float32
	b = b[:len(a)]
	i := 0
	for ; i+4 <= len(a); i += 4 {
		x, y := a[i:i+4:i+4], b[i:i+4:i+4]
		s0 += x[0] * y[0]
		s1 += x[1] * y[1]
		s2 += x[2] * y[2]
		s3 += x[3] * y[3]
	}
	for ; i < len(a); i++ {
		s0 += a[i] * b[i]
	}
	return s0 + s1 + (s2 + s3)
}

// accept decides which tokens of group g join the entry that was found.
func (l *layer) accept(g, at int) {
	c, s := l.cache, &l.groups[g]
	threshold, lossless := c.p.least(), c.p.Threshold >= 1
	hits := l.hits(g)
	for i := range hits {
		h := &hits[i]
		if h.slot < 0 || h.cosine < threshold {
			continue
		}
		h.joins = true
		if lossless {
			h.joins = l.same(g, int(h.slot), at+i)
		}
		if n := int32(c.p.Retest); n > 0 && (s.joined[h.slot]+1)%n == 0 {
			h.joins = h.joins && dot(l.first.f32(g, int(h.slot)), l.desk.probe.f32(g, i)) >= threshold
		}
		if h.joins && c.asks() {
			h.moved = l.moved(g, i)
			h.joins = c.p.MaxError == 0 || h.moved <= c.p.MaxError
			h.joins = h.joins && (c.p.MaxChange == 0 || h.moved*l.apart(g, int(h.slot), at+i) <= c.p.MaxChange)
		}
	}
	if !c.p.OnePerFrame {
		return
	}
	for i := range hits {
		h := &hits[i]
		for j := range i {
			o := &hits[j]
			if !h.joins || !o.joins || o.slot != h.slot {
				continue
			}
			if h.cosine > o.cosine {
				o.joins = false
			} else {
				h.joins = false
			}
		}
	}
}

// same reports whether the stored keys of an entry and of a slot are equal in all heads of the group.
func (l *layer) same(g, entry, slot int) bool {
	c := l.cache
	lo, hi := l.heads(g)
	for h := lo; h < hi; h++ {
		l.keys.load(l.desk.row, h, c.dense()+entry)
		l.keys.load(l.desk.other, h, slot)
		for i, v := range l.desk.row {
			if v != l.desk.other[i] {
				return false
			}
		}
	}
	return true
}

// join lets tokens into their entries.
func (l *layer) join(g, at, frame int) {
	s, hits := &l.groups[g], l.hits(g)
	for i := range hits {
		if h := &hits[i]; h.joins {
			l.add(g, int(h.slot), at+i, h.moved)
			s.last[h.slot] = int32(i)
		}
	}
	for i := range hits {
		h := &hits[i]
		if h.joins && s.last[h.slot] == int32(i) {
			l.renew(g, int(h.slot), at, i, frame)
			s.last[h.slot] = -1
		}
	}
}

// add counts the token at slot as a member and takes its value, and for Mean its key, into the running means.
func (l *layer) add(g, entry, slot int, moved float64) {
	c, s := l.cache, &l.groups[g]
	s.entered++
	s.members[entry]++
	s.joined[entry]++
	s.weight[entry] = l.grow(s.weight[entry], 1)
	share := 1 / float64(s.members[entry])
	if c.p.Decay > 0 {
		share = min(1, 1/s.weight[entry])
	}
	l.blend(g, entry, slot, float32(share))
	if c.p.Spread > 0 {
		s.square[entry] += float32(share) * (l.square(g, slot) - s.square[entry])
	}
	lo, hi := l.heads(g)
	for h := lo; h < hi; h++ {
		c.heads[l.index*c.shape.Heads+h].LogitError += moved
	}
}

// grow returns the count of two merged entries.
func (l *layer) grow(weight, more float64) float64 {
	if d := l.cache.p.Decay; d > 0 {
		weight *= d
	}
	weight += more
	if most := l.cache.p.CountCap; most > 0 {
		weight = min(weight, most)
	}
	return weight
}

// blend moves the means of an entry towards the value and the key at slot: mean += share*(new-mean).
func (l *layer) blend(g, entry, slot int, share float32) {
	c := l.cache
	to := c.dense() + entry
	lo, hi := l.heads(g)
	for h := lo; h < hi; h++ {
		means, i := &l.values, to
		if l.means.tensor.Elems() > 0 {
			means, i = &l.means, entry
		}
		l.values.load(l.desk.other, h, slot)
		if slot >= c.dense() {
			means.load(l.desk.other, h, slot-to+i)
		}
		l.mix(means.f32(h, i), l.desk.other, share)
		if means != &l.values {
			l.values.save(h, to, means.f32(h, i))
		}
		if c.p.Keep == Mean {
			l.raw.load(l.desk.other, h, slot)
			l.mix(l.raw.f32(h, to), l.desk.other, share)
		}
	}
}

// mix moves a mean towards x, which is lost. A mean of equal vectors stays what it is.
func (l *layer) mix(mean, x []float32, share float32) {
	l.cache.do.Mix(x, x, mean, 1, -1)
	l.cache.do.Mix(mean, x, mean, share, 1)
}

// renew gives an entry the position of its newest member, token i of the frame at slot at, and with it a key.
func (l *layer) renew(g, entry, at, i, frame int) {
	c, s := l.cache, &l.groups[g]
	to := c.dense() + entry
	lo, hi := l.heads(g)
	for h := lo; h < hi; h++ {
		if c.p.Keep == Newest {
			l.keys.move(h, to, at+i)
			l.raw.move(h, to, at+i)
		}
		l.setPlace(h, c.p.Anchor*c.shape.Tokens()+entry, frame, i)
	}
	if c.p.Keep == Mean {
		l.rotate(g, entry, frame, i)
	}
	l.redescribe(g, entry, i)
	s.time[entry] = int32(frame)
	if c.p.Search == Neighbours {
		s.unlink(entry)
		s.link(entry, i)
	}
	s.cell[entry] = int32(i)
	l.setCount(g, entry)
}

// rotate writes the key of an entry at a position from its unrotated mean.
func (l *layer) rotate(g, entry, frame, token int) {
	c := l.cache
	l.desk.turns.at(frame)
	lo, hi := l.heads(g)
	for h := lo; h < hi; h++ {
		l.raw.load(l.desk.row, h, c.dense()+entry)
		l.desk.turns.whole(l.desk.row, token)
		l.keys.save(h, c.dense()+entry, l.desk.row)
	}
}

// redescribe writes what is compared of an entry whose newest member was token i of the frame in work.
func (l *layer) redescribe(g, entry, token int) {
	c := l.cache
	d := c.shape.HeadDim
	lo, hi := l.heads(g)
	row := l.unit.f32(g, entry)
	for h := lo; h < hi; h++ {
		l.compared(row[(h-lo)*d:][:d], h, c.dense()+entry, token)
		l.unitise(row[(h-lo)*d:][:d], hi-lo)
	}
	if x := l.groups[g].index; x != nil {
		x.Put(entry, row)
	}
}

// square is the square length of the unrotated key at a slot, of all heads of a group together.
func (l *layer) square(g, slot int) (sum float32) {
	lo, hi := l.heads(g)
	for h := lo; h < hi; h++ {
		l.raw.load(l.desk.other, h, slot)
		sum += dot(l.desk.other, l.desk.other)
	}
	return sum
}

func (l *layer) setCount(g, entry int) {
	c := l.cache
	count := float32(0)
	if !c.p.NoLogCount {
		count = float32(math.Log(l.groups[g].weight[entry]))
		if c.p.Spread > 0 {
			lack := max(0, l.groups[g].square[entry]-l.square(g, c.dense()+entry))
			count += float32(c.p.Spread/float64(2*c.width())) * lack
		}
	}
	lo, hi := l.heads(g)
	for h := lo; h < hi; h++ {
		floats(l.logCount.mem)[l.logCount.at(h, c.dense()+entry)] = count
	}
}

// found makes entries of the tokens that joined none.
func (l *layer) found(g, at, frame int) {
	s, hits := &l.groups[g], l.hits(g)
	l.desk.olds.reset()
	l.desk.pairs.reset()
	l.desk.waiting = l.desk.waiting[:0]
	for i := range hits {
		h := &hits[i]
		if h.joins {
			continue
		}
		entry := s.n
		if entry < l.ordinary(g) {
			s.n++
		} else if l.sums(g) {
			l.desk.waiting = append(l.desk.waiting, int32(i))
			continue
		} else if entry = l.free(g, at, i, frame); entry < 0 {
			continue
		}
		l.place(g, entry, at, i, frame)
	}
	l.deal(g, at, frame)
}

// place makes token i of the frame at slot at an entry, and notes what it is near to.
func (l *layer) place(g, entry, at, i, frame int) {
	s, h := &l.groups[g], &l.hits(g)[i]
	l.put(g, entry, at, i, frame)
	s.near[entry], s.nearness[entry] = h.slot, h.cosine
	if int(h.slot) == entry {
		s.near[entry] = -1
	}
}

// put makes token i of the frame at slot at an entry.
func (l *layer) put(g, entry, at, i, frame int) {
	c, s := l.cache, &l.groups[g]
	to := c.dense() + entry
	lo, hi := l.heads(g)
	for h := lo; h < hi; h++ {
		l.keys.move(h, to, at+i)
		l.raw.move(h, to, at+i)
		l.values.move(h, to, at+i)
		if l.means.tensor.Elems() > 0 {
			l.values.load(l.means.f32(h, entry), h, to)
		}
		l.setPlace(h, c.p.Anchor*c.shape.Tokens()+entry, frame, i)
	}
	row := l.unit.f32(g, entry)
	copy(row, l.desk.probe.f32(g, i))
	if c.p.Retest > 0 {
		copy(l.first.f32(g, entry), row)
	}
	if s.index != nil {
		s.index.Put(entry, row)
	}
	s.entered++
	s.weight[entry], s.members[entry], s.joined[entry] = 1, 1, 0
	if c.p.Spread > 0 {
		s.square[entry] = l.square(g, at+i)
	}
	s.time[entry], s.cell[entry], s.last[entry] = int32(frame), int32(i), -1
	if c.p.Search == Neighbours {
		s.link(entry, i)
	}
	l.setCount(g, entry)
}

// reindex tells a new index what the entries are.
func (l *layer) reindex() {
	for i := range l.groups {
		g := &l.groups[i]
		for slot := 0; g.index != nil && slot < g.n; slot++ {
			g.index.Put(slot, l.unit.f32(i, slot))
		}
	}
}
