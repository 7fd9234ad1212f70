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

// upcomingFrames is how many frames the next chunk gives.
func (t *take) upcomingFrames() int {
	done := t.Stats().Frames
	return t.engine.Frames(done+t.engine.Network.ChunkFrames) - t.engine.Frames(done)
}

// step makes a chunk and measures it.
func (t *take) step(ctx context.Context, c *clock) ([]video.Frame, error) {
	compacted, before := t.Stats().Compacting, c.spent
	began := time.Now()
	frames, err := t.Next(ctx, t.upcoming()...)
	if err != nil {
		return nil, err
	}
	took := time.Since(began)
	t.n += len(frames)
	stats := t.Stats()
	c.ticks = append(c.ticks, tick{t.n, len(frames), took, t.Times(), stats.Compacting - compacted, c.spent.since(before), stats.Bytes,
		t.Bytes(), stats.Tokens, c.shared})
	return frames, nil
}

// tick is what one chunk took; sizes are those after it.
type tick struct {
	done, frames         int
	took                 time.Duration
	stages               rollout.Times
	compact              time.Duration
	spent                spent
	cacheBytes, allBytes int64
	tokens               float64
	shared               bool // other runs were on the machine: its times say nothing
}

// clock collects ticks.
type clock struct {
	ticks []tick
	first time.Duration // from the start of the session to its first frame
	dense float64       // tokens of a frame
	spent spent         // by attention, up to now
	// shared says that other runs are on the machine now.
	shared bool
}

func newClock(e *rollout.Engine) clock { return clock{dense: float64(e.CacheShape.Tokens())} }

// times returns a time of every chunk, as value tells it of a tick. Chunks that shared the machine get what lies between those
// around them that were timed, by linear interpolation over the frames: where the history grows evenly, so does the time.
func (c *clock) times(value func(tick) time.Duration) []time.Duration {
	out := make([]time.Duration, len(c.ticks))
	before, after := -1, 0
	for i, t := range c.ticks {
		if !t.shared {
			before, out[i] = i, value(t)
			continue
		}
		for after = max(after, i); after < len(c.ticks) && c.ticks[after].shared; after++ {
		}
		switch {
		case before >= 0 && after < len(c.ticks):
			a, b := c.ticks[before], c.ticks[after]
			share := float64(t.done-a.done) / float64(b.done-a.done)
			out[i] = value(a) + time.Duration(share*float64(value(b)-value(a)))
		case before >= 0:
			out[i] = value(c.ticks[before])
		case after < len(c.ticks):
			out[i] = value(c.ticks[after])
		}
	}
	return out
}

// total is the time of all chunks, see times.
func (c *clock) total() time.Duration {
	return sum(c.times(func(t tick) time.Duration { return t.took }))
}

func sum(list []time.Duration) (d time.Duration) {
	for _, v := range list {
		d += v
	}
	return d
}

// cut forgets the chunks after so many frames.
func (c *clock) cut(frames int) {
	n := len(c.ticks)
	for n > 0 && c.ticks[n-1].done-c.ticks[n-1].frames >= frames {
		n--
	}
	c.ticks = c.ticks[:n]
}

// speed summarises the chunks among the span frames up to frontier that had the machine to themselves.
func (c *clock) speed(frontier, span int) Speed {
	s := Speed{Frame: frontier}
	var all []float64
	frames, sum := 0, 0.0
	for _, t := range c.ticks {
		if t.done <= frontier-span || t.done-t.frames >= frontier {
			continue
		}
		s.CacheBytes, s.SessionBytes, s.Tokens = t.cacheBytes, t.allBytes, t.tokens
		s.Density = t.tokens / (c.dense * float64(t.done))
		if t.shared {
			continue
		}
		took := t.took.Seconds()
		all, frames, sum = append(all, took), frames+t.frames, sum+took
		s.Denoise += t.stages.Denoise.Seconds()
		s.Commit += t.stages.Commit.Seconds()
		s.Decode += t.stages.Decode.Seconds()
		s.Compact += t.compact.Seconds()
		s.Match += t.spent.matching.Seconds()
		s.Attend += t.spent.self.Seconds()
		s.AttendCross += t.spent.cross.Seconds()
	}
	n := float64(len(all))
	if n == 0 {
		return s
	}
	slices.Sort(all)
	s.Chunks, s.Mean, s.FPS = len(all), sum/n, float64(frames)/sum
	s.P50, s.P95 = percentile(all, 0.50), percentile(all, 0.95)
	for _, v := range []*float64{&s.Denoise, &s.Commit, &s.Decode, &s.Compact, &s.Match, &s.Attend, &s.AttendCross} {
		*v /= n
	}
	return s
}

// percentile is by nearest rank in a sorted list.
func percentile(sorted []float64, p float64) float64 {
	i := int(p*float64(len(sorted))+0.999999) - 1
	return sorted[max(0, min(i, len(sorted)-1))]
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
