package serve

import (
	"slices"
	"sync"
	"time"

	"longtake/api"
)

// inbox holds what the viewers want, the latest of each kind: nothing queues up behind a slow engine. A key that was pressed
// and released between two chunks counts for one chunk.
type inbox struct {
	mu    sync.Mutex
	held  []string
	taps  []string // pressed since the last chunk
	named *int     // an action by name, instead of the keys
	// receipts of keys and actions that no chunk has obeyed yet.
	receipts []receipt
	// orders are the other controls, at most one of each kind and view.
	orders []order
}

// receipt is owed to a viewer.
type receipt struct {
	to      *viewer
	id      int64
	control string
	time    float64
	arrived time.Time
}

// order is a control that is no key.
type order struct {
	api.Control
	receipt
}

// maxReceipts bounds the receipts of one chunk; older ones are forgotten.
const maxReceipts = 64

// input is what a chunk is to obey.
type input struct {
	keys     []string
	named    *int
	receipts []receipt
}

// put adds a control of a viewer. An order that takes the place of an older one returns that.
func (b *inbox) put(c api.Control, action *int, from *viewer) (superseded *order) {
	b.mu.Lock()
	defer b.mu.Unlock()
	r := receipt{from, c.ID, c.Type, c.Time, time.Now()}
	switch c.Type {
	case "keys":
		for _, k := range c.Keys {
			if !slices.Contains(b.held, k) && !slices.Contains(b.taps, k) && len(b.taps) < api.MaxKeys {
				b.taps = append(b.taps, k)
			}
		}
		b.held, b.named = c.Keys, nil
	case "action":
		b.named = action
	default:
		b.orders = slices.DeleteFunc(b.orders, func(o order) bool {
			same := o.Type == c.Type && o.View == c.View
			if same {
				superseded = &o
			}
			return same
		})
		b.orders = append(b.orders, order{c, r})
		return superseded
	}
	if len(b.receipts) == maxReceipts {
		b.receipts = append(b.receipts[:0], b.receipts[1:]...)
	}
	b.receipts = append(b.receipts, r)
	return nil
}

// takeOrders empties the orders.
func (b *inbox) takeOrders() []order {
	b.mu.Lock()
	defer b.mu.Unlock()
	o := b.orders
	b.orders = nil
	return o
}

// sample returns what the next chunk obeys.
func (b *inbox) sample() input {
	b.mu.Lock()
	defer b.mu.Unlock()
	in := input{keys: slices.Concat(b.held, b.taps), named: b.named, receipts: b.receipts}
	b.taps, b.receipts = nil, nil
	return in
}

// release lets go of all keys, when the last viewer that could hold them is gone.
func (b *inbox) release() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.held, b.taps, b.named = nil, nil, nil
}
