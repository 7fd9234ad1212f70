package compare

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"longtake/rollout"
	"longtake/video"
)

// film is a free run and what it leaves.
type film struct {
	clock
	options *Options
	engine  *rollout.Engine
	entry   Entry
	what    string
	*take
	frames []video.Frame // given ones included

	// Latents of each chunk, if they are kept. Followers wait for them.
	keep    bool
	mu      sync.Mutex
	latents [][]float32
	more    sync.Cond
	over    bool // there will be no more
}

func (o *Options) film(e *rollout.Engine, entry Entry, what string, keepLatents bool) *film {
	f := &film{clock: newClock(e), options: o, engine: e, entry: entry, what: what, keep: keepLatents}
	f.more.L = &f.mu
	return f
}

// errLate says that Options.Until has passed.
var errLate = errors.New("out of time")

// advance makes chunks until the video has so many frames. The first call starts the session.
func (f *film) advance(ctx context.Context, to int) error {
	err := f.makeChunks(ctx, to)
	if err != nil && !errors.Is(err, errLate) {
		err = fmt.Errorf("policy %s, frame %d: %w", f.entry.Name, len(f.frames), err)
	}
	if err != nil {
		f.finish()
	}
	return err
}

func (f *film) makeChunks(ctx context.Context, to int) (err error) {
	o := f.options
	began := time.Now()
	if f.take == nil {
		if f.take, err = newTake(ctx, f.engine, f.entry.timed(&f.clock).Request(o.Request), o.Actions); err != nil {
			return err
		}
		f.frames = append(f.frames, o.Request.Start...)
	}
	for f.n < to {
		if o.late() {
			return errLate
		}
		frames, err := f.step(ctx, &f.clock)
		if err != nil {
			return err
		}
		if f.first == 0 {
			f.first = time.Since(began)
		}
		var latent []float32
		if f.keep {
			if latent, err = f.Latents(); err != nil {
				return err
			}
		}
		f.mu.Lock()
		f.frames = append(f.frames, frames...)
		if f.keep {
			f.latents = append(f.latents, latent)
		}
		f.mu.Unlock()
		f.more.Broadcast()
		o.Progress(f.what, min(f.n, o.Frames), o.Frames)
	}
	return nil
}

// latent waits for chunk i's latents; none after the last one.
func (f *film) latent(i int) ([]float32, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for len(f.latents) <= i && !f.over {
		f.more.Wait()
	}
	if i >= len(f.latents) {
		return nil, false
	}
	return f.latents[i], true
}

// finish says that there will be no more latents.
func (f *film) finish() {
	f.mu.Lock()
	f.over = true
	f.mu.Unlock()
	f.more.Broadcast()
}

// close gives the session back; what was made stays.
func (f *film) close() {
	f.finish()
	if f.take != nil {
		f.Close()
		f.take = nil
	}
}

// cut leaves so many frames.
func (f *film) cut(frames int) {
	f.frames = f.frames[:min(len(f.frames), frames)]
	f.clock.cut(frames)
}

// roll makes a whole video.
func (o *Options) roll(ctx context.Context, e *rollout.Engine, entry Entry, what string) (*film, error) {
	f := o.film(e, entry, what, false)
	defer f.close()
	if err := f.advance(ctx, o.Frames); err != nil {
		return nil, err
	}
	f.cut(o.Frames)
	return f, nil
}

// follower is a session of an entry that follows the reference's latents, and makes single chunks of its own at frontiers.
type follower struct {
	*take
	options   *Options
	engine    *rollout.Engine
	entry     Entry
	reference *film
	chunk     int // of the reference, that comes next
	look      *probes
	found     []Frontier // OneStep, Self and Cross only
}

// track follows until the next chunk ends at or after a frame.
func (w *follower) track(ctx context.Context, to int) (err error) {
	o := w.options
	if w.take == nil {
		var watched Entry
		watched, w.look = probed(w.entry)
		r := watched.Request(o.Request)
		r.Peek = true
		if w.take, err = newTake(ctx, w.engine, r, o.Actions); err != nil {
			return fmt.Errorf("policy %s, one step: %w", w.entry.Name, err)
		}
	}
	what := w.entry.Name + ", one step"
	for w.n+w.upcomingFrames() < to {
		if o.late() {
			return errLate
		}
		latent, ok := w.reference.latent(w.chunk)
		if !ok {
			return errLate
		}
		each := w.upcomingFrames()
		if err := w.Force(ctx, latent, w.upcoming()...); err != nil {
			return fmt.Errorf("policy %s, frame %d of the reference: %w", w.entry.Name, w.n, err)
		}
		w.chunk, w.n = w.chunk+1, w.n+each
		o.Progress(what, min(w.n, o.Frames), o.Frames)
	}
	return nil
}

// follow goes on to the chunk that ends at a frontier, makes it, and compares.
func (w *follower) follow(ctx context.Context, frontier int) error {
	if err := w.track(ctx, frontier); err != nil {
		return err
	}
	return w.meet(ctx)
}

func (w *follower) close() {
	if w.take != nil {
		w.Close()
		w.take = nil
	}
}

// late reports whether the time is over.
func (o *Options) late() bool { return !o.Until.IsZero() && time.Now().After(o.Until) }

// meet makes the next chunk under the policy and compares it with the reference's.
func (w *follower) meet(ctx context.Context) error {
	w.look.begin()
	frames, err := w.Peek(ctx, w.upcoming()...)
	if err != nil {
		return fmt.Errorf("policy %s, frame %d of the reference: %w", w.entry.Name, w.n, err)
	}
	var f Frontier
	f.Self, f.Cross = w.look.end()
	w.reference.mu.Lock()
	all := w.reference.frames
	w.reference.mu.Unlock()
	want := all[w.n:min(w.n+len(frames), len(all))]
	s, err := score(frames, want, 0)
	if err != nil {
		return err
	}
	q := s.pool(0, len(want))
	q.From, q.To = w.n, w.n+len(want)
	f.OneStep = &q
	w.found = append(w.found, f)
	return nil
}
