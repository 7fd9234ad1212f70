package tempcache_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"longtake/accel/tempcache"
	"longtake/compute/cpu"
	"longtake/kvcache"
)

// TestWithARestNothingIsLost: counts of the view add up to the tokens of the past, and values by their counts to the sum of all values, however few
// entries there are, also where a frame has more new tokens than there are entries.
func TestWithARestNothingIsLost(t *testing.T) {
	dev, err := cpu.New(cpu.Options{Threads: 1, Kernel: "generic"})
	if err != nil {
		t.Fatal(err)
	}
	defer dev.Close()
	shape := kvcache.Shape{Layers: 2, Heads: 3, HeadDim: 32, Rows: 5, Columns: 7, ChunkFrames: 2, Pairs: [3]int{6, 5, 5}, Theta: [3]float64{100, 16, 16}, Clamp: 14}
	for _, threshold := range []float64{0.8, 0.9999} {
		for _, forget := range []tempcache.Forgetting{tempcache.Stalest, tempcache.Rarest} {
			t.Run(fmt.Sprintf("threshold %v, forgetting %d", threshold, forget), func(t *testing.T) {
				p := tempcache.Prototype()
				p.Search, p.Radius, p.Depth, p.Threshold, p.Floor, p.Forget, p.Rest = tempcache.Neighbours, 1, 2, threshold, 0.7, forget, true
				p.Budget.Frames = p.Anchor + p.Recent + shape.ChunkFrames + 1
				f, again := newFed(t, dev, p, shape), scenery{rand.New(rand.NewPCG(4, 1)), make([][]float32, shape.Tokens()+9)}
				sums := make([]float64, shape.Layers*shape.Heads*shape.HeadDim)
				for range 12 {
					f.chunk()
					for l := range shape.Layers {
						for j := range shape.ChunkFrames {
							for i, v := range again.frame(shape.Tokens(), shape.Heads*shape.HeadDim, f.frames-shape.ChunkFrames+j) {
								sums[l*shape.Heads*shape.HeadDim+i%(shape.Heads*shape.HeadDim)] += float64(v)
							}
						}
					}
				}
				forgotten := int64(0)
				for _, h := range f.cache.Stats().Heads {
					forgotten += h.Evicted
				}
				if forgotten == 0 {
					t.Fatal("nothing was forgotten")
				}
				if err := f.cache.Begin(f.dq, kvcache.Span{Start: f.frames, Frames: shape.ChunkFrames}); err != nil {
					t.Fatal(err)
				}
				for l := range shape.Layers {
					for h := range shape.Heads {
						f.countsEverything(l, h, sums[(l*shape.Heads+h)*shape.HeadDim:][:shape.HeadDim])
					}
				}
			})
		}
	}
}

// countsEverything compares what a head sees, but for the chunk in work, with the number of tokens so far and the sum of their values.
func (f *fed) countsEverything(layer, head int, sums []float64) {
	f.Helper()
	view, n := f.view(layer, head)
	tokens, seen := 0.0, make([]float64, len(sums))
	for i := range n {
		if slices.ContainsFunc(f.cache.Layer(layer).View().Parts, func(p kvcache.Part) bool { return p.Kind == kvcache.Current && p.Lo <= i && i < p.Hi }) {
			continue
		}
		count := math.Exp(float64(view[2][i]))
		tokens += count
		for j := range seen {
			seen[j] += count * float64(view[1][i*len(sums)+j])
		}
	}
	if want := float64(f.frames * f.shape.Tokens()); math.Abs(tokens-want) > 1e-4*want {
		f.Errorf("layer %d, head %d counts %v tokens of %v", layer, head, tokens, want)
	}
	for j := range seen {
		if math.Abs(seen[j]-sums[j]) > 1e-2 {
			f.Errorf("layer %d, head %d, element %d: values add up to %v, want %v", layer, head, j, seen[j], sums[j])
			return
		}
	}
}
