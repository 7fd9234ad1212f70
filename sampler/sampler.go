// Package sampler turns noise into latents: timestep schedule and few-step solver.
//
// What enters: a seed and the network's predictions. What leaves: the latents of a chunk, tokens F32 [tokens, values]. The
// package knows levels of noise, not networks. A latent at noise level sigma is (1-sigma)*clean + sigma*noise.
package sampler

import (
	"fmt"

	"longtake/compute"
)

// Prediction is what a network's output means.
type Prediction uint8

// Kinds of prediction: Clean is the latent without noise (the embedded model), Flow is noise - clean (Wan).
const (
	Clean Prediction = iota
	Flow
)

// Step is one denoising forward: from level Sigma to level Next, 0 for the last.
type Step struct {
	Index       int
	Timestep    float32 // 0 to 1000, as the network is told
	Sigma, Next float64
}

// Solver is a schedule with its rule of advance.
type Solver struct {
	Prediction Prediction
	// Fresh draws new noise for every step (consistency sampling, Self-Forcing); otherwise the step follows the line from
	// the latent to its clean estimate (Euler).
	Fresh bool
	// Limit, if not 0, clamps clean estimates to [-Limit, Limit].
	Limit float32
	Steps []Step
	// Draw is the source of noise; nil is the native one, compute.Queue.Noise.
	Draw Noise
}

// Noise fills dst with the standard normal numbers of a draw.
type Noise func(dq compute.Queue, dst compute.Tensor, key compute.NoiseKey)

// New returns the solver of n equal steps u = 1, 1-1/n, ... with the shift sigma = shift*u / (1 + (shift-1)*u).
func New(n int, shift float64, prediction Prediction, limit float32) (*Solver, error) {
	if n < 1 || n > 1000 {
		return nil, fmt.Errorf("%d denoising steps: use 1 to 1000", n)
	}
	s := &Solver{Prediction: prediction, Limit: limit}
	level := func(i int) float64 {
		u := 1 - float64(i)/float64(n)
		return shift * u / (1 + (shift-1)*u)
	}
	for i := range n {
		s.Steps = append(s.Steps, Step{Index: i, Timestep: float32(1000 * level(i)), Sigma: level(i), Next: level(i + 1)})
	}
	return s, nil
}

// Noise fills latent with a chunk's starting noise; key.Step is 0.
func (s *Solver) Noise(dq compute.Queue, latent compute.Tensor, key compute.NoiseKey) {
	if s.Draw != nil {
		s.Draw(dq, latent, key)
		return
	}
	dq.Noise(latent, key)
}

// Advance moves latent from step.Sigma to step.Next by the network's prediction, which it uses up. After the last step
// latent is the clean estimate. Scratch has latent's shape and is needed when Fresh is set; key names the chunk.
func (s *Solver) Advance(dq compute.Queue, latent, prediction, scratch compute.Tensor, step Step, key compute.NoiseKey) {
	clean := prediction
	if s.Prediction == Flow {
		dq.Mix(clean, 1, latent, -float32(step.Sigma), prediction)
	}
	if s.Limit > 0 {
		dq.Clamp(clean, clean, -s.Limit, s.Limit)
	}
	switch {
	case step.Next == 0:
		dq.Copy(latent, clean)
	case s.Fresh:
		key.Step = uint32(step.Index + 1)
		s.Noise(dq, scratch, key)
		dq.Mix(latent, float32(1-step.Next), clean, float32(step.Next), scratch)
	default:
		// z' = (1-s')x + s'(z - (1-s)x)/s: dropping the factor (1-s') saturates a rollout within three frames.
		ratio := step.Next / step.Sigma
		dq.Mix(latent, float32(1-step.Next-ratio*(1-step.Sigma)), clean, float32(ratio), latent)
	}
}
