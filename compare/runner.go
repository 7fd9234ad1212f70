package compare

import (
	"context"
	"errors"
	"fmt"
	"slices"
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
	end    int           // of the free run; 0 is the video's. A follower then goes on with the clock.

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

// errLate says that Options.Late was true.
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
	if f.end > 0 && to >= f.end {
		defer func() {
			if err == nil {
				f.close() // a large cache goes
			}
		}()
		to = f.end
	}
	if f.ended() {
		return nil
	}
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

// ended reports whether the free run is over before the video.
func (f *film) ended() bool { return f.end > 0 && len(f.frames) >= f.end }

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
	film      *film // of the entry
	chunk     int   // of the reference, that comes next
	look      *probes
	found     []Frontier // OneStep, Around, Self and Cross only
	around    []Decibel  // before the next frontier

	// An entry that differs from the reference in what it looks at only needs no history of its own: it borrows the reference's
	// session to make its chunks. Frames and now are those of the chunk that the reference has not made yet.
	borrows bool
	frames  []video.Frame
	at      int // where they begin
	now     Frontier
}

// borrow makes the reference's next chunk under the entry's attention: once to get to know the history and to look at what is
// looked at, and once on the clock.
func (w *follower) borrow(ctx context.Context) error {
	ref, c := w.reference, newClock(w.engine)
	fail := func(err error) error {
		return fmt.Errorf("policy %s, frame %d of the reference: %w", w.entry.Name, ref.n, err)
	}
	watched, look := probed(w.entry, &c)
	looks, err := ref.NewLooks(watched.Looks, watched.Reads)
	if err != nil {
		return fail(err)
	}
	defer looks.Close()
	w.at, w.now = ref.n, Frontier{}
	look.begin()
	if _, err = ref.PeekUnder(ctx, looks, ref.upcoming()...); err != nil {
		return fail(err)
	}
	w.now.Self, w.now.Cross = look.end()
	w.options.Solo(true)
	defer w.options.Solo(false)
	began, before := time.Now(), c.spent
	if w.frames, err = ref.PeekUnder(ctx, looks, ref.upcoming()...); err != nil {
		return fail(err)
	}
	took := time.Since(began)
	w.fill(tick{stages: rollout.Times{Denoise: took}, took: took, spent: c.spent.since(before)})
	return nil
}

// fill lets the clock of an entry whose own run has ended go on to the reference's next chunk, which took t and a clean pass as
// the reference's.
func (w *follower) fill(t tick) {
	f, ref := w.film, w.reference
	if !f.ended() || ref.n < f.end {
		return
	}
	for i := len(f.ticks); i < len(ref.ticks); i++ {
		r := ref.ticks[i]
		f.ticks = append(f.ticks, tick{done: r.done, frames: r.frames, cacheBytes: r.cacheBytes, allBytes: r.allBytes, tokens: r.tokens, shared: true})
	}
	last := ref.ticks[len(ref.ticks)-1]
	t.stages.Commit = last.stages.Commit
	t.took += last.stages.Commit
	t.done, t.frames, t.cacheBytes, t.allBytes, t.tokens = last.done+last.frames, last.frames, last.cacheBytes, last.allBytes, last.tokens
	f.ticks = append(f.ticks, t)
}

// track follows until the next chunk ends at or after a frame.
func (w *follower) track(ctx context.Context, to int) (err error) {
	o := w.options
	if w.take == nil {
		var watched Entry
		var c *clock
		if w.film.end > 0 {
			c = &w.film.clock
		}
		watched, w.look = probed(w.entry, c)
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
		if err := w.glance(ctx); err != nil {
			return err
		}
		if err := w.force(ctx, latent); err != nil {
			return err
		}
		o.Progress(what, min(w.n, o.Frames), o.Frames)
	}
	return nil
}

// glances is how many single chunks are made before a frontier.
const glances = 5

// glance makes the reference's next chunk, which is there by now, if it is among those that are looked at before a frontier.
func (w *follower) glance(ctx context.Context) error {
	o, end := w.options, w.n+w.upcomingFrames()
	i, _ := slices.BinarySearch(o.Frontiers, end)
	if i == len(o.Frontiers) {
		return nil
	}
	every := max(1, o.Span/glances)
	if left := o.Frontiers[i] - end; left == 0 || left%every != 0 || left > every*glances {
		return nil
	}
	frames, err := w.Peek(ctx, w.upcoming()...)
	if err != nil {
		return fmt.Errorf("policy %s, frame %d of the reference: %w", w.entry.Name, w.n, err)
	}
	q, err := w.against(frames, w.n)
	w.around = append(w.around, q.PSNR)
	return err
}

// against compares frames with the reference's from at on.
func (w *follower) against(frames []video.Frame, at int) (Quality, error) {
	w.reference.mu.Lock()
	all := w.reference.frames
	w.reference.mu.Unlock()
	want := all[at:min(at+len(frames), len(all))]
	s, err := score(frames, want, 0)
	if err != nil {
		return Quality{}, err
	}
	q := s.pool(0, len(want))
	q.From, q.To = at, at+len(want)
	return q, nil
}

// force goes on with a chunk of the reference. Where the entry's own run has ended, its clock goes on with what is known: sizes.
func (w *follower) force(ctx context.Context, latent []float32) error {
	each := w.upcomingFrames()
	if err := w.Force(ctx, latent, w.upcoming()...); err != nil {
		return fmt.Errorf("policy %s, frame %d of the reference: %w", w.entry.Name, w.n, err)
	}
	w.chunk, w.n = w.chunk+1, w.n+each
	if f := w.film; f.ended() && w.n > f.end {
		stats := w.Stats()
		f.ticks = append(f.ticks, tick{done: w.n, frames: each, cacheBytes: stats.Bytes, allBytes: w.Bytes(), tokens: stats.Tokens, shared: true})
	}
	return nil
}

// time makes a chunk on the reference's history with the machine to itself, for an entry whose own run has ended.
func (w *follower) time(ctx context.Context) error {
	f := w.film
	for _, warm := range []bool{true, false} {
		latent, ok := w.reference.latent(w.chunk)
		if !ok {
			return errLate
		}
		compacted, before, began := w.Stats().Compacting, f.spent, time.Now()
		if _, err := w.Peek(ctx, w.upcoming()...); err != nil {
			return fmt.Errorf("policy %s, frame %d of the reference: %w", w.entry.Name, w.n, err)
		}
		peeked := time.Since(began)
		if err := w.force(ctx, latent); err != nil {
			return err
		}
		t := &f.ticks[len(f.ticks)-1]
		t.shared, t.took = warm, time.Since(began)
		t.stages = rollout.Times{Denoise: peeked, Commit: t.took - peeked}
		t.compact, t.spent = w.Stats().Compacting-compacted, f.spent.since(before)
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
func (o *Options) late() bool { return o.Late != nil && o.Late() }

// meet makes the next chunk under the policy and compares it with the reference's.
func (w *follower) meet(ctx context.Context) error {
	w.look.begin()
	frames, err := w.Peek(ctx, w.upcoming()...)
	if err != nil {
		return fmt.Errorf("policy %s, frame %d of the reference: %w", w.entry.Name, w.n, err)
	}
	w.frames, w.at, w.now = frames, w.n, Frontier{}
	w.now.Self, w.now.Cross = w.look.end()
	return w.judge()
}

// judge compares the chunk with the reference's, which is made by now.
func (w *follower) judge() error {
	q, err := w.against(w.frames, w.at)
	if err != nil {
		return err
	}
	f := w.now
	f.OneStep, f.Around, w.around = &q, w.around, nil
	w.found = append(w.found, f)
	return nil
}
