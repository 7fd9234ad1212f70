package tempcache

import (
	"fmt"
	"slices"
	"strings"

	"longtake/accel/ann"
	"longtake/compute"
	"longtake/kvcache"
)

// Space says in which form keys are compared. A rotation alone moves equal content apart: by one frame to cosine 0.987, by 12
// to 0.89 (Wan's frequencies).
type Space uint8

// Spaces of comparison. Spatial is after the rotation by row and column, before that by time: the default, since it tells
// apart places of the picture but not moments. Unrotated ignores both. Rotated compares keys as they are stored (the paper).
const (
	Spatial Space = iota
	Unrotated
	Rotated
)

// String returns "spatial", "unrotated" or "rotated".
func (s Space) String() string { return [...]string{"spatial", "unrotated", "rotated"}[s] }

// Search says how the nearest entry is found.
type Search uint8

// Searches. Exact looks at every entry of the head. Neighbours looks at the Depth newest entries of each place of the picture
// within Radius rows and columns (farther where none has an entry): the first of a place is the previous frame's, the others have left and may
// come back.
// Approximate asks an index of Policy.Matcher.
const (
	Exact Search = iota
	Neighbours
	Approximate
)

// Representative says which key stands for an entry's members.
type Representative uint8

// Representatives: the newest member's key (the paper's "last-key"), or the running mean of the unrotated keys, rotated at the
// newest member's position.
const (
	Newest Representative = iota
	Mean
)

// Forgetting says which entry a full store gives up: the one with the fewest members over its age in frames, or the one with the fewest
// members, of equals the oldest. Age alone takes entries of many members that were not seen for a while, and with them most of the
// attention on what comes back.
type Forgetting uint8

// Ways of forgetting.
const (
	Stalest Forgetting = iota
	Rarest
)

// Budget bounds a cache. The zero value does not: then the cache grows, by doubling, with what is new in the video.
type Budget struct {
	// Frames is the number of latent frames that a head may hold in all, in the mean over heads (Policy.Shares): anchors, recent frames,
	// the chunk and entries.
	Frames int
	// Bytes bounds the memory of the whole cache.
	Bytes int64
}

// Policy makes caches. It is a plain description: start from Default, Paper or Prototype and change fields.
type Policy struct {
	// Anchor frames and the Recent newest frames before a chunk stay as they are.
	Anchor, Recent int
	// Budget is never exceeded, whatever the video shows.
	Budget Budget
	// Shares, if given, divides a budget's entries in these proportions among the layers, or among the heads, layer by layer: heads
	// differ fifty times in how much they have to keep, see Needs. A layer takes as much memory as if all of its heads had the room of
	// the largest. Where heads decide together (Shared), and on a device that merges by itself, they have their layer's mean.
	Shares []float64
	// Threshold is the least cosine of two keys that are merged. At 1 only keys that are equal bit by bit are, which is exact.
	Threshold float64
	// MaxError, if not 0, also bounds how far a merge may move logits (root mean square over recent queries, method of moments
	// of the §1.2 bound). It needs an attention made by Watching; where no query has been seen it does not decide.
	MaxError float64
	// MaxChange, if not 0, bounds by how much a merge may change what queries read: the movement of logits as of MaxError times the
	// root mean square difference of the values, in their units. Merging equal keys is exact whatever the values, and tokens
	// of equal values may be mistaken for each other: only the product does harm. It needs queries like MaxError.
	MaxChange float64
	Space     Space
	Search    Search
	// Radius and Depth belong to Neighbours.
	Radius, Depth int
	// Matcher makes the searches of Approximate, one for each head, over vectors of unit length. What an index takes for its first
	// search must do for all: a budget counts it then.
	Matcher ann.Maker
	// ByQuery finds a token's entry by its query instead of its key (the paper's correspondence); the cosine test is still
	// between keys. It needs an attention made by Watching; a frame whose queries were not seen is matched by its keys.
	ByQuery bool
	// Keep is the key that stands for the members.
	Keep Representative
	// OnePerFrame lets an entry take one token a frame, the nearest; the others become entries.
	OnePerFrame bool
	// CountCap, if not 0, bounds the count that enters the logits; Decay, if not 0, multiplies a count before each merge.
	CountCap, Decay float64
	// NoLogCount leaves the counts out of the logits, to show what they are for.
	NoLogCount bool
	// Spread, if not 0, adds Spread/2 of the mean square distance of an entry's members from their mean, over headDim, to its log-count: to
	// second order what the mean's logit lacks of the members' for queries of that mean square. It goes with Mean.
	Spread float64
	// Shared decides once for all heads of a layer, by the mean of their cosines.
	Shared bool
	// Retest, if not 0, compares every Retest-th member of an entry with the entry's first key, and refuses it if that is
	// no longer within Threshold: a chain of small steps cannot lead far.
	Retest int
	// Local, if given, says of each layer's heads which keep no entries: those that ignore history (see Routing). They see the anchors,
	// the Recent frames and the chunk; their tokens count as evicted.
	Local [][]bool
	// Forget is what goes when a full store cannot merge.
	Forget Forgetting
	// Rest sums up what a full store forgets in one entry of every head, its last: with its mean key, its mean value, its count and, with
	// Spread, what its members differ by, it attracts what forgotten tokens did that had nothing to do with the query. It goes with Mean
	// and Neighbours. Room is then found for all tokens of a frame at once.
	Rest bool
	// Floor is the least cosine at which a full store merges its closest pair; below it evicts. At -1 nothing is forgotten.
	Floor float64
}

