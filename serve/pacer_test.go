package serve

import (
	"context"
	"testing"
	"time"
)

func TestAChunkBeginsAsLateAsItsTimeAllows(t *testing.T) {
	var p pacer
	p.rate(10)
	p.took(10 * time.Millisecond)
	if began := time.Now(); p.rest(t.Context()) != nil || time.Since(began) > 20*time.Millisecond {
		t.Error("the first chunk waits")
	}
	if _, err := p.await(t.Context()); err != nil {
		t.Fatal(err)
	}
	due := p.due
	if err := p.rest(t.Context()); err != nil || time.Until(due) > 21*time.Millisecond {
		t.Errorf("begun %v before the frame is due, %v", time.Until(due), err)
	}
	p.took(200 * time.Millisecond) // longer than an interval: nothing to wait for
	if began := time.Now(); p.rest(t.Context()) != nil || time.Since(began) > 20*time.Millisecond {
		t.Error("a slow engine waits")
	}
	for range 300 {
		p.took(0)
	}
	if p.longest > 5*time.Millisecond {
		t.Errorf("%v are remembered", p.longest)
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	p.due = time.Now().Add(time.Hour)
	if p.rest(gone) == nil {
		t.Error("rests after the end")
	}
}
