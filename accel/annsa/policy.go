package annsa

import (
	"encoding/binary"
	"math"
	"time"

	"longtake/accel/ann"
	"longtake/attention"
	"longtake/compute"
	"longtake/kvcache"
)

// policy is the attention of one session.
type policy struct {
	o      Options
	dev    compute.Device
	shape  kvcache.Shape
	scale  float32
	arena  compute.Arena // fixed
	store  compute.Arena // gathered keys, grows
	layers []layer
	asked  *ann.Asked
	dq     compute.Queue // that asked belongs to

	lse, stage compute.Tensor // F32 [heads*queries], [tokens*headDim]
	host       []byte
	room       int       // keys of a gathered buffer
	logs       []float32 // ln of the tokens of each tile of a frame

	// Scratch of one head.
	keys, values, sum, square []float32
	counts, viewCounts        []float32
	image                     []byte
	turns                     []float32 // of the temporal pairs at time
	time                      int

	bulk               bulk
	listKeys, listEnds []byte
	mark               []bool

	pairs    int64
	deciding time.Duration
	remote   remote
	expected int64 // pairs of a plan of the device, at most
}

// layer is one block's side.
type layer struct {
	frames  []frame
	heads   []head
	queries queries
	past    map[int][]float32 // descriptors of recent frames by number: cross-attention queries [heads, tokens, headDim]
	spare   [][]float32

	chunk, pass int
	planned     bool
	plan        plan
	known       bool // lse holds the dense pass of this chunk
	lse         []float32
	gathered    []gathered // by query tile
	tiles       int        // of them in use, for the queries of the chunk
	remote      remoteLayer

	// Instead of gathered keys, where they can be attended to in place.
	inPlace   bool
	lists     lists
	listArena compute.Arena
}

// queries are the means of groups of a chunk's queries, [query tiles, heads, groups, headDim].
type queries struct {
	groups     int       // of a whole query tile; the last may have fewer
	young, old []float32 // as they are; turned to meet keys at time 0
	about      []float32 // cross-attention queries, where tiles are made by them
	lse        []float32 // [query tiles, heads, groups]
	order      []uint16
}

// cut calls f for every tile of n queries.
func (p *policy) cut(n int, f func(tile, lo, hi int)) {
	each := p.each(n)
	for t := 0; t*each < n; t++ {
		f(t, t*each, min((t+1)*each, n))
	}
}

// each returns the queries of a tile.
func (p *policy) each(n int) int {
	if p.o.QueryTile == 0 {
		return n
	}
	return p.o.QueryTile
}

// groups returns the groups of so many queries.
func (p *policy) groups(n int) int { return (n + p.o.Group - 1) / p.o.Group }

func newPolicy(o Options, dev compute.Device, s kvcache.Shape) *policy {
	n, d := s.Tokens(), s.HeadDim
	p := &policy{o: o, dev: dev, shape: s, scale: float32(1 / math.Sqrt(float64(d))), layers: make([]layer, s.Layers)}
	p.remote.on = o.remotely(dev, s)
	p.remote.matcher(o.matcher())
	most := n * s.ChunkFrames
	p.keys, p.values = make([]float32, most*d), make([]float32, most*d)
	p.sum, p.square, p.turns, p.time = make([]float32, d), make([]float32, d), make([]float32, 2*s.Pairs[0]), math.MinInt
	for t := range p.tiles() {
		p.logs = append(p.logs, float32(math.Log(float64(min((t+1)*o.Tile, n)-t*o.Tile))))
	}
	for i := range p.layers {
		p.layers[i] = layer{heads: make([]head, s.Heads), gathered: make([]gathered, (most+p.each(most)-1)/p.each(most)), chunk: -1, past: map[int][]float32{}, lse: make([]float32, s.Heads*most)}
		for h := range p.layers[i].heads {
			p.layers[i].heads[h].index = o.matcher().New(d, 0)
		}
	}
	return p
}

