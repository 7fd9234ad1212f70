package tempcache

import (
	"cmp"
	"slices"
)

// A full group with a rest finds room for all tokens of a frame at once: what one after the other would cost grows with what must be
// forgotten, and is a GPU's slowest way.

// sums reports whether a group has a rest.
func (l *layer) sums(g int) bool { return l.ordinary(g) < l.room[g] }

// deal finds room for the tokens that wait, by the entries as they are now. Of tokens with their nearest entries and of remembered pairs the
// closest are merged, as many as there are tokens, if they reach Policy.Floor. Every pair that becomes one makes room for a token; the last
// of those that remain are supplant's.
func (l *layer) deal(g, at, frame int) {
	waiting, r := l.desk.waiting, &l.desk.pairs
	if len(waiting) == 0 {
		return
	}
	floor := float32(l.cache.p.Floor)
	for k, i := range waiting {
		if h := &l.hits(g)[i]; h.slot >= 0 {
			if own := dot(l.desk.probe.f32(g, int(i)), l.unit.f32(g, int(h.slot))); own >= floor {
				r.offer(k, -own)
			}
		}
	}
	l.offerPairs(g, len(waiting), floor)
	r.sort()
	merges := r.list[:min(len(r.list), len(waiting))]
	slices.SortFunc(merges, func(a, b ranked) int { return cmp.Compare(a.slot, b.slot) })
	joins, _ := slices.BinarySearchFunc(merges, len(waiting), func(m ranked, n int) int { return cmp.Compare(int(m.slot), n) })
	left := l.joinAll(g, at, frame, merges[:joins])
	for k, m := range merges[joins:] {
		e := int(m.slot) - len(waiting)
		merges[joins+k].slot = int32(l.unite(g, e, int(l.groups[g].near[e]), frame))
	}
	for k, m := range merges[joins:] {
		l.place(g, int(m.slot), at, int(left[k]), frame)
	}
	l.supplant(g, at, frame, left[len(merges)-joins:])
}

// offerPairs considers, as slots from first on, the remembered pairs neither entry of which has a closer one.
func (l *layer) offerPairs(g, first int, floor float32) {
	s, best := &l.groups[g], l.desk.nearest[:0]
	for range l.ordinary(g) {
		best = append(best, ranked{-1, 0})
	}
	pair := func(e int) (int, bool) {
		b := int(s.near[e])
		return b, b >= 0 && b != e
	}
	for e := range best {
		if b, ok := pair(e); ok {
			s.nearness[e] = dot(l.unit.f32(g, e), l.unit.f32(g, b))
			if x := (ranked{int32(e), -s.nearness[e]}); s.nearness[e] >= floor {
				for _, at := range [2]int{e, b} {
					if best[at].slot < 0 || before(x, best[at]) {
						best[at] = x
					}
				}
			}
		}
	}
	for e := range best {
		if b, ok := pair(e); ok && int(best[e].slot) == e && int(best[b].slot) == e {
			l.desk.pairs.offer(first+e, best[e].value)
		}
	}
	l.desk.nearest = best
}

// joinAll lets the tokens that wait at the places named by merges join their entries, and returns the others.
func (l *layer) joinAll(g, at, frame int, merges []ranked) []int32 {
	s, hits, left, n := &l.groups[g], l.hits(g), l.desk.waiting, 0
	for k, i := range left {
		if n == len(merges) || int(merges[n].slot) != k {
			left[k-n] = i
			continue
		}
		h, moved := &hits[i], 0.0
		if l.cache.asks() {
			moved = l.movement(g, int(h.slot), at+int(i))
		}
		l.add(g, int(h.slot), at+int(i), moved)
		s.last[h.slot], merges[n].slot = i, i
		n++
	}
	for _, m := range merges {
		if e := int(hits[m.slot].slot); s.last[e] == m.slot {
			l.renew(g, e, at, int(m.slot), frame)
			s.last[e] = -1
		}
	}
	return left[:len(left)-n]
}

// supplant lets tokens take the places of the entries of least worth: what is forgotten is summed up in the rest.
// Entries that the frame has changed stay; tokens for which there is no other place, the last of them, go into the rest themselves.
func (l *layer) supplant(g, at, frame int, waiting []int32) {
	c, s, r := l.cache, &l.groups[g], &l.desk.olds
	if len(waiting) == 0 {
		return
	}
	r.reset()
	for e := range l.ordinary(g) {
		if int(s.time[e]) < frame {
			r.offer(e, l.worth(s, e, frame))
		}
	}
	r.sort()
	olds := r.list[:min(len(r.list), len(waiting))]
	slices.SortFunc(olds, func(a, b ranked) int { return cmp.Compare(a.slot, b.slot) })
	for _, o := range olds {
		e := int(o.slot)
		l.sumUp(g, c.dense()+e, gone{s.members[e], s.weight[e], s.square[e], s.time[e], s.cell[e]})
		s.evicted += s.members[e]
	}
	for _, i := range waiting[len(olds):] {
		x := gone{members: 1, weight: 1, time: int32(frame), cell: i}
		if c.p.Spread > 0 {
			x.square = l.square(g, at+int(i))
		}
		l.sumUp(g, at+int(i), x)
		s.entered++
		s.evicted++
	}
	l.showRest(g, frame)
	for k, o := range olds {
		s.unlink(int(o.slot))
		l.place(g, int(o.slot), at, int(waiting[k]), frame)
	}
}

// gone is what is forgotten: an entry, or a token that never was one.
type gone struct {
	members    int64
	weight     float64
	square     float32
	time, cell int32
}

// sumUp takes what lies at a slot, an entry's or a token's, into the means and counts of the rest, which begins as the first of them.
func (l *layer) sumUp(g, slot int, x gone) {
	c, s, rest := l.cache, &l.groups[g], l.ordinary(g)
	if s.n == rest {
		s.n++
		l.clearRest(g)
	}
	s.members[rest] += x.members
	share := float32(float64(x.members) / float64(s.members[rest]))
	l.blend(g, rest, slot, share)
	s.square[rest] += share * (x.square - s.square[rest])
	s.weight[rest] += x.weight
	if most := c.p.CountCap; most > 0 {
		s.weight[rest] = min(s.weight[rest], most)
	}
	if x.time >= s.time[rest] {
		s.time[rest], s.cell[rest] = x.time, x.cell
	}
}

// clearRest makes the rest stand for nothing.
func (l *layer) clearRest(g int) {
	c, s, rest := l.cache, &l.groups[g], l.ordinary(g)
	lo, hi := l.heads(g)
	for h := lo; h < hi; h++ {
		clear(l.raw.f32(h, c.dense()+rest))
		if l.means.tensor.Elems() > 0 {
			clear(l.means.f32(h, rest))
		} else {
			clear(l.values.f32(h, c.dense()+rest))
		}
	}
	s.members[rest], s.weight[rest], s.square[rest], s.time[rest] = 0, 0, 0, -1
	s.near[rest], s.joined[rest], s.last[rest] = -1, 0, -1
}

// showRest gives the rest the newest position and a key there.
func (l *layer) showRest(g, frame int) {
	c, s, rest := l.cache, &l.groups[g], l.ordinary(g)
	lo, hi := l.heads(g)
	for h := lo; h < hi; h++ {
		l.setPlace(h, c.p.Anchor*c.shape.Tokens()+rest, int(s.time[rest]), int(s.cell[rest]))
	}
	l.rotate(g, rest, int(s.time[rest]), int(s.cell[rest]))
	l.desk.turns.at(frame)
	l.setCount(g, rest)
}
