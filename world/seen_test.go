package world

import "testing"

// shares counts what of frames lo to hi-1 was in view in earlier ones, of which only the first given count.
func seenIn(t *testing.T, e *Episode, given, lo, hi int) float64 {
	t.Helper()
	const size = 32
	seen, n := 0, 0
	dst := make([]bool, size*size)
	for i := lo; i < hi; i++ {
		e.World.Seen(dst, e.Poses[i], e.Poses[:min(i, given)], size, size)
		for _, s := range dst {
			n++
			if s {
				seen++
			}
		}
	}
	return float64(seen) / float64(n)
}

func TestWhatWasInViewIsSeen(t *testing.T) {
	around := mustEpisode(t, 3000, 61, LookAround, 30)
	if got := seenIn(t, around, 61, 0, 1); got != 0 {
		t.Errorf("%g of a first frame was seen before it", got)
	}
	if got := seenIn(t, around, 31, 31, 61); got < 0.999 {
		t.Errorf("after a full turn only %g of the way back was seen before", got)
	}
	if got := seenIn(t, around, 61, 1, 25); got < 0.7 || got > 0.95 { // a turn of 12 degrees shows a sixth of the view anew
		t.Errorf("%g of the views of a first turn were seen before, want about 0.83", got)
	}
	undone := mustEpisode(t, 3000, 41, WalkAndUndo, 20)
	if got := seenIn(t, undone, 21, 21, 41); got < 0.999 {
		t.Errorf("of a walk that is undone only %g was seen on the way there", got)
	}
}

// Counts of train/seen.h in 4 episodes; the mathematics libraries' last bits decide some pixels.
func TestSeenCountsThoseOfTheTrainedSimulator(t *testing.T) {
	for _, c := range seenCounts {
		e := mustEpisode(t, c.seed, 56+30, WalkAndReturn, 40)
		dst, n := make([]bool, 64*64), 0
		for i := 56; i < 86; i += 5 {
			e.World.Seen(dst, e.Poses[i], e.Poses[:56], 64, 64)
			for _, s := range dst {
				if s {
					n++
				}
			}
		}
		if d := n - c.want; d < -12 || d > 12 {
			t.Errorf("world %d: %d pixels of 6 frames were seen, want %d", c.seed, n, c.want)
		}
	}
}

var seenCounts = []struct {
	seed uint32
	want int
}{
	{3000, 23075},
	{3001, 20002},
	{3002, 23745},
	{3003, 18695},
}
