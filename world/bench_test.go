package world

import (
	"fmt"
	"testing"
)

func BenchmarkRender(b *testing.B) {
	for _, size := range []int{64, 128} {
		b.Run(fmt.Sprintf("size=%d", size), func(b *testing.B) {
			var worlds []*Episode
			for seed := range uint32(8) { // every sky, most textures and floors
				worlds = append(worlds, mustEpisode(b, seed, 96, Mixed, 0))
			}
			dst := make([]byte, 3*size*size)
			b.ReportAllocs()
			n := 0
			for b.Loop() {
				e := worlds[n%len(worlds)]
				e.World.Render(dst, e.Poses[n*7%len(e.Poses)], size, size)
				n++
			}
			b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "frames/s")
		})
	}
}

func BenchmarkNewEpisode(b *testing.B) {
	seed := uint32(0)
	for b.Loop() {
		seed++
		if _, err := NewEpisode(seed, 96, Mixed, 0); err != nil {
			b.Fatal(err)
		}
	}
}
