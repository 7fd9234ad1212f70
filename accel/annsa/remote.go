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

// remote is the side of a policy whose plans are made by the device, a compute.Planner: tiles are runs of keys of the view,
// whatever frame they belong to, and attention reads them where they lie, so that nothing is gathered and the host learns nothing
// of what was chosen. Tiles of near keys are those of splitLayer.
type remote struct {
	on     bool
	tiles  int            // that there is room for
	bits   int            // of quantised means
	hash   int            // bits of hashed ones
	tables compute.Tables // of hashed ones
	step   float32
	// Work space of all layers, see compute.Planning.
	kinds, fresh, dense, turns   compute.Tensor
	groups, norms, scores, lists compute.Tensor
	planes                       compute.Tensor // of hashes, with the codes of groups of queries
	groupCodes, groupLengths     compute.Tensor
	groupWeak                    compute.Tensor // with tables
	hashes                       bool           // planes are there
	again, copied                compute.Tensor // I32, frames that are ordered and copied, see splitLayer
	hidden                       compute.Tensor // F32 [1, rows], absent where frames fill tiles
	hides                        bool           // it is there
	told                         []int32        // what kinds holds
	list, chosen                 []int32
	time                         int
	host                         []byte
}

// remoteLayer is what a layer keeps.
type remoteLayer struct {
	mass                compute.Tensor // F32 [heads*queries] of the chunk's dense pass
	means, logs, tokens compute.Tensor
	known               compute.Tensor // means as quantised, or as hashed
	codes, lengths      compute.Tensor
	// With no-drop: what is not listed counts by its mean.
	rest, restKeys, restValues compute.Tensor
	split                      splitLayer
	keys, ends                 compute.Tensor // the plan
	used                       int            // entries of keys in use at most
	marks                      []uint64       // what each tile's mean was made of
}

// mostHashed is the most bits of codes that a compute.Planner takes, mostSplit the most tokens of a frame that a compute.Splitter orders.
const mostHashed, mostSplit = 512, 4096

// remotely reports whether plans are made by the device: for runs of tokens, scored by exact or quantised mean keys or by hashes.
func (o Options) remotely(dev compute.Device, s kvcache.Shape) bool {
	_, ok := dev.(compute.PlanningDevice)
	able := false
	switch m := o.matcher().(type) {
	case ann.Exact, ann.Scalar:
		able = true
	case ann.LSH:
		able = m.Signs() <= mostHashed && !m.Centre && !m.Augment
	}
	if !o.Raster {
		able = able && s.Tokens() <= mostSplit && s.HeadDim%2 == 0
	}
	return ok && able && !o.Oracle && !o.SecondOrder && o.Missed == 0 && o.Queries == nil && o.QueryTile > 0 && o.QueryTile <= 128 && s.HeadDim <= 128
}

// matcher notes how means are known.
func (r *remote) matcher(m ann.Maker) {
	switch m := m.(type) {
	case ann.Scalar:
		r.bits, r.step = int(m), m.Step()
	case ann.LSH:
		r.hash, r.tables = m.Signs(), m.Cut()
	}
}

// fixed takes the tensors that do not grow.
func (r *remote) fixed(p *policy, a compute.Arena) {
	s := p.shape
	most := s.ChunkFrames * s.Tokens()
	rows := s.Heads * ((most + p.o.QueryTile - 1) / p.o.QueryTile)
	each := p.groups(p.o.QueryTile)
	r.groups, r.norms = a.Tensor(compute.F32, 2*rows*each*s.HeadDim), a.Tensor(compute.F32, rows*each)
	r.turns = a.Tensor(compute.F32, s.Pairs[0], 2)
	r.dense = a.Tensor(compute.I32, s.Heads)
	if r.hash > 0 {
		r.planes = a.Tensor(compute.F32, r.hash, s.HeadDim)
		r.groupCodes, r.groupLengths = a.Tensor(compute.I64, 2*rows*each, (r.hash+63)/64), a.Tensor(compute.F32, 2*rows*each)
		if r.tables.Count > 0 {
			r.groupWeak = a.Tensor(compute.I64, 2*rows*each, (r.hash+63)/64)
		}
		r.hashes = false
	}
	for i := range p.layers {
		p.layers[i].remote.mass = a.Tensor(compute.F32, s.Heads*most)
		p.layers[i].remote.ends = a.Tensor(compute.I32, rows)
	}
	r.time = math.MinInt
}

