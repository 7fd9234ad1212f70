package tempcache

import "longtake/accel/ann"

// group is the host's side of the entries that are decided on together: those of one head, or of all heads of a layer. All
// slices have one element a slot.
type group struct {
	n                int
	entered, evicted int64 // tokens
	weight           []float64
	square           []float32 // mean square length of the members' unrotated keys, of all heads together
	members          []int64
	time, cell       []int32   // of the newest member
	near             []int32   // a slot that was near when last looked, -1 for none
	nearness         []float32 // and the cosine then
	joined           []int32   // merges since the entry was made
	last             []int32   // token of the frame in work that joined last, -1 for none

	// Entries by the place of their newest member, newest first; for Neighbours.
	head       []int32 // [tokens], -1 for none
	next, prev []int32 // -1 at the ends
	index      ann.Index
}

// slotBytes is what a group keeps on the host for a slot.
const slotBytes = 8 + 4 + 8 + 2*4 + 4 + 4 + 4 + 4 + 2*4

// hostBytes returns the memory of the host's side of all layers with so many slots in the mean.
func (c *cache) hostBytes(slots int) int64 {
	bytes := int64(0)
	if c.remote.on {
		return 0
	}
	for i := range c.shape.Layers {
		n := c.room(i, slots)
		each := int64(n) * slotBytes
		switch {
		case c.p.Search != Approximate:
		case len(c.layers) > 0:
			each += c.layers[i].groups[0].index.Bytes()
		default:
			each += c.newIndex(n).Bytes()
		}
		bytes += int64(c.groups) * each
	}
	return bytes
}

// newIndex makes the index of a group and asks it once, so that what it allocates for a search counts from the start.
func (c *cache) newIndex(slots int) ann.Index {
	x := c.p.Matcher.New(c.width(), slots)
	x.Nearest(make([]float32, c.width()), slots)
	x.Reset()
	return x
}

func (l *layer) newGroups() {
	c, slots := l.cache, l.slots
	l.hides, l.asked = make([]bool, c.dense()/c.shape.Tokens()), -1
	if c.remote.on {
		return
	}
	l.groups = make([]group, c.groups)
	for i := range l.groups {
		g := &l.groups[i]
		g.weight, g.members = make([]float64, slots), make([]int64, slots)
		g.nearness, g.square = make([]float32, slots), make([]float32, slots)
		for _, s := range []*[]int32{&g.time, &g.cell, &g.near, &g.joined, &g.last, &g.next, &g.prev} {
			*s = make([]int32, slots)
		}
		g.head = make([]int32, c.shape.Tokens())
		if c.p.Search == Approximate {
			g.index = c.newIndex(slots)
		}
		g.reset()
	}
}

// reset forgets all entries.
func (g *group) reset() {
	g.n, g.entered, g.evicted = 0, 0, 0
	for i := range g.head {
		g.head[i] = -1
	}
	for i := range g.last {
		g.last[i] = -1
	}
	if g.index != nil {
		g.index.Reset()
	}
}

// take copies old.
func (g *group) take(old *group) {
	g.n, g.entered, g.evicted = old.n, old.entered, old.evicted
	copy(g.weight, old.weight)
	copy(g.square, old.square)
	copy(g.members, old.members)
	copy(g.nearness, old.nearness)
	copy(g.time, old.time)
	copy(g.cell, old.cell)
	copy(g.near, old.near)
	copy(g.joined, old.joined)
	copy(g.next, old.next)
	copy(g.prev, old.prev)
	copy(g.head, old.head)
}

// link puts a slot first at its place.
func (g *group) link(slot, cell int) {
	first := g.head[cell]
	g.cell[slot], g.prev[slot], g.next[slot], g.head[cell] = int32(cell), -1, first, int32(slot)
	if first >= 0 {
		g.prev[first] = int32(slot)
	}
}

// unlink takes a slot from its place.
func (g *group) unlink(slot int) {
	prev, next := g.prev[slot], g.next[slot]
	if prev >= 0 {
		g.next[prev] = next
	} else {
		g.head[g.cell[slot]] = next
	}
	if next >= 0 {
		g.prev[next] = prev
	}
}
