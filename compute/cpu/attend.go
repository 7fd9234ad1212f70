package cpu

import (
	"fmt"
	"math"
	"unsafe"

	"longtake/compute"
)

// Attention is computed transposed: logits Sᵀ = K Qᵀ hold one query a column, so that the running maximum and sum of the
// softmax (Milakov and Gimelshein, arXiv:1805.02867) are vectors without reductions across lanes, and both products take keys
// and values as they lie: A = K by rows, then A = V by columns with B = Pᵀ as the softmax left it.
const (
	// keyBlock keys are taken at a time; their logits for 16 queries stay in the first-level cache.
	keyBlock = 96
	// groupQueries bounds the queries that share one pass over keys and values.
	groupQueries = 64
)

// part is a run of consecutive keys.
type part struct{ first, n int }

// attendTask computes softmax attention; a tile is one group of queries of one head.
type attendTask struct {
	class        *class
	a            compute.Attention
	dst, query   lines3
	keys, values lines3
	count, lse   lines3 // absent when p is nil
	lengths      []int32
	lengthStep   int
	heads        int
	headDim      int
	queryTile    int // queries that share a list of keys
	queryTiles   int
	group        int // queries a tile
	groups       int // groups a query tile
	tileKeys     []int32
	tileEnds     []int32
	tileSize     int
	// Many keys under few queries are cut into segments of segment keys each, so that all threads have work; partial holds
	// what each tile and segment came to, see split.go. One segment: no cut.
	segments, segment int
	partial           []byte
	joining           bool // the second pass, which joins segments

	tiled         bool
	narrow, widen bool
	inTiles       bool // by the kernels of the class amx
	blockKeys     int  // keyBlock; tileKeys in tiles
}

// lines3 is a tensor [heads, rows, width] by address, strides in bytes. For [heads, width] row is 0.
type lines3 struct {
	p         unsafe.Pointer
	dt        compute.DType
	head, row int
	rows      int
}

func (l *lines3) at(h, r int) unsafe.Pointer { return unsafe.Add(l.p, h*l.head+r*l.row) }

func lines3Of(t compute.Tensor) lines3 {
	size := t.DType.Size()
	return lines3{p: address(t), dt: t.DType, head: t.Stride[0] * size, row: t.Stride[1] * size, rows: t.Shape[1]}
}

// Attend computes softmax attention.
func (q *Queue) Attend(dst, query, keys, values compute.Tensor, a compute.Attention) {
	checkAttend(dst, query, keys, values, &a)
	if dst.Shape[0] == 0 || dst.Shape[1] == 0 {
		return
	}
	t := &q.attend
	*t = attendTask{class: q.class, a: a, heads: dst.Shape[0], headDim: dst.Shape[2], narrow: dst.DType == compute.BF16,
		widen: keys.DType == compute.BF16}
	t.dst, t.query, t.keys, t.values = lines3Of(dst), lines3Of(query), lines3Of(keys), lines3Of(values)
	if a.LogCount.Rank != 0 {
		t.count = lines3Of(a.LogCount)
	}
	if a.LogSumExp.Rank != 0 {
		t.lse = lines3Of(a.LogSumExp)
	}
	if a.Lengths.Rank != 0 {
		t.lengthStep = a.Lengths.Stride[0]
		t.lengths = i32s(address(a.Lengths), (t.heads-1)*t.lengthStep+1)
	}
	t.queryTile, t.queryTiles = t.query.rows, 1
	if a.Tiles.Ends.Rank != 0 {
		t.setTiles(&a.Tiles)
	}
	// The class amx takes bfloat16 keys of whole tiles; the rest goes through its float32 kernels.
	t.inTiles = q.class.tiles != nil && t.widen && t.headDim%tileSize == 0
	if t.blockKeys = keyBlock; t.inTiles {
		t.blockKeys = tileKeys
	}
	t.split()
	t.cut(q.dev.pool.inUse())
	tiles := t.heads * t.queryTiles * t.groups
	t.room(q, tiles)
	q.run(t, tiles*t.segments)
	if t.segments > 1 {
		t.joining = true
		q.run(t, tiles)
	}
}