// allocate takes what does not grow.
func (p *policy) allocate(a compute.Arena) {
	s := p.shape
	most := s.ChunkFrames * s.Tokens()
	p.lse, p.stage = a.Tensor(compute.F32, s.Heads*most), a.Tensor(compute.F32, most*s.HeadDim)
	p.host = make([]byte, 4*max(s.Heads*most, most*s.HeadDim))
	if p.remote.on {
		p.remote.fixed(p, a)
	}
}

// load reads rows as float32.
func (p *policy) load(dq compute.Queue, dst []float32, t compute.Tensor) {
	each := p.stage.Elems() / t.Dim(1)
	for lo := 0; lo < t.Dim(0) && each > 0; lo += each {
		hi := min(lo+each, t.Dim(0))
		ann.Load(dq, dst[lo*t.Dim(1):], t.Slice(0, lo, hi), p.stage, p.host)
	}
}

// sparse reports whether a head may be thinned.
func (p *policy) sparse(layer, head int) bool {
	return p.o.Profile == nil || p.o.Profile.Sparse(layer, head)
}

// dense reports whether a pass belongs to the first steps. The middle of a step counts: of 4 steps at 0.3 one is dense, as of 2.
func (p *policy) dense(at attention.Site) bool {
	steps := at.Passes - 1
	return at.Pass < steps && (float64(at.Pass)+0.5)/float64(steps) < p.o.Dense
}

// Attend attends densely or to what the chunk's plan kept.
func (p *policy) Attend(dq compute.Queue, at attention.Site, dst, query compute.Tensor, kv kvcache.View) {
	p.deciding, p.pairs = 0, -1
	if at.Kind != attention.Self {
		attention.Dense{}.Attend(dq, at, dst, query, kv)
		return
	}
	began := time.Now()
	l := &p.layers[at.Layer]
	// A pass that does not come later starts the chunk anew: it was given up, or made by Peek.
	first := at.Chunk != l.chunk || at.Pass <= l.pass
	if first {
		p.remember(l, at.Layer)
		l.planned, l.known = false, false
		l.sort(p, kv)
	}
	l.chunk, l.pass = at.Chunk, at.Pass
	given := at.Pass == at.Passes-1 && (first || p.o.Clean)
	if given || p.dense(at) || !p.worth(at.Layer) {
		p.attendDense(dq, at, l, dst, query, kv)
		return
	}
	if p.plansRemotely(l, kv) {
		if !l.planned || p.o.Refresh {
			p.decideRemotely(dq, at, l, query, kv)
			l.planned = true
		}
		p.deciding, p.pairs = time.Since(began), p.expected
		p.attendRemotely(dq, l, dst, query, kv)
		return
	}
	if !l.planned || p.o.Refresh {
		p.decide(dq, at, l, query, kv)
		if l.inPlace = p.inPlace(dq, l, kv); l.inPlace {
			p.list(dq, at.Layer, l, query.Dim(1))
		} else {
			p.gather(dq, at.Layer, l, kv)
		}
		l.planned = true
	}
	if l.inPlace {
		p.deciding = time.Since(began)
		p.runLists(dq, at.Layer, l, dst, compute.Tensor{}, query, kv)
		return
	}
	p.gatherCurrent(dq, at.Layer, l, kv)
	p.deciding = time.Since(began)
	p.run(dq, at, l, dst, query, kv)
}

// attendDense also keeps the mass of each query, from which a plan of this chunk tells what is worth keeping.
func (p *policy) attendDense(dq compute.Queue, at attention.Site, l *layer, dst, query compute.Tensor, kv kvcache.View) {
	a := compute.Attention{Scale: p.scale, LogCount: kv.LogCount, Lengths: kv.Lengths}
	if l.known = p.dense(at) && p.worth(at.Layer); !l.known {
		dq.Attend(dst, query, kv.Keys, kv.Values, a)
		return
	}
	n := query.Dim(0) * query.Dim(1)
	lse, remotely := p.lse.Slice(0, 0, n), p.plansRemotely(l, kv)
	if remotely {
		lse = l.remote.mass.Slice(0, 0, n)
	}
	a.LogSumExp = lse.Reshape(query.Dim(0), query.Dim(1))
	dq.Attend(dst, query, kv.Keys, kv.Values, a)
	if !remotely {
		dq.Download(p.host[:4*n], lse)
		for i := range l.lse[:n] {
			l.lse[i] = math.Float32frombits(binary.LittleEndian.Uint32(p.host[4*i:]))
		}
	}
}