// growing takes what has a number for every tile.
func (r *remote) growing(p *policy, a compute.Arena, tiles int) {
	s := p.shape
	rows := s.Heads * ((s.ChunkFrames*s.Tokens() + p.o.QueryTile - 1) / p.o.QueryTile)
	r.kinds, r.fresh = a.Tensor(compute.I32, tiles), a.Tensor(compute.I32, tiles)
	r.scores, r.lists = a.Tensor(compute.F32, rows*tiles), a.Tensor(compute.I32, rows*tiles)
	for i := range p.layers {
		l := &p.layers[i].remote
		l.means = a.Tensor(compute.F32, s.Heads, tiles, s.HeadDim)
		l.logs, l.tokens = a.Tensor(compute.F32, s.Heads, tiles), a.Tensor(compute.I32, s.Heads, tiles)
		l.keys = a.Tensor(compute.I32, rows*tiles)
		if r.bits > 0 {
			l.known = a.Tensor(compute.F32, s.Heads, tiles, s.HeadDim)
		}
		if r.hash > 0 {
			l.codes, l.lengths = a.Tensor(compute.I64, s.Heads, tiles, (r.hash+63)/64), a.Tensor(compute.F32, s.Heads, tiles)
		}
		if p.o.NoDrop {
			l.rest = a.Tensor(compute.F32, rows*tiles)
			l.restKeys, l.restValues = a.Tensor(s.DType, s.Heads, tiles, s.HeadDim), a.Tensor(s.DType, s.Heads, tiles, s.HeadDim)
		}
	}
	if !p.o.Raster {
		r.splitGrowing(p, a, tiles)
	}
}

// reserve makes room for so many tiles; all means are computed anew then.
func (p *policy) reserve(tiles int) error {
	if tiles <= p.remote.tiles {
		return nil
	}
	room := max(tiles, 2*p.remote.tiles)
	m := &compute.Meter{Device: p.dev}
	p.remote.growing(p, m, room)
	store, err := p.dev.NewArena(m.Bytes())
	if err != nil {
		return err
	}
	if p.store != nil {
		p.store.Free()
	}
	p.store, p.remote.tiles = store, room
	p.remote.growing(p, store, room)
	p.remote.told = p.remote.told[:0]
	for i := range p.layers {
		p.layers[i].remote.marks, p.layers[i].planned = nil, false
	}
	return store.Err()
}

// sortTiles writes the kinds of the view's tiles to chosen, and the tiles whose means are no longer those of the layer to list. It
// returns how many tiles are kept.
func (p *policy) sortTiles(l *layer, clamp int, kv kvcache.View) (kept int) {
	r, tile, n := &p.remote, p.o.Tile, kv.Keys.Dim(1)
	tiles := (n + tile - 1) / tile
	r.chosen, r.list = r.chosen[:0], r.list[:0]
	now := math.MaxInt
	for _, f := range l.plan.current {
		now = min(now, f)
	}
	marks := &l.remote.marks
	for len(*marks) < tiles {
		*marks = append(*marks, 0)
	}
	part := 0
	for t := range tiles {
		kind, old, young, changes, merged, mark := int32(compute.TileUnseen), false, false, false, true, uint64(1)
		for part < len(kv.Parts)-1 && kv.Parts[part].Hi <= t*tile {
			part++
		}
		for i := part; i < len(kv.Parts) && kv.Parts[i].Lo < (t+1)*tile; i++ {
			x := kv.Parts[i]
			switch p.role(x, now) {
			case compute.TileKept:
				kind = compute.TileKept
			default:
				if kind == compute.TileUnseen {
					kind = compute.TileYoung
				}
				changes, merged = changes || x.Frame < 0, merged && x.Frame < 0
				if x.Frame >= 0 && x.Frame < clamp {
					old = true
				} else {
					young = true
				}
			}
			mark = (mark*0x9e3779b97f4a7c15 ^ uint64(x.Frame+2)) * 0xbf58476d1ce4e5b9
			mark ^= uint64(x.Lo-t*tile)<<1 ^ mark>>29
		}
		switch {
		case kind == compute.TileYoung && old && !young:
			kind = compute.TileOld
		case kind == compute.TileYoung && merged && r.bits+r.hash > 0:
			kind = compute.TileMerged
		}
		mark = mark<<2 | uint64(kind)
		if kind == compute.TileKept {
			kept++
		} else if changes || old && young || (*marks)[t] != mark {
			r.list = append(r.list, int32(t))
		}
		(*marks)[t] = mark
		r.chosen = append(r.chosen, kind)
	}
	return kept
}