// Default returns the policy that the embedded model is best served with, without a budget. Attention must be made by Watching;
// MaxChange, in units of that model's values, decides nothing otherwise.
func Default() Policy {
	return Policy{Recent: 2, Threshold: 0.9, MaxChange: 3.5, Keep: Mean, Radius: 2, Depth: 6, Floor: 0.7}
}

// Paper returns the reading of the paper's section 4.1: keys compared as they are stored, rotated; the entry found by the query;
// the newest key kept. Attention must be made by Watching.
func Paper() Policy {
	return Policy{Recent: 2, Threshold: 0.9, Space: Rotated, ByQuery: true, Keep: Newest, Floor: 0.7}
}

// Prototype returns the options of train/tempcache.py.
func Prototype() Policy {
	return Policy{Recent: 2, Threshold: 0.9, Space: Spatial, Keep: Mean, Floor: 0.7}
}

// String describes the policy, "tempcache 0.9 spatial exact mean, recent 2 + 0 anchor, 12 frames".
func (p Policy) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "tempcache %g %v ", p.Threshold, p.Space)
	switch p.Search {
	case Exact:
		b.WriteString("exact ")
	case Neighbours:
		fmt.Fprintf(&b, "neighbours %dx%d ", p.Radius, p.Depth)
	case Approximate:
		b.WriteString(p.Matcher.String() + " ")
	}
	b.WriteString([...]string{"newest", "mean"}[p.Keep])
	for _, o := range []struct {
		on   bool
		name string
	}{
		{p.ByQuery, " by query"}, {p.OnePerFrame, " one a frame"}, {p.Shared, " shared"}, {p.NoLogCount, " without counts"},
		{p.MaxError > 0, fmt.Sprintf(" error %g", p.MaxError)}, {p.MaxChange > 0, fmt.Sprintf(" change %g", p.MaxChange)}, {p.CountCap > 0, fmt.Sprintf(" cap %g", p.CountCap)},
		{p.Decay > 0, fmt.Sprintf(" decay %g", p.Decay)}, {p.Spread > 0, fmt.Sprintf(" spread %g", p.Spread)}, {p.Retest > 0, fmt.Sprintf(" retest %d", p.Retest)},
		{p.Forget == Rarest, " rarest forgotten"}, {p.Rest, " rest summed up"}, {p.Local != nil, fmt.Sprintf(" %d local heads", p.locals())},
	} {
		if o.on {
			b.WriteString(o.name)
		}
	}
	fmt.Fprintf(&b, ", recent %d + %d anchor", p.Recent, p.Anchor)
	switch {
	case p.Budget.Frames > 0:
		fmt.Fprintf(&b, ", %d frames", p.Budget.Frames)
	case p.Budget.Bytes > 0:
		fmt.Fprintf(&b, ", %d bytes", p.Budget.Bytes)
	}
	return b.String()
}

// firstFrames is how many frames' worth of entries a cache without a budget begins with; it doubles when they are spent.
const firstFrames = 8

