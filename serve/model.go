package serve

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"longtake/api"
	"longtake/kvcache"
	"longtake/rollout"
	"longtake/text"
	"longtake/video"
)

// Timeline is one video in the making. A *rollout.Session is one.
type Timeline interface {
	// Next makes a chunk; see rollout.Session for these.
	Next(ctx context.Context, actions ...int) ([]video.Frame, error)
	// Force takes a chunk that was made elsewhere.
	Force(ctx context.Context, latent []float32, actions ...int) error
	// Latents returns the last chunk as Force takes it.
	Latents() ([]float32, error)
	SetPrompt(ctx context.Context, prompt string) error
	Unknown() []text.Unknown
	Stats() kvcache.Stats
	Times() rollout.Times
	Heading() int
	// Look asks for Map, which costs a little in every chunk, or no longer. Map adds up what the cache holds and where queries
	// looked, by place in the frame; nil if the policy cannot say. The frames are the same with and without.
	Look(on bool)
	Map() *api.Map
	Close()
}

// Model is what a server plays, put together by a command.
type Model struct {
	// Name and Hash say which weights these are, Kernel which class of kernels runs them: together they decide every bit.
	Name, Hash, Kernel string
	About, Licence     string
	FPS                float64
	Width, Height      int
	// ChunkFrames is how many frames a chunk has; 0 means 1.
	ChunkFrames int
	// Actions are the names of the model's actions by number; Keys say which of them a set of held keys means.
	Actions []string
	Keys    map[string]string
	Steer   func(held []string) int
	// Policies may be asked for; the first is the default.
	Policies []Policy
	// HeadsPerLayer folds the sizes of heads.
	HeadsPerLayer int
	// WeightBytes are taken once.
	WeightBytes int64
	// Plan resolves a setup. Errors that wrap rollout.ErrRequest are the caller's fault.
	Plan func(Setup) (Plan, error)
	// Picture makes a start frame from an image file, with bounds on its size.
	Picture func(data []byte) (video.Frame, error)
	// Script reads an action script and repeats it up to n actions; an empty one is a walk for the seed.
	Script func(script string, setup Setup, n int) ([]int, error)
}

// Policy is a choice of what is kept of the past. Its memory must be bounded.
type Policy struct{ Name, About string }

// Setup says how a timeline begins; with the events after it, it decides every frame.
type Setup struct {
	Seed   uint64  `json:"seed"`
	Start  string  `json:"start,omitempty"`
	Prompt *string `json:"prompt,omitempty"`
	Steps  int     `json:"steps,omitempty"`
	Policy string  `json:"policy"`
	// Picture, RGB of the model's size, is the first frame instead of Start.
	Picture []byte `json:"picture,omitempty"`
}

// Plan is a setup with everything filled in.
type Plan struct {
	// Prompt is the one in use, Policy the policy in words.
	Prompt, Policy string
	// Bytes is the memory that the timeline takes, known beforehand.
	Bytes int64
	// Start are the frames that the video begins with.
	Start []video.Frame
	// Open starts the timeline. Resume starts one without start frames, whose first frame looks in the direction heading.
	Open   func(context.Context) (Timeline, error)
	Resume func(ctx context.Context, heading int) (Timeline, error)
}

// ErrRequest is wrapped by errors that the request itself caused.
var ErrRequest = rollout.ErrRequest

func badf(format string, args ...any) error {
	return fmt.Errorf("%w: %w", ErrRequest, fmt.Errorf(format, args...))
}

// policy returns the name to use for a name that may be empty.
func (m *Model) policy(name string) (string, error) {
	if name == "" {
		return m.Policies[0].Name, nil
	}
	if slices.ContainsFunc(m.Policies, func(p Policy) bool { return p.Name == name }) {
		return name, nil
	}
	return "", badf("there is no policy of the name %.40q", name)
}

// meanings are the policies in words, by name.
func (m *Model) meanings() map[string]string {
	words := map[string]string{}
	for _, p := range m.Policies {
		words[p.Name] = p.About
	}
	return words
}

// action returns the number of an action's name.
func (m *Model) action(name string) (int, error) {
	if i := slices.Index(m.Actions, name); i >= 0 {
		return i, nil
	}
	if len(m.Actions) == 0 {
		return 0, badf("model %s follows no actions", m.Name)
	}
	return 0, badf("there is no action of the name %.40q", name)
}

func (m *Model) actionName(i int) string {
	if i < 0 || i >= len(m.Actions) {
		return ""
	}
	return m.Actions[i]
}

// check refuses a model with parts missing: a programmer error of the command.
func (m *Model) check() error {
	if m.Name == "" || len(m.Policies) == 0 || m.Plan == nil || m.Steer == nil || m.Width <= 0 || m.Height <= 0 || m.FPS <= 0 {
		return errors.New("serve: model without name, policies, plan, steering, size or frame rate")
	}
	return nil
}

func unknownWords(words []text.Unknown) (out []string) {
	for _, u := range words[:min(len(words), 20)] {
		out = append(out, u.Word)
	}
	return out
}