// role says whether keys of a part are always seen or may be chosen.
func (p *policy) role(x kvcache.Part, now int) int {
	n := p.shape.Tokens()
	switch {
	case x.Frame < 0 && x.Kind == kvcache.History:
		return compute.TileYoung
	case x.Kind == kvcache.Current || x.Kind == kvcache.Anchor || x.Frame < 0 || x.Frame >= now-p.o.Recent || x.Hi-x.Lo != n:
		return compute.TileKept
	}
	return compute.TileYoung
}

// upload writes numbers to the start of a tensor.
func (r *remote) upload(dq compute.Queue, t compute.Tensor, v []int32) compute.Tensor {
	t = t.Slice(0, 0, len(v))
	b := r.host[:0]
	for _, x := range v {
		b = binary.LittleEndian.AppendUint32(b, uint32(x))
	}
	r.host = b
	if len(v) > 0 {
		dq.Upload(t, b)
	}
	return t
}

// decideRemotely plans a chunk of a layer. It panics when the device has no room, as there is no way to go on.
func (p *policy) decideRemotely(dq compute.Queue, at attention.Site, l *layer, query compute.Tensor, kv kvcache.View) {
	r, x, s := &p.remote, &l.remote, p.shape
	tiles := (kv.Keys.Dim(1) + p.o.Tile - 1) / p.o.Tile
	if !p.o.Raster {
		tiles = (slices.Max(l.plan.places) + 1) * p.tiles()
	}
	if tiles > r.tiles {
		_ = dq.Wait() // the old buffers go
		if err := p.reserve(tiles); err != nil {
			panic(err)
		}
	}
	kept := 0
	if p.o.Raster {
		kept = p.sortTiles(l, p.clamp(l), kv)
	} else {
		p.sortPlaces(dq, l, kv)
		kv = p.splitView(l, tiles)
	}
	if !slices.Equal(r.chosen, r.told) {
		r.upload(dq, r.kinds, r.chosen)
		r.told = append(r.told[:0], r.chosen...)
	}
	fresh := r.upload(dq, r.fresh, r.list)
	p.turnTo(dq, p.clamp(l))
	q := query.Dim(1)
	rows := s.Heads * ((q + p.o.QueryTile - 1) / p.o.QueryTile)
	budget := max(p.o.Least, int(p.o.Fraction*float64(l.plan.history)+0.5))
	// Tiles that are not full are at the ends of parts.
	each := min(tiles, kept+budget/p.o.Tile+2*len(kv.Parts)+1)
	if !p.o.Raster {
		each = min(tiles, budget/p.o.Tile+len(l.plan.places)+1)
	}
	if p.o.Profile != nil {
		each = tiles
	}
	x.used = rows * each
	plan := compute.Planning{Query: query, Keys: kv.Keys, LogCount: kv.LogCount, Lengths: kv.Lengths, Scale: p.scale, Temper: p.temper(),
		Tile: p.o.Tile, QueryTile: p.o.QueryTile, Group: p.o.Group, Fraction: p.o.Fraction, Least: p.o.Least, Kinds: r.kinds.Slice(0, 0, tiles),
		Fresh: fresh, Turns: r.turns, Means: x.means, Logs: x.logs, Tokens: x.tokens, Groups: r.groups, Norms: r.norms, Scores: r.scores,
		Lists: r.lists, TileKeys: x.keys.Slice(0, 0, x.used), TileEnds: x.ends.Slice(0, 0, rows)}
	if p.o.Profile != nil {
		r.list = r.list[:0]
		for h := range s.Heads {
			dense := int32(1)
			if p.sparse(at.Layer, h) {
				dense = 0
			}
			r.list = append(r.list, dense)
		}
		plan.Dense = r.upload(dq, r.dense, r.list)
	}
	p.codesOf(dq, x, &plan)
	if p.o.NoDrop {
		plan.Values, plan.RestKeys, plan.RestValues = kv.Values, x.restKeys, x.restValues
		plan.Rest = x.restOf(rows, tiles)
	}
	if l.known {
		plan.Mass = x.mass.Slice(0, 0, s.Heads*q).Reshape(s.Heads, q)
	}
	dq.(compute.Planner).Plan(plan)
	p.expected = int64(q) * int64(s.Heads) * int64(min(tiles, kept+budget/p.o.Tile)*p.o.Tile)
	if p.o.NoDrop {
		p.expected += int64(q) * int64(s.Heads) * int64(tiles)
	}
}

