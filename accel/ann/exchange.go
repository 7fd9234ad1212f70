package ann

import (
	"slices"
	"sync"

	"longtake/compute"
)

// Exchange lets the policies of self and cross attention of one session share what the cross-attention queries of the tokens
// were: the semantic buckets of the paper's AnnSA. Hand one to both makers; sessions are told apart by their queue. A nil
// Exchange shares nothing.
type Exchange struct {
	mu  sync.Mutex
	all map[compute.Queue]*Asked
}

// Of returns the session's queries, the same for both policies.
func (e *Exchange) Of(dq compute.Queue) *Asked {
	if e == nil {
		return nil
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.all == nil {
		e.all = map[compute.Queue]*Asked{}
	}
	a := e.all[dq]
	if a == nil {
		a = &Asked{}
		e.all[dq] = a
	}
	a.users++
	return a
}

// Leave says that one of the policies has ended.
func (e *Exchange) Leave(dq compute.Queue) {
	if e == nil {
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if a := e.all[dq]; a != nil {
		if a.users--; a.users == 0 {
			delete(e.all, dq)
		}
	}
}

// Asked holds the cross-attention queries that were asked last in each layer.
type Asked struct {
	users  int
	layers [][]float32
}

// Set keeps a copy of a layer's queries [heads*queries*headDim].
func (a *Asked) Set(layer int, query []float32) {
	for len(a.layers) <= layer {
		a.layers = append(a.layers, nil)
	}
	a.layers[layer] = append(a.layers[layer][:0], query...)
}

// Get returns the queries of a layer, or of the nearest earlier one that was asked: a clean pass ends before the last block's
// cross attention. Nil if there are none. The slice stays the exchange's.
func (a *Asked) Get(layer int) []float32 {
	for _, q := range slices.Backward(a.layers[:min(layer+1, len(a.layers))]) {
		if len(q) > 0 {
			return q
		}
	}
	return nil
}
