package annsa

import (
	"cmp"
	"encoding/binary"
	"math"
	"slices"

	"longtake/accel/ann"
	"longtake/attention"
	"longtake/compute"
	"longtake/kvcache"
)

// plan is what the queries of a chunk attend to.
type plan struct {
	// What the view holds: places of selectable frames with their part, runs of keys always kept, the chunk's own, its frames, the
	// merged part, and how many tokens may be selected from.
	places  []int
	part    map[int]int
	kept    []span
	own     []span
	current []int
	merged  span
	history int

	fresh []int // places indexed since the merged keys were written
	// picked are the tiles of each query tile and head in order.
	picked [][]int32
	ranked []int32
}

// span is a run of keys.
type span struct{ lo, hi int }

// group is the index of the merged part of a view, for one plan: slots in the order of their tiles.
type group struct {
	slots       []uint16
	count       []float32 // of each slot
	keys, value []float32 // [tiles, headDim]
	logCount    []float32 // of each tile
}

// sort divides the parts of a view. Frames count by their age alone: whether a cache calls them recent or history does not matter.
func (l *layer) sort(p *policy, kv kvcache.View) {
	x := &l.plan
	x.places, x.kept, x.own, x.current, x.merged, x.history = x.places[:0], x.kept[:0], x.own[:0], x.current[:0], span{}, 0
	if x.part == nil {
		x.part = map[int]int{}
	}
	clear(x.part)
	now := math.MaxInt
	for _, part := range kv.Parts {
		if part.Kind == kvcache.Current {
			now = min(now, part.Frame)
			x.current = append(x.current, part.Frame)
		}
	}
	n := p.shape.Tokens()
	for i, part := range kv.Parts {
		run := span{part.Lo, part.Hi}
		switch whole := part.Hi-part.Lo == n && part.Lo%n == 0; {
		case part.Kind == kvcache.Current:
			x.own = append(x.own, run)
		case part.Frame < 0 && part.Kind == kvcache.History && x.merged.hi == 0 && part.Hi-part.Lo < math.MaxUint16:
			x.merged = run
			x.history += part.Hi - part.Lo
		case part.Kind == kvcache.Anchor || part.Frame < 0 || part.Frame >= now-p.o.Recent || !whole:
			x.kept = append(x.kept, run)
		default:
			x.places = append(x.places, part.Lo/n)
			x.part[part.Lo/n] = i
			x.history += n
		}
	}
	slices.Sort(x.current)
}

// decide selects tiles for every head.
func (p *policy) decide(dq compute.Queue, at attention.Site, l *layer, query compute.Tensor, kv kvcache.View) {
	x := &l.plan
	p.groupQueries(dq, at, l, query)
	if len(x.places) > 0 {
		p.extend(l, slices.Max(x.places)+1)
	}
	p.update(dq, at, l, kv)
	for len(x.picked) < p.shape.Heads*len(l.gathered) {
		x.picked = append(x.picked, nil)
	}
	for i := range l.heads {
		if !p.sparse(at.Layer, i) {
			continue
		}
		h := &l.heads[i]
		if x.merged.hi > x.merged.lo {
			p.indexMerged(dq, at, l, i, kv)
		} else {
			h.extra.logCount, h.extra.slots = h.extra.logCount[:0], h.extra.slots[:0]
		}
		done := p.bulkScores(dq, l, i)
		p.cut(query.Dim(1), func(tile, lo, hi int) {
			if done {
				h.score = p.bulk.score[tile]
			} else {
				p.score(dq, l, i, tile, lo, hi, query, kv)
			}
			p.pick(l, i, tile, p.groups(hi-lo))
		})
	}
}

