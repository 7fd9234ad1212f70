package kvcache_test

import (
	"slices"
	"strings"
	"testing"

	"longtake/compute"
	"longtake/kvcache"
)

// plain is shape without a clamp.
func plain() kvcache.Shape {
	s := shape
	s.Clamp = 0
	return s
}

// read compares the keys in view, which stand for frames read at the given times.
func (r *rig) read(frames, times []int) {
	r.t.Helper()
	for l := range r.shape.Layers {
		view := r.cache.Layer(l).View()
		keys := download(r.dq, view.Keys)
		var seen []int
		for _, part := range view.Parts {
			seen = append(seen, part.Frame)
			at := slices.Index(frames, part.Frame)
			if at < 0 {
				continue
			}
			want := r.history[[2]int{l, part.Frame}]
			for i := part.Lo; i < part.Hi; i++ {
				tok := i - part.Lo
				for h := range r.shape.Heads {
					from := (tok*r.shape.Heads + h) * r.shape.HeadDim
					got := (h*view.Keys.Dim(1) + i) * r.shape.HeadDim
					near(r.t, "key", keys[got:got+r.shape.HeadDim], rotate(want[from:from+r.shape.HeadDim], r.shape, times[at], tok))
				}
			}
		}
		slices.Sort(seen)
		if want := slices.Sorted(slices.Values(frames)); !slices.Equal(seen, want) {
			r.t.Fatalf("frames %v in view, want %v", seen, want)
		}
	}
}

func TestNearAnchorsAreReadDirectlyBeforeTheWindow(t *testing.T) {
	r := newRig(t, plain(), kvcache.Window{Anchor: 2, Recent: 3, Near: true})
	for f := range 12 {
		r.chunk(f)
		switch f {
		case 5:
			r.read([]int{0, 1, 2, 3, 4, 5}, []int{0, 1, 2, 3, 4, 5})
		case 6:
			r.read([]int{0, 1, 3, 4, 5, 6}, []int{1, 2, 3, 4, 5, 6})
		case 11:
			r.read([]int{0, 1, 8, 9, 10, 11}, []int{6, 7, 8, 9, 10, 11})
		}
	}
	if _, err := (kvcache.Window{Anchor: 1, Recent: 2, Near: true}).New(nil, nil, shape); err == nil || !strings.Contains(err.Error(), "clamped") {
		t.Errorf("near anchors with a clamp: %v", err)
	}
}

func TestRewindForgets(t *testing.T) {
	r := newRig(t, plain(), kvcache.Window{Anchor: 2, Recent: 3})
	cache := r.cache.(kvcache.Rewinder)
	for f := range 10 {
		r.chunk(f)
	}
	if frames, anchors := cache.Again(); frames != 4 || anchors != 2 {
		t.Fatalf("%d frames and %d anchors can be written again, want 4 and 2", frames, anchors)
	}
	// The anchors stay, 7 to 9 come again.
	if err := cache.Rewind(7, 2); err != nil {
		t.Fatal(err)
	}
	for f := 7; f < 12; f++ {
		r.chunk(f)
		frames := []int{0, 1}
		for g := max(7, f-3); g <= f; g++ {
			frames = append(frames, g)
		}
		r.read(frames, frames)
	}
	if err := cache.Rewind(9, 1); err == nil {
		t.Error("one of two anchors was kept")
	}
	// Nothing stays: the first frames are the new anchors.
	if err := cache.Rewind(10, 0); err != nil {
		t.Fatal(err)
	}
	for f := 10; f < 20; f++ {
		r.chunk(f)
	}
	r.read([]int{10, 11, 16, 17, 18, 19}, []int{10, 11, 16, 17, 18, 19})
	// And these stay.
	if err := cache.Rewind(18, 2); err != nil {
		t.Fatal(err)
	}
	for f := 18; f < 23; f++ {
		r.chunk(f)
	}
	r.read([]int{10, 11, 19, 20, 21, 22}, []int{10, 11, 19, 20, 21, 22})
	cache.Reset()
	r.chunk(0)
	r.read([]int{0}, []int{0})
}

func TestRedoWritesTheWholeWindowAgain(t *testing.T) {
	s := plain()
	r := newRig(t, s, kvcache.Window{Anchor: 2, Recent: 3})
	for f := range 9 {
		r.chunk(f)
	}
	cache := r.cache.(kvcache.Rewinder)
	if err := cache.Redo(r.dq, 4); err == nil {
		t.Error("a frame that has left was opened again")
	}
	if err := cache.Redo(r.dq, 5); err != nil {
		t.Fatal(err)
	}
	dev, _ := open(t)
	arena, _ := dev.NewArena(0)
	n := 4 * s.Tokens()
	r.keys, r.values = arena.Tensor(compute.F32, n, s.Heads*s.HeadDim), arena.Tensor(compute.F32, n, s.Heads*s.HeadDim)
	r.pass(kvcache.Span{Start: 5, Frames: 4}, true)
	r.read([]int{0, 1, 5, 6, 7, 8}, []int{0, 1, 5, 6, 7, 8})
	cache.End()
	r.chunk(9)
	r.read([]int{0, 1, 6, 7, 8, 9}, []int{0, 1, 6, 7, 8, 9})
}

// Upstream's table of positions ends at frame 1024.
func TestPositionsHaveNoLimit(t *testing.T) {
	for _, near := range []bool{false, true} {
		s := plain()
		s.Layers = 1
		r := newRig(t, s, kvcache.Window{Anchor: 2, Recent: 3, Near: near})
		for f := range 1300 {
			r.chunk(f)
		}
		times := []int{0, 1, 1296, 1297, 1298, 1299}
		if near {
			times = []int{1294, 1295, 1296, 1297, 1298, 1299}
		}
		r.read([]int{0, 1, 1296, 1297, 1298, 1299}, times)
	}
}
