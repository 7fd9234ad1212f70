package computetest

import (
	"fmt"
	"math"
	"slices"

	"longtake/compute"
)

// call is one attention problem.
type call struct {
	query, keys, values array
	a                   attention
	dt                  [3]compute.DType // dst, query, keys and values
	lay                 [3]layout        // dst, query, keys and values
}

// problem draws queries, keys and values; logits come out about standard normal.
func (s *suite) problem(numHeads, queries, keys, dim int, dt [3]compute.DType) *call {
	return &call{
		query: s.normal(dt[1], 1, numHeads, queries, dim), keys: s.normal(dt[2], 1, numHeads, keys, dim), values: s.normal(dt[2], 1, numHeads, keys, dim),
		a: attention{scale: float64(float32(1 / math.Sqrt(float64(dim))))}, dt: dt,
	}
}

// plain is a problem in float32.
func (s *suite) plain(numHeads, queries, keys, dim int) *call {
	return s.problem(numHeads, queries, keys, dim, [3]compute.DType{})
}

func (c *call) String() string {
	return fmt.Sprintf("types %v, layouts %d, query %v, keys %v, counts %v, lengths %v, tiles %dx%d", c.dt, c.lay, c.query.shape, c.keys.shape,
		!c.a.logCount.absent(), c.a.lengths, c.a.queryTile, c.a.keyTile)
}

// deviceTiles places ragged lists, the list of keys with room to spare.
func (s *suite) deviceTiles(a attention) compute.Tiles {
	if a.queryTile == 0 {
		return compute.Tiles{}
	}
	ends, ids := newArray(len(a.tiles)), []float64{}
	for i, list := range a.tiles {
		for _, k := range list {
			ids = append(ids, float64(k))
		}
		ends.data[i] = float64(len(ids))
	}
	ids = append(ids, 1<<30, 1<<30) // behind the last end nobody may look
	return compute.Tiles{QueryTile: a.queryTile, KeyTile: a.keyTile, Keys: s.in(array{[]int{len(ids)}, ids}, compute.I32, dense), Ends: s.in(ends, compute.I32, dense)}
}

// ask runs the call on the device. LogSumExp is absent unless asked for.
func (s *suite) ask(c *call, logSumExp bool) (dst, lse *placed) {
	numHeads, queries := c.query.shape[0], c.query.shape[1]
	dst = s.out(c.dt[0], c.lay[0], c.query.shape...)
	at := compute.Attention{Scale: float32(c.a.scale), LogCount: s.in(c.a.logCount, compute.F32, padded), Tiles: s.deviceTiles(c.a)}
	if c.a.lengths != nil {
		n := newArray(numHeads)
		for h, v := range c.a.lengths {
			n.data[h] = float64(v)
		}
		at.Lengths = s.in(n, compute.I32, dense)
	}
	if logSumExp {
		lse = s.out(compute.F32, dense, numHeads, queries)
		at.LogSumExp = lse.view
	}
	s.dq.Attend(dst.view, s.in(c.query, c.dt[1], c.lay[1]), s.in(c.keys, c.dt[2], c.lay[2]), s.in(c.values, c.dt[2], c.lay[2]), at)
	return dst, lse
}

// settle asks and compares with the truth.
func (s *suite) settle(c *call, logSumExp bool) {
	s.Helper()
	s.settleWithin(s.tol.Attention, c, logSumExp)
}

// settleWithin has a bound of its own for dst.
func (s *suite) settleWithin(b Bound, c *call, logSumExp bool) {
	s.Helper()
	dst, lse := s.ask(c, logSumExp)
	out, sums := attend(c.query, c.keys, c.values, c.a)
	s.near(dst, out, b)
	if lse != nil {
		label := s.label
		s.label += ", logsumexp"
		s.near(lse, sums, s.sums())
		s.label = label
	}
}

// sums bounds logarithms: they may lie near 0, so only the absolute difference says something.
func (s *suite) sums() Bound { return Bound{math.Inf(1), s.tol.Attention.MaxAbs} }

var attendTypes = [][3]compute.DType{{compute.F32, compute.F32, compute.F32}, {compute.BF16, compute.BF16, compute.BF16},
	{compute.F32, compute.F32, compute.BF16}, {compute.BF16, compute.F32, compute.F32}, {compute.F32, compute.BF16, compute.F32}}

var attendLayouts = [][3]layout{{dense, dense, dense}, {heads, heads, capacity}, {heads, heads, heads}, {dense, heads, capacity}, {capacity, dense, dense}}

// examAttend walks through head widths and lengths, dense.
func examAttend(s *suite) {
	sizes := few([][2]int{{64, 64}, {65, 63}, {1, 7}, {7, 1}, {63, 65}, {1, 200}, {130, 129}})
	i := 0
	for _, dim := range []int{64, 128, 16, 32} {
		for _, n := range sizes {
			c := s.problem(2, n[0], n[1], dim, attendTypes[i%5])
			c.lay = attendLayouts[(i+i/5)%5]
			s.begin("%v", c)
			s.settle(c, i%2 == 0)
			i++
		}
	}
	c := s.problem(2, 33, 1561, 128, [3]compute.DType{compute.F32, compute.F32, s.dev.Types().Cache})
	c.lay = attendLayouts[1]
	s.begin("%v", c)
	s.settle(c, true)
}