// groupQueries computes the means of groups of queries that are near each other.
func (p *policy) groupQueries(dq compute.Queue, at attention.Site, l *layer, query compute.Tensor) {
	n, d, q := query.Dim(1), p.shape.HeadDim, &l.queries
	asked := p.askedBy(at.Layer, p.shape.Heads*n*d)
	l.tiles = (n + p.each(n) - 1) / p.each(n)
	q.groups = p.groups(min(p.each(n), n))
	size := len(l.gathered) * p.shape.Heads * q.groups
	q.young, q.old, q.lse = ensure(q.young, size*d), ensure(q.old, size*d), ensure(q.lse, size)
	q.about, q.order = ensure(q.about, size*d), ensure(q.order, n)
	clear(q.young)
	clear(q.old)
	p.setTime(p.clamp(l))
	for i := range p.shape.Heads {
		rows := p.keys[:n*d]
		p.load(dq, rows, query.Index(i))
		p.cut(n, func(tile, lo, hi int) {
			order := q.order[:hi-lo]
			for t := range order {
				order[t] = uint16(lo + t)
			}
			p.split(order, rows, p.o.Group)
			for g := range p.groups(hi - lo) {
				at := p.row(l, tile, i, g)
				members := order[g*p.o.Group : min((g+1)*p.o.Group, len(order))]
				mean(q.young[at*d:][:d], rows, members)
				copy(q.old[at*d:][:d], q.young[at*d:][:d])
				p.unturn(q.old[at*d:][:d])
				q.lse[at] = 0
				for _, t := range members {
					q.lse[at] += l.lse[i*n+int(t)] / float32(len(members))
				}
				if p.asked != nil {
					mean(q.about[at*d:][:d], asked[i*n*d:][:n*d], members)
				}
			}
		})
	}
}

// row returns the number of a group of queries.
func (p *policy) row(l *layer, tile, head, group int) int {
	return (tile*p.shape.Heads+head)*l.queries.groups + group
}

// score fills in the estimated mass of every tile of head i for queries lo to hi, the sum over groups of them of their share of
// the mass.
func (p *policy) score(dq compute.Queue, l *layer, i, tile, lo, hi int, query compute.Tensor, kv kvcache.View) {
	h, q, d := &l.heads[i], &l.queries, p.shape.HeadDim
	total := len(l.frames)*p.tiles() + len(h.extra.logCount)
	h.score = ensure(h.score, total)
	clear(h.score)
	if p.o.Oracle {
		p.trueMass(dq, l, i, lo, hi, query, kv)
		return
	}
	p.values = ensure(p.values, total)
	est := p.values[:total]
	for g := range p.groups(hi - lo) {
		row := p.row(l, tile, i, g)
		top := p.estimate(l, h, est, row)
		extra := est[len(l.frames)*p.tiles():]
		for t := range extra {
			extra[t] = p.scale*ann.Dot(q.young[row*d:][:d], h.extra.keys[t*d:]) + h.extra.logCount[t]
			top = max(top, extra[t])
		}
		p.share(l, h, est, top, q.lse[row])
	}
}

// estimate fills in the logits of the tiles of frames for one group of queries, and returns the largest.
func (p *policy) estimate(l *layer, h *head, est []float32, row int) float32 {
	x, q, d, top := &l.plan, &l.queries, p.shape.HeadDim, hidden
	for r := 0; r < len(x.places); {
		// A run of neighbouring places of one age.
		e := r + 1
		for e < len(x.places) && x.places[e] == x.places[e-1]+1 && l.frames[x.places[e]].old == l.frames[x.places[r]].old {
			e++
		}
		from := q.young
		if l.frames[x.places[r]].old {
			from = q.old
		}
		if p.asked != nil {
			from = q.about
		}
		lo, hi := x.places[r]*p.tiles(), (x.places[e-1]+1)*p.tiles()
		h.index.Score(est[lo:hi], from[row*d:][:d], lo)
		for t := lo; t < hi; t++ {
			est[t] = est[t]*p.scale + p.logs[t%p.tiles()] + h.bias[t]
			top = max(top, est[t])
		}
		r = e
	}
	return top
}

