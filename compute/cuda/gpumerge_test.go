//go:build linux && (amd64 || arm64) && !nocuda

package cuda

import (
	"fmt"
	"testing"

	"longtake/compute"
)

// mergeRig is a layer of Wan's size with entries frames of entries and a frame of whose tokens every fifth is new.
type mergeRig struct {
	m     compute.Merging
	store compute.MergeStore
}

func newMergeRig(r *bench, frames int, neighbours bool) *mergeRig {
	const tokens, headDim, dense = 1560, 128, 5 * 1560
	slots := frames * tokens
	t := func(dt compute.DType, dims ...int) compute.Tensor { return r.Tensor(dt, dims...) }
	g := &mergeRig{store: compute.MergeStore{Keys: t(compute.BF16, wanHeads, dense+slots, headDim), Values: t(compute.BF16, wanHeads, dense+slots, headDim),
		Raw: t(compute.F32, wanHeads, dense+slots, headDim), Means: t(compute.F32, wanHeads, slots, headDim), LogCount: t(compute.F32, wanHeads, dense+slots),
		Places: t(compute.I32, wanHeads, slots, 3), Unit: t(compute.F32, wanHeads, slots, headDim), Lengths: t(compute.I32, wanHeads),
		Entries: t(compute.I32, wanHeads), Weight: t(compute.F64, wanHeads, slots), State: t(compute.I32, 7, wanHeads, slots), Totals: t(compute.F64, wanHeads, 3)}}
	g.m = compute.Merging{Tokens: tokens, Columns: 52, Dense: dense, HeadDim: headDim, Frequencies: t(compute.F64, 22), Turns: t(compute.F32, tokens, 42, 2),
		Threshold: 0.9, Floor: 0.7, Mean: true, Neighbours: neighbours, Radius: 2, Depth: 6,
		Probe: t(compute.F32, wanHeads, tokens, headDim), Best: t(compute.I32, wanHeads, tokens), Score: t(compute.F32, wanHeads, tokens),
		Hits: t(compute.I32, 1, 4, wanHeads, tokens), Order: t(compute.I32, 1, wanHeads, 4*slots+5*tokens), Recent: t(compute.I32, wanHeads, tokens, 6)}
	old, noise := r.normal(1, compute.F32, wanHeads, tokens, headDim), t(compute.F32, wanHeads, tokens, headDim)
	for frame := range frames + 1 {
		r.Noise(noise, compute.NoiseKey{Seed: 3, Chunk: uint32(frame)})
		x := g.store.Raw.Slice(1, 0, tokens)
		switch frame {
		case frames: // four fifths have been there in the frame before
			r.Mix(x, 1, old, 0.2, noise)
			r.Copy(x.Slice(1, 0, tokens/5), noise.Slice(1, 0, tokens/5))
		case frames - 1:
			r.Copy(x, old)
		default:
			r.Copy(x, noise)
		}
		r.Copy(g.store.Keys.Slice(1, 0, tokens), x)
		r.Copy(g.store.Values.Slice(1, 0, tokens), x)
		g.m.Frame = frame
		r.Merge(g.m, []compute.MergeStore{g.store})
	}
	return g
}

// BenchmarkMerge times the parts of compute.Merger for one layer, and a call with all.
func BenchmarkMerge(b *testing.B) {
	r := newBench(b)
	for _, frames := range []int{6, 12} {
		g := newMergeRig(r, frames, true)
		a, k := &r.mergeArgs, &r.device.kernels.merge
		each, threads := [3]uint32{195, wanHeads, 1}, [3]uint32{256, 1, 1}
		for _, c := range []struct {
			name string
			run  func()
		}{
			{"describe", func() { r.launch("merge", k[0], each, threads, 0, argument(a)) }},
			{"cells", func() {
				r.launch("merge", k[1], [3]uint32{wanHeads, 1, 1}, [3]uint32{1024, 1, 1}, 4*(1560+1024), argument(a))
			}},
			{"around", func() { r.launch("merge", k[2], each, threads, 0, argument(a)) }},
			{"accept", func() { r.launch("merge", k[3], each, threads, 0, argument(a)) }},
			{"join", func() { r.launch("merge", k[4], each, threads, 0, argument(a)) }},
			{"found, room lacking", func() {
				r.launch("merge", k[5], [3]uint32{wanHeads, 1, 1}, [3]uint32{mergeThreads, 1, 1}, mergeMarks([]compute.MergeStore{g.store}, g.m.Dense), argument(a))
			}},
			{"all", func() { r.Merge(g.m, []compute.MergeStore{g.store}) }},
		} {
			b.Run(fmt.Sprintf("entries=%d %s", frames*1560, c.name), func(b *testing.B) {
				b.ReportMetric(medianOf(b, r, 7, c.run), "us/layer")
				b.ReportMetric(0, "ns/op")
			})
		}
		b.Run(fmt.Sprintf("entries=%d exact match", frames*1560), func(b *testing.B) {
			us := medianOf(b, r, 7, func() { r.Match(g.m.Best, g.m.Score, g.m.Probe, g.store.Unit, g.store.Entries) })
			b.ReportMetric(us, "us/layer")
			b.ReportMetric(6*wanHeads*1560*float64(frames*1560)*128/us/1e6, "TFLOP/s")
			b.ReportMetric(0, "ns/op")
		})
		r.Arena.Free()
		r.Arena, _ = r.NewArena(0)
	}
}