// examAttendRandom mixes all variants.
func examAttendRandom(s *suite) {
	for range few(make([]int, 48)) {
		numHeads, queries, keys := pick(s, 1, 2, 3, 5), pick(s, 1, 7, 40, 64, 65), pick(s, 1, 7, 63, 64, 65, 200, 333)
		c := s.problem(numHeads, queries, keys, pick(s, 16, 32, 64, 64, 128), pick(s, attendTypes...))
		c.lay = pick(s, attendLayouts...)
		if s.rng.IntN(2) == 0 {
			c.a.logCount = s.counts(numHeads, keys)
		}
		if s.rng.IntN(3) == 0 {
			s.shorten(c)
		}
		if s.rng.IntN(2) == 0 {
			s.tile(c, pick(s, [2]int{64, 64}, [2]int{16, 16}, [2]int{64, 128}, [2]int{16, 64}, [2]int{8, 24}, [2]int{5, 7}, [2]int{1, 1}))
		}
		s.begin("%v", c)
		s.settle(c, s.rng.IntN(2) == 0)
	}
}

// counts are logarithms of 1 to 4096, a fifth of them -Inf.
func (s *suite) counts(shape ...int) array {
	a := newArray(shape...)
	for i := range a.data {
		a.data[i] = exactly(math.Log(math.Exp2(s.rng.Float64()*12)), compute.F32)
		if s.rng.IntN(5) == 0 {
			a.data[i] = math.Inf(-1)
		}
	}
	return a
}

// shorten gives every head a length, one of them 0 if there are several, and spoils the keys behind it.
func (s *suite) shorten(c *call) {
	numHeads, keys := c.keys.shape[0], c.keys.shape[1]
	c.a.lengths = make([]int, numHeads)
	for h := range numHeads {
		if h != 1 {
			c.a.lengths[h] = 1 + s.rng.IntN(keys)
		}
		for j := c.a.lengths[h]; j < keys; j++ {
			for d := range c.keys.row(h*keys + j) {
				c.keys.row(h*keys + j)[d], c.values.row(h*keys + j)[d] = exactly(1e20, compute.BF16), exactly(-1e20, compute.BF16)
			}
		}
	}
}

// tile gives every query tile a random list of key tiles; some are empty.
func (s *suite) tile(c *call, size [2]int) {
	queries, keys := c.query.shape[1], c.keys.shape[1]
	c.a.queryTile, c.a.keyTile = size[0], size[1]
	queryTiles, keyTiles := (queries+size[0]-1)/size[0], (keys+size[1]-1)/size[1]
	for range c.keys.shape[0] * queryTiles {
		list := []int{}
		for k := range keyTiles {
			if s.rng.IntN(2) == 0 {
				list = append(list, k)
			}
		}
		c.a.tiles = append(c.a.tiles, list)
	}
}

// examAttendExtremes: logits that overflow exp, logits of nothing, keys that are hidden, keys that are not there.
func examAttendExtremes(s *suite) {
	for _, dt := range attendTypes {
		c := s.problem(2, 20, 130, 64, dt)
		for _, a := range []array{c.query, c.keys} { // whole numbers: every logit is exact, its neighbours are 8 away
			for i := range a.data {
				a.data[i] = float64(s.rng.IntN(17) - 8)
			}
		}
		c.a.scale = 8
		s.begin("logits up to %v, %v", 8*8*8*64, c)
		s.settleWithin(Bound{math.Max(s.tol.Attention.Relative, 1e-2), math.Max(s.tol.Attention.MaxAbs, 3e-2)}, c, true) // a float32 logit of 32768 is off by 2e-3

		c = s.problem(2, 20, 130, 64, dt)
		c.a.scale = 0x1p-60
		s.begin("logits near 0, %v", c)
		s.settle(c, true)

		c = s.problem(2, 20, 130, 64, dt)
		c.a.logCount = newArray(2, 130)
		for j := range 130 { // head 0 sees nothing, head 1 its last key alone
			c.a.logCount.row(0)[j], c.a.logCount.row(1)[j] = math.Inf(-1), math.Inf(-1)
		}
		c.a.logCount.row(1)[129] = 3
		s.begin("hidden keys, %v", c)
		s.settle(c, true)

		c = s.problem(2, 20, 130, 64, dt)
		c.a.lengths = []int{0, 0}
		s.begin("lengths of 0, %v", c)
		s.settle(c, true)

		c = s.problem(2, 20, 0, 64, dt)
		s.begin("no keys, %v", c)
		s.settle(c, true)

		c = s.problem(2, 20, 130, 64, dt)
		s.tile(c, [2]int{16, 32})
		for i := range c.a.tiles {
			c.a.tiles[i] = nil
		}
		s.begin("no tiles, %v", c)
		s.settle(c, true)
	}
}

