package compare

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"longtake/compute"
	"longtake/kvcache"
	"longtake/rollout"
	"longtake/video"
)

// RolloutOptions says what Rollout measures. Fields with the names of Options' are those.
type RolloutOptions struct {
	Engine    *rollout.Engine
	Request   rollout.Request
	Actions   []int
	Frames    int
	Entries   []Entry
	Frontiers []int
	// Span is how many frames up to a frontier are pooled.
	Span int
	// Clip, if not nil, replaces what the network makes, so that the history is that of moving pictures. It costs what it replaces.
	Clip *Clip
	// Fill writes histories by clean passes alone, save for the Span frames before a frontier: what is timed is whole, and a long dense
	// run ends in this life. Without a Clip that is done for entries that are Unbounded only, with noise as latents.
	Fill bool
	// Exact makes the history again under each entry and compares attention at the frontiers with that over the whole past.
	Exact bool
	// Profile has one chunk after every frontier timed launch by launch, where the device can.
	Profile bool
	// Found, if not nil, hears of every measure when it is taken.
	Found    func(policy string, m RolloutMeasure)
	Progress func(what string, done, total int)
}

// RolloutReport is what Rollout measures: every number has the frame at which it was taken.
type RolloutReport struct {
	Setup     Setup        `json:"setup"`
	Precision string       `json:"precision"`
	Loop      string       `json:"loop"`
	Data      string       `json:"data"` // what the history is made of
	Span      int          `json:"span"`
	Frontiers []int        `json:"frontiers"`
	Runs      []RolloutRun `json:"runs"`
}

// RolloutRun is one entry's part. Times are in seconds.
type RolloutRun struct {
	Policy Policy `json:"policy"`
	// Start is the time to open the session, FirstFrame from there to the first frames, Total the whole run's.
	Start      float64 `json:"start"`
	FirstFrame float64 `json:"first_frame"`
	Total      float64 `json:"total"`
	// Predicted is the device memory of weights and session as it was known before the start.
	Predicted int64 `json:"predicted_bytes"`
	// Stopped is the frame at which the run ended before the video did, 0 if it did not, and Why.
	Stopped int    `json:"stopped,omitempty"`
	Why     string `json:"why,omitempty"`
	// Filled says that the history was written by clean passes alone (RolloutOptions.Fill).
	Filled bool `json:"filled,omitempty"`
	// ChunkSeconds has every whole chunk, ChunkFrames the frame that it ends with.
	ChunkSeconds []float64        `json:"chunk_seconds"`
	ChunkFrames  []int            `json:"chunk_frames"`
	Frontiers    []RolloutMeasure `json:"frontiers"`
}

// RolloutMeasure is what was found at a frame. Stages are those of the chunk after it, with the device waited for after each;
// they are not a part of the other times.
type RolloutMeasure struct {
	Frame   int     `json:"frame"`
	Latents int     `json:"latent_frames"`
	Chunks  int     `json:"chunks"`
	FPS     float64 `json:"fps"`
	Mean    float64 `json:"mean"`
	P50     float64 `json:"p50"`
	P95     float64 `json:"p95"`
	// Begin is the cache's making room (merging), Denoise the steps, Commit the clean pass, Decode latents to frames on the host. Attend
	// and AttendCross are what of Denoise and Commit is attention, in a chunk in which the device was waited for before and after each.
	Begin       float64 `json:"begin"`
	Denoise     float64 `json:"denoise"`
	Commit      float64 `json:"commit"`
	Decode      float64 `json:"decode"`
	Attend      float64 `json:"attend"`
	AttendCross float64 `json:"attend_cross"`
	// CacheBytes and SessionBytes are what they hold, DeviceBytes what this process holds of the device, PeakBytes the most it did.
	CacheBytes   int64 `json:"cache_bytes"`
	SessionBytes int64 `json:"session_bytes"`
	DeviceBytes  int64 `json:"device_bytes"`
	PeakBytes    int64 `json:"peak_bytes"`
	// Tokens is the mean number of keys of the past that a head holds, Held their share of those of the whole past; Density the share of
	// pairs of query and held key that attention computed, Recall the share of the exact attention's mass on them (both 1: dense
	// attention over what is held), sampled in the chunk after.
	Tokens  float64  `json:"tokens"`
	Held    float64  `json:"held"`
	Density Fraction `json:"density"`
	Recall  Fraction `json:"recall"`
	// Merged and Evicted count tokens of the past that joined others, and that were forgotten, as shares of all that left the newest frames.
	Merged  Fraction `json:"merged"`
	Evicted Fraction `json:"evicted"`
	Self    []Share  `json:"self,omitempty"`
	// Ops are the device's times by kind of launch, in a chunk of its own (RolloutOptions.Profile).
	Ops []compute.OpTime `json:"ops,omitempty"`
	// Error is how far the outputs of self attention are from those over the whole past, relative to their size, Mass the share of the
	// exact attention's mass that the policy's keys stand for (RolloutOptions.Exact): one head of three layers, all passes of a chunk.
	Error Fraction `json:"error"`
	Mass  Fraction `json:"mass"`
}

