package annsa

import (
	"fmt"
	"strings"

	"longtake/accel/ann"
	"longtake/attention"
	"longtake/compute"
	"longtake/kvcache"
)

// Options make AnnSA policies: they are an attention.Maker. Start from Default or Paper and change fields.
type Options struct {
	// Matcher scores tiles by their mean keys; nil is ann.Exact.
	Matcher ann.Maker
	// Oracle scores tiles by their true mass instead, which costs more than dense attention: the ceiling.
	Oracle bool
	// Tile is how many tokens share one fate. Raster takes them as they lie in the frame instead of splitting it by keys.
	Tile   int
	Raster bool
	// QueryTile is how many queries, in the order of the chunk, share what is kept; 0 is all of the chunk's.
	QueryTile int
	// Group is how many queries are scored as one, by their mean.
	Group int
	// Fraction is the most that is kept of the history, Missed the share of a query's mass (mean over queries) that may be missed:
	// when the estimate says so, less is kept. Missed 0 always spends the whole fraction.
	// Least is the least number of tokens that are kept all the same: below it a short history is simply all kept.
	Fraction, Missed float64
	Least            int
	// From is the least history, in tokens that may be left out, at which anything is: below it choosing costs more than it saves.
	// Merged tokens, which are indexed anew for every chunk and copied, count a quarter. It is a processor's measure: devices that
	// plan themselves (compute.Planner) take no notice.
	From int
	// Temper is the power that estimated shares are raised to before they are added up over queries; 0 is 1, the mass itself.
	// Missed is only an estimate of mass at 1.
	Temper float64
	// Recent is how many of the newest frames before the chunk are always kept.
	Recent int
	// Dense is the share of the denoising steps, from the noisiest, that attend to everything.
	Dense float64
	// Clean passes, whose keys stay, attend to everything. Without it only those of given frames do, which have no other pass.
	Clean bool
	// NoDrop keeps what is not selected as merged keys. SecondOrder adds to their logits half the variance of the logits of their
	// members (method of the second-order bias).
	NoDrop, SecondOrder bool
	// Refresh selects in every pass, not once a chunk.
	Refresh bool
	// Profile says which heads are sparse at all; nil is all of them.
	Profile *Profile
	// Queries, if not nil, makes tiles and scores by the cross-attention queries of the tokens, which a policy of the session's
	// cross attention must write there: the reading of the paper in which buckets carry over. Nil hashes self attention's own.
	Queries *ann.Exchange
}

// Default returns the options that the embedded model is best served with.
func Default() Options {
	return Options{Tile: 4, Raster: true, QueryTile: 16, Group: 2, Fraction: 0.25, Least: 1024, From: 4096, Temper: 0.5, Recent: 2, Dense: 0.3}
}

// Paper returns the reading of the paper's section 4.3 in which self attention's queries and keys are quantised to 8 bits; what is
// not selected is dropped.
func Paper() Options {
	return Options{Matcher: ann.Scalar(8), Tile: 8, Raster: true, QueryTile: 16, Group: 4, Fraction: 0.3, Recent: 0, Dense: 0.3}
}

// ManyTokens is how many tokens a latent frame has, from which Coarse is meant for it.
const ManyTokens = 512

// Coarse returns the options for frames of so many tokens. Tiles of a few keys for a few queries are right for the embedded model's 64
// tokens; at Wan's 1,560 the lists alone would be as long as the keys, and matrix units take 128 queries by 64 or 128 keys.
func (o Options) Coarse(tokens int) Options {
	if tokens >= ManyTokens {
		o.Tile, o.QueryTile, o.Group = 64, 128, 16
	}
	return o
}

