package sampler

import (
	"fmt"
	"math"
)

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

// Raw returns a solver for timesteps that are used as they are (CausVid: warp_denoising_step false): each has the noise level of
// the nearest entry of the shift table, as upstream's scheduler looks it up.
func Raw(timesteps []float64, shift float64) (*Solver, error) {
	s := &Solver{Prediction: Flow, Fresh: true}
	for i, t := range timesteps {
		if !(t > 0 && t <= tableSize) || i > 0 && t >= timesteps[i-1] {
			return nil, fmt.Errorf("denoising steps %v: use falling numbers from 1000 to 1", timesteps)
		}
		sigma := nearest(t, shift)
		if i > 0 {
			s.Steps[i-1].Next = sigma
		}
		s.Steps = append(s.Steps, Step{Index: i, Timestep: float32(t), Sigma: sigma})
	}
	if len(s.Steps) == 0 {
		return nil, fmt.Errorf("no denoising steps")
	}
	return s, nil
}

// nearest is the level of the table's entry whose timestep is nearest to t, the first of equals.
func nearest(t, shift float64) float64 {
	best, at := math.Inf(1), 0
	for i := range tableSize {
		if d := math.Abs(float64(float32(1000*level(i, shift))) - t); d < best {
			best, at = d, i
		}
	}
	return level(at, shift)
}
