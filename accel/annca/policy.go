package annca

import (
	"encoding/binary"
	"math"
	"time"

	"longtake/accel/ann"
	"longtake/attention"
	"longtake/compute"
	"longtake/kvcache"
)

// policy is the cross attention of one session.
type policy struct {
	o      Options
	dev    compute.Device
	dq     compute.Queue
	shape  kvcache.Shape
	arena  compute.Arena
	room   int // tokens
	layers []layer
	asked  *ann.Asked

	stage   compute.Tensor // F32 [chunk tokens*headDim]
	out     compute.Tensor // F32 [heads*chunk tokens*headDim], not looked at
	scores  compute.Tensor // F32 [heads*room*chunk tokens], where products are taken at once
	host    []byte
	queries []float32 // [heads, chunk tokens, headDim]
	key     []float32
	score   []float32
	keep    []bool
	best    []float32 // of one query
	bestAt  []int

	pairs    int64
	deciding time.Duration
	remote   remote
}

// layer is one block's side: the prompt's keys in an index for each head, and what was kept of them.
type layer struct {
	index        []ann.Index
	print        uint64
	tokens       int // of the prompt in the indexes
	chunk, pass  int
	keys, values compute.Tensor // [heads, room, headDim]
	count        compute.Tensor // F32 [1, room]
	known        compute.Tensor // F32 [heads, room, headDim], keys as the indexes know them
	kept         int
	whole        bool           // nothing is left out
	remotely     bool           // the device chose
	lengths      compute.Tensor // I32 [heads], kept tokens then
}

func newPolicy(o Options, dev compute.Device, s kvcache.Shape) *policy {
	p := &policy{o: o, dev: dev, shape: s, layers: make([]layer, s.Layers)}
	p.remote.on = o.remotely(dev, s)
	most := s.ChunkFrames * s.Tokens()
	p.queries, p.key = make([]float32, s.Heads*most*s.HeadDim), make([]float32, s.HeadDim)
	p.host = make([]byte, 4*most*s.HeadDim)
	for i := range p.layers {
		l := &p.layers[i]
		l.chunk = -1
		for range s.Heads {
			l.index = append(l.index, o.matcher().New(s.HeadDim, 0))
		}
	}
	return p
}

// allocate takes the gathered prompts of all layers.
func (p *policy) allocate(a compute.Arena, room int) {
	s := p.shape
	most := s.ChunkFrames * s.Tokens()
	p.stage, p.out = a.Tensor(compute.F32, most*s.HeadDim), a.Tensor(compute.F32, s.Heads*most*s.HeadDim)
	if !p.remote.on { // a queue that selects has no memory in which products could be read
		p.scores = a.Tensor(compute.F32, s.Heads*room*most)
	}
	for i := range p.layers {
		l := &p.layers[i]
		if !p.remote.on {
			l.known = a.Tensor(compute.F32, s.Heads, room, s.HeadDim)
		}
		l.keys, l.values = a.Tensor(s.DType, s.Heads, room, s.HeadDim), a.Tensor(s.DType, s.Heads, room, s.HeadDim)
		l.count = a.Tensor(compute.F32, 1, room)
	}
	if p.remote.on {
		p.remote.allocate(p, a, room)
	}
}

// grow makes room for longer prompts; every layer selects again.
func (p *policy) grow(room int) error {
	m := &compute.Meter{Device: p.dev}
	p.allocate(m, room)
	arena, err := p.dev.NewArena(m.Bytes())
	if err != nil {
		return err
	}
	if p.arena != nil {
		p.arena.Free()
	}
	p.arena, p.room = arena, room
	p.allocate(arena, room)
	for i := range p.layers {
		p.layers[i].chunk = -1
	}
	p.score, p.keep = make([]float32, room), make([]bool, room)
	p.host = make([]byte, max(len(p.host), 4*room))
	return arena.Err()
}

