package annsa

import (
	"encoding/binary"
	"math"
	"slices"

	"longtake/accel/ann"
	"longtake/compute"
	"longtake/kvcache"
)

// scoreTiles is how many tiles' keys are multiplied at a time.
const scoreTiles = 1024

// bulk multiplies all groups of queries of a head by the mean keys of many tiles at once.
type bulk struct {
	arena       compute.Arena
	young, old  compute.Tensor // F32 [1, rows, headDim]: the groups of all query tiles
	keys        compute.Tensor // F32 [1, scoreTiles, headDim]
	out         compute.Tensor // F32 [1, scoreTiles, rows]
	rows        int
	norm        []float32   // of each row
	plain, flat []float32   // scores and queries, for indexes that score by themselves
	score       [][]float32 // of each query tile, by tile of the history
	host        []byte
}

// bulkScores fills in the scores of head i for all query tiles, and reports whether it could: the index must tell its keys, a dense
// pass must have told the mass of the queries, and the queue must multiply where the host reads.
func (p *policy) bulkScores(dq compute.Queue, l *layer, i int) bool {
	rows, ok := l.heads[i].index.(ann.Rows)
	_, ok2 := l.heads[i].index.(ann.Many)
	scorer, ok3 := dq.(compute.Scorer)
	mapper, ok4 := dq.(compute.Mapper)
	if !ok && !ok2 || !ok3 || !ok4 || !l.known || p.o.Oracle || p.asked != nil || !p.reserveBulk(l) {
		return false
	}
	h, b := &l.heads[i], &p.bulk
	total := len(l.frames)*p.tiles() + len(h.extra.logCount)
	for len(b.score) < l.tiles {
		b.score = append(b.score, nil)
	}
	for qt := range l.tiles {
		b.score[qt] = ensure(b.score[qt], total)
		clear(b.score[qt][:total])
	}
	p.bulkQueries(dq, l, i)
	x := &l.plan
	for r := 0; r < len(x.places); {
		e := r + 1
		for e < len(x.places) && x.places[e] == x.places[e-1]+1 && l.frames[x.places[e]].old == l.frames[x.places[r]].old {
			e++
		}
		query := b.young
		if l.frames[x.places[r]].old {
			query = b.old
		}
		for lo, hi := x.places[r]*p.tiles(), (x.places[e-1]+1)*p.tiles(); lo < hi; lo += scoreTiles {
			n := min(scoreTiles, hi-lo)
			if !ok {
				if !p.scoreMany(l, h, mapper.Map(b.out), mapper.Map(query), lo, n) {
					return false
				}
				continue
			}
			image := mapper.Map(b.keys)
			for t := range n {
				rows.Row(p.sum[:p.shape.HeadDim], lo+t)
				ann.StoreRow(image, compute.F32, t*p.shape.HeadDim, p.sum[:p.shape.HeadDim])
			}
			out := b.out.Slice(1, 0, n)
			scorer.Score(out, query, b.keys.Slice(1, 0, n))
			p.addShares(l, h, mapper.Map(out), lo, n)
		}
		r = e
	}
	p.addExtra(l, i)
	return true
}

// scoreMany scores n tiles by an index that does it for many queries.
func (p *policy) scoreMany(l *layer, h *head, out, query []byte, lo, n int) bool {
	b, d := &p.bulk, p.shape.HeadDim
	b.plain, b.flat = ensure(b.plain, n*b.rows), ensure(b.flat, b.rows*d)
	ann.LoadRow(b.flat[:b.rows*d], query, compute.F32, 0)
	if !h.index.(ann.Many).ScoreMany(b.plain[:n*b.rows], b.flat[:b.rows*d], b.rows, lo) {
		return false
	}
	ann.StoreRow(out, compute.F32, 0, b.plain[:n*b.rows])
	p.addShares(l, h, out, lo, n)
	return true
}

