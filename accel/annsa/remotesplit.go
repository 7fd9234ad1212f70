package annsa

import (
	"math"
	"slices"

	"longtake/compute"
	"longtake/kvcache"
)

// splitLayer is what a layer keeps where tiles are not runs of a view's keys but of near keys of a frame: every frame that may be chosen from is
// copied in an order of its own, frame after frame in whole tiles, and attention joins what it sees there with the keys that are
// always seen.
type splitLayer struct {
	order        compute.Tensor // I32 [heads, places*tokens]
	keys, values compute.Tensor // [heads, tiles*Tile, headDim]
	places       []frame        // what was ordered
	moved        int            // the time that old frames were last copied at
}

// plansRemotely reports whether the device plans for a view. With tiles of near keys, views with merged keys or counts are left to the host,
// whose buffers are not in Bytes then.
func (p *policy) plansRemotely(l *layer, kv kvcache.View) bool {
	return p.remote.on && (p.o.Raster || kv.LogCount.IsZero() && kv.Lengths.IsZero() && l.plan.merged.hi == 0)
}

// splitGrowing takes what has a number for every tile of frames.
func (r *remote) splitGrowing(p *policy, a compute.Arena, tiles int) {
	s := p.shape
	places := tiles / p.tiles()
	for i := range p.layers {
		x := &p.layers[i].remote.split
		x.order = a.Tensor(compute.I32, s.Heads, places*s.Tokens())
		x.keys, x.values = a.Tensor(s.DType, s.Heads, places*p.tiles()*p.o.Tile, s.HeadDim), a.Tensor(s.DType, s.Heads, places*p.tiles()*p.o.Tile, s.HeadDim)
		x.places, x.moved = x.places[:0], math.MinInt
	}
	r.again, r.copied = a.Tensor(compute.I32, places), a.Tensor(compute.I32, places)
	r.hidden = compute.Tensor{}
	if s.Tokens()%p.o.Tile != 0 {
		r.hidden, r.hides = a.Tensor(compute.F32, 1, places*p.tiles()*p.o.Tile), false
	}
}

// hide tells the device which rows are only there to fill tiles.
func (p *policy) hide(dq compute.Queue) {
	r := &p.remote
	if r.hidden.IsZero() || r.hides {
		return
	}
	r.hides = true
	r.list = r.list[:0]
	for row := range r.hidden.Elems() {
		bits := uint32(0)
		if row%(p.tiles()*p.o.Tile) >= p.shape.Tokens() {
			bits = math.Float32bits(hidden)
		}
		r.list = append(r.list, int32(bits))
	}
	flat := r.hidden.Reshape(r.hidden.Elems())
	flat.DType = compute.I32
	r.upload(dq, flat, r.list)
}

// sortPlaces orders and copies what is new among the frames that may be chosen from, and fills in the kinds of tiles and those whose means are
// not known.
func (p *policy) sortPlaces(dq compute.Queue, l *layer, kv kvcache.View) {
	r, x, clamp, each := &p.remote, &l.remote.split, p.clamp(l), p.tiles()
	p.hide(dq)
	top := slices.Max(l.plan.places) + 1
	for len(x.places) < top {
		x.places = append(x.places, frame{number: -1})
	}
	r.chosen = slices.Grow(r.chosen[:0], top*each)[:top*each]
	clear(r.chosen)
	var fresh, moved []int32
	r.list = r.list[:0]
	for _, place := range slices.Sorted(slices.Values(l.plan.places)) {
		now := frame{number: kv.Parts[l.plan.part[place]].Frame}
		now.old = now.number < clamp
		kind := int32(compute.TileYoung)
		if now.old {
			kind = compute.TileOld
		}
		for t := range each {
			r.chosen[place*each+t] = kind
		}
		f := &x.places[place]
		if *f != now {
			*f = now
			fresh = append(fresh, int32(2*place)+kind-compute.TileYoung)
			for t := range each {
				r.list = append(r.list, int32(place*each+t))
			}
			moved = append(moved, int32(place))
		} else if now.old && x.moved != clamp {
			moved = append(moved, int32(place))
		}
	}
	x.moved = clamp
	p.turnTo(dq, clamp)
	list := r.list
	s := compute.Splitting{Keys: kv.Keys, Values: kv.Values, Tokens: p.shape.Tokens(), Tile: p.o.Tile, Turns: r.turns, Order: x.order, ToKeys: x.keys, ToValues: x.values}
	s.Fresh, s.Moved = r.upload(dq, r.again, fresh), r.upload(dq, r.copied, moved)
	r.list = list
	dq.(compute.Splitter).Split(s)
}

// splitView is what plans see of a layer: frames in their order.
func (p *policy) splitView(l *layer, tiles int) (view kvcache.View) {
	x, n := &l.remote.split, tiles*p.o.Tile
	view.Keys, view.Values = x.keys.Slice(1, 0, n), x.values.Slice(1, 0, n)
	if h := p.remote.hidden; !h.IsZero() { // one row for all heads
		view.LogCount = h.Slice(1, 0, n)
		view.LogCount.Shape[0], view.LogCount.Stride[0] = p.shape.Heads, 0
	}
	return view
}

// attendSplit attends to what the plan lists, and joins it with what is always seen: what is kept, and the chunk's own keys.
func (p *policy) attendSplit(dq compute.Queue, l *layer, dst, query compute.Tensor, kv kvcache.View) {
	tiles := (slices.Max(l.plan.places) + 1) * p.tiles()
	p.attendListed(dq, l, dst, query, p.splitView(l, tiles), p.lse.Slice(0, 0, query.Dim(0)*query.Dim(1)))
	a := compute.Attention{Scale: p.scale, LogSumExp: p.lse.Slice(0, 0, query.Dim(0)*query.Dim(1)).Reshape(query.Dim(0), query.Dim(1))}
	var spans []span
	for _, s := range slices.SortedFunc(slices.Values(slices.Concat(l.plan.kept, l.plan.own)), func(a, b span) int { return a.lo - b.lo }) {
		if n := len(spans); n > 0 && spans[n-1].hi == s.lo {
			spans[n-1].hi = s.hi
		} else {
			spans = append(spans, s)
		}
	}
	for _, s := range spans {
		dq.(compute.Adder).AttendMore(dst, query, kv.Keys.Slice(1, s.lo, s.hi), kv.Values.Slice(1, s.lo, s.hi), a, p.o.QueryTile)
	}
}
