package kvcache

import (
	"math"
	"time"

	"longtake/compute"
)

// Span is a run of latent frames, counted from the start of the session.
type Span struct{ Start, Frames int }

// View is what the queries of the chunk in work may see. Shapes: Keys and Values [heads, keys, headDim], keys rotated.
// Optional, absent when every key stands for itself alone: LogCount F32 [heads, keys], ln of the keys a token stands for
// (-Inf hides a slot); Lengths I32 [heads], keys in use of each head.
// The view is valid until the cache changes; the storage stays the cache's.
type View struct {
	Keys, Values      compute.Tensor
	LogCount, Lengths compute.Tensor
	// Parts says what the keys are, in the order of the keys. Only the last part may be cut by Lengths.
	Parts []Part
	// Watcher, where a cache has one, wants to see the queries that are asked of this view.
	Watcher Watcher
}

// Watcher is a Layer that learns from the queries of self attention.
type Watcher interface {
	// Watch shows the queries of one forward, rotated, [heads, tokens, headDim]. They are copied.
	Watch(dq compute.Queue, query compute.Tensor)
}

// Part is a run of keys [Lo, Hi) of one origin.
type Part struct {
	Kind   PartKind
	Lo, Hi int
	// Frame is the latent frame that the keys come from; -1 for merged keys of many frames.
	Frame int
}

// PartKind says why keys are in the cache.
type PartKind uint8

// Kinds of part: first frames kept for ever, older history, the newest frames before the chunk, the chunk in work.
const (
	Anchor PartKind = iota
	History
	Recent
	Current
)

// Policy makes caches: what is kept of the past, and how.
type Policy interface {
	// New allocates a cache. The error wraps compute.ErrNoMemory when the device is too small; an impossible policy is
	// refused with the smallest possible one.
	New(dev compute.Device, dq compute.Queue, s Shape) (Cache, error)
	// Bytes returns the memory that New takes, known beforehand.
	Bytes(dev compute.Device, s Shape) int64
	// String describes the policy for people: "window 16 + 1 anchor".
	String() string
}

// Layer is one transformer block's side of the cache. Keys [heads, tokens, headDim] are unrotated, values likewise, with any
// strides; both are copied. Call one of the two once in each forward, before attention.
type Layer interface {
	// Draft stores the keys of a forward on noise; the next forward of the chunk overwrites them.
	Draft(dq compute.Queue, keys, values compute.Tensor)
	// Commit stores the keys of the clean chunk for good.
	Commit(dq compute.Queue, keys, values compute.Tensor)
	// View returns the visible keys, the chunk in work included.
	View() View
}

// NormDrafter is a Layer that can normalise keys as it stores them.
type NormDrafter interface {
	// DraftNorm is Draft of keys [tokens, heads*headDim] that n normalises; keys is work space (compute.NormRoper).
	DraftNorm(dq compute.Queue, keys compute.Tensor, n compute.Norm, values compute.Tensor)
}

// Layers is all that package dit sees of a cache.
type Layers interface {
	Layer(i int) Layer
	// Rope returns the tables to rotate the queries of the chunk in work with, and its positions I32 [tokens, 3].
	Rope() (compute.Rope, compute.Tensor)
}

// Cache is the rollout's side.
type Cache interface {
	Layers
	// Begin makes room for the next chunk, frames span.Start and on, which must follow the last committed frame. If the
	// chunk before it was left out by End, Begin says why, once, with an error that wraps ErrNotFinite.
	Begin(dq compute.Queue, span Span) error
	// End makes the committed chunk part of the history. A chunk with keys that are not finite is left out.
	End()
	// Stats returns the sizes now.
	Stats() Stats
	// Reset forgets everything; the memory is kept.
	Reset()
	// Close gives the memory back.
	Close()
}

// Counter is a Cache that tells its frames without asking the device for the other sizes.
type Counter interface {
	// Frames returns the latent frames committed so far.
	Frames() int
}

// Frames returns the latent frames that a cache has committed.
func Frames(c Cache) int {
	if n, ok := c.(Counter); ok {
		return n.Frames()
	}
	return c.Stats().Frames
}

// Stats are the sizes of a cache.
type Stats struct {
	// Bytes is the memory taken, Tokens the mean number of keys a head sees, Frames the latent frames committed so far.
	Bytes  int64
	Tokens float64
	Frames int
	// Heads says what a compressing cache did, layer by layer and head by head; nil of others. The slice is the cache's own
	// and changes with it.
	Heads []HeadStats
	// Compacting is the time spent on compressing so far.
	Compacting time.Duration
}

// HeadStats say what became of the tokens of one head that left the dense frames: Kept of them stand for themselves and for
// Merged others, Evicted were forgotten (with all that they stood for).
type HeadStats struct {
	Kept            int
	Merged, Evicted int64
	// LogitError is the sum over all merges of how far the merge moved logits, root mean square over recent queries; 0 for a
	// cache that sees no queries.
	LogitError float64
}

// Shape says what a cache stores: numbers of the model.
type Shape struct {
	Layers, Heads, HeadDim int
	// Rows and Columns are the token grid of a latent frame; ChunkFrames the most frames of a chunk.
	Rows, Columns, ChunkFrames int
	// Pairs are the rotated pairs of a head for time, row and column; Theta the base of the frequencies of each axis.
	Pairs [3]int
	Theta [3]float64
	// Unit is how far apart neighbouring rows, and columns, are in rotation; 0 means 1. A network grown from one with larger
	// patches has less (train/grow.py).
	Unit float64
	// Clamp is the largest temporal distance that the model was trained on; older keys are rotated as if they were that old.
	// 0 means no limit.
	Clamp int
	// Latent is how many values the clean latents of a token have, for caches that keep them (Recaller).
	Latent int
	// DType is the element type of keys and values.
	DType compute.DType
}

// Tokens returns the tokens of a latent frame.
func (s Shape) Tokens() int { return s.Rows * s.Columns }

// Turn returns cos and sin of the angle by which pair j of an axis (0 time, 1 row, 2 column) is rotated at a position:
// position*theta^(-j/pairs), of rows and columns times Unit.
func (s Shape) Turn(axis, position, j int) (cos, sin float32) {
	at := float64(position)
	if axis > 0 && s.Unit != 0 {
		at *= s.Unit
	}
	sine, cosine := math.Sincos(at * math.Pow(s.Theta[axis], -float64(j)/float64(s.Pairs[axis])))
	return float32(cosine), float32(sine)
}
