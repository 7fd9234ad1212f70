package ann_test

import (
	"testing"

	"longtake/accel/ann"
	"longtake/compute"
)

// session stands for the queue that tells sessions apart.
type session struct {
	compute.Queue
	_ int
}

func TestPoliciesOfASessionMeet(t *testing.T) {
	one, two := &session{}, &session{}
	var e ann.Exchange
	self, cross, other := e.Of(one), e.Of(one), e.Of(two)
	if self != cross || self == other {
		t.Fatal("the policies of a session must share, those of two must not")
	}
	if got := self.Get(3); got != nil {
		t.Errorf("nobody asked, got %v", got)
	}
	cross.Set(1, []float32{1, 2})
	if got := self.Get(3); len(got) != 2 || got[1] != 2 {
		t.Errorf("layer 3 falls back to %v, want layer 1", got)
	}
	if got := self.Get(0); got != nil {
		t.Errorf("layer 0 was not asked, got %v", got)
	}
	e.Leave(one)
	if e.Of(one) != self {
		t.Error("a session ends with its last policy")
	}
	e.Leave(one)
	e.Leave(one)
	if e.Of(one) == self {
		t.Error("a session's queries outlive it")
	}
	var none *ann.Exchange
	none.Leave(one)
	if none.Of(one) != nil {
		t.Error("nil shares nothing")
	}
}
