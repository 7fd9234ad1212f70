package rollout_test

import (
	"fmt"
	"testing"

	"longtake/compute"
	"longtake/internal/golden"
	"longtake/rollout"
	"longtake/sampler"
)

func TestRollingEqualsRollingForcing(t *testing.T) {
	prompt := golden.Load(t, "../dit/testdata/golden/wan_causal_tiny")
	defer prompt.Close()
	g := golden.Load(t, "testdata/golden/rolling_forcing")
	defer g.Close()
	start, again := g.Floats(t, "rollout.safetensors", "in.noise"), g.Floats(t, "rollout.safetensors", "in.renoise")
	want := g.Floats(t, "rollout.safetensors", "latents")
	const each = 3 * 16 * 8 * 12 // values of a chunk
	for _, kernel := range kernels() {
		t.Run("kernel="+kernel, func(t *testing.T) {
			e := wanEngine(t, prompt, kernel)
			e.NewSolver = func(int) (*sampler.Solver, error) { return sampler.Warped([]int{1000, 800, 600, 400, 200}, 5) }
			noise := func(dq compute.Queue, dst compute.Tensor, key compute.NoiseKey) {
				from := start[int(key.Chunk)*each:]
				if key.Step > 0 {
					from = again[(int(key.Chunk)*4+int(key.Step)-1)*each:]
				}
				dq.Upload(dst, bytes(tokens(from[:each])))
			}
			s, err := e.NewRolling(t.Context(), rollout.Request{Noise: noise, Chunks: len(want) / each})
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			tolerance := 5e-5
			if e.Device.Types().Cache == compute.BF16 {
				tolerance = 1.5e-2
			}
			for chunk := range len(want) / each {
				if _, err := s.Next(t.Context()); err != nil {
					t.Fatal(err)
				}
				got, err := s.Latents()
				if err != nil {
					t.Fatal(err)
				}
				golden.Near(t, fmt.Sprint("chunk ", chunk), got, tokens(want[chunk*each:(chunk+1)*each]), tolerance)
			}
			if frames, err := s.Next(t.Context()); frames != nil || err != nil {
				t.Errorf("after the last chunk: %v, %v", frames, err)
			}
		})
	}
}
