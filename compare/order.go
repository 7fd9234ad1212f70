package compare

import (
	"fmt"

	"longtake/attention"
	"longtake/compute"
	"longtake/kvcache"
)

// Reordered makes dense attention that sees the later half of the keys first: the same sum in another order, to measure how far
// rounding alone leads. Views with merged or cut keys are attended as they are.
type Reordered struct{}

// New returns a policy; its copy of one layer's keys grows with the history.
func (Reordered) New(dev compute.Device, _ compute.Queue, s kvcache.Shape) (attention.Policy, error) {
	return &reordered{dev: dev, shape: s}, nil
}

// Bytes returns 0: the copy grows with the history.
func (Reordered) Bytes(compute.Device, kvcache.Shape) int64 { return 0 }

// String describes the maker.
func (Reordered) String() string { return "dense, later keys first" }

type reordered struct {
	dev          compute.Device
	shape        kvcache.Shape
	arena        compute.Arena
	keys, values compute.Tensor
	dense        attention.Dense
}

// Attend attends to the keys in another order.
func (r *reordered) Attend(dq compute.Queue, at attention.Site, dst, query compute.Tensor, kv kvcache.View) {
	n := kv.Keys.Dim(1)
	if n > 1 && kv.LogCount.IsZero() && kv.Lengths.IsZero() {
		r.reserve(dq, n)
		half := n / 2
		keys, values := r.keys.Slice(1, 0, n), r.values.Slice(1, 0, n)
		dq.Copy(keys.Slice(1, 0, n-half), kv.Keys.Slice(1, half, n))
		dq.Copy(keys.Slice(1, n-half, n), kv.Keys.Slice(1, 0, half))
		dq.Copy(values.Slice(1, 0, n-half), kv.Values.Slice(1, half, n))
		dq.Copy(values.Slice(1, n-half, n), kv.Values.Slice(1, 0, half))
		kv.Keys, kv.Values = keys, values
	}
	r.dense.Attend(dq, at, dst, query, kv)
}

// reserve makes room for n keys. Too little memory ends the session.
func (r *reordered) reserve(dq compute.Queue, n int) {
	if !r.keys.IsZero() && r.keys.Dim(1) >= n {
		return
	}
	dq.Wait() // the old copy may be in use; the queue keeps its error
	r.Close()
	arena, err := r.dev.NewArena(0)
	if err != nil {
		panic(fmt.Errorf("keys in another order: %w", err))
	}
	r.arena = arena
	r.keys = arena.Tensor(r.shape.DType, r.shape.Heads, 2*n, r.shape.HeadDim)
	r.values = arena.Tensor(r.shape.DType, r.shape.Heads, 2*n, r.shape.HeadDim)
	if err := arena.Err(); err != nil {
		panic(fmt.Errorf("keys in another order: %w", err))
	}
}

// Close gives the copy back.
func (r *reordered) Close() {
	if r.arena != nil {
		r.arena.Free()
		r.arena, r.keys, r.values = nil, compute.Tensor{}, compute.Tensor{}
	}
}