// reserveBulk takes the tensors of a layer's groups of queries.
func (p *policy) reserveBulk(l *layer) bool {
	b, n := &p.bulk, (l.tiles*l.queries.groups+15)/16*16
	if b.arena != nil && b.rows == n {
		return true
	}
	if b.arena != nil {
		b.arena.Free()
		b.arena = nil
	}
	arena, err := p.dev.NewArena(0)
	if err != nil {
		return false
	}
	d := p.shape.HeadDim
	b.young, b.old = arena.Tensor(compute.F32, 1, n, d), arena.Tensor(compute.F32, 1, n, d)
	b.keys, b.out = arena.Tensor(compute.F32, 1, scoreTiles, d), arena.Tensor(compute.F32, 1, scoreTiles, n)
	if arena.Err() != nil {
		arena.Free()
		return false
	}
	b.arena, b.rows, b.host, b.norm = arena, n, make([]byte, 4*n*d), make([]float32, n)
	return true
}

// bulkQueries uploads the groups of head i, row after row by query tile.
func (p *policy) bulkQueries(dq compute.Queue, l *layer, i int) {
	b, q, d := &p.bulk, &l.queries, p.shape.HeadDim
	for _, side := range [2]struct {
		from []float32
		to   compute.Tensor
	}{{q.young, b.young}, {q.old, b.old}} {
		clear(b.host)
		for qt := range l.tiles {
			for g := range q.groups {
				row := p.row(l, qt, i, g)
				ann.StoreRow(b.host, compute.F32, (qt*q.groups+g)*d, side.from[row*d:][:d])
				b.norm[qt*q.groups+g] = q.lse[row]
			}
		}
		dq.Upload(side.to, b.host)
	}
}

// addShares adds the tempered shares of n tiles from lo on; products are [n, rows].
func (p *policy) addShares(l *layer, h *head, products []byte, lo, n int) {
	b, groups, soft := &p.bulk, l.queries.groups, p.temper()
	for qt := range l.tiles {
		score, first, norm := b.score[qt], qt*groups, b.norm[qt*groups:][:groups]
		for t := range n {
			row := products[4*(t*b.rows+first):][:4*groups]
			add := p.logs[(lo+t)%p.tiles()] + h.bias[lo+t]
			sum := float32(0)
			for g, z := range norm {
				x := math.Float32frombits(binary.LittleEndian.Uint32(row[4*g:]))*p.scale + add - z
				sum += exp(soft * min(0, x))
			}
			score[lo+t] += sum
		}
	}
}

// addExtra adds the shares of the tiles of a merged part, which are few.
func (p *policy) addExtra(l *layer, i int) {
	h, q, d, b := &l.heads[i], &l.queries, p.shape.HeadDim, &p.bulk
	first, soft := len(l.frames)*p.tiles(), p.temper()
	for qt := range l.tiles {
		for g := range q.groups {
			row := p.row(l, qt, i, g)
			for t := range h.extra.logCount {
				x := p.scale*ann.Dot(q.young[row*d:][:d], h.extra.keys[t*d:]) + h.extra.logCount[t]
				b.score[qt][first+t] += exp(soft * min(0, x-q.lse[row]))
			}
		}
	}
}

// lists are what a layer's chunk attends to in place: runs of sparse heads, one after the other.
type lists struct {
	keys, ends compute.Tensor // I32
	runs       []listRun
	pairs      int64
}

// listRun is the part of the lists that belongs to heads lo to hi.
type listRun struct{ lo, hi, firstKey, endKey, firstEnd, endEnd int }

// inPlace reports whether the chunk can attend to tiles where they lie, without copying them: every run of keys must be whole tiles
// of neighbouring keys that stand for themselves, and the queue's host must be its device, whose attention walks lists as
// easily as rows.
func (p *policy) inPlace(dq compute.Queue, l *layer, kv kvcache.View) bool {
	_, ok := dq.(compute.Mapper)
	if !ok || p.o.NoDrop || !p.o.Raster || p.shape.Tokens()%p.o.Tile != 0 || !kv.LogCount.IsZero() || !kv.Lengths.IsZero() || l.plan.merged.hi > 0 ||
		p.asked != nil {
		return false
	}
	for _, s := range [2][]span{l.plan.kept, l.plan.own} {
		if slices.ContainsFunc(s, func(s span) bool { return s.lo%p.o.Tile != 0 || s.hi%p.o.Tile != 0 }) {
			return false
		}
	}
	return true
}

