//go:build linux && (amd64 || arm64) && !nocuda

package cuda

import (
	"slices"
	"testing"
	"time"

	"longtake/compute"
)

// BenchmarkHistory times one layer's attention of a chunk of Wan 1.3B: dense over a whole past, and over caches that stand for it,
// with log-counts and lengths as merged caches have them. dev/gpu/history.py times cuDNN's at the same lengths.
func BenchmarkHistory(b *testing.B) {
	r := newBench(b)
	const frame, chunk = 1560, 3
	q, dst := r.normal(1, compute.BF16, wanTokens, wanWidth).Heads(wanHeads), r.Tensor(compute.BF16, wanTokens, wanWidth).Heads(wanHeads)
	most := (750 + chunk) * frame
	k, v := r.Tensor(compute.BF16, wanHeads, most, 128), r.Tensor(compute.BF16, wanHeads, most, 128)
	r.Noise(k, compute.NoiseKey{Seed: 1})
	r.Noise(v, compute.NoiseKey{Seed: 2})
	for _, c := range []struct {
		name   string
		frames int // keys, in latent frames, the chunk's among them
		merged bool
	}{{"dense/history=18", 21, false}, {"dense/history=250", 250 + chunk, false}, {"dense/history=750", 750 + chunk, false},
		{"merged/held=3", 6, true}, {"merged/held=6", 9, true}, {"merged/held=12", 15, true}} {
		b.Run(c.name, func(b *testing.B) {
			keys := c.frames * frame
			a := compute.Attention{Scale: 0.088}
			if c.merged {
				a.LogCount = r.normal(1, compute.F32, wanHeads, keys)
				a.Lengths = r.ints(slices.Repeat([]int32{int32(keys)}, wanHeads)...)
			}
			var times []time.Duration
			for i := range 8 {
				began := time.Now()
				r.Attend(dst, q, k.Slice(1, 0, keys), v.Slice(1, 0, keys), a)
				if err := r.Wait(); err != nil {
					b.Fatal(err)
				}
				if i >= 3 {
					times = append(times, time.Since(began))
				}
			}
			slices.Sort(times)
			ms := times[len(times)/2].Seconds() * 1e3
			b.ReportMetric(ms, "ms/layer")
			b.ReportMetric(4*float64(wanTokens)*float64(keys)*wanWidth/ms/1e9, "TFLOP/s")
			b.ReportMetric(0, "ns/op")
		})
	}
}
