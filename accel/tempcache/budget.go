package tempcache

import (
	"cmp"
	"slices"
)

// tries bounds how many remembered pairs are looked at before the closest is taken.
const tries = 8

// free makes room in a full group without a rest for token i of the frame at slot at and returns the slot, or -1 if the token needs none. Of
// the token with its nearest entry and the closest pair of entries, the closer is merged; if neither reaches Policy.Floor, the
// entry of least worth is forgotten. Pairs are those that searches have come upon: a full search would cost
// more than the attention that the cache saves.
func (l *layer) free(g, at, i, frame int) int {
	c, s := l.cache, &l.groups[g]
	if l.room[g] == 0 {
		s.entered++
		s.evicted++
		return -1
	}
	floor := float32(c.p.Floor)
	own := float32(-2)
	// The entry found before may have gone since.
	if h := &l.hits(g)[i]; h.slot >= 0 {
		own = dot(l.desk.probe.f32(g, i), l.unit.f32(g, int(h.slot)))
	}
	a, b, nearness := l.closest(g)
	switch {
	case own >= nearness && own >= floor:
		entry := int(l.hits(g)[i].slot)
		moved := 0.0
		if c.asks() {
			moved = l.movement(g, entry, at+i)
		}
		l.add(g, entry, at+i, moved)
		l.renew(g, entry, at, i, frame)
		return -1
	case nearness >= floor:
		return l.unite(g, a, b, frame)
	}
	old := l.stale(g, frame)
	s.evicted += s.members[old]
	if c.p.Search == Neighbours {
		s.unlink(old)
	}
	return old
}

// ranked is a slot with what it is ranked by.
type ranked struct {
	slot  int32
	value float32
}

// ranking holds the slots of a group with the least values, in order, as they were when a frame began to need room. A frame
// needs no more than it has tokens.
type ranking struct {
	list []ranked
	next int
	made bool
}

// before reports whether a comes before b: by value, of equal ones the lower slot.
func before(a, b ranked) bool { return a.value < b.value || a.value == b.value && a.slot < b.slot }

// offer considers a slot.
func (r *ranking) offer(slot int, value float32) {
	h, x := r.list, ranked{int32(slot), value}
	if len(h) < cap(h) {
		h = append(h, ranked{})
		i := len(h) - 1
		for i > 0 && before(h[(i-1)/2], x) {
			h[i] = h[(i-1)/2]
			i = (i - 1) / 2
		}
		h[i] = x
		r.list = h
		return
	}
	if !before(x, h[0]) {
		return
	}
	i := 0
	for {
		k := 2*i + 1
		if k >= len(h) {
			break
		}
		if k+1 < len(h) && before(h[k], h[k+1]) {
			k++
		}
		if before(h[k], x) {
			break
		}
		h[i] = h[k]
		i = k
	}
	h[i] = x
}

// sort brings the least value first; of equal ones the lower slot.
func (r *ranking) sort() {
	slices.SortFunc(r.list, func(a, b ranked) int {
		return cmp.Or(cmp.Compare(a.value, b.value), cmp.Compare(a.slot, b.slot))
	})
	r.next, r.made = 0, true
}

func (r *ranking) reset() { r.list, r.next, r.made = r.list[:0], 0, false }

// worth is what eviction goes by, see Forgetting.
func (l *layer) worth(g *group, slot, now int) float32 {
	members, age := float32(g.members[slot]), float32(now-int(g.time[slot])+1)
	if l.cache.p.Forget == Rarest {
		fraction := 1 / age // a step of its own: processors that fuse would round once less than a GPU
		return members + fraction
	}
	return members / age
}

// stale returns the entry of least worth.
func (l *layer) stale(g, frame int) int {
	s, r := &l.groups[g], &l.desk.olds
	if !r.made {
		for i := range min(s.n, l.ordinary(g)) {
			r.offer(i, l.worth(s, i, frame))
		}
		r.sort()
	}
	for ; r.next < len(r.list); r.next++ {
		// Entries that have changed since are worth more.
		if o := r.list[r.next]; l.worth(s, int(o.slot), frame) == o.value && int(s.time[o.slot]) < frame {
			r.next++
			return int(o.slot)
		}
	}
	// All of them have changed: a frame has filled the store on its own.
	old := 0
	for i := range min(s.n, l.ordinary(g)) {
		if l.worth(s, i, frame) < l.worth(s, old, frame) {
			old = i
		}
	}
	return old
}

// ordinary is how many entries a group has room for but for the rest, which is the one behind them.
func (l *layer) ordinary(g int) int {
	if l.cache.p.Rest && l.room[g] > 1 {
		return l.room[g] - 1
	}
	return l.room[g]
}

// closest returns the nearest pair among those remembered, by their cosine now.
func (l *layer) closest(g int) (a, b int, nearness float32) {
	s, r := &l.groups[g], &l.desk.pairs
	if !r.made {
		for i, v := range s.nearness[:s.n] {
			if s.near[i] >= 0 {
				r.offer(i, -v)
			}
		}
		r.sort()
	}
	for tried := 0; r.next < len(r.list) && tried < tries; r.next++ {
		a = int(r.list[r.next].slot)
		b = int(s.near[a])
		if b < 0 || b == a {
			continue
		}
		tried++
		now := dot(l.unit.f32(g, a), l.unit.f32(g, b))
		s.nearness[a] = now
		if r.next+1 >= len(r.list) || now >= -r.list[r.next+1].value-1e-5 {
			return a, b, now
		}
	}
	return -1, -1, -2
}

// unite merges two entries into the one with the newer position, and returns the slot of the other.
func (l *layer) unite(g, a, b, frame int) int {
	c, s := l.cache, &l.groups[g]
	if s.time[a] < s.time[b] || s.time[a] == s.time[b] && s.members[a] < s.members[b] {
		a, b = b, a
	}
	moved := 0.0
	if c.asks() {
		moved = l.movement(g, b, c.dense()+a)
	}
	members := s.members[a] + s.members[b]
	share := float32(float64(s.members[b]) / float64(members))
	l.blend(g, a, c.dense()+b, share)
	s.square[a] += share * (s.square[b] - s.square[a])
	s.members[a] = members
	s.weight[a] += s.weight[b]
	if most := c.p.CountCap; most > 0 {
		s.weight[a] = min(s.weight[a], most)
	}
	lo, hi := l.heads(g)
	for h := lo; h < hi; h++ {
		c.heads[l.index*c.shape.Heads+h].LogitError += moved
	}
	if c.p.Keep == Mean {
		l.rotate(g, a, int(s.time[a]), int(s.cell[a]))
		l.redescribe(g, a, int(s.cell[a]))
		l.desk.turns.at(frame)
	}
	l.setCount(g, a)
	if int(s.near[a]) == b {
		s.near[a] = -1
	}
	if c.p.Search == Neighbours {
		s.unlink(b)
	}
	return b
}
