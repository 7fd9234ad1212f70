package compare

import (
	"errors"
	"fmt"
	"slices"

	"longtake/attention"
	"longtake/kvcache"
	"longtake/rollout"
	"longtake/video"
)

// Entry is a policy to run, and what the reports say about it.
type Entry struct {
	Policy
	// Keeps, Looks and Reads are the request's Cache, Self and Cross; nil is the model's own cache and dense attention.
	Keeps        kvcache.Policy
	Looks, Reads attention.Maker
	// Unbounded says that the cache grows with the video.
	Unbounded bool
	// Shows, if not nil, wraps Looks for a cache that wants to see the queries.
	Shows func(attention.Maker) attention.Maker
}

// Request returns r under the entry's policies.
func (e Entry) Request(r rollout.Request) rollout.Request {
	r.Cache, r.Self, r.Cross = e.Keeps, e.Looks, e.Reads
	if e.Shows != nil {
		if r.Self == nil {
			r.Self = attention.Dense{}
		}
		r.Self = e.Shows(r.Self)
	}
	return r
}

// timed returns the entry with its attention on the clock.
func (e Entry) timed(c *clock) Entry {
	e.Looks, e.Reads = tallied(e.Looks, &c.spent), tallied(e.Reads, &c.spent)
	return e
}

// checkEntries refuses lists that reports could not tell apart.
func checkEntries(entries []Entry) error {
	if len(entries) == 0 {
		return errors.New("no policies to compare")
	}
	for i, e := range entries {
		if slices.ContainsFunc(entries[:i], func(o Entry) bool { return o.Name == e.Name }) {
			return fmt.Errorf("policy %q is listed twice", e.Name)
		}
	}
	return nil
}

// Options says what Policies compares.
type Options struct {
	Engine *rollout.Engine
	// Request has prompt, seed, steps and start; its policies are replaced by the entries'.
	Request rollout.Request
	// Actions[i] leads to frame i of the video; missing ones stand still.
	Actions []int
	// Frames of a video, those of Request.Start included.
	Frames int
	// Entries, the reference first.
	Entries []Entry
	// Frontiers are frames to look closely at; those beyond the video are left out and the video's end is always one.
	// Nil is DefaultFrontiers.
	Frontiers []int
	// Span is how many frames are pooled, 0 for DefaultSpan; Diverged the PSNR below which videos have parted, 0 for
	// DefaultDiverged.
	Span     int
	Diverged float64
	// Truth, if not nil, returns the simulator's frame i; it is compared where Seen[i], frames whose pose a given frame had.
	Truth func(i int) video.Frame
	Seen  []bool
	// OneStep adds the next chunk on the reference's history, at frontiers.
	OneStep bool
	// Ceiling, if not nil, runs the reference once more.
	Ceiling *Ceiling
	// Stills is the number of pictures in a strip, 0 for none.
	Stills int
	// Parallel is how many runs share the machine, 0 and 1 for one after the other. With more, all runs advance from frontier to
	// frontier side by side, and only the first Alone chunks and the Alone ones before each frontier are timed, run by run.
	Parallel int
	// Alone is 0 for DefaultAlone. Solo, if not nil, is called before and after times are taken (true, false): a device may then
	// use another number of threads.
	Alone int
	Solo  func(bool)
	// Free, if not 0, is the frame at which free runs of entries end whose Unbounded is true, the reference excepted: beyond it
	// they are single chunks on the reference's history only, which cost a fifth. It needs OneStep and runs side by side.
	Free int
	// Late, if not nil, says when to stop: the report then ends with the last frontier that all runs reached. It needs runs
	// that advance side by side, and is called from all of them.
	Late func() bool
	// Progress, if not nil, hears of every chunk: what is being done, and how many frames of how many.
	Progress func(what string, done, total int)
}

// Ceiling says how the reference is computed in another order of summation.
type Ceiling struct {
	// How is a description for people.
	How string
	// Engine runs the reference by other kernels; nil sums the keys in another order (Reordered), which needs a reference
	// with dense self attention over whole frames.
	Engine *rollout.Engine
}

// Defaults of Options.
const (
	DefaultSpan     = 50
	DefaultDiverged = 30
	DefaultAlone    = 4
)

// DefaultFrontiers returns the frames at which frame-indexed figures are usually given.
func DefaultFrontiers() []int { return []int{100, 500, 1000, 2000, 3000} }

// frontiers returns the sorted frontiers of a video.
func frontiers(asked []int, given, frames int) ([]int, error) {
	if asked == nil {
		asked = DefaultFrontiers()
	}
	var out []int
	for _, f := range asked {
		if f < 1 {
			return nil, fmt.Errorf("frontier %d: frames are counted from 1", f)
		}
		if f > given && f < frames {
			out = append(out, f)
		}
	}
	out = append(out, frames)
	slices.Sort(out)
	return slices.Compact(out), nil
}

// Check fills in defaults and refuses what cannot be run; errors wrap rollout.ErrRequest. Policies calls it, too.
func (o *Options) Check() error {
	if err := o.prepare(); err != nil {
		return fmt.Errorf("%w: %w", rollout.ErrRequest, err)
	}
	return nil
}

func (o *Options) prepare() (err error) {
	if err = checkEntries(o.Entries); err != nil {
		return err
	}
	given := len(o.Request.Start)
	if o.Frames <= given {
		return fmt.Errorf("%d frames, of which %d are given: nothing to compare", o.Frames, given)
	}
	if o.Frontiers, err = frontiers(o.Frontiers, given, o.Frames); err != nil {
		return err
	}
	if o.Span <= 0 {
		o.Span = DefaultSpan
	}
	if o.Diverged == 0 {
		o.Diverged = DefaultDiverged
	}
	if o.Alone <= 0 {
		o.Alone = DefaultAlone
	}
	if o.Free > 0 && (o.Parallel < 2 || !o.OneStep) {
		return errors.New("free runs that end early need runs side by side, and one-step fidelity to go on with")
	}
	if o.Solo == nil {
		o.Solo = func(bool) {}
	}
	if o.Late != nil && o.Parallel < 2 {
		return errors.New("a limit of time needs runs side by side: all of them stop at the same frame")
	}
	if c := o.Ceiling; c != nil && c.Engine == nil {
		first := o.Entries[0]
		_, whole := first.Keeps.(kvcache.Window)
		if first.Looks != nil && first.Looks != attention.Maker(attention.Dense{}) || first.Keeps != nil && !whole {
			return fmt.Errorf("the ceiling sums keys in another order, which the reference %q does not allow: use one with dense self attention and cache full or window, or another kernel class", first.Name)
		}
	}
	if o.Progress == nil {
		o.Progress = func(string, int, int) {}
	}
	return nil
}