func (t *attendTask) setTiles(a *compute.Tiles) {
	t.tiled, t.queryTile, t.tileSize = true, a.QueryTile, a.KeyTile
	t.queryTiles = (t.query.rows + a.QueryTile - 1) / a.QueryTile
	t.tileEnds = i32s(address(a.Ends), a.Ends.Elems())
	if a.Keys.Elems() > 0 {
		t.tileKeys = i32s(address(a.Keys), a.Keys.Elems())
	}
}

// cut chooses how many queries share a pass: many, fewer while threads would go without work. Any cut gives the same bits,
// since every query walks its keys in the same blocks. Kernels for wide column groups gain from wide tiles, and tiles of the
// class amx are never less than its column groups.
func (t *attendTask) cut(threads int) {
	least, want := 16, 4*threads
	if t.class.lanes[0] > 16 {
		want = 2 * threads
	}
	if t.inTiles {
		least = tileSize
	}
	t.group = groupQueries
	for {
		t.groups = (min(t.queryTile, t.query.rows) + t.group - 1) / t.group
		if threads == 1 || t.group == least || t.heads*t.queryTiles*t.groups*t.segments >= want {
			return
		}
		t.group /= 2
	}
}

func checkAttend(dst, query, keys, values compute.Tensor, a *compute.Attention) {
	wantFloat("attend", dst, query, keys, values)
	wantSame("attend", dst, query)
	wantSame("attend", keys, values)
	d := query.Shape[2]
	if dst.Rank != 3 || keys.Rank != 3 || keys.DType != values.DType || keys.Shape[0] != query.Shape[0] || keys.Shape[2] != d || d == 0 || d%16 != 0 {
		panic(fmt.Sprintf("cpu: attend with queries %v, keys %v, values %v", query, keys, values))
	}
	for _, t := range [4]*compute.Tensor{&dst, &query, &keys, &values} {
		if t.Stride[2] != 1 {
			panic(fmt.Sprintf("cpu: attend: the last dimension of %v is not dense", *t))
		}
	}
	heads, queries := query.Shape[0], query.Shape[1]
	wantDims("attend LogCount", keys, a.LogCount, compute.F32, heads, keys.Shape[1])
	wantDims("attend LogSumExp", query, a.LogSumExp, compute.F32, heads, queries)
	wantDims("attend Lengths", keys, a.Lengths, compute.I32, heads)
	if (a.Tiles.Keys.Rank == 0) != (a.Tiles.Ends.Rank == 0) {
		panic("cpu: attend with half a tile list")
	}
	if a.Tiles.Ends.Rank == 0 {
		return
	}
	if a.Tiles.QueryTile <= 0 || a.Tiles.KeyTile <= 0 {
		panic(fmt.Sprintf("cpu: attend with tiles of %d queries, %d keys", a.Tiles.QueryTile, a.Tiles.KeyTile))
	}
	wantDims("attend tile ends", query, a.Tiles.Ends, compute.I32, heads*((queries+a.Tiles.QueryTile-1)/a.Tiles.QueryTile))
	wantType("attend tile keys", a.Tiles.Keys, compute.I32)
	if a.Tiles.Keys.Rank != 1 || !a.Tiles.Keys.Contiguous() || !a.Tiles.Ends.Contiguous() {
		panic(fmt.Sprintf("cpu: attend with tile lists %v, %v", a.Tiles.Keys, a.Tiles.Ends))
	}
}

// wantDims panics unless t, when present, has the type and shape; its last dimension must be dense.
func wantDims(op string, of, t compute.Tensor, dt compute.DType, dims ...int) {
	if t.Rank == 0 {
		return
	}
	wantType(op, t, dt)
	ok := t.Rank == len(dims) && (t.Stride[t.Rank-1] == 1 || t.Shape[t.Rank-1] <= 1 || t.Rank == 1)
	for i, n := range dims {
		ok = ok && t.Shape[i] == n
	}
	if !ok {
		panic(fmt.Sprintf("cpu: %s of %v is %v, want %v", op, of, t, append([]int{}, dims...))) // a copy: dims itself stays on the stack
	}
}

