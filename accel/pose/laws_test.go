package pose

import (
	"math"
	"slices"
	"testing"

	"longtake/compute"
	"longtake/compute/cpu"
	"longtake/kvcache"
	"longtake/kvcache/kvcachetest"
)

// walk feeds a frame for each pose and returns the cache as it is before the frame after them.
func walk(t *testing.T, p Policy, poses []kvcache.Pose) (*cache, compute.Queue) {
	c, dq, _ := counted(t, p, poses)
	return c, dq
}

// counted is walk; recalls are how many keys every frame had made again.
func counted(t *testing.T, p Policy, poses []kvcache.Pose) (c *cache, dq compute.Queue, recalls []int) {
	t.Helper()
	dev, err := cpu.New(cpu.Options{Threads: 1})
	if err != nil {
		t.Fatal(err)
	}
	dq, err = dev.NewQueue()
	if err != nil {
		t.Fatal(err)
	}
	s := kvcachetest.Shapes[0]
	s.DType = compute.F32
	made, err := p.New(dev, dq, s)
	if err != nil {
		t.Fatal(err)
	}
	arena, err := dev.NewArena(0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { made.Close(); arena.Free(); dq.Close(); dev.Close() })
	keys := arena.Tensor(compute.F32, s.Heads, s.Tokens(), s.HeadDim)
	latent := arena.Tensor(compute.F32, s.Tokens(), s.Latent)
	c = made.(*cache)
	recalls = make([]int, len(poses))
	for i, at := range poses {
		c.SetPoses([]kvcache.Pose{at})
		for {
			r, ok := c.Recall(dq, kvcache.Span{Start: i, Frames: 1})
			if !ok {
				break
			}
			recalls[i]++
			for l := range s.Layers {
				r.Layers.Layer(l).Commit(dq, keys, keys)
			}
		}
		if err := c.Begin(dq, kvcache.Span{Start: i, Frames: 1}); err != nil {
			t.Fatal(err)
		}
		if i == len(poses)-1 {
			break
		}
		for l := range s.Layers {
			c.Layer(l).Commit(dq, keys, keys)
		}
		c.End()
		c.Keep(dq, i, latent)
	}
	return c, dq, recalls
}

// store is a memory of so many frames of the suite's first shape.
func store(window, frames int) Policy {
	p, s := Default, kvcachetest.Shapes[0]
	s.DType = compute.F32
	p.Window = window
	p.Budget = p.Room(s, frames)
	return p
}

func line(from, to int) (out []kvcache.Pose) {
	for x := from; x != to; {
		out = append(out, kvcache.Pose{X: float64(x)})
		if x < to {
			x++
		} else {
			x--
		}
	}
	return out
}

func TestAFrameOfTheSamePlaceIsReadAsIfItWereRecent(t *testing.T) {
	p := store(4, 40)
	c, _ := walk(t, p, append(line(0, 12), kvcache.Pose{X: 3})) // frame 12 is made where frame 3 was
	d := c.top[0]
	if d.frame != 3 || d.date != 12-p.Move || math.Abs(d.bias-p.Gamma) > 1e-9 || c.top[1].frame >= 0 {
		t.Errorf("retrieved %+v, want frame 3 alone, dated %d, with a bonus of %v", c.top, 12-p.Move, p.Gamma)
	}
	last := c.parts[len(c.parts)-1]
	if last.Kind != kvcache.History || last.Frame != 3 {
		t.Errorf("the last part is %+v", last)
	}
}

func TestPlacesSeenBeforeTakeNoMoreRoom(t *testing.T) {
	var there []kvcache.Pose
	for range 10 {
		there = append(append(there, line(0, 6)...), line(6, 0)...)
	}
	c, _ := walk(t, store(4, 40), there)
	if n := len(c.stored); n > 7+4 {
		t.Errorf("%d frames are stored of 7 places and a window of 4", n)
	}
	for i, s := range c.stored[:7] {
		if s.pose.X != float64(i) || s.frame != i {
			t.Errorf("place %d is stored as %+v", i, s)
		}
	}
}

