package model

import (
	"fmt"
	"testing"

	"longtake/compute"
	"longtake/compute/cpu"
	"longtake/kvcache"
	"longtake/rollout"
	"longtake/video"
	"longtake/world"
)

// BenchmarkNext is the steady state of the embedded model: 64x64, 4 steps and the clean pass, the window full.
// The allocations of a frame are its pixels.
func BenchmarkNext(b *testing.B) {
	for _, kernel := range cpu.Kernels() {
		for _, threads := range []int{1, 2} {
			for _, frames := range []int{32, 96} {
				b.Run(fmt.Sprintf("kernel=%s/threads=%d/window=%d", kernel, threads, frames), func(b *testing.B) {
					dev, err := cpu.New(cpu.Options{Kernel: kernel, Threads: threads})
					if err != nil {
						b.Fatal(err)
					}
					defer dev.Close()
					benchmarkNext(b, dev, frames)
				})
			}
		}
	}
}

func benchmarkNext(b *testing.B, dev compute.Device, window int) {
	e, err := OpenTinyWorld(dev)
	if err != nil {
		b.Fatal(err)
	}
	defer e.Close()
	episode, err := world.NewEpisode(7, window+1, world.Mixed, 0)
	if err != nil {
		b.Fatal(err)
	}
	r := rollout.Request{Prompt: episode.Prompt(), Seed: 7, Cache: kvcache.Window{Recent: window}, Heading: episode.Poses[0].Heading}
	for i, pose := range episode.Poses {
		frame := video.NewFrame(64, 64)
		episode.World.Render(frame.Pix, pose, 64, 64)
		r.Start, r.StartActions = append(r.Start, frame), append(r.StartActions, int(episode.Actions[i]))
	}
	s, err := e.NewSession(b.Context(), r)
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	b.ReportAllocs()
	b.ResetTimer()
	for range b.N {
		if _, err := s.Next(b.Context(), int(world.Forward)); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "frames/s")
	gflop := 5*(0.705+0.043) + 5*float64(6*4*64*(window*64+64)*256)/1e9
	b.ReportMetric(gflop*float64(b.N)/b.Elapsed().Seconds(), "GFLOP/s")
}