// Rollout makes the video under each entry, one after the other, and measures at the frontiers.
func Rollout(ctx context.Context, o RolloutOptions) (*RolloutReport, error) {
	if err := o.check(); err != nil {
		return nil, fmt.Errorf("%w: %w", rollout.ErrRequest, err)
	}
	e := o.Engine
	r := &RolloutReport{Span: o.Span, Frontiers: o.Frontiers, Loop: o.Request.Loop.String(), Data: "what the network makes"}
	if o.Clip != nil {
		o.Request.Clean = o.Clip.Write
		r.Data = fmt.Sprintf("a real clip, panned over its mirrored plane, again after %d latent frames, noise of %g on every value", ClipPeriod, ClipNoise)
	}
	r.Setup = Setup{Frames: o.Frames, Given: len(o.Request.Start), ChunkFrames: e.Network.ChunkFrames}
	for _, entry := range o.Entries {
		run, err := o.run(ctx, entry)
		if err != nil {
			return nil, fmt.Errorf("policy %s: %w", entry.Name, err)
		}
		r.Runs = append(r.Runs, *run)
	}
	return r, nil
}

func (o *RolloutOptions) check() (err error) {
	if err = checkEntries(o.Entries); err != nil {
		return err
	}
	if o.Frames <= len(o.Request.Start) {
		return fmt.Errorf("%d frames, of which %d are given: nothing to measure", o.Frames, len(o.Request.Start))
	}
	if o.Frontiers, err = frontiers(o.Frontiers, len(o.Request.Start), o.Frames); err != nil {
		return err
	}
	if o.Span <= 0 {
		o.Span = DefaultSpan
	}
	if o.Progress == nil {
		o.Progress = func(string, int, int) {}
	}
	return nil
}

// long is an entry's run.
type long struct {
	*take
	ahead    *rollout.Ahead // of which take has the session; nil of another loop
	options  *RolloutOptions
	entry    Entry
	run      *RolloutRun
	spent    spent
	look     *probes
	most     int // latent frames that an unbounded cache may hold, 0 without a limit
	filler   []float32
	made     []int // frames of every whole chunk
	attended bool  // attention is on the clock
}

// run makes a whole video, or as much of it as the memory allows.
func (o *RolloutOptions) run(ctx context.Context, entry Entry) (*RolloutRun, error) {
	a := &long{options: o, entry: entry, run: &RolloutRun{Policy: entry.Policy}}
	err := o.measured(ctx, a)
	if err == nil && o.Exact {
		err = o.exactly(ctx, entry, a.run)
	}
	if errors.Is(err, compute.ErrNoMemory) {
		a.run.Why, err = err.Error(), nil
	}
	return a.run, err
}

// measured is the run itself. A memory that ends is not an error of it.
func (o *RolloutOptions) measured(ctx context.Context, a *long) error {
	err := a.open(ctx)
	defer a.close()
	for next := 0; err == nil && next < len(o.Frontiers); {
		if a.n >= o.Frontiers[next] {
			next++
			err = a.measure(ctx, o.Frontiers[next-1])
			continue
		}
		err = a.chunk(ctx, o.Frontiers[next])
	}
	if errors.Is(err, compute.ErrNoMemory) && a.take != nil {
		a.run.Stopped = a.n
	}
	return err
}

// extraChunks is how many chunks a measurement makes at most.
const extraChunks = 5

// room reports whether so many more chunks fit, one in work besides.
func (a *long) room(chunks int) bool {
	if a.ahead != nil {
		chunks++
	}
	return a.most == 0 || a.Stats().Frames+chunks*a.engine.Network.ChunkFrames <= a.most
}