// mostSlots bounds the search for the most entries that a budget in bytes allows.
const mostSlots = 1 << 24

// Check refuses options that contradict each other or the model, and impossible budgets, naming the smallest possible one.
func (p Policy) Check(dev compute.Device, s kvcache.Shape) error {
	least := p.Anchor + p.Recent + s.ChunkFrames
	switch {
	case p.Anchor < 0 || p.Recent < 0 || s.ChunkFrames <= 0:
		return fmt.Errorf("cache of %d anchor and %d recent frames: counts must not be negative", p.Anchor, p.Recent)
	case !(p.Threshold > 0 && p.Threshold <= 1) || !(p.Floor >= -1 && p.Floor <= 1):
		return fmt.Errorf("merging threshold %v and floor %v: a threshold is a cosine above 0 and at most 1, a floor one from -1 to 1", p.Threshold, p.Floor)
	case !(p.MaxError >= 0) || !(p.MaxChange >= 0) || !(p.CountCap >= 0) || !(p.Decay >= 0 && p.Decay <= 1) || p.Retest < 0 || !(p.Spread >= 0):
		return fmt.Errorf("error bound %v, bound of change %v, count cap %v, decay %v (at most 1), retest %d and spread %v must not be negative", p.MaxError, p.MaxChange, p.CountCap, p.Decay, p.Retest, p.Spread)
	case p.Rest && (p.Keep != Mean || p.Search != Neighbours):
		return fmt.Errorf("what is forgotten can be summed up only where entries keep the mean key and are found among neighbours")
	case p.Spread > 0 && p.Keep != Mean:
		return fmt.Errorf("spread %v: only entries that keep the mean key lack what their members differ by", p.Spread)
	case p.Space > Rotated || p.Search > Approximate || p.Keep > Mean || p.Forget > Rarest:
		return fmt.Errorf("unknown space %d, search %d or representative %d", p.Space, p.Search, p.Keep)
	case p.Search == Neighbours && (p.Radius < 0 || p.Depth < 1):
		return fmt.Errorf("neighbours within radius %d, %d deep: want at least 0 and 1", p.Radius, p.Depth)
	case p.Search == Approximate && p.Matcher == nil:
		return fmt.Errorf("approximate search without an index")
	case p.Shared && p.ByQuery:
		return fmt.Errorf("decisions shared by heads cannot be made by query")
	case s.Clamp > 0 && p.Recent+s.ChunkFrames > s.Clamp:
		return fmt.Errorf("%d recent frames reach beyond the %d frames that the model was trained on, possible are up to %d", p.Recent, s.Clamp, s.Clamp-s.ChunkFrames)
	case len(p.Shares) > 0 && (len(p.Shares) != s.Layers && len(p.Shares) != s.Layers*s.Heads || !(slices.Min(p.Shares) > 0)):
		return fmt.Errorf("shares %v of a budget: want one above 0 for each of %d layers, or for each of %d heads", p.Shares, s.Layers, s.Layers*s.Heads)
	case p.Local != nil && p.Shared:
		return fmt.Errorf("heads that keep no entries cannot share their decisions with those that do")
	case p.Local != nil && (len(p.Local) != s.Layers || len(p.Local[0]) != s.Heads || s.Heads > mostLocal):
		return fmt.Errorf("local heads are given for %d layers of %d heads, the model has %d of %d (of at most %d)", len(p.Local), len(p.Local[0]), s.Layers, s.Heads, mostLocal)
	case p.Budget.Frames != 0 && p.Budget.Bytes != 0:
		return fmt.Errorf("budget both in frames (%d) and in bytes (%d): give one", p.Budget.Frames, p.Budget.Bytes)
	case p.Budget.Frames < 0 || p.Budget.Frames > 0 && p.Budget.Frames < least:
		return fmt.Errorf("budget of %d latent frames is too small: %d anchor, %d recent and a chunk of %d need at least %d",
			p.Budget.Frames, p.Anchor, p.Recent, s.ChunkFrames, least)
	}
	if p.Budget.Bytes != 0 {
		if least := p.bytes(dev, s, 0); p.Budget.Bytes < least {
			return fmt.Errorf("budget of %d bytes is too small: %d anchor, %d recent and a chunk of %d latent frames need at least %d",
				p.Budget.Bytes, p.Anchor, p.Recent, s.ChunkFrames, least)
		}
	}
	return nil
}