// list writes the lists of a layer. It panics when the device has no room for them, as there is no way to go on.
func (p *policy) list(dq compute.Queue, number int, l *layer, queries int) {
	x, s := &l.plan, &l.lists
	p.listKeys, p.listEnds, s.runs, s.pairs = p.listKeys[:0], p.listEnds[:0], s.runs[:0], 0
	put := func(spans []span) {
		for _, run := range spans {
			for t := run.lo / p.o.Tile; t < run.hi/p.o.Tile; t++ {
				p.listKeys = binary.LittleEndian.AppendUint32(p.listKeys, uint32(t))
			}
		}
	}
	p.eachRun(number, func(lo, hi int, sparse bool) {
		if !sparse {
			return
		}
		run := listRun{lo: lo, hi: hi, firstKey: len(p.listKeys) / 4, firstEnd: len(p.listEnds) / 4}
		for i := lo; i < hi; i++ {
			p.cut(queries, func(tile, first, end int) {
				from := len(p.listKeys)
				put(x.kept)
				for _, t := range x.picked[tile*p.shape.Heads+i] {
					p.listKeys = binary.LittleEndian.AppendUint32(p.listKeys, uint32(t))
				}
				put(x.own)
				p.listEnds = binary.LittleEndian.AppendUint32(p.listEnds, uint32(len(p.listKeys)/4-run.firstKey))
				s.pairs += int64(end-first) * int64((len(p.listKeys)-from)/4*p.o.Tile)
			})
		}
		run.endKey, run.endEnd = len(p.listKeys)/4, len(p.listEnds)/4
		s.runs = append(s.runs, run)
	})
	p.roomForLists(l, len(p.listKeys)/4, len(p.listEnds)/4)
	dq.Upload(s.keys.Slice(0, 0, len(p.listKeys)/4), p.listKeys)
	dq.Upload(s.ends.Slice(0, 0, len(p.listEnds)/4), p.listEnds)
}

func (p *policy) roomForLists(l *layer, keys, ends int) {
	s := &l.lists
	if !s.keys.IsZero() && s.keys.Dim(0) >= keys && s.ends.Dim(0) >= ends {
		return
	}
	arena, err := p.dev.NewArena(0)
	if err == nil {
		s.keys, s.ends = arena.Tensor(compute.I32, 2*keys), arena.Tensor(compute.I32, ends)
		err = arena.Err()
	}
	if err != nil {
		panic(err)
	}
	if l.listArena != nil {
		l.listArena.Free()
	}
	l.listArena = arena
}

// tilesOf is the list of a run of heads.
func (p *policy) tilesOf(l *layer, r listRun, queries int) compute.Tiles {
	return compute.Tiles{QueryTile: p.each(queries), KeyTile: p.o.Tile, Keys: l.lists.keys.Slice(0, r.firstKey, r.endKey),
		Ends: l.lists.ends.Slice(0, r.firstEnd, r.endEnd)}
}

// runLists attends in place; lse, if present, gets the masses.
func (p *policy) runLists(dq compute.Queue, number int, l *layer, dst, lse, query compute.Tensor, kv kvcache.View) {
	next := 0
	p.pairs = l.lists.pairs
	p.eachRun(number, func(lo, hi int, sparse bool) {
		d, q, k, v := dst.Slice(0, lo, hi), query.Slice(0, lo, hi), kv.Keys.Slice(0, lo, hi), kv.Values.Slice(0, lo, hi)
		a := p.whole(kv, lo, hi)
		if sparse {
			a.Tiles = p.tilesOf(l, l.lists.runs[next], query.Dim(1))
			next++
		} else {
			p.pairs += int64(query.Dim(1)) * int64(hi-lo) * int64(kv.Keys.Dim(1))
		}
		if !lse.IsZero() {
			a.LogSumExp = lse.Slice(0, lo, hi)
		}
		dq.Attend(d, q, k, v, a)
	})
}
