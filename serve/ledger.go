package serve

import (
	"fmt"
	"sync"
	"time"
)

// FullError says that the server has no room now.
type FullError struct {
	What  string
	After time.Duration // when to come again
}

// Error says what is full.
func (e *FullError) Error() string { return e.What }

// Ledger admits by arithmetic: what a session will take is known before it starts, and the sum never exceeds the budget.
type Ledger struct {
	mu sync.Mutex
	// budget and used are bytes; sessions and load are counts and busy fractions of the engine, 0 for no limit.
	budget, used      int64
	sessions, maximum int
	load, loadLimit   float64
}

// NewLedger returns a ledger with bounds on bytes, on sessions, and on the sum of the loads; 0 is no bound.
func NewLedger(bytes int64, sessions int, load float64) *Ledger {
	return &Ledger{budget: bytes, maximum: sessions, loadLimit: load}
}

// entry is what one session has reserved.
type entry struct {
	ledger *Ledger
	bytes  int64
	load   float64
	closed bool
}

// retryFull is what refused callers are told to wait: sessions come and go in minutes, and asking is cheap.
const retryFull = 10 * time.Second

// admit reserves room for a session, or says why there is none.
func (l *Ledger) admit(bytes int64, load float64) (*entry, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.maximum > 0 && l.sessions >= l.maximum:
		return nil, &FullError{fmt.Sprintf("all %d places are taken", l.maximum), retryFull}
	case l.budget > 0 && l.used+bytes > l.budget:
		return nil, &FullError{fmt.Sprintf("the session needs %d MiB and %d MiB are free", bytes>>20, max(l.budget-l.used, 0)>>20), retryFull}
	case l.loadLimit > 0 && l.sessions > 0 && l.load+load > l.loadLimit:
		return nil, &FullError{"the engine is busy: one more session would slow the others", retryFull}
	}
	l.sessions++
	l.used += bytes
	l.load += load
	return &entry{ledger: l, bytes: bytes, load: load}, nil
}

// grow changes the reservation by so many bytes, which may be negative.
func (e *entry) grow(bytes int64) error {
	l := e.ledger
	l.mu.Lock()
	defer l.mu.Unlock()
	if bytes > 0 && l.budget > 0 && l.used+bytes > l.budget {
		return &FullError{fmt.Sprintf("this needs %d MiB more and %d MiB are free", bytes>>20, max(l.budget-l.used, 0)>>20), retryFull}
	}
	l.used += bytes
	e.bytes += bytes
	return nil
}

// setLoad changes the share of the engine.
func (e *entry) setLoad(load float64) error {
	l := e.ledger
	l.mu.Lock()
	defer l.mu.Unlock()
	if load > e.load && l.loadLimit > 0 && l.sessions > 1 && l.load-e.load+load > l.loadLimit {
		return &FullError{"the engine is busy: this would slow other sessions", retryFull}
	}
	l.load += load - e.load
	e.load = load
	return nil
}

// charge notes what share of the engine the session takes, as measured: new ones are refused by it.
func (e *entry) charge(load float64) {
	l := e.ledger
	l.mu.Lock()
	defer l.mu.Unlock()
	if !e.closed {
		l.load += load - e.load
		e.load = load
	}
}

// size returns the bytes reserved.
func (e *entry) size() int64 {
	e.ledger.mu.Lock()
	defer e.ledger.mu.Unlock()
	return e.bytes
}

// close gives everything back, once.
func (e *entry) close() {
	l := e.ledger
	l.mu.Lock()
	defer l.mu.Unlock()
	if !e.closed {
		e.closed = true
		l.sessions--
		l.used -= e.bytes
		l.load -= e.load
	}
}

// Used returns the bytes reserved and the number of sessions.
func (l *Ledger) Used() (bytes int64, sessions int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.used, l.sessions
}