// open starts the session. A cache that is to hold everything takes its memory at once: by doubling it would end earlier.
func (a *long) open(ctx context.Context) error {
	o, e := a.options, a.options.Engine
	request := func() rollout.Request {
		var entry Entry
		entry, a.look = probed(a.entry, nil)
		entry.Looks, entry.Reads = waited(entry.Looks, &a.attended, &a.spent), waited(entry.Reads, &a.attended, &a.spent)
		return entry.Request(o.Request)
	}
	if w, ok := a.entry.Keeps.(kvcache.Window); ok && w.Recent == kvcache.Full {
		want := e.LatentFrames(o.Frames) + (extraChunks+2)*e.Network.ChunkFrames // and the last one, and one in work
		a.most = a.fits(want, func(n int) rollout.Request {
			a.entry.Keeps = kvcache.Window{Recent: n - e.Network.ChunkFrames}
			return request()
		})
		if a.most < e.Network.ChunkFrames {
			return fmt.Errorf("a chunk without a past: %w", compute.ErrNoMemory)
		}
		a.entry.Keeps = kvcache.Window{Recent: a.most - e.Network.ChunkFrames}
		a.run.Filled = o.Fill
	}
	a.run.Filled = a.run.Filled || o.Fill && o.Clip != nil
	r := request()
	bytes, err := e.SessionBytes(r)
	if err != nil {
		return err
	}
	a.run.Predicted = bytes + e.WeightBytes()
	began := time.Now()
	if r.Loop == rollout.AheadOfTime {
		if a.ahead, err = e.NewAhead(ctx, r); err == nil {
			a.take = &take{&a.ahead.Session, e, o.Actions, len(r.Start)}
		}
	} else {
		a.take, err = newTake(ctx, e, r, o.Actions)
	}
	a.run.Start = time.Since(began).Seconds()
	return err
}

// next makes a chunk by the run's loop, whole one by itself.
func (a *long) next(ctx context.Context) ([]video.Frame, error) {
	if a.ahead != nil {
		return a.ahead.Next(ctx)
	}
	return a.Next(ctx, a.upcoming()...)
}

func (a *long) whole(ctx context.Context) ([]video.Frame, error) {
	if a.ahead != nil {
		a.ahead.Settle()
	}
	return a.Next(ctx, a.upcoming()...)
}

func (a *long) close() {
	switch {
	case a.ahead != nil:
		a.ahead.Close()
	case a.take != nil:
		a.Close()
	}
}

// fits returns the largest number of latent frames up to want whose session fits into what is free.
func (a *long) fits(want int, request func(n int) rollout.Request) int {
	const spare = 1 << 30 // work space of operations, graphs
	e := a.options.Engine
	free := e.Device.Memory().Free
	for n := want; n > 0; n -= e.Network.ChunkFrames {
		if bytes, err := e.SessionBytes(request(n)); free == 0 || err == nil && bytes+spare < free {
			return n
		}
	}
	return 0
}

// chunk makes the next chunk, on the way to a frontier.
func (a *long) chunk(ctx context.Context, frontier int) error {
	o := a.options
	if !a.room(1) {
		return fmt.Errorf("%d latent frames of keys are all that fits: %w", a.most, compute.ErrNoMemory)
	}
	if n := a.steps(); a.run.Filled && a.n+n <= frontier-o.Span {
		if a.ahead != nil {
			a.ahead.Settle()
		}
		if err := a.Force(ctx, a.fill(), a.upcoming()...); err != nil {
			return fmt.Errorf("frame %d: %w", a.n, err)
		}
		a.n += n
	} else {
		began := time.Now()
		frames, err := a.next(ctx)
		if err != nil {
			return fmt.Errorf("frame %d: %w", a.n, err)
		}
		a.n += len(frames)
		a.run.ChunkSeconds, a.run.ChunkFrames = append(a.run.ChunkSeconds, time.Since(began).Seconds()), append(a.run.ChunkFrames, a.n)
		a.made = append(a.made, len(frames))
		a.run.Total += time.Since(began).Seconds()
		if a.run.FirstFrame == 0 {
			a.run.FirstFrame = a.run.Start + time.Since(began).Seconds()
		}
	}
	o.Progress(a.entry.Name, min(a.n, o.Frames), o.Frames)
	return nil
}

// steps is how many frames the next chunk gives, at most. It asks no cache, which might wait for a chunk in work, outside the time that is
// measured.
func (a *long) steps() int {
	if e := a.engine; a.n > 0 {
		return e.Frames(2*e.Network.ChunkFrames) - e.Frames(e.Network.ChunkFrames)
	}
	return a.upcomingFrames()
}

