package annsa

import (
	"encoding/binary"
	"math"
	"slices"

	"longtake/accel/ann"
	"longtake/attention"
	"longtake/compute"
	"longtake/kvcache"
)

// frame is what is known of the latent frame in one place of a view.
type frame struct {
	number int // -1 for none
	// old frames lie beyond the clamp: the cache rotates their keys anew for every chunk, so that they always seem to be equally
	// old. Their mean keys are kept as they are at time 0, and compared with queries as they are at the time of the clamp, so
	// that nothing has to be hashed again.
	old bool
	// print tells whether the keys are still those that were put into the index.
	print uint64
}

// head is the index of one head. Tile t of the frame in place p is number p*tiles+t.
type head struct {
	index       ann.Index
	keys, value []float32 // mean key and value of each tile, [tiles, headDim]; keys of old frames at time 0
	bias        []float32 // second-order bias of each tile
	order       []uint16  // tokens of each frame by tile, [places, tokens]
	score       []float32 // of each tile, for the plan
	// The merged part of a view is indexed anew for every plan, since its keys change in place.
	extra group
}

// tiles returns the tiles of a frame.
func (p *policy) tiles() int { return (p.shape.Tokens() + p.o.Tile - 1) / p.o.Tile }

// members returns the tokens of tile t of the frame in a place, in no order.
func (p *policy) members(h *head, place, t int) []uint16 {
	n := p.shape.Tokens()
	return h.order[place*n+t*p.o.Tile : place*n+min((t+1)*p.o.Tile, n)]
}

// extend makes room for frames in places.
func (p *policy) extend(l *layer, places int) {
	for len(l.frames) < places {
		l.frames = append(l.frames, frame{number: -1})
	}
	n, d := places*p.tiles(), p.shape.HeadDim
	for i := range l.heads {
		h := &l.heads[i]
		h.bias = ensure(h.bias, n)
		if p.o.NoDrop { // else nobody asks for the means again
			h.keys, h.value = ensure(h.keys, n*d), ensure(h.value, n*d)
		}
		h.order, h.score = ensure(h.order, places*p.shape.Tokens()), ensure(h.score, n)
	}
}

// ensure returns s with at least n elements, with room for more.
func ensure[T any](s []T, n int) []T {
	if n <= len(s) {
		return s
	}
	if n <= cap(s) {
		return s[:n]
	}
	out := make([]T, n, max(2*cap(s), n))
	copy(out, s)
	return out
}

// update indexes what is new among the selectable frames of a view.
func (p *policy) update(dq compute.Queue, at attention.Site, l *layer, kv kvcache.View) {
	clamp := p.clamp(l)
	for _, place := range l.plan.places {
		part := kv.Parts[l.plan.part[place]]
		f := &l.frames[place]
		old := part.Frame < clamp
		print := p.print(dq, kv.Keys, part.Lo)
		if f.number == part.Frame && f.old == old && (old || f.print == print) {
			continue
		}
		*f = frame{number: part.Frame, old: old, print: print}
		for i := range l.heads {
			if p.sparse(at.Layer, i) {
				p.indexFrame(dq, at, l, i, place, kv)
			}
		}
		l.plan.fresh = append(l.plan.fresh, place)
	}
}

// print returns a few bits of the first key of a frame; 0 where looking would cost a transfer.
func (p *policy) print(dq compute.Queue, keys compute.Tensor, lo int) uint64 {
	mapper, ok := dq.(compute.Mapper)
	if !ok {
		return 0
	}
	mem := mapper.Map(keys.Index(0).Slice(0, lo, lo+1))
	return binary.LittleEndian.Uint64(mem)*0x9e3779b97f4a7c15 ^ binary.LittleEndian.Uint64(mem[len(mem)-8:])
}

