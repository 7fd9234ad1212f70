package sampler

import (
	"math"
	"testing"

	"longtake/compute"
	"longtake/compute/cpu"
)

func TestWarpedStepsAreSelfForcings(t *testing.T) {
	for _, c := range []struct {
		shift   float64
		nominal []int
		want    []float64 // timesteps of the public code
	}{
		{5, []int{1000, 750, 500, 250}, []float64{1000, 937.5, 833.3333, 625}},
		{5, []int{1000, 800, 600, 400, 200}, []float64{1000, 952.381, 882.3529, 769.2308, 555.5556}},
		{8, []int{1000, 750, 500, 250}, []float64{1000, 960, 888.8889, 727.2727}},
	} {
		s, err := Warped(c.nominal, c.shift)
		if err != nil {
			t.Fatal(err)
		}
		for i, step := range s.Steps {
			if math.Abs(float64(step.Timestep)-c.want[i]) > 1e-3 {
				t.Errorf("shift %v step %d is at %v, want %v", c.shift, i, step.Timestep, c.want[i])
			}
			next := 0.0
			if i+1 < len(s.Steps) {
				next = s.Steps[i+1].Sigma
			}
			if step.Next != next {
				t.Errorf("step %d leads to %v, the next begins at %v", i, step.Next, next)
			}
		}
	}
	for _, bad := range [][]int{nil, {0}, {500, 750}, {2000}, {500, 500}} {
		if _, err := Warped(bad, 5); err == nil {
			t.Errorf("steps %v were accepted", bad)
		}
	}
}

// A network that knows the clean latent must lead there from any noise, whatever it predicts and however many steps: an
// update without the factor (1-s') on the clean estimate fails this.
func TestAPerfectPredictionIsReached(t *testing.T) {
	dq, arena := device(t)
	const n = 64
	latent, pred, scratch := arena.Tensor(compute.F32, 1, n), arena.Tensor(compute.F32, 1, n), arena.Tensor(compute.F32, 1, n)
	clean := make([]float32, n)
	compute.FillNoise(clean, compute.NoiseKey{Seed: 9}, 0)
	for i := range clean {
		clean[i] = max(-1, min(1, clean[i]/3))
	}
	four, _ := New(4, 1, Clean, 1)
	shifted, _ := New(7, 3, Clean, 1)
	flow, _ := Warped([]int{1000, 750, 500, 250}, 5)
	for name, s := range map[string]*Solver{"4 steps": four, "7 steps, shift 3": shifted, "flow with fresh noise": flow} {
		key := compute.NoiseKey{Seed: 3, Chunk: 5}
		s.Noise(dq, latent, key)
		noise := append([]float32(nil), cpu.F32(latent)...)
		for _, step := range s.Steps {
			z := cpu.F32(latent)
			for i := range clean {
				if s.Prediction == Clean {
					cpu.F32(pred)[i] = clean[i]
					// On the line from the noise to the clean latent at every level.
					if want := (1-step.Sigma)*float64(clean[i]) + step.Sigma*float64(noise[i]); math.Abs(float64(z[i])-want) > 1e-5 {
						t.Fatalf("%s: element %d at level %v is %v, want %v", name, i, step.Sigma, z[i], want)
					}
				} else {
					cpu.F32(pred)[i] = float32((float64(z[i]) - float64(clean[i])) / step.Sigma)
				}
			}
			s.Advance(dq, latent, pred, scratch, step, key)
		}
		for i, v := range cpu.F32(latent) {
			if math.Abs(float64(v-clean[i])) > 1e-5 {
				t.Errorf("%s: element %d ends at %v, want %v", name, i, v, clean[i])
				break
			}
		}
	}
}

func TestImpossibleStepCountsAreRefused(t *testing.T) {
	for _, n := range []int{0, -1, 1001} {
		if _, err := New(n, 1, Clean, 1); err == nil {
			t.Errorf("%d steps were accepted", n)
		}
	}
}

// device gives a queue and an arena of a CPU, which end with the test.
func device(t *testing.T) (compute.Queue, compute.Arena) {
	t.Helper()
	dev, err := cpu.New(cpu.Options{Kernel: "generic", Threads: 1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { dev.Close() })
	dq, err := dev.NewQueue()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { dq.Close() })
	arena, err := dev.NewArena(0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(arena.Free)
	return dq, arena
}