// worth reports whether the chunk has enough history for a plan: below that, deciding costs more than it saves.
func (p *policy) worth(layer int) bool {
	x := &p.layers[layer].plan
	merged := x.merged.hi - x.merged.lo
	if x.history < max(leastHistory, p.o.Least+p.o.Least/4) || !p.remote.on && x.history-merged+merged/4 < p.o.From {
		return false
	}
	for h := range p.shape.Heads {
		if p.sparse(layer, h) {
			return true
		}
	}
	return false
}

// leastHistory is the least number of selectable tokens that are thinned.
const leastHistory = 256

// run attends: heads that may be thinned to what was gathered, the others to everything.
func (p *policy) run(dq compute.Queue, at attention.Site, l *layer, dst, query compute.Tensor, kv kvcache.View) {
	p.pairs = 0
	p.eachRun(at.Layer, func(lo, hi int, sparse bool) {
		d, q := dst.Slice(0, lo, hi), query.Slice(0, lo, hi)
		if !sparse {
			dq.Attend(d, q, kv.Keys.Slice(0, lo, hi), kv.Values.Slice(0, lo, hi), p.whole(kv, lo, hi))
			p.pairs += attention.Pairs(dq, q, heads(kv, lo, hi))
			return
		}
		p.cut(query.Dim(1), func(tile, first, end int) {
			g := &l.gathered[tile]
			dq.Attend(d.Slice(1, first, end), q.Slice(1, first, end), g.keys.Slice(0, lo, hi).Slice(1, 0, g.most),
				g.values.Slice(0, lo, hi).Slice(1, 0, g.most), compute.Attention{Scale: p.scale,
					LogCount: g.count.Slice(0, lo, hi).Slice(1, 0, g.most), Lengths: g.lengths.Slice(0, lo, hi)})
			for h := lo; h < hi; h++ {
				p.pairs += int64(end-first) * int64(g.used[h])
			}
		})
	})
}

// eachRun calls f for runs of heads that are treated alike.
func (p *policy) eachRun(layer int, f func(lo, hi int, sparse bool)) {
	for lo := 0; lo < p.shape.Heads; {
		hi := lo + 1
		for hi < p.shape.Heads && p.sparse(layer, hi) == p.sparse(layer, lo) {
			hi++
		}
		f(lo, hi, p.sparse(layer, lo))
		lo = hi
	}
}

// heads is a view of some heads.
func heads(kv kvcache.View, lo, hi int) kvcache.View {
	kv.Keys, kv.Values = kv.Keys.Slice(0, lo, hi), kv.Values.Slice(0, lo, hi)
	if !kv.LogCount.IsZero() {
		kv.LogCount = kv.LogCount.Slice(0, lo, hi)
	}
	if !kv.Lengths.IsZero() {
		kv.Lengths = kv.Lengths.Slice(0, lo, hi)
	}
	return kv
}

func (p *policy) whole(kv kvcache.View, lo, hi int) compute.Attention {
	part := heads(kv, lo, hi)
	return compute.Attention{Scale: p.scale, LogCount: part.LogCount, Lengths: part.Lengths}
}

// Pairs returns what the last Attend computed; see attention.Sparse.
func (p *policy) Pairs() (int64, time.Duration) {
	if p.pairs < 0 {
		return math.MaxInt64, p.deciding
	}
	return p.pairs, p.deciding
}