// A full store gives up what another frame covers best: of two places that are close the older frame.
func TestAFullStoreForgetsWhatIsCovered(t *testing.T) {
	poses := line(0, 30)
	poses[9].X = 8.1
	c, _ := walk(t, store(3, 12), poses)
	for _, s := range c.stored {
		if s.frame == 8 {
			t.Errorf("frame 8, a tenth of a cell from frame 9, is still stored: %+v", c.stored)
		}
	}
	if len(c.stored) > 12 || len(c.unused) < 1 {
		t.Errorf("%d frames are stored of 12, %d numbers are unused", len(c.stored), len(c.unused))
	}
}

// A player who comes back to places with two frames each needs two keys at once; the chunk before, which needs none, makes one of them.
func TestKeysAreMadeAheadOfNeed(t *testing.T) {
	var poses []kvcache.Pose
	for x := range 8 {
		poses = append(poses, kvcache.Pose{X: 2 * float64(x)}, kvcache.Pose{X: 2*float64(x) + 0.1})
	}
	for x := 15; x > 0; x-- {
		poses = append(poses, kvcache.Pose{X: float64(x)})
	}
	p := store(4, 40)
	p.Budget *= 4
	c, _, recalls := counted(t, p, poses)
	if most := slices.Max(recalls); most != 1 {
		t.Errorf("keys made again, frame by frame: %v, want at most one in each", recalls)
	}
	if at := onward(kvcache.Pose{X: 1, Heading: 29, Period: 30}, kvcache.Pose{X: 1.5, Y: 1, Heading: 0, Period: 30}); at != (kvcache.Pose{X: 2, Y: 2, Heading: -29, Period: 30}) {
		t.Errorf("a player goes on to %+v", at)
	}
	// The least of a store has no room for more than the chunk wants.
	p.Budget = p.Room(c.shape, 40)
	if c, _, recalls = counted(t, p, poses); c.slotsOfOld() != p.Top || slices.Max(recalls) != 2 {
		t.Errorf("%d slots: keys made again, frame by frame: %v, want two at most", c.slotsOfOld(), recalls)
	}
}

// Where a wall was in the way the session says so before End.
func TestTheLastPosesBeforeEndCount(t *testing.T) {
	c, dq := walk(t, store(4, 40), line(0, 3))
	c.SetPoses([]kvcache.Pose{{X: 1}})
	keys := c.layers[0].raw.Slice(1, 0, c.shape.Tokens())
	for l := range c.layers {
		c.Layer(l).Commit(dq, keys, keys)
	}
	c.End()
	if s := c.stored[len(c.stored)-1]; s.frame != 2 || s.pose.X != 1 {
		t.Errorf("stored %+v, want frame 2 at 1", s)
	}
}

// What choosing and forgetting cost a frame when the store is full, on the host.
func BenchmarkFullStore(b *testing.B) {
	const frames = 1800
	c := &cache{policy: store(16, frames), shape: kvcachetest.Shapes[0], pos: kvcache.NewPositions(&compute.Meter{}, nil, kvcachetest.Shapes[0])}
	c.shape.DType = compute.F32
	c.window = make([]dated, 17)
	c.Reset()
	at := func(i int) kvcache.Pose {
		return kvcache.Pose{X: float64(i%97) / 5, Y: float64(i%89) / 5, Heading: float64(i % 30), Period: 30}
	}
	end := func(i int) {
		c.window[i%len(c.window)] = dated{frame: i, slot: -1}
		c.span, c.poses = kvcache.Span{Start: i, Frames: 1}, append(c.poses[:0], at(i))
		c.End()
	}
	for i := range frames + 100 {
		end(i)
	}
	i := frames + 100
	for b.Loop() {
		c.choose(at(i))
		c.choose(at(i))
		end(i)
		i++
	}
	b.ReportMetric(float64(len(c.stored)), "frames")
}
