package compare

import (
	"context"
	"fmt"
	"math"
	"sync"

	"longtake/rollout"
	"longtake/video"
	"longtake/video/metric"
	"longtake/world"
)

// MemoryOptions says what Memory tests.
type MemoryOptions struct {
	Engine *rollout.Engine
	// Kind is how the player leaves and comes back: world.LookAround turns Span frames and back, world.WalkAndUndo walks away
	// and undoes it, world.WalkAndReturn turns round and walks back, world.Circles turns a full circle and then Span frames more.
	// The frames up to the turning point are the simulator's, those of the way back are generated.
	Kind world.Kind
	Span int
	// Clips is the number of worlds; their seeds are Seed and the next ones, those left out where the player touches a wall
	// (what a true player cannot do and a dreamt one can is no matter of memory).
	Clips int
	Seed  uint32
	// Steps of denoising, 0 for the model's own.
	Steps   int
	Entries []Entry
	// Stills is the number of pictures of the first clip, 0 for none.
	Stills int
	// Parallel is how many clips share the machine, 0 and 1 for one after the other; MemoryRow.FPS is then of no use.
	Parallel int
	Progress func(what string, done, total int)
}

// maxSeeds bounds the search for worlds in which nothing is in the player's way.
const maxSeeds = 10_000

// clip is a way through a world whose second part is generated.
type clip struct {
	seed    uint32
	episode *world.Episode
	options Options
	given   int
	seen    [][]bool // of each generated frame, the pixels that a given one has shown
}

// Memory tests what policies remember of places that were seen before, against the simulator's pictures of them.
func Memory(ctx context.Context, m MemoryOptions) (*MemoryTest, error) {
	if err := checkEntries(m.Entries); err != nil {
		return nil, fmt.Errorf("%w: %w", rollout.ErrRequest, err)
	}
	if m.Progress == nil {
		m.Progress = func(string, int, int) {}
	}
	clips, err := m.clips()
	if err != nil {
		return nil, fmt.Errorf("%w: %w", rollout.ErrRequest, err)
	}
	if err := parallel(0, 0, len(clips), func(i int) error { return clips[i].look(m.Engine.Width, m.Engine.Height) }); err != nil {
		return nil, err
	}
	first := clips[0]
	t := &MemoryTest{Kind: m.Kind.String(), Span: m.Span, Given: first.given, Made: first.options.Frames - first.given}
	for _, c := range clips {
		t.Seeds = append(t.Seeds, c.seed)
	}
	if t.TruthStrip, err = stills(first.options.Truth, first.given, first.options.Frames, m.Stills); err != nil {
		return nil, err
	}
	reference := make([]*film, len(clips))
	for i, entry := range m.Entries {
		row, err := m.row(ctx, entry, clips, reference, i == 0)
		if err != nil {
			return nil, err
		}
		t.Rows = append(t.Rows, *row)
		t.Rows[i].behind(&t.Rows[0])
	}
	return t, nil
}

// clips finds the worlds.
func (m *MemoryOptions) clips() ([]clip, error) {
	if m.Span < 1 || m.Clips < 1 {
		return nil, fmt.Errorf("memory test of %d clips with a span of %d frames: both must be at least 1", m.Clips, m.Span)
	}
	given, frames := m.Span+1, 2*m.Span+1
	switch m.Kind {
	case world.LookAround, world.WalkAndUndo:
	case world.Circles:
		given = world.Headings + 1
		frames = given + m.Span
	case world.WalkAndReturn: // given until the player has turned round
		given, frames = m.Span+world.Headings/2+1, 2*m.Span+world.Headings+1
	default:
		return nil, fmt.Errorf("memory test %v: known are look-around, walk-and-undo, walk-and-return and circles", m.Kind)
	}
	var out []clip
	for seed := m.Seed; len(out) < m.Clips; seed++ {
		if seed-m.Seed > maxSeeds {
			return nil, fmt.Errorf("seeds %d to %d: only %d worlds of %d in which nothing is in the way for %d frames", m.Seed, seed, len(out), m.Clips, m.Span)
		}
		episode, err := world.NewEpisode(seed, frames, m.Kind, m.Span)
		if err != nil {
			return nil, err
		}
		if unhindered(episode) {
			out = append(out, m.clip(seed, episode, given))
		}
	}
	return out, nil
}