// codesOf names the codes of a layer's means.
func (p *policy) codesOf(dq compute.Queue, x *remoteLayer, plan *compute.Planning) {
	r := &p.remote
	if r.bits > 0 {
		plan.Bits, plan.Step, plan.Known = r.bits, r.step, x.known
	}
	if r.hash == 0 {
		return
	}
	if !r.hashes {
		b := r.host[:0]
		for _, v := range p.o.matcher().(ann.LSH).Planes(p.shape.HeadDim) {
			b = binary.LittleEndian.AppendUint32(b, math.Float32bits(v))
		}
		r.host, r.hashes = b, true
		dq.Upload(r.planes, b)
	}
	plan.Planes, plan.Codes, plan.CodeLengths, plan.GroupCodes, plan.GroupLengths = r.planes, x.codes, x.lengths, r.groupCodes, r.groupLengths
	plan.Tables, plan.GroupWeak = r.tables, r.groupWeak
}

// restOf is the part of rest that a plan fills, [lists, tiles].
func (x *remoteLayer) restOf(rows, tiles int) compute.Tensor {
	return x.rest.Slice(0, 0, rows*tiles).Reshape(rows, tiles)
}

// attendRemotely attends by the layer's plan.
func (p *policy) attendRemotely(dq compute.Queue, l *layer, dst, query compute.Tensor, kv kvcache.View) {
	if !p.o.Raster {
		p.attendSplit(dq, l, dst, query, kv)
		return
	}
	p.attendListed(dq, l, dst, query, kv, compute.Tensor{})
}

// attendListed attends to what a plan lists of a view, and with no-drop to what it does not by its means. sums F32 [heads*queries], if it is there,
// receives the log-sums.
func (p *policy) attendListed(dq compute.Queue, l *layer, dst, query compute.Tensor, kv kvcache.View, sums compute.Tensor) {
	heads, q := query.Dim(0), query.Dim(1)
	a := p.byPlan(l, kv, q)
	if sums.IsZero() && p.o.NoDrop {
		sums = p.lse.Slice(0, 0, heads*q)
	}
	if !sums.IsZero() {
		a.LogSumExp = sums.Reshape(heads, q)
	}
	dq.Attend(dst, query, kv.Keys, kv.Values, a)
	if !p.o.NoDrop {
		return
	}
	x, tiles, rows := &l.remote, (kv.Keys.Dim(1)+p.o.Tile-1)/p.o.Tile, heads*((q+p.o.QueryTile-1)/p.o.QueryTile)
	dq.(compute.Adder).AttendMore(dst, query, x.restKeys.Slice(1, 0, tiles), x.restValues.Slice(1, 0, tiles),
		compute.Attention{Scale: p.scale, LogCount: x.restOf(rows, tiles), LogSumExp: a.LogSumExp}, p.o.QueryTile)
}

// turnTo tells the device the rotation of a time.
func (p *policy) turnTo(dq compute.Queue, time int) {
	r := &p.remote
	if r.time == time || r.turns.Elems() == 0 {
		return
	}
	r.time = time
	p.setTime(time)
	b := r.host[:0]
	for _, v := range p.turns {
		b = binary.LittleEndian.AppendUint32(b, math.Float32bits(v))
	}
	r.host = b
	dq.Upload(r.turns, b)
}

// byPlan is attention by the layer's plan.
func (p *policy) byPlan(l *layer, kv kvcache.View, queries int) compute.Attention {
	rows := p.shape.Heads * ((queries + p.o.QueryTile - 1) / p.o.QueryTile)
	return compute.Attention{Scale: p.scale, LogCount: kv.LogCount, Lengths: kv.Lengths, Tiles: compute.Tiles{QueryTile: p.o.QueryTile, KeyTile: p.o.Tile,
		Keys: l.remote.keys.Slice(0, 0, l.remote.used), Ends: l.remote.ends.Slice(0, 0, rows)}}
}

// firstTiles is the room for tiles that a policy begins with: twice the frames of gathered keys, which are a part of a view; then no
// window that a model was trained with outgrows it.
func (p *policy) firstTiles() int {
	if !p.o.Raster {
		return 2 * firstFrames * p.tiles()
	}
	return (2*firstFrames*p.shape.Tokens() + p.o.Tile - 1) / p.o.Tile
}