// share adds the shares of one group of queries to the scores: of all mass where a dense pass told it, else of the history's. They
// are tempered, since the estimates are noisy and a query with little mass in the history still needs what little it has.
func (p *policy) share(l *layer, h *head, est []float32, top, lse float32) {
	if math.IsInf(float64(top), -1) {
		return
	}
	norm, soft := lse, p.temper()
	if !l.known {
		sum := float32(0)
		p.eachRange(l, h, func(lo, hi int) {
			for _, x := range est[lo:hi] {
				sum += exp(x - top)
			}
		})
		norm = top + float32(math.Log(float64(sum)))
	}
	p.eachRange(l, h, func(lo, hi int) {
		score := h.score[lo:hi]
		for t, x := range est[lo:hi] {
			score[t] += exp(soft * min(0, x-norm))
		}
	})
}

// temper returns the power that shares are raised to.
func (p *policy) temper() float32 {
	if p.o.Temper == 0 {
		return 1
	}
	return float32(p.o.Temper)
}

// exp returns e^x to about 3 %, which is enough to rank by (Schraudolph, Neural Computation 1999).
func exp(x float32) float32 {
	if x < -80 {
		return 0
	}
	return math.Float32frombits(uint32(int32(x*12102203) + 1064866805))
}

// eachRange calls f for every run of tiles that may be selected.
func (p *policy) eachRange(l *layer, h *head, f func(lo, hi int)) {
	n, x := p.tiles(), &l.plan
	for r := 0; r < len(x.places); {
		e := r + 1
		for e < len(x.places) && x.places[e] == x.places[e-1]+1 {
			e++
		}
		f(x.places[r]*n, (x.places[e-1]+1)*n)
		r = e
	}
	if first := len(l.frames) * n; len(h.extra.logCount) > 0 {
		f(first, first+len(h.extra.logCount))
	}
}

// pick takes the tiles with the largest scores until the fraction is spent or little mass is missed.
func (p *policy) pick(l *layer, i, tile, groups int) {
	h, x, score := &l.heads[i], &l.plan, l.heads[i].score
	x.ranked = x.ranked[:0]
	left := 0.0
	p.eachRange(l, h, func(lo, hi int) {
		for t := lo; t < hi; t++ {
			x.ranked = append(x.ranked, int32(t))
			left += float64(score[t])
		}
	})
	budget := int(math.Round(p.o.Fraction * float64(x.history-(x.merged.hi-x.merged.lo)+len(h.extra.slots))))
	budget = max(budget, p.o.Least)
	picked := &x.picked[tile*p.shape.Heads+i]
	if p.o.Missed == 0 && len(h.extra.slots)%p.o.Tile == 0 && p.shape.Tokens()%p.o.Tile == 0 {
		*picked = p.pickEven((*picked)[:0], x.ranked, budget/p.o.Tile, score)
		return
	}
	// Only the best are put in order: as many as fit if all were of full size, and the short ones of odd frames.
	few := min(len(x.ranked), budget/p.o.Tile+len(x.places)+1)
	forward(x.ranked, few, score)
	slices.SortFunc(x.ranked[:few], func(a, b int32) int {
		if c := cmp.Compare(score[b], score[a]); c != 0 {
			return c
		}
		return int(a - b)
	})
	*picked = (*picked)[:0]
	for _, t := range x.ranked[:few] {
		if p.o.Missed > 0 && left <= p.o.Missed*float64(groups) {
			break
		}
		m := p.memberCount(l, h, int(t))
		if m > budget || score[t] <= 0 {
			break
		}
		budget -= m
		left -= float64(score[t])
		*picked = append(*picked, t)
	}
	slices.Sort(*picked)
}

// pickEven appends the n best of ranked tiles, which are in rising order and all of one size, in that order.
func (p *policy) pickEven(picked, ranked []int32, n int, score []float32) []int32 {
	if len(ranked) == 0 {
		return picked
	}
	first, last := ranked[0], ranked[len(ranked)-1]
	p.mark = ensure(p.mark, int(last)+1)
	forward(ranked, n, score)
	for _, t := range ranked[:min(n, len(ranked))] {
		p.mark[t] = score[t] > 0
	}
	for t := first; t <= last; t++ {
		if p.mark[t] {
			picked, p.mark[t] = append(picked, t), false
		}
	}
	return picked
}

