package computetest

import "math"

// attention is compute.Attention with arrays.
type attention struct {
	scale              float64
	logCount           array   // [heads, keys] or absent
	lengths            []int   // of every head, or nil
	queryTile, keyTile int     // 0: no tiles
	tiles              [][]int // key tiles of query tile t of head h at h*queryTiles+t
}

// visible reports whether query i of head h may see key j at all.
func (a attention) visible(h, i, j, queries int) bool {
	if a.lengths != nil && j >= a.lengths[h] {
		return false
	}
	if a.queryTile == 0 {
		return true
	}
	queryTiles := (queries + a.queryTile - 1) / a.queryTile
	for _, k := range a.tiles[h*queryTiles+i/a.queryTile] {
		if j/a.keyTile == k {
			return true
		}
	}
	return false
}

// attend returns [heads, queries, headDim] and the logarithm of every softmax denominator [heads, queries].
func attend(query, keys, values array, a attention) (out, logSumExp array) {
	heads, queries, dim := query.shape[0], query.shape[1], query.shape[2]
	n := keys.shape[1]
	out, logSumExp = newArray(query.shape...), newArray(heads, queries)
	logits := make([]float64, n)
	for h := range heads {
		for i := range queries {
			q, top := query.row(h*queries+i), math.Inf(-1)
			for j := range n {
				logits[j] = math.Inf(-1)
				if !a.visible(h, i, j, queries) {
					continue
				}
				dot := 0.0
				for d, k := range keys.row(h*n + j) {
					dot += q[d] * k
				}
				logits[j] = a.scale * dot
				if !a.logCount.absent() {
					logits[j] += a.logCount.row(h)[j]
				}
				top = math.Max(top, logits[j])
			}
			if math.IsInf(top, -1) {
				logSumExp.row(h)[i] = top
				continue
			}
			sum := 0.0
			for j, l := range logits {
				logits[j] = math.Exp(l - top)
				sum += logits[j]
			}
			logSumExp.row(h)[i] = top + math.Log(sum)
			for j, p := range logits {
				if p == 0 {
					continue
				}
				to := out.row(h*queries + i)[:dim]
				for d, v := range values.row(h*n + j) {
					to[d] += p / sum * v
				}
			}
		}
	}
	return out, logSumExp
}
