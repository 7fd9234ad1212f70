package annca

import (
	"fmt"

	"longtake/accel/ann"
	"longtake/attention"
	"longtake/compute"
	"longtake/kvcache"
)

// Options make AnnCA policies: they are an attention.Maker for cross attention.
type Options struct {
	// Matcher finds the tokens near a query; nil is ann.Exact.
	Matcher ann.Maker
	// Top is how many tokens each query keeps, the nearest. 0 keeps all that share a bucket with the query, the paper's rule:
	// Matcher must be an ann.LSH with Tables.
	Top int
	// From is the shortest prompt, in tokens, of which any are left out: below it choosing costs more than it saves.
	// Where the device chooses (compute.Selector), all are looked at.
	From int
	// Refresh selects in every pass, not once a chunk.
	Refresh bool
	// All keeps every token: attention is dense, and the policy only tells Queries.
	All bool
	// Queries, if not nil, is told the queries, for self attention by the same buckets.
	Queries *ann.Exchange
}

// Default returns the options that the embedded model is best served with.
func Default() Options { return Options{Matcher: ann.Exact{}, Top: 4, From: 512} }

// Paper returns the paper's rule with hash buckets.
func Paper() Options { return Options{Matcher: ann.LSH{Bits: 8, Tables: 4, Probes: 1}} }

// String describes the policy, "annca lsh64, top 4".
func (o Options) String() string {
	if o.All {
		return "dense, with queries told"
	}
	s := fmt.Sprintf("annca %v, top %d", o.matcher(), o.Top)
	if o.Top == 0 {
		s = fmt.Sprintf("annca %v, shared buckets", o.matcher())
	}
	if o.From > 0 {
		s += fmt.Sprintf(", from %d tokens", o.From)
	}
	if o.Refresh {
		s += ", every pass"
	}
	return s
}

func (o Options) matcher() ann.Maker {
	if o.Matcher == nil {
		return ann.Exact{}
	}
	return o.Matcher
}

// Check refuses options that contradict each other.
func (o Options) Check() error {
	if o.Top < 0 || o.From < 0 {
		return fmt.Errorf("annca: top %d and from %d must not be negative", o.Top, o.From)
	}
	if l, ok := o.matcher().(ann.LSH); o.Top == 0 && !o.All && (!ok || l.Tables == 0) {
		return fmt.Errorf("annca: matcher %v has no buckets to share; give the tokens to keep for each query, or a hash with tables such as lsh8x4+1", o.matcher())
	}
	return nil
}

// firstTokens is the room for prompts that a policy begins with; it grows with longer ones. Where the device chooses, it is enough
// for every prompt of Wan's: nothing else grows with it there.
func (p *policy) firstTokens() int {
	if p.remote.on {
		return 512
	}
	return 128
}

// New allocates a policy. The error wraps compute.ErrNoMemory when the device is too small.
func (o Options) New(dev compute.Device, dq compute.Queue, s kvcache.Shape) (attention.Policy, error) {
	if err := o.Check(); err != nil {
		return nil, err
	}
	p := newPolicy(o, dev, s)
	p.dq, p.asked = dq, o.Queries.Of(dq)
	if err := p.grow(p.firstTokens()); err != nil {
		p.Close()
		return nil, fmt.Errorf("annca: %w", err)
	}
	return p, nil
}

// Bytes returns the memory that New takes, enough for prompts of 128 tokens, of 512 where the device chooses.
func (o Options) Bytes(dev compute.Device, s kvcache.Shape) int64 {
	m := &compute.Meter{Device: dev}
	p := newPolicy(o, dev, s)
	p.allocate(m, p.firstTokens())
	return m.Bytes()
}