// visible lists the runs of keys that query tile qt of head h sees, merging neighbours.
func (t *attendTask) visible(list []part, h, qt int) []part {
	list = list[:0]
	n := t.keys.rows
	if t.lengths != nil {
		n = min(n, int(t.lengths[h*t.lengthStep]))
	}
	if !t.tiled {
		if n > 0 {
			list = append(list, part{0, n})
		}
		return list
	}
	i, lo := h*t.queryTiles+qt, 0
	if i > 0 {
		lo = int(t.tileEnds[i-1])
	}
	for _, k := range t.tileKeys[lo:t.tileEnds[i]] {
		first := int(k) * t.tileSize
		if first < 0 || first >= t.keys.rows {
			panic(fmt.Sprintf("cpu: attend: key tile %d of %d keys in tiles of %d", k, t.keys.rows, t.tileSize))
		}
		m := min(t.tileSize, n-first)
		if m <= 0 {
			continue
		}
		if e := len(list) - 1; e >= 0 && list[e].first+list[e].n == first {
			list[e].n += m
		} else {
			list = append(list, part{first, m})
		}
	}
	return list
}

// flash is the state of one tile: a group of queries of one head.
type flash struct {
	h, first, queries int
	query             unsafe.Pointer // [headDim][lanes] of each column group
	acc               unsafe.Pointer // the same layout
	logit             unsafe.Pointer // [blockKeys][lanes] of a column group; class amx: of each
	stat              unsafe.Pointer // maximum, sum, rescale, each [lanes in all]
	count             unsafe.Pointer // [blockKeys]
	lanes             int            // all lanes, a multiple of 16
	next              int            // key after the block, likely the first of the next one
}

func (t *attendTask) tile(s *scratch, i int) {
	whole, seg := i, 0
	if !t.joining {
		i, seg = i/t.segments, i%t.segments
	}
	h, qt := i/(t.queryTiles*t.groups), i/t.groups%t.queryTiles
	end := min((qt+1)*t.queryTile, t.query.rows)
	first := qt*t.queryTile + i%t.groups*t.group
	if first >= end {
		return
	}
	f := flash{h: h, first: first, queries: min(t.group, end-first)}
	f.lanes = padded(f.queries, 16)
	if t.inTiles {
		f.lanes = padded(f.queries, tileSize)
	}
	f.query = s.floats(slotQuery, f.lanes*t.headDim)
	f.acc = s.floats(slotAcc, f.lanes*t.headDim)
	f.logit = s.floats(slotLogit, t.blockKeys*max(f.lanes, t.class.lanes[0]))
	f.stat = s.floats(slotStat, 3*f.lanes)
	f.count = s.floats(slotCount, t.blockKeys)
	t.begin(s, &f)
	if t.joining {
		t.join(s, &f, i)
		t.end(s, &f)
		return
	}
	if t.inTiles {
		t.pairQueries(s, &f)
	}
	s.parts = t.visible(s.parts, h, qt)
	if t.segments > 1 {
		t.only(s, seg)
	}
	t.walk(s, &f)
	if t.segments > 1 {
		t.keep(&f, whole)
		return
	}
	t.end(s, &f)
}

// walk takes the listed keys through the softmax, block by block.
func (t *attendTask) walk(s *scratch, f *flash) {
	var runs [max(keyBlock, tileKeys)]part
	parts, used := runs[:0], 0
	for _, p := range s.parts {
		for p.n > 0 {
			n := min(p.n, t.blockKeys-used)
			parts, used = append(parts, part{p.first, n}), used+n
			p.first, p.n = p.first+n, p.n-n
			if used == t.blockKeys {
				t.block(s, f, parts, used)
				parts, used = runs[:0], 0
			}
		}
	}
	if used > 0 {
		t.block(s, f, parts, used)
	}
}

// width returns the column group that starts at a lane: the widest that the rest fills.
func (t *attendTask) width(f *flash, lane int) int {
	for _, w := range t.class.lanes {
		if w <= f.lanes-lane {
			return w
		}
	}
	return 16
}

