package tempcache

import (
	"math"

	"longtake/compute"
)

// samples is how many queries of a head stand for all of them.
const samples = 16

// ask loads the samples of the heads' recent queries; false while no query has been seen.
func (l *layer) ask() bool {
	c, d := l.cache, l.desk
	if !c.asks() || l.asked < 0 {
		return false
	}
	n := c.ring * c.shape.Tokens()
	// Until the ring is full its last slots are in use.
	first := max(0, c.ring-(l.asked+1-c.p.Anchor)) * c.shape.Tokens()
	for h := range c.shape.Heads {
		for s := range samples {
			l.queries.load(d.samples.f32(h, s), h, first+(2*s+1)*(n-first)/(2*samples))
		}
	}
	return true
}

// differ writes for each token by how much its keys differ from those of the entry that was found for it, if it may join: what weigh
// multiplies by the samples.
func (l *layer) differ(at int) {
	c, d := l.cache, l.desk
	if d.asks = l.ask(); !d.asks {
		return
	}
	threshold := c.p.least()
	for g := range l.groups {
		if c.p.local(l.index, g) {
			continue
		}
		lo, hi := l.heads(g)
		for i, hit := range l.hits(g) {
			if hit.slot < 0 || hit.cosine < threshold {
				continue
			}
			for h := lo; h < hi; h++ {
				row := d.apart.f32(h, i)
				l.keys.load(row, h, c.dense()+int(hit.slot))
				l.keys.load(d.other, h, at+i)
				c.do.Mix(row, row, d.other, 1, -1)
			}
		}
	}
}

// weigh multiplies the differences that differ wrote by the samples, all at once where the queue can.
func (l *layer) weigh(dq compute.Queue) {
	d := l.desk
	if !d.asks {
		return
	}
	if q, ok := dq.(compute.Scorer); ok {
		d.samples.flush(dq)
		d.apart.flush(dq)
		q.Score(d.moves.tensor, d.samples.tensor, d.apart.tensor)
		d.moves.fetch(dq)
		return
	}
	for h := range l.cache.shape.Heads {
		for i := range l.cache.shape.Tokens() {
			row := d.moves.f32(h, i)
			for s := range row {
				row[s] = dot(d.apart.f32(h, i), d.samples.f32(h, s))
			}
		}
	}
}

// moved is the movement of token i of the frame in work if it joins the entry that was found for it.
func (l *layer) moved(g, i int) float64 {
	var worst float64
	lo, hi := l.heads(g)
	for h := lo; h < hi && l.desk.asks; h++ {
		worst = max(worst, float64(l.cache.do.Squares(l.desk.moves.f32(h, i))))
	}
	return math.Sqrt(worst / samples / float64(l.cache.shape.HeadDim))
}

// movement returns by how much logits move if the key at slot takes the place of the entry's: the root mean square over
// recent queries q of q.(k-k')/sqrt(headDim), the largest of the group's heads. This is |S^(1/2) (k-k')|/sqrt(headDim) with S
// the second moment of those queries. 0 while no query has been seen.
func (l *layer) movement(g, entry, slot int) float64 {
	c, dim := l.cache, l.cache.shape.HeadDim
	var worst float64
	lo, hi := l.heads(g)
	for h := lo; h < hi && l.desk.asks; h++ {
		l.keys.load(l.desk.row, h, c.dense()+entry)
		l.keys.load(l.desk.other, h, slot)
		c.do.Mix(l.desk.row, l.desk.row, l.desk.other, 1, -1)
		var sum float64
		for s := range samples {
			v := float64(dot(l.desk.row, l.desk.samples.f32(h, s)))
			sum += v * v
		}
		worst = max(worst, sum)
	}
	return math.Sqrt(worst / samples / float64(dim))
}

// apart returns the root mean square difference of the values of an entry and a slot, the largest of the group's heads.
func (l *layer) apart(g, entry, slot int) float64 {
	c := l.cache
	var worst float32
	lo, hi := l.heads(g)
	for h := lo; h < hi; h++ {
		l.values.load(l.desk.row, h, c.dense()+entry)
		l.values.load(l.desk.other, h, slot)
		c.do.Mix(l.desk.row, l.desk.row, l.desk.other, 1, -1)
		worst = max(worst, c.do.Squares(l.desk.row))
	}
	return math.Sqrt(float64(worst) / float64(c.shape.HeadDim))
}
