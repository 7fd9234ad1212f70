package annsa

import (
	"encoding/binary"
	"math"

	"longtake/accel/ann"
	"longtake/compute"
	"longtake/kvcache"
)

// gathered are the keys that a layer's chunk attends to, head by head:
//
//	[0, means)     with no-drop, the merged keys of the tiles of all places; those of selected tiles are hidden
//	[means, real)  with no-drop, the merged keys of the tiles of a view's merged part that were not selected
//	[real, ...)    keys as they are: always kept, selected, then from own[head] on the chunk's
type gathered struct {
	keys, values compute.Tensor // [heads, room, headDim]
	count        compute.Tensor // F32 [heads, room], log counts
	lengths      compute.Tensor // I32 [heads]
	realLengths  compute.Tensor // I32 [heads], from real on
	means, real  int
	most         int
	used, own    []int
	written      int // places whose merged keys are there
}

var hidden = float32(math.Inf(-1))

// buffers takes the gathered keys of all layers, room keys a head.
func (p *policy) buffers(a compute.Arena, room int) {
	for i := range p.layers {
		for tile := range p.layers[i].gathered {
			p.buffer(a, &p.layers[i].gathered[tile], room)
		}
	}
}

func (p *policy) buffer(a compute.Arena, g *gathered, room int) {
	s := p.shape
	g.keys, g.values = a.Tensor(s.DType, s.Heads, room, s.HeadDim), a.Tensor(s.DType, s.Heads, room, s.HeadDim)
	g.count = a.Tensor(compute.F32, s.Heads, room)
	g.lengths, g.realLengths = a.Tensor(compute.I32, s.Heads), a.Tensor(compute.I32, s.Heads)
	g.used, g.own, g.written = make([]int, s.Heads), make([]int, s.Heads), 0
}

// grow makes room for so many keys a head, and more to come. What is in the buffers is lost: every layer gathers again.
func (p *policy) grow(keys int) error {
	if keys <= p.room {
		return nil
	}
	room := max(keys, 2*p.room)
	m := &compute.Meter{Device: p.dev}
	p.buffers(m, room)
	store, err := p.dev.NewArena(m.Bytes())
	if err != nil {
		return err
	}
	if p.store != nil {
		p.store.Free()
	}
	p.store, p.room = store, room
	p.buffers(store, room)
	for i := range p.layers {
		p.layers[i].planned = false
	}
	return store.Err()
}

// gather copies what the plan names. It panics when the device has no room for it, as there is no way to go on.
func (p *policy) gather(dq compute.Queue, number int, l *layer, kv kvcache.View) {
	means, extra := 0, 0
	if p.o.NoDrop {
		means = len(l.frames) * p.tiles()
		for i := range l.heads {
			extra = max(extra, len(l.heads[i].extra.logCount))
		}
	}
	room := 0
	for tile := range l.gathered[:l.tiles] {
		g := &l.gathered[tile]
		g.means, g.real = means, means+extra
		g.most = g.real
		for i := range l.heads {
			if p.sparse(number, i) {
				g.most = max(g.most, g.real+p.realCount(l, i, tile))
			}
		}
		room = max(room, g.most)
	}
	if room > p.room {
		_ = dq.Wait() // the old buffers go
		if err := p.grow(room); err != nil {
			panic(err)
		}
	}
	for tile := range l.gathered[:l.tiles] {
		p.gatherTile(dq, number, l, tile, kv)
	}
	l.plan.fresh = l.plan.fresh[:0]
}

func (p *policy) gatherTile(dq compute.Queue, number int, l *layer, tile int, kv kvcache.View) {
	g := &l.gathered[tile]
	if p.o.NoDrop {
		p.writeMeans(dq, number, l, g)
	}
	c := ann.NewCarrier(dq, g.keys, g.values, kv.Keys, kv.Values)
	for i := range l.heads {
		if p.sparse(number, i) {
			p.gatherHead(dq, l, i, tile, kv, c)
		}
	}
	lengths := p.host[:0]
	for i := range l.heads {
		lengths = binary.LittleEndian.AppendUint32(lengths, uint32(g.used[i]))
	}
	dq.Upload(g.lengths, lengths)
	for i := range l.heads {
		binary.LittleEndian.PutUint32(lengths[4*i:], uint32(max(0, g.used[i]-g.real)))
	}
	dq.Upload(g.realLengths, lengths)
}

// realCount returns how many keys head i attends to as they are.
func (p *policy) realCount(l *layer, i, tile int) int {
	n := 0
	for _, s := range l.plan.kept {
		n += s.hi - s.lo
	}
	for _, s := range l.plan.own {
		n += s.hi - s.lo
	}
	for _, t := range l.plan.picked[tile*p.shape.Heads+i] {
		n += p.memberCount(l, &l.heads[i], int(t))
	}
	return n
}

// writeMeans writes merged keys that are new, and those of old frames, whose rotation follows the chunk.
func (p *policy) writeMeans(dq compute.Queue, number int, l *layer, g *gathered) {
	x := &l.plan
	if g.written == 0 {
		for _, place := range x.places {
			p.writeMean(dq, number, l, g, place, true)
		}
		g.written = 1
		return
	}
	for _, place := range x.fresh {
		p.writeMean(dq, number, l, g, place, true)
	}
	for _, place := range x.places {
		if l.frames[place].old {
			p.writeMean(dq, number, l, g, place, false)
		}
	}
}