// begin lays the scaled queries out as columns and clears the state.
func (t *attendTask) begin(s *scratch, f *flash) {
	d := t.headDim
	for lane := 0; lane < f.lanes; {
		w := t.width(f, lane)
		to := unsafe.Add(f.query, lane*d*4)
		for i := 0; i < w; i += 16 {
			n := min(16, f.queries-lane-i)
			x, xRow := t.query.at(f.h, f.first+lane+i), t.query.row
			if n < 16 {
				clear16(unsafe.Add(to, i*4), w*4, d)
			}
			if n <= 0 {
				continue
			}
			if t.query.dt == compute.BF16 {
				x, xRow = t.widenRows(s, slotX, x, xRow, n), d*4
			}
			t.class.transpose16(unsafe.Add(to, i*4), w*4, x, xRow, n, d, t.a.Scale)
		}
		lane += w
	}
	clear(f32s(f.acc, f.lanes*d))
	stat := f32s(f.stat, 3*f.lanes)
	clear(stat)
	for i := range f.lanes {
		// Finite, so that hidden keys (-Inf) never give Inf-Inf.
		stat[i] = -math.MaxFloat32
	}
}

func clear16(p unsafe.Pointer, stride, rows int) {
	for r := range rows {
		*(*[16]float32)(unsafe.Add(p, r*stride)) = [16]float32{}
	}
}

// widenRows widens n rows of headDim bfloat16 into a slot.
func (t *attendTask) widenRows(s *scratch, k slot, x unsafe.Pointer, row, n int) unsafe.Pointer {
	to := s.floats(k, n*t.headDim)
	for i := range n {
		t.class.widen(unsafe.Add(to, i*t.headDim*4), unsafe.Add(x, i*row), t.headDim)
	}
	return to
}

// block takes up to blockKeys keys, given as runs, through logits, softmax and weighted sum for every column group.
func (t *attendTask) block(s *scratch, f *flash, parts []part, used int) {
	last := parts[len(parts)-1]
	f.next = last.first + last.n
	if t.tiled && len(parts) > 1 { // where a list goes on is not known here
		f.next = t.keys.rows
	}
	if t.inTiles {
		t.blockTiles(s, f, parts, used)
		return
	}
	d := t.headDim
	t.counts(f, parts)
	if t.widen {
		s.floats(slotKey, keyBlock*d)
		s.floats(slotValue, keyBlock*d)
	}
	at := 0
	for _, p := range parts {
		if t.widen {
			for i := range p.n {
				t.class.widen(unsafe.Add(s.floats(slotKey, 0), (at+i)*d*4), t.keys.at(f.h, p.first+i), d)
				t.class.widen(unsafe.Add(s.floats(slotValue, 0), (at+i)*d*4), t.values.at(f.h, p.first+i), d)
			}
		}
		at += p.n
	}
	if t.widen {
		parts[0] = part{0, used}
		parts = parts[:1]
	}
	for lane := 0; lane < f.lanes; {
		w := t.width(f, lane)
		t.columns(s, f, parts, used, lane, w)
		lane += w
	}
}

// counts copies LogCount of a block.
func (t *attendTask) counts(f *flash, parts []part) {
	if t.count.p == nil {
		return
	}
	count := f32s(f.count, t.blockKeys)
	for _, p := range parts {
		n := copy(count, f32s(t.count.at(f.h, 0), p.first+p.n)[p.first:])
		count = count[n:]
	}
}

// softmax updates 16 of a column group's w lanes for one block of logits. With out set, probabilities go there as words.
func (t *attendTask) softmax(s *scratch, f *flash, lane, i, w, keys int, logit, out unsafe.Pointer) {
	a := &s.soft
	*a = softmaxArgs{s: unsafe.Add(logit, i*4), stride: w * 4, keys: keys, max: unsafe.Add(f.stat, (lane+i)*4),
		sum: unsafe.Add(f.stat, (f.lanes+lane+i)*4), rescale: unsafe.Add(f.stat, (2*f.lanes+lane+i)*4), out: out}
	if t.count.p != nil {
		a.count = f.count
	}
	a.ahead, a.aheadStep = t.ahead(f, (lane+i)/16)
	if out != nil {
		t.class.tiles.softmax(a)
	} else {
		t.class.softmax(a)
	}
	if a.changed != 0 {
		t.class.scaleRows(unsafe.Add(f.acc, (lane*t.headDim+i)*4), w*4, a.rescale, t.headDim)
	}
}

