// Package attention joins queries with what the cache lets them see.
//
// What enters: the queries of a chunk, after QK normalisation and before rotary embedding, and a kvcache.Layer that holds its
// keys. What leaves: the weighted values. Dense attention is built in.
package attention

import (
	"math"

	"longtake/compute"
	"longtake/kvcache"
)

// Self rotates query in place at the chunk's positions and attends to everything in view. Shapes: dst and query
// [heads, tokens, headDim] with any strides.
func Self(dq compute.Queue, dst, query compute.Tensor, cache kvcache.Layers, layer int) {
	rope, pos := cache.Rope()
	dq.Rope(query, query, pos, rope)
	Dense(dq, dst, query, cache.Layer(layer).View())
}

// Dense attends to every key in view, with the usual scale 1/sqrt(headDim).
func Dense(dq compute.Queue, dst, query compute.Tensor, kv kvcache.View) {
	dq.Attend(dst, query, kv.Keys, kv.Values, compute.Attention{
		Scale:    float32(1 / math.Sqrt(float64(query.Dim(2)))),
		LogCount: kv.LogCount,
		Lengths:  kv.Lengths,
	})
}