// indexFrame splits the tokens of a frame into tiles and puts their means into head i's index.
func (p *policy) indexFrame(dq compute.Queue, at attention.Site, l *layer, i, place int, kv kvcache.View) {
	h, part, n, d := &l.heads[i], kv.Parts[l.plan.part[place]], p.shape.Tokens(), p.shape.HeadDim
	keys, values := p.keys[:n*d], p.values[:n*d]
	p.load(dq, keys, kv.Keys.Index(i).Slice(0, part.Lo, part.Hi))
	if p.o.NoDrop {
		p.load(dq, values, kv.Values.Index(i).Slice(0, part.Lo, part.Hi))
	}
	if l.frames[place].old {
		p.setTime(p.clamp(l))
		for t := range n {
			p.unturn(keys[t*d:][:d])
		}
	}
	about := keys // what tiles are made by
	if p.asked != nil {
		about = l.remembered(part.Frame, i, n*d)
	}
	order := h.order[place*n:][:n]
	for t := range order {
		order[t] = uint16(t)
	}
	if !p.o.Raster {
		p.split(order, about, p.o.Tile)
	}
	for t := range p.tiles() {
		tile, tokens := place*p.tiles()+t, p.members(h, place, t)
		key := p.sum[:d]
		if p.o.NoDrop {
			key = h.keys[tile*d:][:d]
			mean(h.value[tile*d:][:d], values, tokens)
		}
		if p.asked != nil {
			mean(key, about, tokens)
			h.index.Put(tile, key)
		}
		mean(key, keys, tokens)
		if p.asked == nil {
			h.index.Put(tile, key)
		}
		h.bias[tile] = 0
		if p.o.SecondOrder {
			h.bias[tile] = p.jensen(l, i, keys, key, tokens, l.frames[place].old)
		}
	}
}

// mean writes the mean of some rows.
func mean(dst, rows []float32, which []uint16) {
	clear(dst)
	for _, t := range which {
		for j, v := range rows[int(t)*len(dst):][:len(dst)] {
			dst[j] += v
		}
	}
	for j := range dst {
		dst[j] /= float32(len(which))
	}
}

// split orders rows so that runs of tile of them are near each other: it halves them at the median of the coordinate that varies
// most, again and again.
func (p *policy) split(order []uint16, rows []float32, tile int) {
	if len(order) <= tile {
		return
	}
	d := p.shape.HeadDim
	sum, square := p.sum[:d], p.square[:d]
	clear(sum)
	clear(square)
	for _, t := range order {
		for j, v := range rows[int(t)*d:][:d] {
			sum[j] += v
			square[j] += v * v
		}
	}
	axis, widest := 0, float32(math.Inf(-1))
	for j, s := range sum {
		if v := square[j] - s*s/float32(len(order)); v > widest {
			axis, widest = j, v
		}
	}
	slices.SortFunc(order, func(a, b uint16) int {
		x, y := rows[int(a)*d+axis], rows[int(b)*d+axis]
		switch {
		case x < y:
			return -1
		case x > y:
			return 1
		}
		return int(a) - int(b)
	})
	half := (len(order) + tile - 1) / tile / 2 * tile
	p.split(order[:half], rows, tile)
	p.split(order[half:], rows, tile)
}

// jensen returns how much the mass of some keys exceeds that of their mean by, to second order: half the variance of their
// logits, mean over the chunk's queries (sampled), at most widest.
func (p *policy) jensen(l *layer, i int, keys, mean []float32, tokens []uint16, old bool) float32 {
	const widest = 4
	d, rows := p.shape.HeadDim, 0
	from := l.queries.young
	if old {
		from = l.queries.old
	}
	sum := float32(0)
	for tile := range l.tiles {
		for g := range l.queries.groups {
			q := from[p.row(l, tile, i, g)*d:][:d]
			middle := ann.Dot(q, mean)
			for _, t := range tokens {
				x := p.scale * (ann.Dot(q, keys[int(t)*d:][:d]) - middle)
				sum += x * x
			}
			rows++
		}
	}
	return min(widest, sum/float32(2*rows*len(tokens)))
}

// clamp returns the time that older frames' keys are rotated by, math.MinInt32 where none are: caches turn keys beyond the distance
// that the model was trained on, counted from the start of the chunk.
func (p *policy) clamp(l *layer) int {
	if p.shape.Clamp == 0 || len(l.plan.current) == 0 {
		return math.MinInt32
	}
	return l.plan.current[0] - p.shape.Clamp
}

// setTime sets the time that unturn and turn rotate by.
func (p *policy) setTime(time int) {
	if time == p.time {
		return
	}
	p.time = time
	for j := range p.shape.Pairs[0] {
		p.turns[2*j], p.turns[2*j+1] = p.shape.Turn(0, time, j)
	}
}

// unturn rotates a vector back in time, turn forward.
func (p *policy) unturn(x []float32) {
	for i := 0; i < len(p.turns); i += 2 {
		a, b, cos, sin := x[i], x[i+1], p.turns[i], p.turns[i+1]
		x[i], x[i+1] = a*cos+b*sin, b*cos-a*sin
	}
}

func (p *policy) turn(x []float32) {
	for i := 0; i < len(p.turns); i += 2 {
		a, b, cos, sin := x[i], x[i+1], p.turns[i], p.turns[i+1]
		x[i], x[i+1] = a*cos-b*sin, a*sin+b*cos
	}
}