// columns does one block for one column group of w lanes.
func (t *attendTask) columns(s *scratch, f *flash, parts []part, used, lane, w int) {
	d, g := t.headDim, &s.gemm
	key, keyRow, value, valueRow := t.keys.at(f.h, 0), t.keys.row, t.values.at(f.h, 0), t.values.row
	if t.widen {
		key, keyRow, value, valueRow = s.floats(slotKey, 0), d*4, s.floats(slotValue, 0), d*4
	}
	at := 0
	for _, p := range parts {
		*g = gemmArgs{a: unsafe.Add(key, p.first*keyRow), aRow: keyRow, aCol: 4, b: unsafe.Add(f.query, lane*d*4), k: d,
			c: unsafe.Add(f.logit, at*w*4), cRow: w * 4, init: unsafe.Pointer(&zeros)}
		t.class.gemm(g, w, p.n)
		at += p.n
	}
	acc := unsafe.Add(f.acc, lane*d*4)
	for i := 0; i < w; i += 16 {
		t.softmax(s, f, lane, i, w, used, f.logit, nil)
	}
	at = 0
	for _, p := range parts {
		*g = gemmArgs{a: unsafe.Add(value, p.first*valueRow), aRow: 4, aCol: valueRow, b: unsafe.Add(f.logit, at*w*4), k: p.n,
			c: acc, cRow: w * 4, init: acc, initRow: w * 4}
		t.class.gemm(g, w, d)
		at += p.n
	}
}

// end divides by the sums and writes rows of queries.
func (t *attendTask) end(s *scratch, f *flash) {
	d := t.headDim
	stat := f32s(f.stat, 3*f.lanes)
	top, sum, inv := stat[:f.lanes], stat[f.lanes:2*f.lanes], stat[2*f.lanes:]
	for i := range f.lanes {
		inv[i] = 0
		if sum[i] != 0 {
			inv[i] = 1 / sum[i]
		}
	}
	if t.lse.p != nil {
		for i := range f.queries {
			*(*float32)(unsafe.Add(t.lse.at(f.h, 0), (f.first+i)*4)) = float32(float64(top[i]) + math.Log(float64(sum[i])))
		}
	}
	for lane := 0; lane < f.lanes; {
		w := t.width(f, lane)
		for i := 0; i < w && lane+i < f.queries; i += 16 {
			n := min(16, f.queries-lane-i)
			from := unsafe.Add(f.acc, (lane*d+i)*4)
			t.class.scaleRows(from, w*4, unsafe.Pointer(&inv[lane+i]), d)
			t.finish(s, f, from, w, lane+i, n)
		}
		lane += w
	}
}

// finish turns n columns of sums into rows of dst.
func (t *attendTask) finish(s *scratch, f *flash, from unsafe.Pointer, w, lane, n int) {
	d := t.headDim
	to, toRow := t.dst.at(f.h, f.first+lane), t.dst.row
	if t.narrow {
		to, toRow = s.floats(slotOut, n*d), d*4
	}
	for c := 0; c < d; c += 16 {
		t.class.transpose16(unsafe.Add(to, c*4), toRow, unsafe.Add(from, c*w*4), w*4, 16, n, 1)
	}
	if t.narrow {
		for i := range n {
			t.class.narrow(t.dst.at(f.h, f.first+lane+i), unsafe.Add(to, i*d*4), d)
		}
	}
}

// ahead names keys or values that the next block needs, for group i of 16 queries to fetch: a group passes blockKeys rows of 128
// bytes, in tiles half as many. Wrong guesses cost nothing but bandwidth.
func (t *attendTask) ahead(f *flash, i int) (p unsafe.Pointer, step int) {
	rows, next := t.blockKeys, f.next
	if t.inTiles {
		rows /= 2
		next += i % 2 * rows
		i /= 2
	}
	pieces := t.headDim * t.keys.dt.Size() / 128
	from := &t.keys
	if i >= pieces {
		from, i = &t.values, i-pieces
	}
	if i >= pieces || next+rows > from.rows {
		return unsafe.Pointer(&zeros), 0
	}
	return unsafe.Add(from.at(f.h, next), i*128), from.row
}
