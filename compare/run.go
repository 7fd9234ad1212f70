package compare

import (
	"context"
	"errors"
	"time"

	"longtake/video"
	"longtake/video/metric"
)

// Policies makes the video of every entry and compares them with the first one's. A cancelled context ends it with ctx's error.
// Errors of a request wrap rollout.ErrRequest.
func Policies(ctx context.Context, o Options) (*Report, error) {
	if err := o.Check(); err != nil {
		return nil, err
	}
	c := &cast{Options: &o}
	asked := o.Frames
	c.assemble()
	defer c.close()
	run := c.inTurn
	if o.Parallel > 1 {
		run = c.sideBySide
	}
	if err := run(ctx); err != nil {
		return nil, err
	}
	r := &Report{Frontiers: o.Frontiers, DivergedBelow: o.Diverged, Span: o.Span}
	if o.Parallel > 1 {
		r.Parallel = o.Parallel
	}
	if o.Frames < asked {
		r.Asked = asked
	}
	r.Setup = Setup{Frames: o.Frames, Given: len(o.Request.Start), ChunkFrames: o.Engine.Network.ChunkFrames}
	free := o.Frames
	for _, f := range c.films {
		free = min(free, len(f.frames))
	}
	if free < o.Frames {
		r.Free = free
	}
	for i, f := range c.films {
		run, err := o.report(f, c.films[0], i == 0, free)
		if err != nil {
			return nil, err
		}
		if i > 0 && o.OneStep {
			for k, found := range c.followers[i-1].found[:len(run.Frontiers)] {
				run.Frontiers[k].OneStep, run.Frontiers[k].Around = found.OneStep, found.Around
				run.Frontiers[k].Self, run.Frontiers[k].Cross = found.Self, found.Cross
			}
		}
		if i < len(o.Entries) {
			r.Runs = append(r.Runs, *run)
		} else {
			r.Ceiling, r.CeilingHow = run, o.Ceiling.How
		}
	}
	return r, o.addTruth(r)
}

// cast is everything that runs: films[0] is the reference's, the last one the ceiling's if there is one; with one step,
// followers[i] belongs to films[i+1].
type cast struct {
	*Options
	films     []*film
	followers []*follower
}

func (c *cast) assemble() {
	for i, entry := range c.Entries {
		c.films = append(c.films, c.film(c.Engine, entry, entry.Name, i == 0 && c.OneStep))
	}
	if c.Ceiling != nil {
		entry, engine := c.Entries[0], c.Ceiling.Engine
		entry.Name = "ceiling"
		if engine == nil {
			engine, entry.Looks = c.Engine, Reordered{}
			entry.Policy.Self = Reordered{}.String()
		}
		c.films = append(c.films, c.film(engine, entry, entry.Name, false))
	}
	if c.OneStep {
		for _, f := range c.films[1:] {
			if f.entry.Unbounded {
				f.end = c.Free
			}
			w := &follower{options: c.Options, engine: f.engine, entry: f.entry, reference: c.films[0], film: f}
			w.borrows = c.Free > 0 && f.engine == c.Engine && f.entry.Shows == nil && f.entry.Unbounded && f.entry.Keeps == c.Entries[0].Keeps
			c.followers = append(c.followers, w)
		}
	}
}

func (c *cast) close() {
	for _, f := range c.films {
		f.close()
	}
	for _, w := range c.followers {
		w.close()
	}
}

// inTurn runs one after the other, so that a single session is in memory.
func (c *cast) inTurn(ctx context.Context) error {
	for i, f := range c.films {
		if err := f.advance(ctx, c.Frames); err != nil {
			return err
		}
		f.cut(c.Frames)
		f.close()
		if i == 0 || !c.OneStep {
			continue
		}
		w := c.followers[i-1]
		for _, frontier := range c.Frontiers {
			if err := w.follow(ctx, frontier); err != nil {
				return err
			}
		}
		w.close()
	}
	return nil
}

