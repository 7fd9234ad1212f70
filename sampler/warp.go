package sampler

import "fmt"

// tableSize is the number of noise levels that Wan's schedule was trained on.
const tableSize = 1000

// level returns entry i of the shift table: sigma = shift*s / (1 + (shift-1)*s) with s = 1 - i/1000, in float32 as upstream.
func level(i int, shift float64) float64 {
	s := float64(float32(1 - float64(i)/tableSize))
	return float64(float32(shift * s / (1 + (shift-1)*s)))
}

// Warped returns a solver for a flow network that draws fresh noise between nominal steps such as 1000, 750, 500, 250, each
// moved to its place in the shift table (Self-Forcing: warp_denoising_step; shift 5 gives 1000, 937.5, 833.33, 625).
func Warped(nominal []int, shift float64) (*Solver, error) {
	s := &Solver{Prediction: Flow, Fresh: true}
	for i, k := range nominal {
		if k < 1 || k > tableSize || i > 0 && k >= nominal[i-1] {
			return nil, fmt.Errorf("denoising steps %v: use falling numbers from 1000 to 1", nominal)
		}
		sigma := level(tableSize-k, shift)
		if i > 0 {
			s.Steps[i-1].Next = sigma
		}
		s.Steps = append(s.Steps, Step{Index: i, Timestep: float32(1000 * sigma), Sigma: sigma})
	}
	if len(s.Steps) == 0 {
		return nil, fmt.Errorf("no denoising steps")
	}
	return s, nil
}
