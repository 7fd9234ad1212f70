package analyze

import (
	"fmt"
	"slices"

	"longtake/kvcache"
	"longtake/rollout"
	"longtake/video"
)

// Options says what to study.
type Options struct {
	Engine *rollout.Engine
	// Request has prompt, seed, steps and start; its policies are not used.
	Request rollout.Request
	// Actions[i] leads to frame i; missing ones stand still.
	Actions []int
	// Frames is the number of latent frames to run, given ones included.
	Frames int
	// At are the latent frames whose chunks are examined, nil for the last. Pass is the denoising pass to look at, counted
	// from 0; -1 is the second, or the first where there is but one.
	At   []int
	Pass int
	// Layers are the blocks to look at; nil is all.
	Layers []int
	// Words names the prompt's tokens; they are numbered if the count does not fit.
	Words []string
	// Trials and Matchers are accelerations to ask.
	Trials   []Trial
	Matchers []Matcher
	// Thresholds are the cosines above which keys are merged in the study of merging; nil is DefaultThresholds.
	Thresholds []float64
	// Pictures is the most frames to draw components of, 0 for 8.
	Pictures int
	// Progress, if not nil, hears what is being done.
	Progress func(what string, done, total int)
}

// Trial is a cache to try beside the full one.
type Trial struct {
	Name string
	// Group joins trials to a curve over Threshold.
	Group     string
	Threshold float64
	Cache     kvcache.Policy
}

// Index ranks keys by what it takes for their dot product with a query, as the indexes of package accel/ann do.
type Index interface {
	// Put says that a slot holds key.
	Put(slot int, key []float32)
	// Score estimates the products of query with the keys from slot lo on; -Inf leaves a key out.
	Score(dst, query []float32, lo int)
}

// Matcher makes indexes of a kind. Bits is the number of bits that it stores for each key, 0 for one that keeps
// keys as they are; Kind joins matchers to a curve over Bits.
type Matcher struct {
	Name, Kind string
	Bits       float64
	New        func(width, slots int) Index
}

// DefaultThresholds are those of the paper's ablation, with more where the prototype found the useful range.
func DefaultThresholds() []float64 { return []float64{0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 0.98} }

// densities are the shares of keys at which recall is taken.
var densities = []float64{0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 1}

// prepare checks the options and fills in defaults. Errors wrap rollout.ErrRequest.
func (o *Options) prepare() error {
	network, given := o.Engine.Network, len(o.Request.Start)
	bad := func(format string, args ...any) error {
		return fmt.Errorf("%w: %s", rollout.ErrRequest, fmt.Sprintf(format, args...))
	}
	if o.Frames <= given {
		return bad("%d frames, of which %d are given: nothing to study", o.Frames, given)
	}
	if o.At == nil {
		o.At = []int{o.Frames - 1}
	}
	o.At = slices.Compact(slices.Sorted(slices.Values(o.At)))
	for _, at := range o.At {
		if at < max(given, 2) || at >= o.Frames {
			return bad("frame %d cannot be examined: want %d (two frames before it, none of them to come) to %d", at, max(given, 2), o.Frames-1)
		}
	}
	for _, l := range o.Layers {
		if l < 0 || l >= network.Layers {
			return bad("layer %d: the model has 0 to %d", l, network.Layers-1)
		}
	}
	if len(o.Layers) == 0 {
		o.Layers = nil
		for l := range network.Layers {
			o.Layers = append(o.Layers, l)
		}
	}
	o.Layers = slices.Compact(slices.Sorted(slices.Values(o.Layers)))
	solver, err := o.Engine.NewSolver(o.Request.Steps)
	if err != nil {
		return fmt.Errorf("%w: %w", rollout.ErrRequest, err)
	}
	if o.Pass < 0 {
		o.Pass = min(1, len(solver.Steps)-1)
	}
	if o.Pass >= len(solver.Steps) {
		return bad("pass %d: a chunk has denoising passes 0 to %d", o.Pass, len(solver.Steps)-1)
	}
	if o.Thresholds == nil {
		o.Thresholds = DefaultThresholds()
	}
	if o.Pictures <= 0 {
		o.Pictures = 8
	}
	if o.Progress == nil {
		o.Progress = func(string, int, int) {}
	}
	return nil
}

// pictured are the latent frames that components are drawn of: evenly spread generated ones, and the last.
func (o *Options) pictured() (out []int) {
	given := len(o.Request.Start)
	n := min(o.Pictures, o.Frames-given)
	for i := range n {
		out = append(out, o.Frames-1-i*(o.Frames-1-given)/max(n-1, 1))
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// clip is what a run leaves for the study.
type clip struct {
	geometry
	first   int // latent frames before the first generated one
	frames  []video.Frame
	keys    map[place][]float32 // [heads, tokens, headDim] by layer and latent frame, unrotated
	values  map[place][]float32
	queries map[place][]float32 // of pictured and examined frames, unrotated
	moments []*moment
	tried   []tried
	drawn   []int // latent frames that components are drawn of
}

type place struct{ layer, frame int }

// moment is an examined chunk.
type moment struct {
	at     int // latent frame that was asked for
	span   kvcache.Span
	drafts map[int][]float32 // by layer [heads, chunk tokens, headDim], unrotated
	asked  map[int][]float32 // queries, likewise
	prompt map[int]*promptMass
}
