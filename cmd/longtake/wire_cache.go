package main

import (
	"errors"
	"strconv"
	"strings"

	"longtake/accel/ann"
	"longtake/accel/annsa"
	"longtake/accel/pose"
	"longtake/accel/tempcache"
	"longtake/kvcache"
	"longtake/rollout"
)

// policies makes a cache policy of a kind out of the flags.
var policies = map[string]func(f policyFlags, e *rollout.Engine, c *chosen) error{
	"full":      fullPolicy,
	"window":    windowPolicy,
	"tempcache": mergingPolicy,
	"pose":      posePolicy,
}

func fullPolicy(_ policyFlags, _ *rollout.Engine, c *chosen) error {
	c.Keeps = kvcache.Window{Recent: kvcache.Full}
	c.Unbounded = true
	c.sized = func(frames int) kvcache.Policy { return kvcache.Window{Recent: kvcache.Full, Room: frames} }
	return nil
}

func windowPolicy(f policyFlags, e *rollout.Engine, c *chosen) error {
	w, ok := e.Cache.(kvcache.Window)
	if !ok || w.Recent == kvcache.Full {
		w = kvcache.Window{Recent: 32}
	}
	put(&w.Recent, f.Window)
	put(&w.Anchor, f.Anchor)
	if f.LocalAttnSize != nil {
		if f.Window != nil {
			return usagef("--window and --local-attn-size exclude each other")
		}
		if *f.LocalAttnSize == -1 {
			return fullPolicy(f, e, c)
		}
		w.Recent = *f.LocalAttnSize - w.Anchor - e.Network.ChunkFrames
	}
	if w.Recent < 0 || w.Anchor < 0 || w.Recent > maxFrames || w.Anchor > maxFrames {
		return usagef("--window %d --anchor %d: both must be between 0 and %d", w.Recent, w.Anchor, maxFrames)
	}
	c.Keeps, c.window, c.anchor = w, w.Recent, w.Anchor
	return nil
}

func posePolicy(f policyFlags, e *rollout.Engine, c *chosen) error {
	if e.Advance == nil {
		return usagef("--cache pose: the actions of model %s give no pose", e.Name)
	}
	p := pose.Default
	put(&p.Window, f.Window)
	put(&p.Top, f.Retrieve)
	p.Budget = max(p.Budget, p.Room(e.CacheShape, poseFrames))
	if f.CacheBudget != nil {
		frames, bytes, err := parseBudget(*f.CacheBudget)
		if err != nil {
			return err
		}
		if p.Budget = bytes; frames > 0 {
			p.Budget = int64(frames) * poseFrame(e)
		}
	}
	c.Keeps, c.window = p, p.Window
	return tried(e, p)
}

// poseFrames is the least that memory by pose remembers without a budget. The default's bytes are nearly twice as many frames of the embedded model,
// but few of a larger one's.
const poseFrames = 1024

// poseFrame is the memory of a frame's keys, the unit of a budget in frames.
func poseFrame(e *rollout.Engine) int64 {
	s := e.CacheShape
	return 2 * int64(s.Layers*s.Heads*s.Tokens()*s.HeadDim*s.DType.Size())
}

// tried makes a cache and gives it back, to hear whether the policy is possible.
func tried(e *rollout.Engine, p kvcache.Policy) error {
	dq, err := e.Device.NewQueue()
	if err != nil {
		return err
	}
	defer dq.Close()
	c, err := p.New(e.Device, dq, e.CacheShape)
	if err != nil {
		return usageError{err}
	}
	c.Close()
	return nil
}

// matcherNamed returns a matcher by its name; lsh and quant stand for the usual ones.
func matcherNamed(flag, name string) (ann.Maker, error) {
	switch name {
	case "lsh":
		return ann.LSH{Bits: 64}, nil
	case "quant":
		return ann.Scalar(8), nil
	}
	m, err := ann.Parse(name)
	if err != nil {
		return nil, usagef("--%s: %w", flag, err)
	}
	return m, nil
}

// largeBudget is what TempCache may hold by default where a latent frame has annsa.ManyTokens: at Wan's size it is a gigabyte of entries.
// It is preset balanced's, a third more frames than the models were trained with.
const largeBudget = 28

// chunked reports whether a model makes several latent frames at a time, as those on Wan-2.1 do and world models of this project do not.
func chunked(e *rollout.Engine) bool { return e.Network.ChunkFrames > 1 }

