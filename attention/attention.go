// Package attention joins queries with what the cache lets them see.
//
// What enters: the queries of a chunk, after QK normalisation and before rotary embedding, and a kvcache.Layer that holds its
// keys. What leaves: the weighted values. Dense attention is built in; package accel has the others.
package attention

import (
	"math"

	"longtake/compute"
	"longtake/kvcache"
)

// Kind tells the two attentions of a block apart.
type Kind uint8

// Kinds of attention: Self over the cache, Cross over the prompt.
const (
	Self Kind = iota
	Cross
)

// String returns "self" or "cross".
func (k Kind) String() string { return [...]string{"self", "cross"}[k] }

// Site is the place of one attention call. Calls of a chunk come in the order of Pass, then Layer.
type Site struct {
	Kind  Kind
	Layer int
	// Chunk counts the session's chunks; Pass the forwards of a chunk, of which there are Passes, the clean pass last.
	Chunk, Pass, Passes int
	// Tokens are the tokens of a latent frame: queries come frame by frame.
	Tokens int
	// Rope and Pos rotated the queries of self attention (compute.Queue.Rope, with Inverse to undo).
	Rope compute.Rope
	Pos  compute.Tensor
}

// Policy decides which keys each query attends to. One policy serves one session, whose calls come from one goroutine; it may
// keep what it learnt in earlier calls.
type Policy interface {
	// Attend writes dst [heads, queries, headDim] from query, rotated for self attention, and the keys in view.
	Attend(dq compute.Queue, at Site, dst, query compute.Tensor, kv kvcache.View)
	// Close gives the policy's memory back.
	Close()
}

// Maker makes policies.
type Maker interface {
	// New allocates a policy for a session whose self attention sees a cache of this shape.
	New(dev compute.Device, dq compute.Queue, s kvcache.Shape) (Policy, error)
	// Bytes returns the memory that New takes, known beforehand.
	Bytes(dev compute.Device, s kvcache.Shape) int64
	// String describes the policy for people.
	String() string
}

// Dense attends to every key in view with the usual scale 1/sqrt(headDim). It is a Policy and its own Maker.
type Dense struct{}

// Attend calls the device's attention.
func (Dense) Attend(dq compute.Queue, _ Site, dst, query compute.Tensor, kv kvcache.View) {
	dq.Attend(dst, query, kv.Keys, kv.Values, compute.Attention{Scale: Scale(query), LogCount: kv.LogCount, Lengths: kv.Lengths})
}

// Close does nothing.
func (Dense) Close() {}

// New returns Dense.
func (Dense) New(compute.Device, compute.Queue, kvcache.Shape) (Policy, error) { return Dense{}, nil }

// Bytes returns 0.
func (Dense) Bytes(compute.Device, kvcache.Shape) int64 { return 0 }

// String returns "dense".
func (Dense) String() string { return "dense" }

// Scale returns 1/sqrt(headDim) of a query tensor [heads, queries, headDim].
func Scale(query compute.Tensor) float32 { return float32(1 / math.Sqrt(float64(query.Dim(2)))) }
