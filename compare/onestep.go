package compare

import (
	"context"
	"fmt"
	"math"
	"slices"
	"sync"

	"longtake/video"
	"longtake/video/metric"
)

// One step is the next frame under a policy against the next frame under the first entry, both on the same history. Whose history that is
// makes a difference: a dream may show what no policy of bounded memory can follow, and what a policy dreams itself it knows best.

// history is a video up to its end: latents of frame i+1 at i, and the frames that are compared, by their number.
type history struct {
	once    sync.Once
	err     error
	latents [][]float32
	frames  map[int]video.Frame
	last    tick
}

// histories are those that all entries share, world by world: the first entry's dreams, or true walks.
type histories struct {
	mu     sync.Mutex
	worlds map[uint32]*history
}

func (h *histories) of(seed uint32) *history {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.worlds == nil {
		h.worlds = map[uint32]*history{}
	}
	if h.worlds[seed] == nil {
		h.worlds[seed] = &history{frames: map[int]video.Frame{}}
	}
	return h.worlds[seed]
}

// stepsBefore and stepsApart: single steps are made at a mark and at so many frames before it, so far apart.
const stepsBefore, stepsApart = 5, 10

// stepMarks are the frames, counted from 1, up to which single steps are summed up.
func (o *PlayOptions) stepMarks() []int {
	marks := slices.DeleteFunc([]int{100, 200, 500, 1000, 2000, 3000}, func(at int) bool { return at+stepsBefore*stepsApart >= o.Frames })
	return append(marks, o.Frames)
}

// marked returns the mark that frame i, counted from 0, counts for.
func (o *PlayOptions) marked(i int) (at int, ok bool) {
	for _, m := range o.stepMarks() {
		if back := m - 1 - i; back >= 0 && back%stepsApart == 0 && back <= stepsBefore*stepsApart && i > 0 {
			return m, true
		}
	}
	return 0, false
}

// dreamt makes the history that the entry dreams.
func (o *PlayOptions) dreamt(ctx context.Context, entry Entry, s scene, h *history) error {
	s.given(1)
	t, err := newTake(ctx, o.Engine, entry.Request(s.request), s.actions)
	if err != nil {
		return err
	}
	defer t.Close()
	for i := 1; i < o.Frames; i++ {
		frames, err := t.Next(ctx, s.actions[i])
		if err != nil {
			return err
		}
		if _, ok := o.marked(i); ok {
			h.frames[i] = frames[0]
		}
		latent, err := t.Latents()
		if err != nil {
			return err
		}
		h.latents = append(h.latents, latent)
	}
	h.last = sizes(t)
	return nil
}

// followed goes through a history under an entry and hands the frames that it makes where they are compared to visit.
func (o *PlayOptions) followed(ctx context.Context, entry Entry, s scene, h *history, visit func(i int, made video.Frame) error) (tick, error) {
	s.request.Peek = true
	s.given(1)
	t, err := newTake(ctx, o.Engine, entry.Request(s.request), s.actions)
	if err != nil {
		return tick{}, err
	}
	defer t.Close()
	for i := 1; i < o.Frames; i++ {
		if _, ok := o.marked(i); ok {
			frames, err := t.Peek(ctx, s.actions[i])
			if err == nil {
				err = visit(i, frames[0])
			}
			if err != nil {
				return tick{}, err
			}
		}
		if err := t.Force(ctx, h.latents[i-1], s.actions[i]); err != nil {
			return tick{}, err
		}
	}
	return sizes(t), nil
}

// oneStep compares on the first entry's dream, on a true walk, or on the entry's own dream.
func (o *PlayOptions) oneStep(ctx context.Context, entry Entry, s scene) (*found, error) {
	f := &found{frames: []video.Frame{s.truth(s.poses[0])}}
	reference, first := o.Entries[0], entry.Name == o.Entries[0].Name
	h := &history{frames: map[int]video.Frame{}}
	follows := entry
	switch {
	case o.Measure == OneStepOwn && first:
		return f, nil // nothing to compare with
	case o.Measure == OneStepOwn:
		h.err = o.dreamt(ctx, entry, s, h)
		follows = reference
	default:
		h = o.shared.of(s.seed)
		h.once.Do(func() { h.err = o.refer(ctx, reference, s, h) })
	}
	if h.err != nil {
		return nil, fmt.Errorf("history: %w", h.err)
	}
	if f.last = h.last; first {
		return f, nil
	}
	sums := map[int]*steps{}
	last, err := o.followed(ctx, follows, s, h, func(i int, made video.Frame) error {
		db, err := metric.PSNR(made, h.frames[i])
		mark, _ := o.marked(i)
		if sums[mark] == nil {
			sums[mark] = &steps{worst: math.Inf(1)}
		}
		sums[mark].add(min(db, equalDecibels))
		return err
	})
	if err != nil {
		return nil, err
	}
	if o.Measure != OneStepOwn {
		f.last = last
	}
	for _, mark := range o.stepMarks() {
		v := sums[mark]
		f.note(fmt.Sprintf("frame %d, dB", mark), v.last)
		f.note(fmt.Sprintf("%d frames up to %d, dB", stepsBefore+1, mark), v.sum/v.n)
		f.note(fmt.Sprintf("worst of them, dB (%d)", mark), v.worst)
	}
	return f, nil
}

// steps sums up the single steps of a mark.
type steps struct{ sum, n, worst, last float64 }

func (s *steps) add(db float64) {
	s.sum, s.n, s.worst, s.last = s.sum+db, s.n+1, min(s.worst, db), db
}

// refer makes the history that all entries share, and what the reference makes of it.
func (o *PlayOptions) refer(ctx context.Context, reference Entry, s scene, h *history) (err error) {
	if o.Measure == OneStep {
		return o.dreamt(ctx, reference, s, h)
	}
	latents, err := o.latents(s)
	if err != nil {
		return err
	}
	h.latents = latents[1:]
	h.last, err = o.followed(ctx, reference, s, h, func(i int, made video.Frame) error {
		h.frames[i] = made
		return nil
	})
	return err
}