// mergingPolicy makes TempCache.
func mergingPolicy(f policyFlags, e *rollout.Engine, c *chosen) error {
	p := tempcache.Default()
	if chunked(e) { // the bound is in units of the embedded model's values
		p.Threshold, p.MaxChange = 0.92, 0
	}
	if f.PaperMode != nil && *f.PaperMode {
		p = tempcache.Paper()
	}
	put(&p.Recent, f.Window)
	put(&p.Anchor, f.Anchor)
	put(&p.Threshold, f.Threshold)
	put(&p.Radius, f.Radius)
	put(&p.Depth, f.Depth)
	put(&p.ByQuery, f.ByQuery)
	put(&p.MaxError, f.MaxError)
	put(&p.MaxChange, f.MaxChange)
	put(&p.CountCap, f.CountCap)
	put(&p.Decay, f.Decay)
	put(&p.Spread, f.Spread)
	put(&p.Rest, f.Rest)
	put(&p.Retest, f.Retest)
	put(&p.Floor, f.Floor)
	put(&p.OnePerFrame, f.OneAFrame)
	put(&p.Shared, f.Shared)
	put(&p.NoLogCount, f.NoCounts)
	if err := pick("compare-space", f.CompareSpace, &p.Space, spaces); err != nil {
		return err
	}
	if err := errors.Join(pick("keep", f.Keep, &p.Keep, representatives), pick("forget", f.Forget, &p.Forget, forgettings)); err != nil {
		return err
	}
	if err := search(&p, f.Search); err != nil {
		return err
	}
	switch {
	case f.CacheBudget == nil && e.CacheShape.Tokens() >= annsa.ManyTokens:
		p.Budget.Frames = max(largeBudget, p.Anchor+p.Recent+e.CacheShape.ChunkFrames)
	case f.CacheBudget != nil && *f.CacheBudget != "none":
		var err error
		if p.Budget.Frames, p.Budget.Bytes, err = parseBudget(*f.CacheBudget); err != nil {
			return err
		}
	}
	if err := shared(&p, f.BudgetShares, e); err != nil {
		return err
	}
	if err := routed(&p, f.Routing, e); err != nil {
		return usageError{err}
	}
	if err := p.Check(e.Device, e.CacheShape); err != nil {
		return usageError{err}
	}
	if p.ByQuery || p.MaxError > 0 || p.MaxChange > 0 {
		c.Shows = tempcache.Watching
	}
	c.Keeps, c.window, c.anchor, c.Unbounded = p, p.Recent, p.Anchor, p.Budget == tempcache.Budget{}
	if c.Unbounded {
		c.most = func(frames int) int64 { return p.MostBytes(e.Device, e.CacheShape, frames) }
	}
	return nil
}

// shared says how a budget is divided.
func shared(p *tempcache.Policy, shares *string, e *rollout.Engine) error {
	switch {
	case p.Budget == (tempcache.Budget{}) && shares == nil:
	case shares == nil || *shares == "layers":
		p.Shares = e.LayerNeeds
	case *shares == "heads" && e.HeadNeeds == nil:
		return usagef("--budget-shares heads: what each head of %s needs was not measured; give numbers, or layers", e.Name)
	case *shares == "heads":
		p.Shares = e.HeadNeeds
	default:
		for part := range strings.SplitSeq(*shares, "+") {
			v, err := strconv.ParseFloat(part, 64)
			if err != nil {
				return usagef("--budget-shares %q: write layers, heads, or numbers as 1+2+2+1", *shares)
			}
			p.Shares = append(p.Shares, v)
		}
	}
	return nil
}

// routed sets which heads keep none.
func routed(p *tempcache.Policy, path *string, e *rollout.Engine) error {
	if path == nil {
		return nil
	}
	r, err := readProfile(*path, e, tempcache.ParseRouting)
	if err == nil {
		p.Local, err = r.Local(p.Recent)
	}
	return err
}

// spaces, representatives and forgettings are TempCache's by name.
var (
	spaces = map[string]tempcache.Space{"spatial": tempcache.Spatial, "unrotated": tempcache.Unrotated, "rotated": tempcache.Rotated}

	representatives = map[string]tempcache.Representative{"newest": tempcache.Newest, "mean": tempcache.Mean}

	forgettings = map[string]tempcache.Forgetting{"stalest": tempcache.Stalest, "rarest": tempcache.Rarest}
)

// search sets how entries are found.
func search(p *tempcache.Policy, how *string) error {
	if how == nil {
		return nil
	}
	switch *how {
	case "exact":
		p.Search = tempcache.Exact
	case "neighbours":
		p.Search = tempcache.Neighbours
	default:
		m, err := matcherNamed("search", *how)
		if err != nil {
			return err
		}
		p.Search, p.Matcher = tempcache.Approximate, m
	}
	return nil
}
