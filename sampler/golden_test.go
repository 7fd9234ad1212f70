package sampler

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"testing"

	"longtake/compute"
	"longtake/compute/cpu"
	"longtake/internal/golden"
)

const schedulerDir, schedulerFile = "testdata/golden/scheduler", "scheduler.safetensors"

func TestTheShiftTablesAreUpstreams(t *testing.T) {
	g := golden.Load(t, schedulerDir)
	for _, shift := range []float64{3, 5, 8} {
		var sigmas, timesteps []float32
		for i := range tableSize {
			sigmas = append(sigmas, float32(level(i, shift)))
			timesteps = append(timesteps, float32(1000*level(i, shift)))
		}
		name := fmt.Sprintf("shift%v.", shift)
		golden.Near(t, name+"sigmas", sigmas, g.Floats(t, schedulerFile, name+"sigmas"), 1e-6)
		golden.Near(t, name+"timesteps", timesteps, g.Floats(t, schedulerFile, name+"timesteps"), 1e-6)
		for _, list := range []string{"1000_666_333", "1000_750_500_250", "1000_800_600_400_200"} {
			var nominal []int
			for part := range strings.SplitSeq(list, "_") {
				n, err := strconv.Atoi(part)
				if err != nil {
					t.Fatal(err)
				}
				nominal = append(nominal, n)
			}
			s, err := Warped(nominal, shift)
			if err != nil {
				t.Fatal(err)
			}
			var got []float32
			for _, step := range s.Steps {
				got = append(got, step.Timestep)
			}
			golden.Near(t, name+list, got, g.Floats(t, schedulerFile, name+"warped."+list), 1e-6)
		}
	}
}

func TestRawTimestepsHaveTheNearestLevel(t *testing.T) {
	g := golden.Load(t, schedulerDir)
	index := g.Ints(t, schedulerFile, "conv.index")
	for i, at := range g.Floats(t, schedulerFile, "conv.t") {
		if got, want := nearest(float64(at), 5), level(int(index[i]), 5); got != want {
			t.Errorf("timestep %v has level %v, want %v (entry %d)", at, got, want, index[i])
		}
	}
	s, err := Raw([]float64{1000, 757, 522}, 8)
	if err != nil {
		t.Fatal(err)
	}
	for i, step := range s.Steps {
		if math.Abs(step.Sigma-float64(step.Timestep)/1000) > 1e-3 || i > 0 && s.Steps[i-1].Next != step.Sigma {
			t.Errorf("step %+v", step)
		}
	}
	for _, bad := range [][]float64{nil, {0}, {500, 750}, {1001}, {math.NaN()}, {500, 500}} {
		if _, err := Raw(bad, 5); err == nil {
			t.Errorf("timesteps %v were accepted", bad)
		}
	}
}

// Advance uses up a prediction and leaves the clean estimate in its place; with fresh noise the latent is upstream's add_noise.
func TestAdvanceConvertsAsUpstream(t *testing.T) {
	g := golden.Load(t, schedulerDir)
	floats := func(name string) []float32 { return g.Floats(t, schedulerFile, name) }
	dq, arena := device(t)
	const n = 16 * 4 * 4
	latent, flow, scratch := arena.Tensor(compute.F32, 1, n), arena.Tensor(compute.F32, 1, n), arena.Tensor(compute.F32, 1, n)
	for i, at := range floats("conv.t") {
		part := func(name string) []float32 { return floats(name)[i*n : (i+1)*n] }
		copy(cpu.F32(latent), part("conv.xt"))
		copy(cpu.F32(flow), part("conv.flow"))
		sigma := nearest(float64(at), 5)
		s := &Solver{Prediction: Flow, Fresh: true, Draw: func(_ compute.Queue, dst compute.Tensor, _ compute.NoiseKey) {
			copy(cpu.F32(dst), part("conv.noise"))
		}}
		// A step to the level that it begins at: its noise added to its clean estimate.
		s.Advance(dq, latent, flow, scratch, Step{Sigma: sigma, Next: sigma}, compute.NoiseKey{})
		golden.Near(t, fmt.Sprintf("clean estimate at %v", at), cpu.F32(flow), part("conv.x0_from_flow"), 1e-6)
		// From pure noise by a prediction that is right about x0: what is left is upstream's add_noise of x0.
		x0 := part("conv.x0")
		for k, v := range part("conv.noise") {
			cpu.F32(latent)[k], cpu.F32(flow)[k] = v, v-x0[k]
		}
		s.Advance(dq, latent, flow, scratch, Step{Sigma: 1, Next: sigma}, compute.NoiseKey{})
		golden.Near(t, fmt.Sprintf("noise added at %v", at), cpu.F32(latent), part("conv.add_noise"), 1e-6)
	}
}
