package rollout

import "testing"

// A picture at a wall flickers: a step that was stopped goes on only when the picture changes clearly.
func TestAStepFailsWhenThePictureStays(t *testing.T) {
	s, stopped := Still{Enter: 0.012, Leave: 0.017}, false
	for i, c := range []struct {
		change float64
		want   bool
	}{{0.05, false}, {0.015, false}, {0.011, true}, {0.015, true}, {0.016, true}, {0.018, false}, {0.015, false}} {
		if stopped = s.blocked(c.change, stopped); stopped != c.want {
			t.Errorf("step %d, a change of %v: stopped is %v, want %v", i, c.change, stopped, c.want)
		}
	}
}