// least is the cosine from which on a token may join an entry.
func (p Policy) least() float32 {
	if p.Threshold >= 1 {
		return 1 - 1e-5 // the cosine of equal vectors, rounded
	}
	return float32(p.Threshold)
}

// Needs returns the shares of the heads that a run without a budget suggests: the entries of each.
func Needs(heads []kvcache.HeadStats) []float64 {
	shares := make([]float64, len(heads))
	for i, h := range heads {
		shares[i] = float64(max(h.Kept, 1))
	}
	return shares
}

// ofLayers gives the heads of a layer their mean.
func ofLayers(shares []float64, s kvcache.Shape) []float64 {
	if len(shares) <= s.Layers {
		return shares
	}
	means := make([]float64, s.Layers)
	for i, v := range shares {
		means[i/s.Heads] += v / float64(s.Heads)
	}
	return means
}

// slots returns how many entries a head begins with, in the mean over layers.
func (p Policy) slots(dev compute.Device, s kvcache.Shape) int {
	switch {
	case p.Budget.Frames > 0:
		return max(0, p.Budget.Frames-p.Anchor-p.Recent-s.ChunkFrames) * s.Tokens()
	case p.Budget.Bytes > 0:
		// Bytes grow with slots: find the most that fit.
		lo, hi := 0, 1
		for hi < mostSlots && p.bytes(dev, s, hi) <= p.Budget.Bytes {
			lo, hi = hi, 2*hi
		}
		for hi-lo > 1 {
			if mid := (lo + hi) / 2; p.bytes(dev, s, mid) <= p.Budget.Bytes {
				lo = mid
			} else {
				hi = mid
			}
		}
		return lo
	}
	return firstFrames * s.Tokens()
}

// Bytes returns the memory that New takes: all of it with a budget, the first part of a growing cache without.
func (p Policy) Bytes(dev compute.Device, s kvcache.Shape) int64 {
	return p.bytes(dev, s, p.slots(dev, s))
}

// MostBytes returns the most memory that a cache takes at a time in a video of so many latent frames: what Bytes says with a budget;
// without, if nothing repeats, with the old and the new storage side by side while it grows.
func (p Policy) MostBytes(dev compute.Device, s kvcache.Shape, frames int) int64 {
	slots := p.slots(dev, s)
	last := p.bytes(dev, s, slots)
	most := last
	if p.Budget != (Budget{}) {
		return most
	}
	for need := (frames - p.Anchor - p.Recent - s.ChunkFrames) * s.Tokens(); slots < need; {
		slots *= 2
		next := p.bytes(dev, s, slots)
		most, last = last+next, next
	}
	return most
}

func (p Policy) bytes(dev compute.Device, s kvcache.Shape, slots int) int64 {
	c := newCache(p, dev, s, nil)
	tables, store := &compute.Meter{Device: dev}, &compute.Meter{Device: dev}
	c.pos = kvcache.NewPositions(tables, nil, s)
	c.guard.Allocate(tables, s)
	c.probes(tables)
	c.allocate(store, slots)
	c.probeIndex(store, slots)
	return tables.Bytes() + store.Bytes() + c.hostBytes(slots)
}

// New allocates a cache.
func (p Policy) New(dev compute.Device, dq compute.Queue, s kvcache.Shape) (kvcache.Cache, error) {
	if err := p.Check(dev, s); err != nil {
		return nil, err
	}
	c := newCache(p, dev, s, compute.VectorsOf(dq))
	var err error
	if c.tables, err = dev.NewArena(0); err != nil {
		return nil, fmt.Errorf("cache tables: %w", err)
	}
	c.pos = kvcache.NewPositions(c.tables, dq, s)
	c.guard.Allocate(c.tables, s)
	c.probes(c.tables)
	slots := p.slots(dev, s)
	if err = c.tables.Err(); err == nil && c.remote.on {
		c.remote.tell(c, dq)
	}
	if err == nil {
		err = c.resize(dq, slots)
	}
	if err != nil {
		c.tables.Free()
		return nil, fmt.Errorf("%v: %w", p, err)
	}
	return c, nil
}
