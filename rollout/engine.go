package rollout

import (
	"errors"
	"fmt"

	"longtake/attention"
	"longtake/compute"
	"longtake/dit"
	"longtake/kvcache"
	"longtake/sampler"
	"longtake/text"
	"longtake/video"
)

// ErrClosed is returned by a session that has ended, by Close or by a fault.
var ErrClosed = errors.New("session is closed")

// ErrRequest is wrapped by every error that the request itself caused.
var ErrRequest = errors.New("bad request")

// Prompter encodes prompts. It is shared by sessions and called by one at a time.
type Prompter interface {
	// Encode returns F32 [tokens, width], valid until the next call, how many padding rows the last one stands for (0: it
	// is an ordinary token, see dit.Work.Prompt), and the words it did not know.
	Encode(dq compute.Queue, prompt string) (encoded compute.Tensor, padded int, unknown []text.Unknown, err error)
	// MaxTokens is the most tokens that Encode returns.
	MaxTokens() int
}

// Decoder turns a session's latents into frames and start frames into latents.
type Decoder interface {
	Decode(dq compute.Queue, latent compute.Tensor, first int) ([]video.Frame, error)
	Encode(dq compute.Queue, latent compute.Tensor, frame video.Frame) error
	Width() int
	Height() int
}

// Parts is what a model's catalogue entry puts together.
type Parts struct {
	// Name and Hash say which weights these are; Parameters how many numbers.
	Name, Hash string
	Parameters int
	Network    *dit.Model
	Text       Prompter
	// NewDecoder makes a session's decoder.
	NewDecoder func() Decoder
	// NewSolver makes the solver of a session; steps 0 is the model's own number.
	NewSolver func(steps int) (*sampler.Solver, error)
	// Turns gives for every action the change of heading that it brings; empty for models without controls.
	Turns []int
	// Advance returns the pose that an action leads to, by dead reckoning; nil for models whose actions give none.
	Advance func(p kvcache.Pose, action int) kvcache.Pose
	// FPS is the frame rate that the model was trained at.
	FPS float64
	// Cache is the policy that the model is used with when a request names none.
	Cache kvcache.Policy
	// CacheShape is what a cache for this model stores.
	CacheShape kvcache.Shape
	// LayerNeeds says how much each layer has to remember, in proportion, as measured on these weights; nil if it was not.
	// Caches that merge divide a budget by it.
	LayerNeeds []float64
}

// Engine is a loaded model on a device. It is safe for concurrent use: start as many sessions as fit.
type Engine struct {
	Parts
	Device  compute.Device
	weights compute.Arena
	text    chan struct{} // held while Text encodes
}

// NewEngine takes ownership of the arena that holds the weights.
func NewEngine(dev compute.Device, weights compute.Arena, p Parts) *Engine {
	p.CacheShape.DType = dev.Types().Cache
	return &Engine{Parts: p, Device: dev, weights: weights, text: make(chan struct{}, 1)}
}

// WeightBytes returns the memory of the weights.
func (e *Engine) WeightBytes() int64 { return e.weights.Bytes() }

// Close gives the weights back; all sessions must be closed before.
func (e *Engine) Close() { e.weights.Free() }

// Request is what the user asks for.
type Request struct {
	Prompt string
	Seed   uint64
	// Steps is the number of denoising steps, 0 for the model's own.
	Steps int
	// Cache says what is kept of the past; nil for the model's own policy.
	Cache kvcache.Policy
	// Self and Cross are the attention policies; nil is dense.
	Self, Cross attention.Maker
	// Start are frames that the video begins with; the model goes on from them.
	Start []video.Frame
	// StartActions led from frame to frame of Start; the first is not used. Heading is the direction of the first frame.
	StartActions []int
	Heading      int
	// Noise replaces the native noise; nil keeps it.
	Noise sampler.Noise
}

// SessionBytes returns the memory that a session of this request takes, known before it starts. A full cache grows beyond it.
func (e *Engine) SessionBytes(r Request) (int64, error) {
	solver, err := e.NewSolver(r.Steps)
	if err != nil {
		return 0, fmt.Errorf("%w: %w", ErrRequest, err)
	}
	m := &compute.Meter{Device: e.Device}
	new(Session).allocate(e, m, len(solver.Steps))
	r = e.defaults(r)
	return m.Bytes() + r.Cache.Bytes(e.Device, e.CacheShape) + r.Self.Bytes(e.Device, e.CacheShape) + r.Cross.Bytes(e.Device, e.CacheShape), nil
}

// defaults fills in the policies that a request leaves out.
func (e *Engine) defaults(r Request) Request {
	if r.Cache == nil {
		r.Cache = e.Cache
	}
	if r.Self == nil {
		r.Self = attention.Dense{}
	}
	if r.Cross == nil {
		r.Cross = attention.Dense{}
	}
	return r
}

func (e *Engine) check(r Request) error {
	if len(e.Turns) > 0 {
		if n := e.Network.Headings; r.Heading < 0 || r.Heading >= n {
			return fmt.Errorf("%w: heading %d, want 0 to %d", ErrRequest, r.Heading, n-1)
		}
		for _, a := range r.StartActions {
			if a < 0 || a >= len(e.Turns) {
				return fmt.Errorf("%w: action %d, the model knows 0 to %d", ErrRequest, a, len(e.Turns)-1)
			}
		}
	}
	return nil
}
