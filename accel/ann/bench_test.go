package ann_test

import (
	"math/rand/v2"
	"testing"
)

func BenchmarkScore(b *testing.B) {
	keys, queries := structured(rand.New(rand.NewPCG(1, 1)), 4096, 64, 64)
	for _, name := range names {
		x := maker(b, name).New(64, len(keys))
		for i, k := range keys {
			x.Put(i, k)
		}
		scores := make([]float32, len(keys))
		b.Run("matcher="+name, func(b *testing.B) {
			b.ReportAllocs()
			for i := range b.N {
				x.Score(scores, queries[i%64], 0)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*len(keys)), "ns/key")
		})
	}
}

func BenchmarkPut(b *testing.B) {
	keys, _ := structured(rand.New(rand.NewPCG(1, 1)), 4096, 1, 64)
	for _, name := range names {
		x := maker(b, name).New(64, len(keys))
		for i, k := range keys {
			x.Put(i, k)
		}
		b.Run("matcher="+name, func(b *testing.B) {
			b.ReportAllocs()
			for i := range b.N {
				x.Put(i%4096, keys[i%4096])
			}
		})
	}
}
