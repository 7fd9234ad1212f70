package pose_test

import (
	"cmp"
	"slices"
	"testing"
	"time"

	"longtake/accel/pose"
	"longtake/compute/cpu"
	"longtake/model/modeltest"
	"longtake/rollout"
	"longtake/world"
)

// Frames of a stroll with the default store, then of its undoing, in which every frame wants old ones: milliseconds by kernel class.
func BenchmarkFramesByPose(b *testing.B) {
	for _, kernel := range []string{"amx", "avx2"} {
		if !slices.Contains(cpu.Kernels(), kernel) {
			continue
		}
		b.Run("kernel="+kernel, func(b *testing.B) {
			e := modeltest.TinyWorld(b, cpu.Options{Kernel: kernel, Threads: 2})
			for b.Loop() {
				there, back := stroll(b, e)
				for _, part := range []struct {
					name  string
					times []time.Duration
				}{{"out", there}, {"back", back}} {
					slices.SortFunc(part.times, cmp.Compare)
					b.ReportMetric(ms(part.times[len(part.times)/2]), part.name+"-ms-median")
					b.ReportMetric(ms(part.times[len(part.times)*99/100]), part.name+"-ms-p99")
				}
			}
		})
	}
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// stroll returns the times of the frames of a walk, and of the same undone.
func stroll(b *testing.B, e *rollout.Engine) (out, back []time.Duration) {
	const frames = 150
	ep, err := world.NewEpisode(3000, 2*frames+1, world.WalkAndUndo, frames)
	if err != nil {
		b.Fatal(err)
	}
	s, err := e.NewSession(b.Context(), rollout.Request{Prompt: ep.Prompt(), Seed: 3, Cache: pose.Default})
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	for i, a := range ep.Actions {
		began := time.Now()
		if _, err := s.Next(b.Context(), int(a)); err != nil {
			b.Fatal(err)
		}
		switch took := time.Since(began); {
		case i >= 30 && i < frames:
			out = append(out, took)
		case i >= frames+5:
			back = append(back, took)
		}
	}
	return out, back
}