// sideBySide runs all from frontier to frontier, as far as the time allows.
func (c *cast) sideBySide(ctx context.Context) error {
	each, reached := c.Engine.Network.ChunkFrames, 0
	c.Alone = max(c.Alone, 2) // followers that are timed need two chunks
	all, progress := c.films[0].what, c.Progress
	c.Progress = func(what string, done, total int) {
		if what == all { // the reference speaks for all: mostly it is the slowest
			progress("side by side", done, total)
		}
	}
	err := c.alone(ctx, len(c.Request.Start)+c.Alone*each)
	for i, frontier := range c.Frontiers {
		if err == nil {
			err = c.race(ctx, frontier-(c.Alone+1)*each)
		}
		if err == nil {
			err = c.borrow(ctx, frontier)
		}
		if err == nil {
			err = c.alone(ctx, frontier)
		}
		if err == nil {
			err = parallel(c.Parallel, 0, len(c.followers), func(k int) error {
				if c.followers[k].borrows {
					return c.followers[k].judge()
				}
				return c.followers[k].follow(ctx, frontier)
			})
		}
		if err != nil {
			break
		}
		reached = i + 1
	}
	if err != nil && (reached == 0 || !errors.Is(err, errLate)) {
		return err
	}
	c.Frontiers = c.Frontiers[:reached]
	c.Frames = c.Frontiers[reached-1]
	for _, f := range c.films {
		f.cut(c.Frames)
	}
	return nil
}

// borrow lets the reference go on to the chunk before a frontier, and followers without a history of their own make that chunk.
func (c *cast) borrow(ctx context.Context, frontier int) error {
	ref, any := c.films[0], false
	for _, w := range c.followers {
		any = any || w.borrows
	}
	if !any {
		return nil
	}
	c.Solo(true)
	ref.shared = false
	err := ref.advance(ctx, frontier-c.Engine.Network.ChunkFrames)
	c.Solo(false)
	if err != nil {
		return err
	}
	for _, w := range c.followers {
		if !w.borrows {
			continue
		}
		if c.late() {
			return errLate
		}
		if err := w.borrow(ctx); err != nil {
			return err
		}
	}
	return nil
}

// alone lets run after run go on to a frame with the machine to itself. The first chunk only warms the processor's caches.
func (c *cast) alone(ctx context.Context, to int) error {
	to = min(to, c.Frames)
	c.Solo(true)
	defer c.Solo(false)
	for i, f := range c.films {
		if f.ended() && c.followers[i-1].borrows {
			continue
		}
		if f.ended() && c.followers[i-1].n < to {
			if err := c.followers[i-1].time(ctx); err != nil {
				return err
			}
			continue
		}
		if f.take != nil {
			f.shared = true
			if err := f.advance(ctx, min(to, f.n+1)); err != nil {
				return err
			}
		}
		f.shared = false
		if err := f.advance(ctx, to); err != nil {
			return err
		}
	}
	return nil
}

// race lets all runs go on to a frame side by side. The reference is the first to start, since others wait for it.
func (c *cast) race(ctx context.Context, to int) error {
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	err := parallel(c.Parallel, 0, len(c.films)+len(c.followers), func(i int) (err error) {
		if i < len(c.films) {
			c.films[i].shared = true
			err = c.films[i].advance(ctx, to)
		} else if w := c.followers[i-len(c.films)]; !w.borrows {
			err = w.track(ctx, to)
		}
		if err != nil {
			stop(err) // the others need not go on
		}
		return err
	})
	if err != nil {
		err = context.Cause(ctx) // not what the others then said
	}
	return err
}

// addTruth adds the simulator's own pictures.
func (o *Options) addTruth(r *Report) (err error) {
	if o.Truth == nil {
		return nil
	}
	for i := len(o.Request.Start); i < min(o.Frames, len(o.Seen)); i++ {
		if o.Seen[i] {
			r.TruthFrames++
		}
	}
	r.TruthStrip, err = stills(o.Truth, len(o.Request.Start), o.Frames, o.Stills)
	return err
}

