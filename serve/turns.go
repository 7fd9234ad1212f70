package serve

import (
	"context"
	"sync"
)

// Turns lets one goroutine at a time use the engine. Turns are given in the order in which they are asked for; a session asks for
// the next chunk's turn only after it has had the last one's, so that sessions alternate. Live sessions go before work that
// nobody waits for in real time (videos, lock-step, restoring), which still gets one turn in every patience.
type Turns struct {
	mu      sync.Mutex
	busy    bool
	live    []chan struct{}
	patient []chan struct{}
	passed  int // live turns given while patient work waited
}

// patience is how many turns of live sessions go before one of patient work that waits.
const patience = 8

// acquire waits for a turn; release must be called after it, unless it returns an error.
func (t *Turns) acquire(ctx context.Context, live bool) error {
	t.mu.Lock()
	if !t.busy {
		t.busy = true
		t.mu.Unlock()
		return nil
	}
	mine := make(chan struct{}, 1)
	line := &t.patient
	if live {
		line = &t.live
	}
	*line = append(*line, mine)
	t.mu.Unlock()
	select {
	case <-mine:
		return nil
	case <-ctx.Done():
	}
	t.mu.Lock()
	for i, other := range *line {
		if other == mine {
			*line = append((*line)[:i], (*line)[i+1:]...)
			t.mu.Unlock()
			return ctx.Err()
		}
	}
	t.mu.Unlock()
	// The turn came at the same moment: it is passed on.
	<-mine
	t.release()
	return ctx.Err()
}

// release ends a turn and gives the next.
func (t *Turns) release() {
	t.mu.Lock()
	defer t.mu.Unlock()
	line := &t.live
	switch {
	case len(t.patient) > 0 && (len(t.live) == 0 || t.passed >= patience):
		line = &t.patient
		t.passed = 0
	case len(t.live) > 0:
		if len(t.patient) > 0 {
			t.passed++
		}
	default:
		t.busy = false
		return
	}
	next := (*line)[0]
	*line = append((*line)[:0], (*line)[1:]...)
	next <- struct{}{}
}

// waiting returns how many wait for a turn.
func (t *Turns) waiting() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.live) + len(t.patient)
}
