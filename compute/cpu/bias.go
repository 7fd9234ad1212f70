package cpu

import (
	"fmt"
	"unsafe"

	"longtake/compute"
)

// biasTask is attention with a bias for every pair of query and key; a tile is one group of queries of one head. It goes as
// Attend goes, but the logits start from the bias, laid out like them with a query a column.
type biasTask struct {
	attendTask
	bias lines3
}

// AttendBiased computes softmax attention with biased logits, see compute.BiasedAttender. It runs on the class's float32
// kernels.
func (q *Queue) AttendBiased(dst, query, keys, values, bias compute.Tensor, scale float32) {
	a := compute.Attention{Scale: scale}
	checkAttend(dst, query, keys, values, &a)
	heads, queries := query.Shape[0], query.Shape[1]
	wantDims("attend bias", query, bias, compute.F32, heads, queries, keys.Shape[1])
	if bias.Rank == 0 {
		panic(fmt.Sprintf("cpu: biased attend of %v without a bias", query))
	}
	if heads == 0 || queries == 0 {
		return
	}
	t := &q.bias
	t.attendTask = attendTask{class: q.class, a: a, heads: heads, headDim: dst.Shape[2], narrow: dst.DType == compute.BF16,
		widen: keys.DType == compute.BF16, queryTile: queries, queryTiles: 1, segments: 1, blockKeys: keyBlock}
	t.dst, t.query, t.keys, t.values, t.bias = lines3Of(dst), lines3Of(query), lines3Of(keys), lines3Of(values), lines3Of(bias)
	t.cut(q.dev.pool.inUse())
	q.run(t, heads*t.groups)
}

func (t *biasTask) tile(s *scratch, i int) {
	first := i % t.groups * t.group
	if first >= t.query.rows {
		return
	}
	f := flash{h: i / t.groups, first: first, queries: min(t.group, t.query.rows-first), next: t.keys.rows}
	f.lanes = padded(f.queries, 16)
	f.query = s.floats(slotQuery, f.lanes*t.headDim)
	f.acc = s.floats(slotAcc, f.lanes*t.headDim)
	f.logit = s.floats(slotLogit, keyBlock*max(f.lanes, t.class.lanes[0]))
	f.stat = s.floats(slotStat, 3*f.lanes)
	t.begin(s, &f)
	for k := 0; k < t.keys.rows; k += keyBlock {
		t.block(s, &f, k, min(keyBlock, t.keys.rows-k))
	}
	t.end(s, &f)
}

// block takes n keys from k on through logits, softmax and weighted sum for every column group.
func (t *biasTask) block(s *scratch, f *flash, k, n int) {
	d, g := t.headDim, &s.gemm
	key, keyRow, value, valueRow := t.keys.at(f.h, k), t.keys.row, t.values.at(f.h, k), t.values.row
	if t.widen {
		key, value = t.widenRows(s, slotKey, key, keyRow, n), t.widenRows(s, slotValue, value, valueRow, n)
		keyRow, valueRow = d*4, d*4
	}
	for lane := 0; lane < f.lanes; {
		w := t.width(f, lane)
		t.columns(f, lane, w, k, n)
		*g = gemmArgs{a: key, aRow: keyRow, aCol: 4, b: unsafe.Add(f.query, lane*d*4), k: d, c: f.logit, cRow: w * 4,
			init: f.logit, initRow: w * 4}
		t.class.gemm(g, w, n)
		for i := 0; i < w; i += 16 {
			t.softmax(s, f, lane, i, w, n, f.logit, nil)
		}
		acc := unsafe.Add(f.acc, lane*d*4)
		*g = gemmArgs{a: value, aRow: 4, aCol: valueRow, b: f.logit, k: n, c: acc, cRow: w * 4, init: acc, initRow: w * 4}
		t.class.gemm(g, w, d)
		lane += w
	}
}

// columns lays the bias of w queries and n keys out as logits are; queries that do not exist get 0.
func (t *biasTask) columns(f *flash, lane, w, k, n int) {
	for i := 0; i < w; i += 16 {
		to, queries := unsafe.Add(f.logit, i*4), min(16, f.queries-lane-i)
		if queries < 16 {
			clear16(to, w*4, n)
		}
		if queries > 0 {
			from := unsafe.Add(t.bias.at(f.h, f.first+lane+i), k*4)
			t.class.transpose16(to, w*4, from, t.bias.row, queries, n, 1)
		}
	}
}