// Kept writes the mass of the keys in use; see attention.Sparse.
func (p *policy) Kept(dq compute.Queue, at attention.Site, lse, query compute.Tensor, kv kvcache.View) {
	l := &p.layers[at.Layer]
	// Only the masses are wanted: keys stand in for values, and the result is not looked at.
	arena, err := p.dev.NewArena(0)
	if err != nil {
		return
	}
	defer arena.Free()
	out := arena.Tensor(compute.F32, query.Dim(0), query.Dim(1), query.Dim(2))
	if arena.Err() != nil {
		return
	}
	if p.remote.on {
		a := p.byPlan(l, kv, query.Dim(1))
		a.LogSumExp = lse
		dq.Attend(out, query, kv.Keys, kv.Keys, a)
		_ = dq.Wait() // the arena goes
		return
	}
	if l.inPlace {
		pairs := p.pairs
		p.runLists(dq, at.Layer, l, out, lse, query, kv)
		_, p.pairs = dq.Wait(), pairs // the arena goes
		return
	}
	p.eachRun(at.Layer, func(lo, hi int, sparse bool) {
		d, q, to := out.Slice(0, lo, hi), query.Slice(0, lo, hi), lse.Slice(0, lo, hi)
		if !sparse {
			a := p.whole(kv, lo, hi)
			a.LogSumExp = to
			dq.Attend(d, q, kv.Keys.Slice(0, lo, hi), kv.Values.Slice(0, lo, hi), a)
			return
		}
		p.cut(query.Dim(1), func(tile, first, end int) {
			g := &l.gathered[tile]
			keys := g.keys.Slice(0, lo, hi).Slice(1, g.real, g.most)
			dq.Attend(d.Slice(1, first, end), q.Slice(1, first, end), keys, keys, compute.Attention{Scale: p.scale,
				LogCount: g.count.Slice(0, lo, hi).Slice(1, g.real, g.most), Lengths: g.realLengths.Slice(0, lo, hi),
				LogSumExp: to.Slice(1, first, end)})
		})
	})
	_ = dq.Wait() // the arena goes
}

// Close gives the memory back.
func (p *policy) Close() {
	p.o.Queries.Leave(p.dq)
	if p.store != nil {
		p.store.Free()
	}
	if p.bulk.arena != nil {
		p.bulk.arena.Free()
	}
	for i := range p.layers {
		if l := &p.layers[i]; l.listArena != nil {
			l.listArena.Free()
		}
	}
	p.arena.Free()
}

// remember keeps the cross-attention queries of the chunk that has just ended, whose frames were the view's current ones.
func (p *policy) remember(l *layer, number int) {
	if p.asked == nil {
		return
	}
	all := p.asked.Get(number)
	n, d := p.shape.Tokens(), p.shape.HeadDim
	frames := len(l.plan.current)
	if len(all) == 0 || len(all) != p.shape.Heads*frames*n*d {
		return
	}
	for i, f := range l.plan.current {
		for old, v := range l.past {
			if old < f-p.o.Recent-2*p.shape.ChunkFrames {
				l.spare = append(l.spare, v)
				delete(l.past, old)
			}
		}
		v := l.past[f]
		if v == nil && len(l.spare) > 0 {
			v, l.spare = l.spare[len(l.spare)-1], l.spare[:len(l.spare)-1]
		}
		if v == nil {
			v = make([]float32, p.shape.Heads*n*d)
		}
		for h := range p.shape.Heads {
			copy(v[h*n*d:][:n*d], all[(h*frames+i)*n*d:])
		}
		l.past[f] = v
	}
}

// askedBy returns a layer's last cross-attention queries, zeros when they are not those of the chunk in work.
func (p *policy) askedBy(layer, n int) []float32 {
	if p.asked == nil {
		return nil
	}
	if v := p.asked.Get(layer); len(v) == n {
		return v
	}
	return make([]float32, n)
}

// remembered returns head i's cross-attention queries of a frame; zeros when they were never seen.
func (l *layer) remembered(frame, i, n int) []float32 {
	if v := l.past[frame]; v != nil {
		return v[i*n:][:n]
	}
	return make([]float32, n)
}
