package cpu

import (
	"fmt"
	"math"
	"slices"
	"unsafe"

	"longtake/compute"
)

// matchQueries is how many queries share one pass over the keys.
const matchQueries = 32

// matchTask finds nearest keys; a tile is one group of queries of one head. Scores are computed transposed, a query a
// column, as in attention.
type matchTask struct {
	class       *class
	query, keys lines3
	lengths     []int32
	lengthStep  int
	best        []int32   // [heads, queries]
	score       []float32 // [heads, queries]
	headDim     int
	groups      int // groups a head
	width       int // queries that kernels take at a time
}

// Match finds for every query the key with the largest dot product, see compute.Matcher. Without keys the score is -Inf.
func (q *Queue) Match(best, score, query, keys, lengths compute.Tensor) {
	checkMatch(best, score, query, keys, lengths)
	heads, queries := query.Shape[0], query.Shape[1]
	if heads == 0 || queries == 0 {
		return
	}
	t := &q.match
	*t = matchTask{class: q.class, query: lines3Of(query), keys: lines3Of(keys), headDim: query.Shape[2],
		groups: (queries + matchQueries - 1) / matchQueries, width: 16}
	if queries > 16 && slices.Contains(q.class.lanes, matchQueries) {
		t.width = matchQueries
	}
	t.best, t.score = i32s(address(best), heads*queries), f32s(address(score), heads*queries)
	if lengths.Rank != 0 {
		t.lengthStep = lengths.Stride[0]
		t.lengths = i32s(address(lengths), (heads-1)*t.lengthStep+1)
	}
	q.run(t, heads*t.groups)
}

func checkMatch(best, score, query, keys, lengths compute.Tensor) {
	wantFloat("match", query, keys)
	if query.Rank != 3 || keys.Rank != 3 || keys.Shape[0] != query.Shape[0] || keys.Shape[2] != query.Shape[2] || query.Shape[2] == 0 ||
		query.Stride[2] != 1 || keys.Stride[2] != 1 {
		panic(fmt.Sprintf("cpu: match of queries %v with keys %v", query, keys))
	}
	wantDims("match best", query, best, compute.I32, query.Shape[0], query.Shape[1])
	wantDims("match score", query, score, compute.F32, query.Shape[0], query.Shape[1])
	wantDims("match lengths", keys, lengths, compute.I32, keys.Shape[0])
	if best.Rank == 0 || score.Rank == 0 || !best.Contiguous() || !score.Contiguous() {
		panic(fmt.Sprintf("cpu: match into %v and %v, want contiguous tensors", best, score))
	}
}

func (t *matchTask) tile(s *scratch, i int) {
	h, first := i/t.groups, i%t.groups*matchQueries
	n, d := min(matchQueries, t.query.rows-first), t.headDim
	keys := t.keys.rows
	if t.lengths != nil {
		keys = min(keys, int(t.lengths[h*t.lengthStep]))
	}
	w := t.width
	columns, logit := s.floats(slotQuery, w*d), s.floats(slotLogit, keyBlock*w)
	for c := 0; c < n; c += w {
		var top [matchQueries]float32
		var at [matchQueries]int32
		for j := range top {
			top[j], at[j] = float32(math.Inf(-1)), -1
		}
		m := min(w, n-c)
		for i := 0; i < w; i += 16 {
			t.columns(s, unsafe.Add(columns, i*4), h, first+c+i, min(16, m-i))
		}
		for k := 0; k < keys; k += keyBlock {
			rows := min(keyBlock, keys-k)
			from, step := t.block(s, h, k, rows)
			g := &s.gemm
			*g = gemmArgs{a: from, aRow: step, aCol: 4, b: columns, k: d, c: logit, cRow: w * 4, init: unsafe.Pointer(&zeros)}
			t.class.gemm(g, w, rows)
			for i := 0; i < w; i += 8 {
				scan((*[8]float32)(top[i:]), (*[8]int32)(at[i:]), unsafe.Add(logit, i*4), w*4, k, rows)
			}
		}
		out := h*t.query.rows + first + c
		copy(t.best[out:out+m], at[:m])
		copy(t.score[out:out+m], top[:m])
	}
}

// columns lays m queries, at most 16, out as 16 columns.
func (t *matchTask) columns(s *scratch, to unsafe.Pointer, h, first, m int) {
	d, step := t.headDim, t.width*4
	if m < 16 {
		clear16(to, step, d)
	}
	if m <= 0 {
		return
	}
	x, row := t.query.at(h, first), t.query.row
	if t.query.dt == compute.BF16 {
		w := s.floats(slotX, m*d)
		for i := range m {
			t.class.widen(unsafe.Add(w, i*d*4), unsafe.Add(x, i*row), d)
		}
		x, row = w, d*4
	}
	t.class.transpose16(to, step, x, row, m, d, 1)
}

// block returns where rows of keys lie as float32 and their distance in bytes.
func (t *matchTask) block(s *scratch, h, first, rows int) (unsafe.Pointer, int) {
	if t.keys.dt == compute.F32 {
		return t.keys.at(h, first), t.keys.row
	}
	w := s.floats(slotKey, keyBlock*t.headDim)
	for i := range rows {
		t.class.widen(unsafe.Add(w, i*t.headDim*4), t.keys.at(h, first+i), t.headDim)
	}
	return w, t.headDim * 4
}

// scan takes rows of 8 scores, step bytes apart, into the best so far; the first of equal scores stays. The best stay in registers.
func scan(t *[8]float32, a *[8]int32, logit unsafe.Pointer, step, first, rows int) {
	t0, t1, t2, t3, t4, t5, t6, t7 := t[0], t[1], t[2], t[3], t[4], t[5], t[6], t[7]
	for r := range rows {
		v := (*[8]float32)(unsafe.Add(logit, r*step))
		if x := v[0]; x > t0 {
			t0, a[0] = x, int32(first+r)
		}
		if x := v[1]; x > t1 {
			t1, a[1] = x, int32(first+r)
		}
		if x := v[2]; x > t2 {
			t2, a[2] = x, int32(first+r)
		}
		if x := v[3]; x > t3 {
			t3, a[3] = x, int32(first+r)
		}
		if x := v[4]; x > t4 {
			t4, a[4] = x, int32(first+r)
		}
		if x := v[5]; x > t5 {
			t5, a[5] = x, int32(first+r)
		}
		if x := v[6]; x > t6 {
			t6, a[6] = x, int32(first+r)
		}
		if x := v[7]; x > t7 {
			t7, a[7] = x, int32(first+r)
		}
	}
	*t = [8]float32{t0, t1, t2, t3, t4, t5, t6, t7}
}
