package vae

import "longtake/compute"

// idle is a queue that does nothing: a session rehearses with it to find out how much memory it needs.
type idle struct{}

func (idle) Upload(compute.Tensor, []byte)       {}
func (idle) Download([]byte, compute.Tensor)     {}
func (idle) Copy(compute.Tensor, compute.Tensor) {}
func (idle) Linear(compute.Tensor, compute.Tensor, compute.Matrix, compute.Tensor, compute.Activation) {
}
func (idle) Norm(compute.Tensor, compute.Tensor, compute.Norm)                       {}
func (idle) Rope(compute.Tensor, compute.Tensor, compute.Tensor, compute.Rope)       {}
func (idle) AddGated(compute.Tensor, compute.Tensor, compute.Tensor, compute.Tensor) {}
func (idle) Activate(compute.Tensor, compute.Tensor, compute.Activation)             {}
func (idle) Gather(compute.Tensor, compute.Tensor, compute.Tensor, bool)             {}
func (idle) TimeEmbed(compute.Tensor, compute.Tensor, float64)                       {}
func (idle) Noise(compute.Tensor, compute.NoiseKey)                                  {}
func (idle) Mix(compute.Tensor, float32, compute.Tensor, float32, compute.Tensor)    {}
func (idle) Clamp(compute.Tensor, compute.Tensor, float32, float32)                  {}
func (idle) Attend(_, _, _, _ compute.Tensor, _ compute.Attention)                   {}
func (idle) Unfold(compute.Tensor, compute.Unfold)                                   {}
func (idle) Squash(compute.Tensor, compute.Tensor, float32)                          {}
func (idle) Err() error                                                              { return nil }
func (idle) Wait() error                                                             { return nil }
func (idle) Close()                                                                  {}