// report fills in what a free run shows, the first free frames of which all runs made; the reference is compared with itself.
func (o *Options) report(made, reference *film, first bool, free int) (*Run, error) {
	given := len(o.Request.Start)
	run := &Run{Policy: made.entry.Policy, FirstDiverged: -1, FirstFrame: made.first.Seconds(), Total: made.total().Seconds(), Speedup: 1,
		ComponentSpeedup: 1, TruthMean: Unmeasured, FramesHash: hash(made.frames)}
	for i, took := range made.times(func(t tick) time.Duration { return t.took }) {
		run.ChunkSeconds = append(run.ChunkSeconds, took.Seconds())
		run.CacheBytes, run.Tokens = append(run.CacheBytes, made.ticks[i].cacheBytes), append(run.Tokens, made.ticks[i].tokens)
	}
	run.FreeFrames = len(made.frames)
	var s scores
	var err error
	if first {
		s.equal(given, o.Frames)
	} else {
		if s, err = score(made.frames, reference.frames, given); err != nil {
			return nil, err
		}
		s.extend(o.Frames)
		run.PSNR, run.SSIM, run.MSSSIM = s.psnr, s.ssim, s.msssim
		run.Spans, run.FirstDiverged = s.spans(given, o.Span), s.diverged(o.Diverged)
		run.Speedup = reference.total().Seconds() / run.Total
		run.ComponentSpeedup = component(reference, made)
	}
	run.Mean = s.pool(given, free)
	for _, f := range o.Frontiers {
		run.Frontiers = append(run.Frontiers, Frontier{Speed: made.speed(f, o.Span), Quality: s.pool(max(given, f-o.Span), f)})
	}
	if run.Truth, err = o.truth(made.frames); err != nil {
		return nil, err
	}
	run.TruthMean = meanDecibel(run.Truth)
	run.Strip, err = stills(func(i int) video.Frame { return made.frames[i] }, given, len(made.frames), o.Stills)
	return run, err
}

// extend adds frames that were not measured.
func (s *scores) extend(frames int) {
	for len(s.psnr) < frames {
		s.psnr, s.ssim, s.msssim = append(s.psnr, Unmeasured), append(s.ssim, Fraction(nan)), append(s.msssim, Fraction(nan))
	}
}

// equal are the scores of a film against itself.
func (s *scores) equal(from, frames int) {
	for i := range frames {
		psnr, same := Unmeasured, Fraction(nan)
		if i >= from {
			psnr, same = Decibel(inf), 1
		}
		s.psnr, s.ssim, s.msssim = append(s.psnr, psnr), append(s.ssim, same), append(s.msssim, same)
	}
}

// truth compares the frames that were seen before with the simulator's.
func (o *Options) truth(frames []video.Frame) ([]Decibel, error) {
	if o.Truth == nil {
		return nil, nil
	}
	out := make([]Decibel, len(frames))
	err := parallel(0, 0, len(frames), func(i int) error {
		out[i] = Unmeasured
		if i < len(o.Request.Start) || i >= len(o.Seen) || !o.Seen[i] {
			return nil
		}
		psnr, err := metric.PSNR(frames[i], o.Truth(i))
		out[i] = Decibel(psnr)
		return err
	})
	return out, err
}

// component is how many times faster a run is in what its policy changes.
func component(reference, made *film) float64 {
	part := func(t tick) time.Duration { return t.spent.self + t.compact }
	if a, b := reference.entry.Policy, made.entry.Policy; a.Cache == b.Cache && a.Self == b.Self && a.Cross != b.Cross {
		part = func(t tick) time.Duration { return t.spent.cross }
	}
	return sum(reference.times(part)).Seconds() / sum(made.times(part)).Seconds()
}
