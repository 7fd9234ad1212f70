package main

import (
	"fmt"
	"io"
	"os"

	"longtake/accel/ann"
	"longtake/accel/annca"
	"longtake/accel/annsa"
	"longtake/rollout"
)

// attentionFlags choose what queries look at.
type attentionFlags struct {
	Self            *string  `group:"policy" placeholder:"KIND" help:"Self attention: ${selves}. Default: dense."`
	SelfMode        *string  `group:"policy" placeholder:"MODE" with:"self=annsa" help:"What annsa starts from: ours (tuned on the embedded model) or paper (quantised, what is left out is dropped). Default: ours."`
	SelfMatch       *string  `group:"policy" placeholder:"MATCHER" with:"self=annsa" help:"Matcher of annsa: lsh, quant, exact, or by name (lsh64, quant8, pq8)."`
	SelfFraction    *float64 `group:"policy" placeholder:"SHARE" with:"self=annsa" help:"Most that annsa keeps of the history."`
	SelfMissed      *float64 `group:"policy" placeholder:"SHARE" with:"self=annsa" help:"Share of a query's attention that annsa may miss: it then keeps less. 0 always keeps the whole fraction."`
	SelfTile        *int     `group:"policy" placeholder:"N" with:"self=annsa" help:"Tokens that are kept or left together."`
	SelfGroup       *int     `group:"policy" placeholder:"N" with:"self=annsa" help:"Queries that are scored as one."`
	SelfQueryTile   *int     `group:"policy" placeholder:"N" with:"self=annsa" help:"Queries that look at the same tiles."`
	SelfLeast       *int     `group:"policy" placeholder:"N" with:"self=annsa" help:"Tokens of the history that annsa keeps at least, however small the fraction."`
	SelfFrom        *int     `group:"policy" placeholder:"N" with:"self=annsa" help:"Tokens of the history from which annsa leaves any out; merged ones count a quarter. Default: where choosing begins to pay, 4096 (paper: 0)."`
	SelfTemper      *float64 `group:"policy" placeholder:"X" with:"self=annsa" help:"Power that estimated shares of attention are raised to before they are added up over queries; 0 and 1 are the shares themselves."`
	SelfRecent      *int     `group:"policy" placeholder:"N" with:"self=annsa" help:"Latest frames that annsa always keeps."`
	SelfDense       *float64 `group:"policy" placeholder:"SHARE" with:"self=annsa" help:"Share of the denoising steps, from the noisiest, that look at everything."`
	SelfNoDrop      *bool    `group:"policy" with:"self=annsa" help:"Keep what is left out as merged keys."`
	SelfSecondOrder *bool    `group:"policy" with:"self=annsa" help:"Add half the variance of the members' logits to merged keys."`
	SelfRaster      *bool    `group:"policy" with:"self=annsa" help:"Take tiles as they lie in the picture, not by likeness."`
	SelfRefresh     *bool    `group:"policy" with:"self=annsa" help:"Choose in every pass, not once a chunk."`
	SelfOracle      *bool    `group:"policy" with:"self=annsa" help:"Choose by the true attention: dearer than dense, the best there can be."`
	SelfBuckets     *string  `group:"policy" placeholder:"WHOSE" with:"self=annsa" help:"What annsa makes tiles by: own (queries and keys of self attention), cross (cross attention's queries, another reading of the paper). Default: own."`
	Profile         *string  `group:"policy" placeholder:"FILE" with:"self=annsa" help:"Which heads are sparse, as longtake calibrate writes it. Default: all."`

	Cross        *string `group:"policy" placeholder:"KIND" help:"Cross attention: ${crosses}. Default: dense."`
	CrossMode    *string `group:"policy" placeholder:"MODE" with:"cross=annca" help:"What annca starts from: ours (the nearest tokens of each query), paper (those that share a bucket). Default: ours."`
	CrossMatch   *string `group:"policy" placeholder:"MATCHER" with:"cross=annca" help:"Matcher of annca, as --self-match; with --cross-top 0 one with tables (lsh8x4+1)."`
	CrossTop     *int    `group:"policy" placeholder:"N" with:"cross=annca" help:"Prompt tokens that each query keeps; 0 keeps those that share a bucket with it."`
	CrossFrom    *int    `group:"policy" placeholder:"N" with:"cross=annca" help:"Tokens of a prompt from which annca leaves any out. Default: 512, below which choosing costs more than it saves (paper: 0)."`
	CrossRefresh *bool   `group:"policy" with:"cross=annca" help:"Choose in every pass, not once a chunk."`
}

