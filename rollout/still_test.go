package rollout

import (
	"testing"

	"longtake/kvcache"
)

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

// walker walks by judgements of pictures of one value.
type walker struct {
	trail trail
	still Still
	at    kvcache.Pose
}

// step wants to go by dx and turn by turn, sees a picture, and reports whether the step failed.
func (w *walker) step(dx, turn float64, picture float32) bool {
	goal := kvcache.Pose{X: w.at.X + dx, Heading: w.at.Heading + turn}
	failed := w.trail.judge(w.still, w.at, goal, []float32{picture})
	if failed {
		goal.X = w.at.X
	}
	w.at = goal
	w.trail.add(w.still, w.at, []float32{picture})
	return failed
}

// Flicker between two pictures looks like steps, but four of them lead nowhere; steps that add up do.
func TestFlickerIsNoWalk(t *testing.T) {
	for name, c := range map[string]struct {
		picture func(i int) float32
		failed  int
	}{
		"flicker": {func(i int) float32 { return 0.02 * float32(i%2) }, 17},
		"a walk":  {func(i int) float32 { return 0.02 * float32(i) }, 0},
	} {
		w, failed := walker{still: Still{Enter: 0.012, Leave: 0.017, Slow: 0.03}}, 0
		for i := range 21 {
			if w.step(1, 0, c.picture(i)) {
				failed++
			}
		}
		if failed != c.failed {
			t.Errorf("%s: %d steps of 20 failed, want %d", name, failed, c.failed)
		}
	}
	// A turn between the steps begins to count anew.
	w := walker{still: Still{Enter: 0.012, Slow: 0.03}}
	for i := range 20 {
		if w.step(1, 0, 0.02*float32(i%2)) || i%3 == 2 && w.step(0, 1, 1) {
			t.Fatalf("step %d failed: no four of them were equal", i)
		}
		if i%3 == 2 {
			w.step(0, -1, 0.02*float32(i%2))
		}
	}
}

// Whoever walked up to a wall can walk back, though the wall fills the view and nothing moves in it.
func TestTheWayBackFromAWallIsFree(t *testing.T) {
	for known, want := range map[float64]float64{0: 3, 0.5: 0} {
		w := walker{still: Still{Enter: 0.012, Leave: 0.017, Known: known}}
		w.trail.add(w.still, w.at, []float32{0})
		for _, picture := range []float32{0.1, 0.2, 0.3, 0.3, 0.3} { // three steps, and two that fail
			w.step(1, 0, picture)
		}
		for range 3 {
			w.step(-1, 0, 0.3)
		}
		if w.at.X != want {
			t.Errorf("known %v: three steps back lead to %v, want %v", known, w.at.X, want)
		}
	}
}

// What a session keeps of its way is bounded, and the oldest place is the one that is forgotten.
func TestATrailIsBounded(t *testing.T) {
	w := walker{still: Still{Known: 0.5}}
	for i := range manyWas + 100 {
		w.step(1, 0, float32(i))
	}
	if len(w.trail.was) != manyWas || len(w.trail.seen) > slow {
		t.Errorf("%d places and %d pictures are kept, at most %d and %d should be", len(w.trail.was), len(w.trail.seen), manyWas, slow)
	}
	if w.trail.knows([2]float64{50, 0}, 0.5) || !w.trail.knows([2]float64{manyWas + 50, 0}, 0.5) {
		t.Error("the wrong places were forgotten")
	}
}