// unhindered reports whether the player never touched a wall.
func unhindered(e *world.Episode) bool {
	for i, p := range world.DeadReckon(e.Poses[0], e.Actions) {
		if dx, dy := p.X-e.Poses[i].X, p.Y-e.Poses[i].Y; dx*dx+dy*dy > 1e-4 {
			return false
		}
	}
	return true
}

func (m *MemoryOptions) clip(seed uint32, e *world.Episode, given int) clip {
	truth := func(i int) video.Frame {
		f := video.NewFrame(m.Engine.Width, m.Engine.Height)
		e.World.Render(f.Pix, e.Poses[i], f.Width, f.Height)
		return f
	}
	c := clip{seed: seed, given: given, episode: e, options: Options{Engine: m.Engine, Frames: len(e.Poses), Truth: truth, Stills: m.Stills}}
	r := rollout.Request{Prompt: e.Prompt(), Seed: uint64(seed), Steps: m.Steps, Heading: e.Poses[0].Heading}
	for i, a := range e.Actions {
		c.options.Actions = append(c.options.Actions, int(a))
		if i < given {
			r.Start, r.StartActions = append(r.Start, truth(i)), append(r.StartActions, int(a))
		}
	}
	c.options.Request = r
	return c
}

// look finds what of the way back the way there has shown.
func (c *clip) look(width, height int) error {
	for _, p := range c.episode.Poses[c.given:] {
		seen := make([]bool, width*height)
		c.episode.World.Seen(seen, p, c.episode.Poses[:c.given], width, height)
		c.seen = append(c.seen, seen)
	}
	return nil
}

// row runs one entry in all clips. The first entry's films become the reference of the others.
func (m *MemoryOptions) row(ctx context.Context, entry Entry, clips []clip, reference []*film, first bool) (*MemoryRow, error) {
	row := &MemoryRow{Policy: entry.Policy, ToFirst: Unmeasured}
	films := make([]*film, len(clips))
	frames := clips[0].options.Frames - clips[0].given
	var mu sync.Mutex
	done, total := 0, len(clips)*frames/m.Engine.Network.ChunkFrames
	err := parallel(max(m.Parallel, 1), 0, len(clips), func(i int) (err error) {
		o := clips[i].options
		o.Progress = func(string, int, int) {
			mu.Lock()
			defer mu.Unlock()
			done++
			m.Progress(entry.Name, done, total)
		}
		films[i], err = o.roll(ctx, m.Engine, entry, "")
		return err
	})
	if err != nil {
		return nil, err
	}
	all, known := make([][]Decibel, len(clips)), make([][]Decibel, len(clips)) // by clip and generated frame
	var toFirst []Decibel
	seconds, made := 0.0, 0
	for i, c := range clips {
		f := films[i]
		if all[i], err = against(f.frames[c.given:], func(k int) video.Frame { return c.options.Truth(c.given + k) }); err != nil {
			return nil, err
		}
		if known[i], err = inView(f.frames[c.given:], c); err != nil {
			return nil, err
		}
		last := f.ticks[len(f.ticks)-1]
		row.Tokens += last.tokens / float64(len(clips))
		row.CacheBytes += last.cacheBytes / int64(len(clips))
		seconds, made = seconds+f.total().Seconds(), made+frames
		if first {
			reference[i] = f
			continue
		}
		d, err := against(f.frames[c.given:], func(k int) video.Frame { return reference[i].frames[c.given+k] })
		if err != nil {
			return nil, err
		}
		toFirst = append(toFirst, d...)
	}
	f, c := films[0], clips[0]
	if row.Strip, err = stills(func(k int) video.Frame { return f.frames[k] }, c.given, c.options.Frames, m.Stills); err != nil {
		return nil, err
	}
	row.ToFirst, row.FPS = meanDecibel(toFirst), float64(made)/seconds
	row.summarize(all)
	row.remembered(known, clips)
	return row, nil
}