// forward moves the n tiles with the largest scores to the front; of equal scores the first tiles (quickselect).
func forward(tiles []int32, n int, score []float32) {
	before := func(a, b int32) bool { return score[a] > score[b] || score[a] == score[b] && a < b }
	for len(tiles) > 1 && n > 0 && n < len(tiles) {
		last := len(tiles) - 1
		tiles[len(tiles)/2], tiles[last] = tiles[last], tiles[len(tiles)/2]
		pivot, at := tiles[last], 0
		for k, t := range tiles[:last] {
			if before(t, pivot) {
				tiles[at], tiles[k] = t, tiles[at]
				at++
			}
		}
		tiles[at], tiles[last] = tiles[last], tiles[at]
		if n <= at {
			tiles = tiles[:at]
		} else {
			tiles, n = tiles[at+1:], n-at-1
		}
	}
}

// memberCount returns the tokens of a tile.
func (p *policy) memberCount(l *layer, h *head, t int) int {
	if extra := t - len(l.frames)*p.tiles(); extra >= 0 {
		return min((extra+1)*p.o.Tile, len(h.extra.slots)) - extra*p.o.Tile
	}
	n := p.shape.Tokens()
	t %= p.tiles()
	return min((t+1)*p.o.Tile, n) - t*p.o.Tile
}

// indexMerged makes tiles of the merged keys of head i: their means weigh members by their counts.
func (p *policy) indexMerged(dq compute.Queue, at attention.Site, l *layer, i int, kv kvcache.View) {
	g, m, d := &l.heads[i].extra, l.plan.merged, p.shape.HeadDim
	n := m.hi - m.lo
	if !kv.Lengths.IsZero() {
		dq.Download(p.host[:4], kv.Lengths.Slice(0, i, i+1))
		n = min(n, max(0, int(int32(binary.LittleEndian.Uint32(p.host)))-m.lo))
	}
	p.keys, p.values = ensure(p.keys, n*d), ensure(p.values, n*d)
	keys, values := p.keys, p.values
	g.count, g.slots = ensure(g.count, n)[:n], ensure(g.slots, n)[:n]
	p.load(dq, keys, kv.Keys.Index(i).Slice(0, m.lo, m.lo+n))
	p.load(dq, values, kv.Values.Index(i).Slice(0, m.lo, m.lo+n))
	clear(g.count)
	if !kv.LogCount.IsZero() && n > 0 {
		p.load(dq, g.count, kv.LogCount.Slice(0, i, i+1).Slice(1, m.lo, m.lo+n))
	}
	for t := range g.slots {
		g.slots[t] = uint16(t)
	}
	if !p.o.Raster {
		p.split(g.slots, keys, p.o.Tile)
	}
	tiles := (n + p.o.Tile - 1) / p.o.Tile
	g.keys, g.value = ensure(g.keys, tiles*d)[:tiles*d], ensure(g.value, tiles*d)[:tiles*d]
	g.logCount = ensure(g.logCount, tiles)[:tiles]
	for t := range tiles {
		members := g.slots[t*p.o.Tile : min((t+1)*p.o.Tile, n)]
		g.logCount[t] = weighted(g.keys[t*d:][:d], g.value[t*d:][:d], keys, values, g.count, members)
	}
}

// weighted writes the means of keys and values by their counts, and returns the log of the sum of the counts.
func weighted(key, value, keys, values, logCount []float32, members []uint16) float32 {
	clear(key)
	clear(value)
	total, d := 0.0, len(key)
	for _, t := range members {
		w := math.Exp(float64(logCount[t]))
		if w == 0 {
			continue
		}
		total += w
		for j := range d {
			key[j] += float32(w) * keys[int(t)*d+j]
			value[j] += float32(w) * values[int(t)*d+j]
		}
	}
	if total == 0 {
		return float32(math.Inf(-1))
	}
	for j := range d {
		key[j] /= float32(total)
		value[j] /= float32(total)
	}
	return float32(math.Log(total))
}
