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

// Decoder turns a session's latents into frames, in the order of the video: it may remember what came before. Latent frame 0
// begins a new video. Its memory is its arena's.
type Decoder interface {
	// Decode turns the tokens F32 [latent frames*tokens, values] of latent frames first and on into frames.
	Decode(dq compute.Queue, latent compute.Tensor, first int) ([]video.Frame, error)
	// Feed is Decode for latents whose frames nobody wants, only that the next ones follow them.
	Feed(dq compute.Queue, latent compute.Tensor, first int) error
	// Again reports whether the last chunk may be decoded or fed once more, as another.
	Again() bool
}

// Encoder turns start frames into latents, in the order of the video. Its memory is its arena's.
type Encoder interface {
	// Push takes the next frame; one without pixels is grey, in the middle between black and white. When that completes a latent frame, its tokens F32 [tokens, values] are written to latent
	// and full is true: after the first frame, and every Parts.Stride frames from there.
	Push(dq compute.Queue, latent compute.Tensor, frame video.Frame) (full bool, err error)
}

// Parts is what a model's catalogue entry puts together.
type Parts struct {
	// Name says which weights these are, Sum gives the SHA-256 of their file, and may take its time with the first answer (nil:
	// there is none); Parameters is how many numbers.
	Name       string
	Sum        func() string
	Parameters int
	Network    *dit.Model
	Text       Prompter
	// Width and Height are a frame's size in pixels.
	Width, Height int
	// Stride is how many frames a latent frame gives; the first latent frame of a video always gives one. 0 means 1.
	Stride int
	// NewDecoder makes a session's decoder; with a compute.Meter it only counts. Again: chunks may be decoded twice (Peek).
	NewDecoder func(a compute.Arena, again bool) (Decoder, error)
	// NewEncoder makes what so many start frames go through; with a compute.Meter it only counts. nil: the model takes none.
	NewEncoder func(a compute.Arena, frames int) (Encoder, error)
	// NewSolver makes the solver of a session; steps 0 is the model's own number.
	NewSolver func(steps int) (*sampler.Solver, error)
	// Turns gives for every action the change of heading that it brings; empty for models without controls.
	Turns []int
	// Loop is how the model makes chunks when a request does not say; the zero value is Blockwise.
	Loop Loop
	// Refresh is what a new prompt does to the history when a request does not say.
	Refresh Refresh
	// Restart is how long histories begin anew when a request does not say.
	Restart Restart
	// Advance returns the pose that an action leads to, by dead reckoning; nil for models whose actions give none.
	Advance func(p kvcache.Pose, action int) kvcache.Pose
	// Still says when a step that Advance counts has failed at a wall.
	Still Still
	// FPS is the frame rate that the model was trained at.
	FPS float64
	// Cache is the policy that the model is used with when a request names none.
	Cache kvcache.Policy
	// CacheShape is what a cache for this model stores.
	CacheShape kvcache.Shape
	// LayerNeeds says how much each layer has to remember, in proportion, as measured on these weights, and HeadNeeds each head, layer by
	// layer; nil if it was not. Caches that merge divide a budget by one of them.
	LayerNeeds, HeadNeeds []float64
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

// Frames returns how many frames so many latent frames give.
func (e *Engine) Frames(latents int) int {
	if latents <= 0 {
		return 0
	}
	return 1 + (latents-1)*max(e.Stride, 1)
}

// LatentFrames returns the fewest latent frames that give so many frames.
func (e *Engine) LatentFrames(frames int) int {
	if frames <= 0 {
		return 0
	}
	stride := max(e.Stride, 1)
	return 1 + (frames-2+stride)/stride
}

// Hash is the SHA-256 of the weights' file in hex. The first call waits until a large file has been read.
func (e *Engine) Hash() string {
	if e.Sum == nil {
		return ""
	}
	return e.Sum()
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
	// Loop is how chunks are made; the zero value is the model's own way.
	Loop Loop
	// Chunks is the length of the video for loops that end differently when they know it (Rolling); 0 is without end.
	Chunks int
	// Refresh is what SetPrompt does to the history; the zero value is the model's own way.
	Refresh Refresh
	// Restart says when the history begins anew; the zero value is the model's own way.
	Restart Restart
	// Peek says that Session.Peek will be called; decoders that remember then take memory to go back.
	Peek bool
	// Start are frames that the video begins with, 1 + n*Parts.Stride of them; the model goes on from them.
	Start []video.Frame
	// StartActions led from frame to frame of Start (of latent frames, where these are fewer); the first is not used. Heading is the direction of the first frame.
	StartActions []int
	Heading      int
	// Noise replaces the native noise; nil keeps it.
	Noise sampler.Noise
	// Clean, if not nil, writes other clean latents over those of a chunk that Next has denoised, before they become history and are
	// decoded: for measurements on test data, at the cost of a chunk that was made.
	Clean func(dq compute.Queue, latent compute.Tensor, chunk int)
}

// arena makes an arena of exactly what allocate takes, which is called twice: with a meter, then with the arena.
func (e *Engine) arena(allocate func(a compute.Arena) error) (compute.Arena, error) {
	meter := &compute.Meter{Device: e.Device}
	if err := allocate(meter); err != nil {
		return nil, err
	}
	arena, err := e.Device.NewArena(meter.Bytes())
	if err != nil {
		return nil, err
	}
	if err = allocate(arena); err == nil {
		err = arena.Err()
	}
	if err != nil {
		arena.Free()
		return nil, err
	}
	return arena, nil
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
	if r.Loop == ModelLoop {
		r.Loop = max(e.Loop, Blockwise)
	}
	if r.Refresh == ModelRefresh {
		r.Refresh = e.refreshFor(r)
	}
	if r.Restart == (Restart{}) {
		r.Restart = e.Restart
	}
	return r
}

func (e *Engine) check(r Request) error {
	if n, stride := len(r.Start), max(e.Stride, 1); n > 0 && (n-1)%stride != 0 {
		return fmt.Errorf("%w: %d start frames: the model takes 1, or 1 and a multiple of %d more", ErrRequest, n, stride)
	} else if e.FromImage() && n != 1 {
		return fmt.Errorf("%w: model %s makes videos from an image: it needs one start frame, not %d", ErrRequest, e.Name, n)
	} else if n > 0 && e.NewEncoder == nil {
		return fmt.Errorf("%w: the model takes no start frames: its encoder is not loaded", ErrRequest)
	}
	for _, f := range r.Start {
		if f.Width != e.Width || f.Height != e.Height {
			return fmt.Errorf("%w: start frame is %dx%d, the model makes %dx%d", ErrRequest, f.Width, f.Height, e.Width, e.Height)
		}
	}
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