// selves and crosses make attention out of the flags.
var (
	selves  = map[string]func(f policyFlags, e *rollout.Engine, c *chosen) error{"dense": denseAttention, "annsa": sparseSelf}
	crosses = map[string]func(f policyFlags, e *rollout.Engine, c *chosen) error{"dense": denseAttention, "annca": sparseCross}
)

// selfModes and crossModes are what annsa and annca start from.
var (
	selfModes  = map[string]func() annsa.Options{"ours": annsa.Default, "paper": annsa.Paper}
	crossModes = map[string]func() annca.Options{"ours": annca.Default, "paper": annca.Paper}
)

// attend fills in the attention.
func (f policyFlags) attend(e *rollout.Engine, kinds map[string]string, c *chosen) error {
	for _, kind := range []struct {
		flag  string
		known map[string]func(policyFlags, *rollout.Engine, *chosen) error
	}{{"self", selves}, {"cross", crosses}} {
		make, err := named(kind.flag, kinds[kind.flag], kind.known)
		if err == nil {
			err = make(f, e, c)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// sparseCross makes AnnCA.
func sparseCross(f policyFlags, _ *rollout.Engine, c *chosen) error {
	mode := "ours"
	put(&mode, f.CrossMode)
	start, err := named("cross-mode", mode, crossModes)
	if err != nil {
		return err
	}
	o := start()
	put(&o.Top, f.CrossTop)
	put(&o.From, f.CrossFrom)
	put(&o.Refresh, f.CrossRefresh)
	if f.CrossMatch != nil {
		if o.Matcher, err = matcherNamed("cross-match", *f.CrossMatch); err != nil {
			return err
		}
	}
	if sparse, ok := c.Looks.(annsa.Options); ok {
		o.Queries = sparse.Queries
	}
	if err := o.Check(); err != nil {
		return usageError{err}
	}
	c.Reads = o
	return nil
}

// denseAttention leaves nil, which is dense.
func denseAttention(policyFlags, *rollout.Engine, *chosen) error { return nil }

// sparseSelf makes AnnSA.
func sparseSelf(f policyFlags, e *rollout.Engine, c *chosen) error {
	mode := "ours"
	put(&mode, f.SelfMode)
	start, err := named("self-mode", mode, selfModes)
	if err != nil {
		return err
	}
	o := start().Coarse(e.CacheShape.Tokens())
	put(&o.Fraction, f.SelfFraction)
	put(&o.Missed, f.SelfMissed)
	put(&o.Tile, f.SelfTile)
	put(&o.Group, f.SelfGroup)
	put(&o.QueryTile, f.SelfQueryTile)
	put(&o.Least, f.SelfLeast)
	put(&o.From, f.SelfFrom)
	put(&o.Temper, f.SelfTemper)
	put(&o.Recent, f.SelfRecent)
	put(&o.Dense, f.SelfDense)
	put(&o.NoDrop, f.SelfNoDrop)
	put(&o.SecondOrder, f.SelfSecondOrder)
	put(&o.Raster, f.SelfRaster)
	put(&o.Refresh, f.SelfRefresh)
	put(&o.Oracle, f.SelfOracle)
	if f.SelfMatch != nil {
		if o.Matcher, err = matcherNamed("self-match", *f.SelfMatch); err != nil {
			return err
		}
	}
	switch whose := f.SelfBuckets; {
	case whose == nil || *whose == "own":
	case *whose == "cross":
		// Dense cross attention, too, must tell its queries; annca replaces this policy by its own.
		o.Queries = &ann.Exchange{}
		c.Reads = annca.Options{All: true, Queries: o.Queries}
	default:
		return usagef("--self-buckets %q: known are cross, own", *whose)
	}
	if f.Profile != nil {
		if o.Profile, err = readProfile(*f.Profile, e, annsa.ParseProfile); err != nil {
			return usagef("--profile: %w", err)
		}
	}
	if err := o.Check(e.CacheShape); err != nil {
		return usageError{err}
	}
	c.Looks = o
	return nil
}

// maxProfileBytes bounds a profile.
const maxProfileBytes = 1 << 20

// readProfile reads a profile for the engine's model.
func readProfile[T any](path string, e *rollout.Engine, parse func(raw []byte, model, hash string) (*T, error)) (*T, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, cause(err))
	}
	defer f.Close()
	raw, err := io.ReadAll(io.LimitReader(f, maxProfileBytes+1))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, cause(err))
	}
	if len(raw) > maxProfileBytes {
		return nil, fmt.Errorf("%s is larger than %d bytes", path, maxProfileBytes)
	}
	return parse(raw, e.Name, e.Hash())
}