// Attend attends to the tokens that the chunk keeps.
func (p *policy) Attend(dq compute.Queue, at attention.Site, dst, query compute.Tensor, kv kvcache.View) {
	began := time.Now()
	p.pairs, p.deciding = math.MaxInt64, 0
	if at.Kind != attention.Cross {
		attention.Dense{}.Attend(dq, at, dst, query, kv)
		return
	}
	l, n := &p.layers[at.Layer], query.Dim(0)*query.Dim(1)*query.Dim(2)
	l.whole = p.o.All || !p.remote.on && kv.Keys.Dim(1) < p.o.From
	selects := !l.whole && (p.o.Refresh || at.Chunk != l.chunk || at.Pass <= l.pass)
	remotely := p.remote.on && kv.Keys.Dim(1) <= mostRemote
	if !remotely && selects && !p.multiplies(dq, l) || p.asked != nil {
		p.load(dq, query)
	}
	if p.asked != nil {
		p.asked.Set(at.Layer, p.queries[:n])
	}
	if l.whole {
		attention.Dense{}.Attend(dq, at, dst, query, kv)
		return
	}
	if kv.Keys.Dim(1) > p.room {
		_ = dq.Wait() // the old buffers go
		if err := p.grow(kv.Keys.Dim(1)); err != nil {
			panic(err) // there is no way to go on
		}
		selects = true
		if !remotely {
			p.load(dq, query)
		}
	}
	l.remotely = remotely
	if remotely {
		p.attendRemotely(dq, at, l, dst, query, kv, selects)
		p.deciding = time.Since(began)
		p.pairs = int64(query.Dim(0)) * int64(query.Dim(1)) * int64(l.kept) // at most: how many are kept the device knows
		return
	}
	// The prompt's storage is written anew when the prompt changes, which may be within a chunk only when it is made again.
	if selects {
		p.index(dq, l, kv)
		if !p.chooseAtOnce(dq, query, kv.Keys.Dim(1), l) {
			p.choose(query.Dim(1), kv.Keys.Dim(1), l)
		}
		p.gather(dq, l, kv)
		l.chunk = at.Chunk
	}
	l.pass = at.Pass
	p.deciding = time.Since(began)
	p.pairs = int64(query.Dim(0)) * int64(query.Dim(1)) * int64(l.kept)
	keys, values, a := p.chosen(l, query, kv)
	dq.Attend(dst, query, keys, values, a)
}

// load fetches the queries, head by head: the stage is as large as one.
func (p *policy) load(dq compute.Queue, query compute.Tensor) {
	each := query.Dim(1) * query.Dim(2)
	for h := range query.Dim(0) {
		ann.Load(dq, p.queries[h*each:][:each], query.Index(h), p.stage, p.host)
	}
}

// chosen returns what a layer attends to.
func (p *policy) chosen(l *layer, query compute.Tensor, kv kvcache.View) (keys, values compute.Tensor, a compute.Attention) {
	a.Scale = attention.Scale(query)
	if !kv.LogCount.IsZero() {
		a.LogCount = l.count.Slice(1, 0, l.kept)
		a.LogCount.Shape[0], a.LogCount.Stride[0] = p.shape.Heads, 0 // one row for all heads
	}
	if l.remotely {
		a.Lengths = l.lengths
	}
	return l.keys.Slice(1, 0, l.kept), l.values.Slice(1, 0, l.kept), a
}

// index hashes the prompt's keys when they are not those of before.
func (p *policy) index(dq compute.Queue, l *layer, kv kvcache.View) {
	tokens, d := kv.Keys.Dim(1), p.shape.HeadDim
	print, known := p.print(dq, kv.Keys)
	if known && print == l.print && tokens == l.tokens {
		return
	}
	l.print, l.tokens = print, tokens
	for h, x := range l.index {
		x.Reset()
		for t := range tokens {
			ann.Load(dq, p.key[:d], kv.Keys.Index(h).Slice(0, t, t+1), p.stage, p.host)
			x.Put(t, p.key)
		}
	}
	if !p.multiplies(dq, l) {
		return
	}
	image := dq.(compute.Mapper).Map(l.known)
	for h, x := range l.index {
		for t := range tokens {
			x.(ann.Rows).Row(p.key[:d], t)
			ann.StoreRow(image, compute.F32, h*l.known.Stride[0]+t*l.known.Stride[1], p.key[:d])
		}
	}
}

// multiplies reports whether the products of all queries and keys can be taken at once: the indexes must tell what they know of
// their keys, and the queue must multiply where the host reads.
func (p *policy) multiplies(dq compute.Queue, l *layer) bool {
	_, rows := l.index[0].(ann.Rows)
	_, scores := dq.(compute.Scorer)
	_, maps := dq.(compute.Mapper)
	return rows && scores && maps && p.o.Top > 0
}

// chooseAtOnce is choose by one product of matrices, where that can be had.
func (p *policy) chooseAtOnce(dq compute.Queue, query compute.Tensor, tokens int, l *layer) bool {
	if !p.multiplies(dq, l) {
		return false
	}
	heads, queries := query.Dim(0), query.Dim(1)
	out := p.scores.Slice(0, 0, heads*tokens*queries).Reshape(heads, tokens, queries)
	dq.(compute.Scorer).Score(out, query, l.known.Slice(1, 0, tokens))
	mem := dq.(compute.Mapper).Map(out)
	keep := p.begin(tokens)
	top := min(p.o.Top, tokens)
	p.best, p.bestAt = ensure(p.best, queries*top), ensure(p.bestAt, queries*top)
	for h := range heads {
		best, at := p.best[:queries*top], p.bestAt[:queries*top]
		for i := range best {
			best[i], at[i] = float32(math.Inf(-1)), 0
		}
		for t := range tokens {
			row := mem[4*(h*tokens+t)*queries:][:4*queries]
			for q := range queries {
				if s := math.Float32frombits(binary.LittleEndian.Uint32(row[4*q:])); s > best[q*top+top-1] {
					insert(best[q*top:][:top], at[q*top:][:top], s, t)
				}
			}
		}
		for _, t := range at {
			keep[t] = true
		}
	}
	return true
}