// examAttendLaws relates calls to each other.
func examAttendLaws(s *suite) {
	const numHeads, queries, keys, dim = 2, 70, 150, 64
	c := s.plain(numHeads, queries, keys, dim)
	c.a.logCount = s.counts(numHeads, keys)
	s.begin("all tiles selected = dense, %v", c)
	first, firstSum := s.ask(c, true)
	dense, denseSum := s.values(first), s.values(firstSum)
	tiled := *c
	s.tile(&tiled, [2]int{64, 32})
	for i := range tiled.a.tiles {
		tiled.a.tiles[i] = []int{0, 1, 2, 3, 4}
	}
	dst, sum := s.ask(&tiled, true)
	s.near(dst, dense, s.tol.Attention.times(2))
	s.near(sum, denseSum, s.sums().times(2))

	s.begin("keys permuted, %v", c)
	turned := &call{query: c.query, keys: newArray(c.keys.shape...), values: newArray(c.keys.shape...), a: c.a}
	turned.a.logCount = newArray(numHeads, keys)
	for h := range numHeads {
		for j, from := range s.rng.Perm(keys) {
			copy(turned.keys.row(h*keys+j), c.keys.row(h*keys+from))
			copy(turned.values.row(h*keys+j), c.values.row(h*keys+from))
			turned.a.logCount.row(h)[j] = c.a.logCount.row(h)[from]
		}
	}
	dst, sum = s.ask(turned, true)
	s.near(dst, dense, s.tol.Attention.times(2))
	s.near(sum, denseSum, s.sums().times(2))

	for _, cut := range []int{1, 63, 64, 100} {
		s.begin("keys split at %d and merged by logsumexp, %v", cut, c)
		s.close(s.merged(c, cut), dense, s.tol.Attention.times(2))
	}
}

// merged asks for the keys before and behind cut apart, and puts the results together in float64.
func (s *suite) merged(c *call, cut int) array {
	keys := c.keys.shape[1]
	var out, sum [2]array
	for part, r := range [][2]int{{0, cut}, {cut, keys}} {
		p := &call{query: c.query, keys: c.keys.tokens(r[0], r[1]), values: c.values.tokens(r[0], r[1]), a: c.a}
		p.a.logCount = columns(c.a.logCount, r[0], r[1])
		dst, lse := s.ask(p, true)
		out[part], sum[part] = s.values(dst), s.values(lse)
	}
	all := newArray(c.query.shape...)
	for i := range sum[0].data {
		top := math.Max(sum[0].data[i], sum[1].data[i])
		w0, w1 := math.Exp(sum[0].data[i]-top), math.Exp(sum[1].data[i]-top)
		for d := range all.row(i) {
			all.row(i)[d] = (w0*out[0].row(i)[d] + w1*out[1].row(i)[d]) / (w0 + w1)
		}
	}
	return all
}

// tokens cuts [heads, tokens, width] along tokens.
func (a array) tokens(lo, hi int) array {
	out := array{shape: []int{a.shape[0], hi - lo, a.shape[2]}}
	for h := range a.shape[0] {
		out.data = append(out.data, a.data[(h*a.shape[1]+lo)*a.shape[2]:(h*a.shape[1]+hi)*a.shape[2]]...)
	}
	return out
}

// columns cuts a matrix along its second dimension.
func columns(a array, lo, hi int) array {
	out := array{shape: []int{a.shape[0], hi - lo}}
	for i := range a.shape[0] {
		out.data = append(out.data, a.row(i)[lo:hi]...)
	}
	return out
}

// examAttendCounts: n equal keys are one key with LogCount = ln n and the mean of their values.
func examAttendCounts(s *suite) {
	for _, sizes := range [][]int{{1, 3, 2, 5, 1, 1, 8}, {4096, 1, 7}} {
		const numHeads, queries, dim = 2, 9, 64
		few := s.plain(numHeads, queries, len(sizes), dim)
		few.a.logCount = newArray(numHeads, len(sizes))
		var owner []int
		for k, n := range sizes {
			owner = append(owner, slices.Repeat([]int{k}, n)...)
		}
		many := s.plain(numHeads, queries, len(owner), dim)
		many.query = few.query
		clear(few.values.data)
		for h := range numHeads {
			for j, k := range owner {
				copy(many.keys.row(h*len(owner)+j), few.keys.row(h*len(sizes)+k))
				for d, v := range many.values.row(h*len(owner) + j) {
					few.values.row(h*len(sizes) + k)[d] += v / float64(sizes[k])
				}
			}
			for k, n := range sizes {
				few.a.logCount.row(h)[k] = math.Log(float64(n))
			}
		}
		s.begin("%d keys merged to %d", len(owner), len(sizes))
		whole, wholeSum := s.ask(many, true)
		wantOut, wantSum := s.values(whole), s.values(wholeSum)
		dst, sum := s.ask(few, true)
		s.near(dst, wantOut, s.tol.Attention.times(2))
		s.near(sum, wantSum, s.sums().times(2))
	}
}
