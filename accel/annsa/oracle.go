package annsa

import (
	"math"

	"longtake/accel/ann"
	"longtake/compute"
	"longtake/kvcache"
)

// trueMass scores tiles by what dense attention gives them, mean over all queries. It is slower than dense attention: for
// measuring how good a selection can be.
func (p *policy) trueMass(dq compute.Queue, l *layer, i, lo, hi int, query compute.Tensor, kv kvcache.View) {
	h, d, n, queries := &l.heads[i], p.shape.HeadDim, p.shape.Tokens(), hi-lo
	q := make([]float32, queries*d)
	p.load(dq, q, query.Index(i).Slice(0, lo, hi))
	own := p.ownCounts(dq, kv, i)
	mass := make([][]float64, queries) // of each tile
	for j := range mass {
		mass[j] = make([]float64, len(h.score))
	}
	rows := make([]float32, n*d)
	add := func(tile, slot int, key []float32) {
		count := float32(0)
		if own != nil {
			count = own[slot]
		}
		for j := range mass {
			mass[j][tile] += math.Exp(float64(p.scale*ann.Dot(q[j*d:][:d], key) + count))
		}
	}
	for _, place := range l.plan.places {
		part := kv.Parts[l.plan.part[place]]
		p.load(dq, rows, kv.Keys.Index(i).Slice(0, part.Lo, part.Hi))
		for t := range p.tiles() {
			for _, token := range p.members(h, place, t) {
				add(place*p.tiles()+t, part.Lo+int(token), rows[int(token)*d:][:d])
			}
		}
	}
	first := len(l.frames) * p.tiles()
	for t := range h.extra.logCount {
		for _, slot := range h.extra.slots[t*p.o.Tile : min((t+1)*p.o.Tile, len(h.extra.slots))] {
			from := l.plan.merged.lo + int(slot)
			p.load(dq, rows[:d], kv.Keys.Index(i).Slice(0, from, from+1))
			add(first+t, from, rows[:d])
		}
	}
	each := float64(p.groups(queries)) / float64(queries)
	for j, m := range mass {
		norm := 0.0
		if l.known {
			norm = math.Exp(float64(l.lse[i*query.Dim(1)+lo+j]))
		} else {
			for _, v := range m {
				norm += v
			}
		}
		for t, v := range m {
			if norm > 0 {
				h.score[t] += float32(each * v / norm)
			}
		}
	}
}