// insert puts a score into a list that falls, and drops its last one.
func insert(best []float32, at []int, s float32, t int) {
	i := len(best) - 1
	for ; i > 0 && best[i-1] < s; i-- {
		best[i], at[i] = best[i-1], at[i-1]
	}
	best[i], at[i] = s, t
}

func ensure[T any](s []T, n int) []T {
	if n <= cap(s) {
		return s[:n]
	}
	return make([]T, n)
}

// begin clears the marks but those of the end of the prompt, and of the padding behind it where it is merged into the last
// token: dit.Work.Prompt.
func (p *policy) begin(tokens int) []bool {
	keep := p.keep[:tokens]
	clear(keep)
	keep[tokens-1], keep[max(0, tokens-2)] = true, true
	return keep
}

// print returns a hash of the first numbers of every token; not known where looking would cost a transfer.
func (p *policy) print(dq compute.Queue, keys compute.Tensor) (print uint64, known bool) {
	mapper, ok := dq.(compute.Mapper)
	if !ok {
		return 0, false
	}
	mem, step := mapper.Map(keys.Index(0)), keys.Stride[1]*keys.DType.Size()
	for t := range keys.Dim(1) {
		print = (print ^ binary.LittleEndian.Uint64(mem[t*step:])) * 0x9e3779b97f4a7c15
		print ^= print >> 29
	}
	return print, true
}

// choose marks the tokens that any query is near to.
func (p *policy) choose(queries, tokens int, l *layer) {
	keep, score, d := p.begin(tokens), p.score[:tokens], p.shape.HeadDim
	for h, x := range l.index {
		for q := range queries {
			x.Score(score, p.queries[(h*queries+q)*d:][:d], 0)
			if p.o.Top == 0 {
				for t, s := range score {
					keep[t] = keep[t] || !math.IsInf(float64(s), -1)
				}
			}
			for range min(p.o.Top, tokens) {
				at, top := -1, float32(math.Inf(-1))
				for t, s := range score {
					if s > top {
						at, top = t, s
					}
				}
				if at < 0 {
					break
				}
				keep[at], score[at] = true, float32(math.Inf(-1))
			}
		}
	}
}

// gather copies the kept tokens.
func (p *policy) gather(dq compute.Queue, l *layer, kv kvcache.View) {
	c := ann.NewCarrier(dq, l.keys, l.values, kv.Keys, kv.Values)
	tokens := kv.Keys.Dim(1)
	if !kv.LogCount.IsZero() {
		ann.Load(dq, p.score[:tokens], kv.LogCount.Slice(0, 0, 1), p.stage, p.host)
	}
	l.kept = 0
	counts := p.host[:0]
	for t, keep := range p.keep[:tokens] {
		if !keep {
			continue
		}
		for h := range p.shape.Heads {
			c.Copy(h, l.kept, t, 1)
		}
		counts = binary.LittleEndian.AppendUint32(counts, math.Float32bits(p.score[t]))
		l.kept++
	}
	if !kv.LogCount.IsZero() {
		dq.Upload(l.count.Index(0).Slice(0, 0, l.kept), counts)
	}
}

// Pairs returns what the last Attend computed; see attention.Sparse.
func (p *policy) Pairs() (int64, time.Duration) { return p.pairs, p.deciding }

// Kept writes the mass of the kept tokens; see attention.Sparse.
func (p *policy) Kept(dq compute.Queue, at attention.Site, lse, query compute.Tensor, kv kvcache.View) {
	if at.Kind != attention.Cross || p.layers[at.Layer].whole {
		attention.Mass(dq, lse, p.out, query, kv)
		return
	}
	keys, values, a := p.chosen(&p.layers[at.Layer], query, kv)
	a.LogSumExp = lse
	dq.Attend(p.out.Slice(0, 0, query.Elems()).Reshape(query.Dim(0), query.Dim(1), query.Dim(2)), query, keys, values, a)
}

// Close gives the memory back.
func (p *policy) Close() {
	p.o.Queries.Leave(p.dq)
	if p.arena != nil {
		p.arena.Free()
	}
}