// fill is what a chunk of the history is made of that is not denoised.
func (a *long) fill() []float32 {
	if c := a.options.Clip; c != nil {
		return c.Values(a.Stats().Frames / a.engine.Network.ChunkFrames)
	}
	if a.filler == nil {
		a.filler = make([]float32, a.Latent().Elems())
		compute.FillNoise(a.filler, compute.NoiseKey{Seed: a.options.Request.Seed}, 0)
	}
	return a.filler
}

// measure writes down what is known at a frontier, then makes chunks to look at: one in which every stage is waited for, one in which
// every attention is, and of sparse attention one to see what it leaves out.
func (a *long) measure(ctx context.Context, frontier int) error {
	m := a.pooled(frontier)
	extra := func() error {
		if !a.room(1) {
			return fmt.Errorf("%d latent frames of keys are all that fits: %w", a.most, compute.ErrNoMemory)
		}
		frames, err := a.whole(ctx)
		a.n += len(frames)
		return err
	}
	if a.ahead != nil { // its chunk in work has begun already
		if err := extra(); err != nil {
			return a.last(m, err)
		}
	}
	a.Staged(true)
	defer a.Staged(false)
	if err := extra(); err != nil {
		return a.last(m, err)
	}
	t := a.Times()
	m.Begin, m.Denoise, m.Commit, m.Decode = t.Begin.Seconds(), (t.Denoise - t.Begin).Seconds(), t.Commit.Seconds(), t.Decode.Seconds()
	a.attended, a.spent = true, spent{}
	err := extra()
	a.attended = false
	if err != nil {
		return a.last(m, err)
	}
	m.Attend, m.AttendCross = a.spent.self.Seconds(), a.spent.cross.Seconds()
	if a.options.Profile {
		a.Profile(true)
		err = extra()
		if m.Ops = a.Profile(false); err != nil {
			return a.last(m, err)
		}
	}
	if a.look.self != nil {
		a.look.begin()
		err = extra()
		m.Self, _ = a.look.end()
		m.Density, m.Recall = average(m.Self)
	}
	return a.last(m, err)
}

// last adds a measure, also where memory ended before all of it was taken.
func (a *long) last(m RolloutMeasure, err error) error {
	a.run.Frontiers = append(a.run.Frontiers, m)
	if f := a.options.Found; f != nil {
		f(a.entry.Name, m)
	}
	return err
}

// average is the mean over layers, 1 where nothing was left out.
func average(list []Share) (density, recall Fraction) {
	if len(list) == 0 {
		return 1, 1
	}
	for _, s := range list {
		density, recall = density+s.Density/Fraction(len(list)), recall+s.Recall/Fraction(len(list))
	}
	return density, recall
}

// pooled summarises the whole chunks among the span frames up to a frontier, and takes the sizes.
func (a *long) pooled(frontier int) RolloutMeasure {
	nothing := Fraction(math.NaN())
	m, run := RolloutMeasure{Frame: frontier, Density: 1, Recall: 1, Error: nothing, Mass: nothing}, a.run
	var all []float64
	sum, frames := 0.0, 0
	for i, seconds := range run.ChunkSeconds {
		at := run.ChunkFrames[i]
		before := at - a.made[i]
		if at > frontier-a.options.Span && before < frontier {
			all, sum, frames = append(all, seconds), sum+seconds, frames+a.made[i]
		}
	}
	if slices.Sort(all); len(all) > 0 {
		m.Chunks, m.FPS, m.Mean = len(all), float64(frames)/sum, sum/float64(len(all))
		m.P50, m.P95 = percentile(all, 0.50), percentile(all, 0.95)
	}
	stats, memory := a.Stats(), a.engine.Device.Memory()
	m.Latents, m.CacheBytes, m.SessionBytes, m.Tokens = stats.Frames, stats.Bytes, a.Bytes(), stats.Tokens
	m.DeviceBytes, m.PeakBytes = memory.Used, memory.Peak
	m.Held = stats.Tokens / float64(stats.Frames*a.engine.CacheShape.Tokens())
	var entered, merged, evicted float64
	for _, h := range stats.Heads {
		entered += float64(int64(h.Kept) + h.Merged + h.Evicted)
		merged, evicted = merged+float64(h.Merged), evicted+float64(h.Evicted)
	}
	m.Merged, m.Evicted = Fraction(merged/entered), Fraction(evicted/entered)
	return m
}
