package cpu

import (
	"fmt"
	"unsafe"

	"longtake/compute"
)

// scoreKeys is how many keys a tile of a scoreTask takes.
const scoreKeys = 8 * keyBlock

// scoreTask multiplies keys by queries; a tile is a run of keys of one head. It shares the layouts of matchTask.
type scoreTask struct {
	matchTask
	dst lines3
	cut int // tiles a head
}

// Score multiplies keys by queries, see compute.Scorer.
func (q *Queue) Score(dst, query, keys compute.Tensor) {
	wantFloat("score", query, keys)
	heads, n := query.Shape[0], keys.Shape[1]
	wantDims("score", keys, dst, compute.F32, heads, n, query.Shape[1])
	if dst.Rank != 3 || query.Rank != 3 || keys.Rank != 3 || keys.Shape[0] != heads || keys.Shape[2] != query.Shape[2] || query.Shape[2] == 0 ||
		query.Stride[2] != 1 || keys.Stride[2] != 1 {
		panic(fmt.Sprintf("cpu: score %v of queries %v and keys %v", dst, query, keys))
	}
	if dst.Elems() == 0 {
		return
	}
	t := &q.score
	*t = scoreTask{matchTask: matchTask{class: q.class, query: lines3Of(query), keys: lines3Of(keys), headDim: query.Shape[2], width: 16}, dst: lines3Of(dst),
		cut: (n + scoreKeys - 1) / scoreKeys}
	q.run(t, heads*t.cut)
}

func (t *scoreTask) tile(s *scratch, i int) {
	h, lo, d := i/t.cut, i%t.cut*scoreKeys, t.headDim
	columns, logit := s.floats(slotQuery, 16*d), s.floats(slotLogit, keyBlock*16)
	for c := 0; c < t.query.rows; c += 16 {
		m := min(16, t.query.rows-c)
		t.columns(s, columns, h, c, m)
		for k := lo; k < min(lo+scoreKeys, t.keys.rows); k += keyBlock {
			rows := min(keyBlock, t.keys.rows-k)
			from, step := t.block(s, h, k, rows)
			g := &s.gemm
			*g = gemmArgs{a: from, aRow: step, aCol: 4, b: columns, k: d, c: logit, cRow: 64, init: unsafe.Pointer(&zeros)}
			t.class.gemm(g, 16, rows)
			for r := range rows {
				copy(unsafe.Slice((*float32)(t.dst.at(h, k+r)), t.query.rows)[c:c+m], unsafe.Slice((*float32)(unsafe.Add(logit, r*64)), m))
			}
		}
	}
}
