package tempcache

// tries bounds how many remembered pairs are looked at before the closest is taken.
const tries = 8

// free makes room in a full group for token i of the frame at slot at and returns the slot, or -1 if the token needs none. Of
// the token with its nearest entry and the closest pair of entries, the closer is merged; if neither reaches Policy.Floor, the
// entry with the fewest members over age is forgotten. Pairs are those that searches have come upon: a full search would cost
// more than the attention that the cache saves.
func (l *layer) free(g, at, i, frame int) int {
	c, s := l.cache, &l.groups[g]
	if c.slots == 0 {
		s.entered++
		s.evicted++
		return -1
	}
	floor := float32(c.p.Floor)
	own := float32(-2)
	// The entry found before may have gone since.
	if h := &c.hits[i]; h.slot >= 0 {
		own = dot(c.probe.f32(g, i), l.unit.f32(g, int(h.slot)))
	}
	a, b, nearness := l.closest(g)
	switch {
	case own >= nearness && own >= floor:
		entry := int(c.hits[i].slot)
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
	old := s.stale(frame)
	s.evicted += s.members[old]
	if c.p.Search == Neighbours {
		s.unlink(old)
	}
	return old
}

// closest returns the nearest pair among those remembered, by their cosine now.
func (l *layer) closest(g int) (a, b int, nearness float32) {
	s := &l.groups[g]
	for range tries {
		a, nearness = -1, -2
		for i, v := range s.nearness[:s.n] {
			if v > nearness && s.near[i] >= 0 {
				a, nearness = i, v
			}
		}
		if a < 0 {
			return -1, -1, -2
		}
		b = int(s.near[a])
		now := float32(-2)
		if b != a && b < s.n {
			now = dot(l.unit.f32(g, a), l.unit.f32(g, b))
		}
		s.nearness[a] = now
		if now >= nearness-1e-5 {
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
	l.blend(g, a, c.dense()+b, float32(float64(s.members[b])/float64(members)))
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
		c.turns.at(frame)
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
