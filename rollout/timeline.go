package rollout

import (
	"context"
	"fmt"

	"longtake/compute"
	"longtake/kvcache"
	"longtake/text"
	"longtake/video"
)

// Timeline is one video in the making, whatever loop makes it. It belongs to one goroutine at a time.
type Timeline interface {
	// Next makes the next chunk and returns its frames; a finite video that has ended gives none.
	Next(ctx context.Context, actions ...int) ([]video.Frame, error)
	// SetPrompt uses another prompt from the next chunk on.
	SetPrompt(ctx context.Context, prompt string) error
	// Unknown are the words of the prompt that the model does not know.
	Unknown() []text.Unknown
	// Latent returns the clean latents of the last chunk, F32 [tokens, values], valid until the next call; Latents downloads it.
	Latent() compute.Tensor
	Latents() ([]float32, error)
	Stats() kvcache.Stats
	Times() Times
	Bytes() int64
	Close()
}

// Loop is a way of making chunks.
type Loop uint8

// Loops: each is one file of this package with the same verbs.
const (
	// ModelLoop is the loop that the model was trained for.
	ModelLoop Loop = iota
	// Blockwise makes a chunk step by step, then stores its clean keys (Session).
	Blockwise
	// Overlapping is Blockwise with the clean pass of a chunk inside the first step of the next (Overlapped).
	Overlapping
	// AheadOfTime is Blockwise with the decoding beside the next chunk, which begins before its turn (Ahead).
	AheadOfTime
	// RollingWindow denoises several chunks at falling levels together (Rolling).
	RollingWindow
)

var loopNames = [...]string{"model", "blockwise", "overlapped", "ahead", "rolling"}

// String returns the name that ParseLoop reads.
func (l Loop) String() string { return loopNames[l] }

// ParseLoop reads the name of a loop.
func ParseLoop(name string) (Loop, error) {
	for i, n := range loopNames {
		if n == name {
			return Loop(i), nil
		}
	}
	return 0, fmt.Errorf("%w: loop %.40q: use one of %v", ErrRequest, name, loopNames)
}

// Refresh is what a new prompt does to the history.
type Refresh uint8

// Refreshes. Without, old keys go on speaking of the old prompt.
const (
	// ModelRefresh is what the model was trained for.
	ModelRefresh Refresh = iota
	// NoRefresh keeps the history as it is.
	NoRefresh
	// RefreshChunks runs the clean pass of the visible frames again, chunk by chunk, under the new prompt.
	RefreshChunks
	// RefreshWindow runs it in one forward whose frames all see each other (LongLive).
	RefreshWindow
)

var refreshNames = [...]string{"model", "none", "chunks", "window"}

// String returns the name that ParseRefresh reads.
func (r Refresh) String() string { return refreshNames[r] }

// ParseRefresh reads the name of a refresh.
func ParseRefresh(name string) (Refresh, error) {
	for i, n := range refreshNames {
		if n == name {
			return Refresh(i), nil
		}
	}
	return 0, fmt.Errorf("%w: refresh %.40q: use one of %v", ErrRequest, name, refreshNames)
}

// Open starts a timeline by the request's loop.
func (e *Engine) Open(ctx context.Context, r Request) (Timeline, error) {
	switch loop := e.defaults(r).Loop; loop {
	case Blockwise:
		return timeline(e.NewSession(ctx, r))
	case Overlapping:
		return timeline(e.NewOverlapped(ctx, r))
	case AheadOfTime:
		return timeline(e.NewAhead(ctx, r))
	case RollingWindow:
		return timeline(e.NewRolling(ctx, r))
	}
	return nil, fmt.Errorf("%w: no loop %d", ErrRequest, r.Loop)
}

// timeline keeps a nil pointer from becoming a Timeline.
func timeline[T Timeline](t T, err error) (Timeline, error) {
	if err != nil {
		return nil, err
	}
	return t, nil
}

// SessionBytes returns the most memory that a timeline of this request takes, known before it starts; start frames take some
// of it only until they are encoded. A full cache grows beyond it.
func (e *Engine) SessionBytes(r Request) (int64, error) {
	r = e.defaults(r)
	solver, err := e.NewSolver(r.Steps)
	if err != nil {
		return 0, fmt.Errorf("%w: %w", ErrRequest, err)
	}
	m := &compute.Meter{Device: e.Device}
	var bytes int64
	if r.Loop == RollingWindow {
		err = (&Rolling{solver: solver}).allocate(e, m)
		bytes = kvcache.RollingBytes(e.Device, e.CacheShape, rollingSpan*e.Network.ChunkFrames, rollingSlots)
	} else {
		err = new(Session).allocate(e, m, r, len(solver.Steps))
		bytes = r.Cache.Bytes(e.Device, e.CacheShape)
	}
	if err != nil {
		return 0, err
	}
	if r.Loop == AheadOfTime {
		m.Tensor(compute.F32, e.Network.ChunkFrames*e.Network.Tokens(), e.Network.In)
	}
	shape := e.CacheShape
	if r.Loop == RollingWindow {
		shape = e.rollingShape(len(solver.Steps))
	}
	bytes += m.Bytes() + r.Self.Bytes(e.Device, shape) + r.Cross.Bytes(e.Device, shape)
	if len(r.Start) == 0 || e.NewEncoder == nil || e.FromImage() {
		return bytes, nil
	}
	m = &compute.Meter{Device: e.Device}
	if _, err := e.NewEncoder(m, len(r.Start)); err != nil {
		return 0, err
	}
	return bytes + m.Bytes(), nil
}
