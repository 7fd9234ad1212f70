package cuda_test

import (
	"slices"
	"testing"

	"longtake/accel/ann"
	"longtake/accel/annca"
	"longtake/accel/annsa"
	"longtake/accel/tempcache"
	"longtake/compute/cuda"
	"longtake/internal/devicetest"
	"longtake/kvcache"
	"longtake/rollout"
	"longtake/world"
)

// TestAChunkIsMadeWithoutWaiting counts how often the host waits for the GPU from one frame, which is a chunk here, to the next: for the
// picture, which is looked at for walls before its clean pass, for whether its keys are numbers, and for the frame; never because of what policies decide in
// each layer.
func TestAChunkIsMadeWithoutWaiting(t *testing.T) {
	t.Run("without a GPU", func(t *testing.T) {
		withoutWaiting(t, func(t *testing.T) *cuda.Device { return cuda.FakeDevice(t) })
	})
	t.Run("on a GPU", func(t *testing.T) {
		withoutWaiting(t, func(t *testing.T) *cuda.Device { return devicetest.GPU(t, cuda.Options{Float32: true}).(*cuda.Device) })
	})
}

func withoutWaiting(t *testing.T, open func(t *testing.T) *cuda.Device) {
	merged, sparse := tempcache.Default(), annsa.Default()
	merged.Budget.Frames = 12
	near, hashed := merged, merged
	near.Search = tempcache.Neighbours
	hashed.Search, hashed.Matcher = tempcache.Approximate, ann.LSH{Bits: 6, Tables: 10, Probes: 1}
	tabled := sparse
	tabled.Matcher = hashed.Matcher
	window := kvcache.Window{Recent: 24, Anchor: 1}
	for name, r := range map[string]rollout.Request{
		"window": {Cache: window}, "tempcache": {Cache: merged}, "tempcache neighbours": {Cache: near}, "tempcache by hash tables": {Cache: hashed},
		"annsa": {Cache: window, Self: sparse}, "annsa by hash tables": {Cache: window, Self: tabled}, "annca": {Cache: window, Cross: annca.Options{Top: 4}},
		"all": {Cache: merged, Self: sparse, Cross: annca.Options{Top: 4}},
	} {
		t.Run(name, func(t *testing.T) {
			gpu := open(t)
			defer gpu.Close()
			waits := cuda.CountWaits(gpu)
			const frames = 44
			var each []int64
			last := int64(0)
			walk(t, gpu, frames, r, func(i int) world.Action {
				now := waits()
				each, last = append(each, now-last), now
				return there(i)
			})
			steady := slices.Sorted(slices.Values(each[30:])) // caches are full
			t.Logf("waits before each frame: %v", each)
			if most := steady[len(steady)-1]; most > 3 {
				t.Errorf("the host waits %d times in a chunk", most)
			}
		})
	}
}