// behind compares a row's clips with those of the first row, clip by clip.
func (row *MemoryRow) behind(first *MemoryRow) {
	var d []float64
	for i, v := range row.Clips {
		d = append(d, float64(v)-float64(first.Clips[i]))
	}
	row.Gain, row.GainError = meanAndError(d)
}

// meanAndError is the mean of numbers and its standard error; the error of a single one is 0.
func meanAndError(list []float64) (mean, standard float64) {
	for _, v := range list {
		mean += v / float64(len(list))
	}
	n := float64(len(list))
	if n < 2 {
		return mean, 0
	}
	for _, v := range list {
		standard += (v - mean) * (v - mean)
	}
	return mean, math.Sqrt(standard / (n - 1) / n)
}

// lastFrames is how many frames MemoryRow.Last means.
const lastFrames = 5

// summarize takes the means over clips and frames.
func (row *MemoryRow) summarize(all [][]Decibel) {
	frames := len(all[0])
	var every, last []Decibel
	var thirds [3][]Decibel
	for _, clip := range all {
		row.Clips = append(row.Clips, meanDecibel(clip))
		every, last = append(every, clip...), append(last, clip[max(0, frames-lastFrames):]...)
		for i := range thirds {
			thirds[i] = append(thirds[i], clip[i*frames/3:(i+1)*frames/3]...)
		}
	}
	for k := range frames {
		column := make([]Decibel, len(all))
		for i := range all {
			column[i] = all[i][k]
		}
		row.Frames = append(row.Frames, meanDecibel(column))
	}
	clips := make([]float64, len(row.Clips))
	for i, c := range row.Clips {
		clips[i] = float64(c)
	}
	_, row.Error = meanAndError(clips)
	row.PSNR, row.Last, row.Worst = meanDecibel(every), meanDecibel(last), row.Clips[0]
	for _, c := range row.Clips {
		row.Worst = min(row.Worst, c)
	}
	for i := range thirds {
		row.Thirds[i] = meanDecibel(thirds[i])
	}
}

// remembered takes the means over what can be remembered.
func (row *MemoryRow) remembered(known [][]Decibel, clips []clip) {
	var every []Decibel
	var means []float64
	unseen, pixels := 0, 0
	for i, c := range clips {
		every = append(every, known[i]...)
		if m := meanDecibel(known[i]); m.Measured() {
			means = append(means, float64(m))
		}
		for _, frame := range c.seen {
			unseen, pixels = unseen+len(frame)-count(frame), pixels+len(frame)
		}
	}
	row.Seen, row.New = meanDecibel(every), Fraction(float64(unseen)/float64(pixels))
	_, row.SeenError = meanAndError(means)
}

func count(list []bool) (n int) {
	for _, v := range list {
		if v {
			n++
		}
	}
	return n
}

// inView compares a clip's frames with the truth where the given ones have shown it.
func inView(frames []video.Frame, c clip) ([]Decibel, error) {
	out := make([]Decibel, len(frames))
	err := parallel(0, 0, len(frames), func(i int) error {
		psnr, err := metric.PSNRWhere(frames[i], c.options.Truth(c.given+i), c.seen[i])
		out[i] = Decibel(psnr)
		return err
	})
	return out, err
}

// against compares frames with pictures that are made on demand.
func against(frames []video.Frame, want func(i int) video.Frame) ([]Decibel, error) {
	out := make([]Decibel, len(frames))
	err := parallel(0, 0, len(frames), func(i int) error {
		psnr, err := metric.PSNR(frames[i], want(i))
		out[i] = Decibel(psnr)
		return err
	})
	return out, err
}
