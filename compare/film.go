package compare

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"image/png"
	"slices"
	"time"

	"longtake/rollout"
	"longtake/video"
)

// take is a session and the actions that it follows.
type take struct {
	*rollout.Session
	engine  *rollout.Engine
	actions []int
	n       int // frames done, given ones included
}

func newTake(ctx context.Context, e *rollout.Engine, r rollout.Request, actions []int) (*take, error) {
	s, err := e.NewSession(ctx, r)
	if err != nil {
		return nil, err
	}
	return &take{s, e, actions, len(r.Start)}, nil
}

// upcoming returns the actions of the next chunk.
func (t *take) upcoming() []int {
	end := min(t.n+t.engine.Network.ChunkFrames, len(t.actions))
	return t.actions[min(t.n, end):end]
}

// step makes a chunk and measures it.
func (t *take) step(ctx context.Context, c *clock) ([]video.Frame, error) {
	compacted, matched := t.Stats().Compacting, c.matching
	began := time.Now()
	frames, err := t.Next(ctx, t.upcoming()...)
	if err != nil {
		return nil, err
	}
	took := time.Since(began)
	t.n += len(frames)
	stats := t.Stats()
	c.add(tick{t.n, len(frames), took, t.Times(), stats.Compacting - compacted, c.matching - matched, stats.Bytes, t.Bytes(), stats.Tokens})
	return frames, nil
}

// tick is what one chunk took; sizes are those after it.
type tick struct {
	done, frames         int
	took                 time.Duration
	stages               rollout.Times
	compact, match       time.Duration
	cacheBytes, allBytes int64
	tokens               float64
}

// clock collects ticks.
type clock struct {
	ticks []tick
	first time.Duration // from the start of the session to its first frame
	dense float64       // tokens of a frame
	// matching is the time that attention policies spent on deciding, up to now.
	matching time.Duration
}

func newClock(e *rollout.Engine) clock { return clock{dense: float64(e.CacheShape.Tokens())} }

func (c *clock) add(t tick) { c.ticks = append(c.ticks, t) }

func (c *clock) total() (d time.Duration) {
	for _, t := range c.ticks {
		d += t.took
	}
	return d
}

// speed summarises the chunks among the span frames up to frontier.
func (c *clock) speed(frontier, span int) Speed {
	s := Speed{Frame: frontier}
	var all []float64
	frames, sum := 0, 0.0
	for _, t := range c.ticks {
		if t.done <= frontier-span || t.done-t.frames >= frontier {
			continue
		}
		took := t.took.Seconds()
		all, frames, sum = append(all, took), frames+t.frames, sum+took
		s.Denoise += t.stages.Denoise.Seconds()
		s.Commit += t.stages.Commit.Seconds()
		s.Decode += t.stages.Decode.Seconds()
		s.Compact += t.compact.Seconds()
		s.Match += t.match.Seconds()
		s.CacheBytes, s.SessionBytes, s.Tokens = t.cacheBytes, t.allBytes, t.tokens
		s.Density = t.tokens / (c.dense * float64(t.done))
	}
	n := float64(len(all))
	if n == 0 {
		return s
	}
	slices.Sort(all)
	s.Chunks, s.Mean, s.FPS = len(all), sum/n, float64(frames)/sum
	s.P50, s.P95 = percentile(all, 0.50), percentile(all, 0.95)
	for _, v := range []*float64{&s.Denoise, &s.Commit, &s.Decode, &s.Compact, &s.Match} {
		*v /= n
	}
	return s
}

// percentile is by nearest rank in a sorted list.
func percentile(sorted []float64, p float64) float64 {
	i := int(p*float64(len(sorted))+0.999999) - 1
	return sorted[max(0, min(i, len(sorted)-1))]
}

// film is what a free run leaves.
type film struct {
	clock
	frames  []video.Frame // given ones included
	latents [][]float32   // of each chunk, if kept
}

// roll makes a whole video.
func (o *Options) roll(ctx context.Context, e *rollout.Engine, entry Entry, what string, keepLatents bool) (*film, error) {
	f := &film{clock: newClock(e)}
	began := time.Now()
	t, err := newTake(ctx, e, entry.timed(&f.clock).Request(o.Request), o.Actions)
	if err != nil {
		return nil, fmt.Errorf("policy %s: %w", entry.Name, err)
	}
	defer t.Close()
	f.frames = append(f.frames, o.Request.Start...)
	for t.n < o.Frames {
		frames, err := t.step(ctx, &f.clock)
		if err != nil {
			return nil, fmt.Errorf("policy %s, frame %d: %w", entry.Name, t.n, err)
		}
		if f.first == 0 {
			f.first = time.Since(began)
		}
		f.frames = append(f.frames, frames...)
		if keepLatents {
			latent, err := t.Latents()
			if err != nil {
				return nil, err
			}
			f.latents = append(f.latents, latent)
		}
		o.Progress(what, min(t.n, o.Frames), o.Frames)
	}
	f.frames = f.frames[:min(len(f.frames), o.Frames)]
	return f, nil
}

// hash is SHA-256 over the raw RGB of all frames.
func hash(frames []video.Frame) string {
	h := sha256.New()
	for _, f := range frames {
		h.Write(f.Pix)
	}
	return fmt.Sprintf("%x", h.Sum(nil))
}

// stills picks count of the frames from on, evenly, the last one included.
func stills(frame func(i int) video.Frame, from, frames, count int) (Strip, error) {
	var strip Strip
	count = min(count, frames-from)
	for i := range count {
		at := frames - 1
		if count > 1 {
			at = from + i*(frames-1-from)/(count-1)
		}
		var b bytes.Buffer
		if err := png.Encode(&b, frame(at).Image()); err != nil {
			return nil, err
		}
		strip = append(strip, Still{Frame: at, PNG: b.Bytes()})
	}
	return strip, nil
}