// String describes the policy, "annsa lsh64, 10 % of tiles of 16, recent 2, no-drop".
func (o Options) String() string {
	var b strings.Builder
	name := "oracle"
	if !o.Oracle {
		name = o.matcher().String()
	}
	fmt.Fprintf(&b, "annsa %s, %g %% of tiles of %d", name, 100*o.Fraction, o.Tile)
	if o.QueryTile > 0 {
		fmt.Fprintf(&b, " for %d queries", o.QueryTile)
	}
	if o.Least > 0 {
		fmt.Fprintf(&b, ", at least %d", o.Least)
	}
	if o.From > 0 {
		fmt.Fprintf(&b, " and from %d", o.From)
	}
	if o.Missed > 0 {
		fmt.Fprintf(&b, ", missed %g %%", 100*o.Missed)
	}
	fmt.Fprintf(&b, ", recent %d", o.Recent)
	for _, x := range []struct {
		on   bool
		name string
	}{
		{o.Raster, "raster"}, {o.Queries != nil, "by cross queries"}, {o.NoDrop, "no-drop"}, {o.SecondOrder, "second order"},
		{o.Clean, "clean passes dense"}, {o.Refresh, "every pass"}, {o.Profile != nil, "profile"},
	} {
		if x.on {
			b.WriteString(", " + x.name)
		}
	}
	return b.String()
}

func (o Options) matcher() ann.Maker {
	if o.Matcher == nil {
		return ann.Exact{}
	}
	return o.Matcher
}

// Check refuses options that contradict each other or the model.
func (o Options) Check(s kvcache.Shape) error {
	switch {
	case o.QueryTile < 0:
		return fmt.Errorf("annsa: tiles of %d queries: must not be negative", o.QueryTile)
	case o.Tile < 1 || o.Group < 1:
		return fmt.Errorf("annsa: tiles of %d tokens and groups of %d queries: want at least 1", o.Tile, o.Group)
	case !(o.Fraction >= 0 && o.Fraction <= 1) || !(o.Missed >= 0 && o.Missed < 1) || !(o.Dense >= 0 && o.Dense <= 1):
		return fmt.Errorf("annsa: fraction %v, missed %v and dense %v must be shares between 0 and 1", o.Fraction, o.Missed, o.Dense)
	case !(o.Temper >= 0 && o.Temper <= 1):
		return fmt.Errorf("annsa: temper %v must be between 0 and 1", o.Temper)
	case o.Recent < 0 || o.Least < 0 || o.From < 0:
		return fmt.Errorf("annsa: %d recent frames, at least %d tokens and from %d must not be negative", o.Recent, o.Least, o.From)
	case o.SecondOrder && !o.NoDrop:
		return fmt.Errorf("annsa: the second-order bias belongs to merged keys, so to no-drop")
	}
	if o.Profile != nil {
		return o.Profile.fits(s)
	}
	return nil
}

// New allocates a policy. The error wraps compute.ErrNoMemory when the device is too small.
func (o Options) New(dev compute.Device, dq compute.Queue, s kvcache.Shape) (attention.Policy, error) {
	if err := o.Check(s); err != nil {
		return nil, err
	}
	p := newPolicy(o, dev, s)
	p.asked, p.dq = o.Queries.Of(dq), dq
	m := &compute.Meter{Device: dev}
	p.allocate(m)
	arena, err := dev.NewArena(m.Bytes())
	if err != nil {
		o.Queries.Leave(dq)
		return nil, fmt.Errorf("annsa: %w", err)
	}
	p.arena = arena
	p.allocate(arena)
	err = arena.Err()
	switch {
	case err != nil:
	case p.remote.on:
		err = p.reserve(p.firstTiles())
	default:
		err = p.grow(firstFrames * s.Tokens())
	}
	if err != nil {
		p.Close()
		return nil, fmt.Errorf("annsa: %w", err)
	}
	return p, nil
}

// Bytes returns the memory that New takes on the device. With a history that grows the policy's memory grows, too: by its
// fraction of the keys, and with no-drop by one merged key for every tile.
func (o Options) Bytes(dev compute.Device, s kvcache.Shape) int64 {
	p := newPolicy(o, dev, s)
	m := &compute.Meter{Device: dev}
	p.allocate(m)
	if p.remote.on {
		p.remote.growing(p, m, p.firstTiles())
	} else {
		p.buffers(m, firstFrames*s.Tokens())
	}
	return m.Bytes()
}

// firstFrames is the room for gathered keys, in latent frames, that a policy begins with; it doubles when it is spent.
const firstFrames = 16