func (p *policy) writeMean(dq compute.Queue, number int, l *layer, g *gathered, place int, values bool) {
	lo, hi, d := place*p.tiles(), (place+1)*p.tiles(), p.shape.HeadDim
	for i := range l.heads {
		if !p.sparse(number, i) {
			continue
		}
		p.upload(dq, g.keys.Index(i).Slice(0, lo, hi), l.heads[i].keys[lo*d:], l.frames[place].old)
		if values {
			p.upload(dq, g.values.Index(i).Slice(0, lo, hi), l.heads[i].value[lo*d:], false)
		}
	}
}

// upload writes rows from float32, first turned to the time that is set.
func (p *policy) upload(dq compute.Queue, dst compute.Tensor, rows []float32, turned bool) {
	d := dst.Dim(1)
	size := d * dst.DType.Size()
	p.image = ensure(p.image, dst.Dim(0)*size)
	for r := range dst.Dim(0) {
		row := rows[r*d:][:d]
		if turned {
			copy(p.sum, row)
			row = p.sum[:d]
			p.turn(row)
		}
		ann.StoreRow(p.image[r*size:], dst.DType, 0, row)
	}
	dq.Upload(dst, p.image[:dst.Dim(0)*size])
}

// gatherHead fills head i's rows but the merged keys of frames.
func (p *policy) gatherHead(dq compute.Queue, l *layer, i, tile int, kv kvcache.View, c ann.Carrier) {
	g, x, h, n := &l.gathered[tile], &l.plan, &l.heads[i], p.shape.Tokens()
	p.counts = ensure(p.counts, g.most)
	counts := p.counts[:g.most]
	own := p.ownCounts(dq, kv, i)
	p.countMeans(l, i, tile, counts, own)
	if p.o.NoDrop && len(h.extra.logCount) > 0 {
		p.upload(dq, g.keys.Index(i).Slice(0, g.means, g.means+len(h.extra.logCount)), h.extra.keys, false)
		p.upload(dq, g.values.Index(i).Slice(0, g.means, g.means+len(h.extra.logCount)), h.extra.value, false)
	}
	at := g.real
	put := func(from, rows int) {
		c.Copy(i, at, from, rows)
		for r := range rows {
			counts[at+r] = 0
			if own != nil {
				counts[at+r] = own[from+r]
			}
		}
		at += rows
	}
	for _, s := range x.kept {
		put(s.lo, s.hi-s.lo)
	}
	first := len(l.frames) * p.tiles()
	for _, t := range x.picked[tile*p.shape.Heads+i] {
		if extra := int(t) - first; extra >= 0 {
			for _, slot := range h.extra.slots[extra*p.o.Tile : min((extra+1)*p.o.Tile, len(h.extra.slots))] {
				put(x.merged.lo+int(slot), 1)
			}
			continue
		}
		place := int(t) / p.tiles()
		for _, token := range p.members(h, place, int(t)%p.tiles()) {
			put(place*n+int(token), 1)
		}
	}
	g.own[i] = at
	for _, s := range x.own {
		put(s.lo, s.hi-s.lo)
	}
	g.used[i] = at
	p.image = ensure(p.image, 4*at)
	ann.StoreRow(p.image, compute.F32, 0, counts[:at])
	dq.Upload(g.count.Index(i).Slice(0, 0, at), p.image[:4*at])
}

// countMeans fills in the log counts of merged keys: hidden for tiles that were selected or may not be.
func (p *policy) countMeans(l *layer, i, number int, counts, own []float32) {
	g, x, h, n := &l.gathered[number], &l.plan, &l.heads[i], p.shape.Tokens()
	for t := range counts[:g.real] {
		counts[t] = hidden
	}
	if !p.o.NoDrop {
		return
	}
	for _, place := range x.places {
		for t := range p.tiles() {
			tile := place*p.tiles() + t
			counts[tile] = p.logs[t] + h.bias[tile]
			if own != nil {
				counts[tile] += own[place*n+int(p.members(h, place, t)[0])]
			}
		}
	}
	copy(counts[g.means:], h.extra.logCount)
	for _, t := range x.picked[number*p.shape.Heads+i] {
		counts[t] = hidden
	}
}

// ownCounts returns the view's log counts of head i, nil if it has none.
func (p *policy) ownCounts(dq compute.Queue, kv kvcache.View, i int) []float32 {
	if kv.LogCount.IsZero() {
		return nil
	}
	n := kv.Keys.Dim(1)
	p.viewCounts = ensure(p.viewCounts, n)
	row := kv.LogCount.Index(i)
	row.Rank, row.Shape[1], row.Stride[1] = 2, 1, 1
	row.Stride[0] = 1
	p.load(dq, p.viewCounts[:n], row)
	return p.viewCounts[:n]
}

// gatherCurrent copies the chunk's own keys, which are new in each pass.
func (p *policy) gatherCurrent(dq compute.Queue, number int, l *layer, kv kvcache.View) {
	for tile := range l.gathered[:l.tiles] {
		g := &l.gathered[tile]
		c := ann.NewCarrier(dq, g.keys, g.values, kv.Keys, kv.Values)
		for i := range l.heads {
			if !p.sparse(number, i) {
				continue
			}
			at := g.own[i]
			for _, s := range l.plan.own {
				c.Copy(i, at, s.lo, s.hi-s.lo)
				at += s.hi - s.lo
			}
		}
	}
}
