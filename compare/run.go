package compare

import (
	"context"
	"fmt"

	"longtake/rollout"
	"longtake/video"
	"longtake/video/metric"
)

// Policies makes the video of every entry, one after the other, and compares them with the first one's. A cancelled context ends it
// with ctx's error. Errors of a request wrap rollout.ErrRequest.
func Policies(ctx context.Context, o Options) (*Report, error) {
	if err := o.Check(); err != nil {
		return nil, err
	}
	r := &Report{Frontiers: o.Frontiers, DivergedBelow: o.Diverged, Span: o.Span}
	r.Setup = Setup{Frames: o.Frames, Given: len(o.Request.Start), ChunkFrames: o.Engine.Network.ChunkFrames}
	reference, err := o.roll(ctx, o.Engine, o.Entries[0], o.Entries[0].Name, o.OneStep)
	if err != nil {
		return nil, err
	}
	first, err := o.report(reference, nil, o.Entries[0])
	if err != nil {
		return nil, err
	}
	r.Runs = append(r.Runs, *first)
	for _, entry := range o.Entries[1:] {
		run, err := o.compare(ctx, o.Engine, entry, reference)
		if err != nil {
			return nil, err
		}
		r.Runs = append(r.Runs, *run)
	}
	if err := o.addCeiling(ctx, r, reference); err != nil {
		return nil, err
	}
	return r, o.addTruth(r)
}

// compare runs one entry against the reference.
func (o *Options) compare(ctx context.Context, e *rollout.Engine, entry Entry, reference *film) (*Run, error) {
	made, err := o.roll(ctx, e, entry, entry.Name, false)
	if err != nil {
		return nil, err
	}
	run, err := o.report(made, reference, entry)
	if err != nil || !o.OneStep {
		return run, err
	}
	return run, o.oneStep(ctx, e, entry, reference, run)
}

// addCeiling runs the reference in another order of summation.
func (o *Options) addCeiling(ctx context.Context, r *Report, reference *film) (err error) {
	c := o.Ceiling
	if c == nil {
		return nil
	}
	entry, engine := o.Entries[0], c.Engine
	entry.Name = "ceiling"
	if engine == nil {
		engine, entry.Looks = o.Engine, Reordered{}
		entry.Policy.Self = Reordered{}.String()
	}
	r.CeilingHow = c.How
	r.Ceiling, err = o.compare(ctx, engine, entry, reference)
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

// report fills in what a free run shows; a nil reference is the run itself.
func (o *Options) report(made, reference *film, entry Entry) (*Run, error) {
	given := len(o.Request.Start)
	run := &Run{Policy: entry.Policy, FirstDiverged: -1, FirstFrame: made.first.Seconds(), Total: made.total().Seconds(), Speedup: 1,
		TruthMean: Unmeasured, FramesHash: hash(made.frames)}
	for _, t := range made.ticks {
		run.ChunkSeconds = append(run.ChunkSeconds, t.took.Seconds())
		run.CacheBytes, run.Tokens = append(run.CacheBytes, t.cacheBytes), append(run.Tokens, t.tokens)
	}
	var s scores
	var err error
	if reference == nil {
		s.equal(given, o.Frames)
	} else {
		if s, err = score(made.frames, reference.frames, given); err != nil {
			return nil, err
		}
		run.PSNR, run.SSIM, run.MSSSIM = s.psnr, s.ssim, s.msssim
		run.Spans, run.FirstDiverged = s.spans(given, o.Span), s.diverged(o.Diverged)
		run.Speedup = reference.total().Seconds() / run.Total
	}
	run.Mean = s.pool(given, o.Frames)
	for _, f := range o.Frontiers {
		run.Frontiers = append(run.Frontiers, Frontier{Speed: made.speed(f, o.Span), Quality: s.pool(max(given, f-o.Span), f)})
	}
	if run.Truth, err = o.truth(made.frames); err != nil {
		return nil, err
	}
	run.TruthMean = meanDecibel(run.Truth)
	run.Strip, err = stills(func(i int) video.Frame { return made.frames[i] }, given, o.Frames, o.Stills)
	return run, err
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
	err := parallel(0, len(frames), func(i int) error {
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

// oneStep lets a new session of the entry follow the reference's latents, and compares its own next chunk at the frontiers.
func (o *Options) oneStep(ctx context.Context, e *rollout.Engine, entry Entry, reference *film, run *Run) error {
	watched, look := probed(entry)
	t, err := newTake(ctx, e, watched.Request(o.Request), o.Actions)
	if err != nil {
		return fmt.Errorf("policy %s: %w", entry.Name, err)
	}
	defer t.Close()
	what, at := entry.Name+", one step", 0
	for i, latent := range reference.latents {
		end := reference.ticks[i].done
		for ; at < len(o.Frontiers) && end >= o.Frontiers[at]; at++ {
			f := &run.Frontiers[at]
			look.begin()
			if f.OneStep, err = o.peek(ctx, t, reference, end); err != nil {
				return fmt.Errorf("policy %s, frame %d: %w", entry.Name, t.n, err)
			}
			f.Self, f.Cross = look.end()
		}
		if at == len(o.Frontiers) {
			break
		}
		if err := t.Force(ctx, latent, t.upcoming()...); err != nil {
			return fmt.Errorf("policy %s, frame %d: %w", entry.Name, t.n, err)
		}
		t.n = end
		o.Progress(what, min(t.n, o.Frames), o.Frames)
	}
	return nil
}

// peek makes the chunk that ends before frame end under the policy, and compares it with the reference's.
func (o *Options) peek(ctx context.Context, t *take, reference *film, end int) (*Quality, error) {
	frames, err := t.Peek(ctx, t.upcoming()...)
	if err != nil {
		return nil, err
	}
	want := reference.frames[t.n:min(end, len(reference.frames))]
	s, err := score(frames, want, 0)
	if err != nil {
		return nil, err
	}
	q := s.pool(0, len(want))
	q.From, q.To = t.n, t.n+len(want)
	return &q, nil
}
