package tempcache

import "longtake/compute"

// matchAll finds the nearest entry of every token of the frame at slot at, in all groups at once.
func (l *layer) matchAll(dq compute.Queue, at int, asked bool) {
	c := l.cache
	most := 0
	for g := range l.groups {
		most = max(most, l.groups[g].n)
	}
	probe, keys, first := &l.desk.probe, &l.unit, 0
	if asked {
		l.askAll(at)
		probe = &l.desk.query
		if c.p.Space == Rotated {
			keys, first = &l.keys, c.dense() // what attention itself compares, lengths included
		}
	}
	m, ok := dq.(compute.Matcher)
	if !ok {
		l.compare(probe, keys, first)
		return
	}
	probe.flush(dq)
	l.groupLengths.flush(dq)
	m.Match(l.desk.best.tensor, l.desk.score.tensor, probe.tensor, keys.tensor.Slice(1, first, first+most), l.groupLengths.tensor)
	l.desk.best.fetch(dq)
	l.desk.score.fetch(dq)
}

// askAll writes the queries of the frame at slot at in the space of comparison.
func (l *layer) askAll(at int) {
	c := l.cache
	for h := range c.shape.Heads {
		for i := range c.shape.Tokens() {
			row := l.desk.query.f32(h, i)
			l.queries.load(row, h, at+i)
			switch c.p.Space {
			case Unrotated:
				l.desk.turns.unturn(row, i, true)
			case Spatial:
				l.desk.turns.unturn(row, i, false)
			}
		}
	}
}

// compare is compute.Matcher's rule on the host.
func (l *layer) compare(probe, keys *rows, first int) {
	c := l.cache
	row := make([]float32, c.width())
	for g := range l.groups {
		for i := range c.shape.Tokens() {
			at := l.desk.best.at(g, i)
			best, top := int32(-1), float32(0)
			for j := range l.groups[g].n {
				keys.load(row, g, first+j)
				if s := dot(probe.f32(g, i), row); best < 0 || s > top {
					best, top = int32(j), s
				}
			}
			ints(l.desk.best.mem)[at], floats(l.desk.score.mem)[at] = best, top
		}
	}
}

// hits are what was found for the frame's tokens in group g.
func (l *layer) hits(g int) []hit {
	n := l.cache.shape.Tokens()
	return l.desk.hits[g*n:][:n]
}

// search fills in the hits of group g.
func (l *layer) search(dq compute.Queue, g, at int, asked bool) {
	c := l.cache
	ask := &l.desk.probe
	if asked {
		ask = &l.desk.query
		if c.p.Search != Exact && g == 0 {
			l.askAll(at)
		}
	}
	search := c.p.Search
	if search == Approximate && l.searchRows(dq, g, ask) {
		search = Exact // the best are there
	}
	hits := l.hits(g)
	for i := range hits {
		h := hit{slot: -1}
		switch search {
		case Exact:
			at := l.desk.best.at(g, i)
			h.slot, h.cosine = ints(l.desk.best.mem)[at], floats(l.desk.score.mem)[at]
		case Neighbours:
			h.slot, h.cosine = l.around(g, i, ask.f32(g, i))
		case Approximate:
			h.slot = int32(l.groups[g].index.Nearest(ask.f32(g, i), l.groups[g].n))
		}
		if h.slot >= 0 && (asked || c.p.Search == Approximate) {
			h.cosine = dot(l.desk.probe.f32(g, i), l.unit.f32(g, int(h.slot)))
		}
		hits[i] = h
	}
}

// around returns the nearest of the Depth newest entries of each place within Radius of a token. Where no place has one, the square doubles:
// a full store can then always merge what it has no room for.
func (l *layer) around(g, token int, x []float32) (slot int32, top float32) {
	c := l.cache
	if l.groups[g].n == 0 {
		return -1, 0
	}
	for radius := c.p.Radius; ; radius = 2*radius + 1 {
		if slot, top = l.within(g, token, radius, x); slot >= 0 || radius >= max(c.shape.Rows, c.shape.Columns) {
			return slot, top
		}
	}
}

func (l *layer) within(g, token, radius int, x []float32) (slot int32, top float32) {
	c, s := l.cache, &l.groups[g]
	slot = -1
	columns := c.shape.Columns
	row, column := token/columns, token%columns
	for r := max(0, row-radius); r <= min(c.shape.Rows-1, row+radius); r++ {
		for k := max(0, column-radius); k <= min(columns-1, column+radius); k++ {
			at := s.head[r*columns+k]
			for n := 0; n < c.p.Depth && at >= 0; n++ {
				if v := dot(x, l.unit.f32(g, int(at))); slot < 0 || v > top {
					slot, top = at, v
				}
				at = s.next[at]
			}
		}
	}
	return slot, top
}

// searchRows finds the nearest entries of all tokens at once, where the index of group g can tell what it knows of its entries
// and the queue finds nearest keys in host memory; it reports whether it did.
func (l *layer) searchRows(dq compute.Queue, g int, ask *rows) bool {
	s := &l.groups[g]
	index, ok := s.index.(interface{ Row(dst []float32, slot int) })
	matcher, ok2 := dq.(compute.Matcher)
	if !ok || !ok2 || !l.desk.known.mapped {
		return false
	}
	for slot := range s.n {
		index.Row(l.desk.known.f32(0, slot), slot)
	}
	matcher.Match(l.desk.best.tensor.Slice(0, g, g+1), l.desk.score.tensor.Slice(0, g, g+1), ask.tensor.Slice(0, g, g+1), l.desk.known.tensor.Slice(1, 0, s.n), compute.Tensor{})
	return true
}
