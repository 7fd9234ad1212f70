package compare

import (
	"time"

	"longtake/attention"
	"longtake/compute"
	"longtake/kvcache"
)

// spent is the time that went into attention: all of self and of cross attention, and what of both was spent on deciding what to
// look at. On a device that works later than it is asked, it is the time to ask.
type spent struct{ self, cross, matching time.Duration }

func (s spent) since(before spent) spent {
	return spent{s.self - before.self, s.cross - before.cross, s.matching - before.matching}
}

// tally is a maker whose policies add up the time that they take.
type tally struct {
	attention.Maker
	spent *spent
}

// tallied wraps a maker; nil is dense attention.
func tallied(m attention.Maker, s *spent) attention.Maker {
	if m == nil {
		m = attention.Dense{}
	}
	return tally{m, s}
}

// New makes the wrapped maker's policy.
func (t tally) New(dev compute.Device, dq compute.Queue, s kvcache.Shape) (attention.Policy, error) {
	p, err := t.Maker.New(dev, dq, s)
	if err != nil {
		return nil, err
	}
	if sparse, ok := p.(attention.Sparse); ok {
		return tallyingSparse{sparse, t.spent}, nil
	}
	return tallying{p, t.spent}, nil
}

// tallying is a policy whose time is added up; tallyingSparse one that can be asked what it looked at.
type (
	tallying struct {
		attention.Policy
		spent *spent
	}
	tallyingSparse struct {
		attention.Sparse
		spent *spent
	}
)

// Attend attends and adds the time.
func (t tallying) Attend(dq compute.Queue, at attention.Site, dst, query compute.Tensor, kv kvcache.View) {
	began := time.Now()
	t.Policy.Attend(dq, at, dst, query, kv)
	t.spent.add(at.Kind, time.Since(began))
}

// Attend attends and adds the time, and that spent on deciding.
func (t tallyingSparse) Attend(dq compute.Queue, at attention.Site, dst, query compute.Tensor, kv kvcache.View) {
	began := time.Now()
	t.Sparse.Attend(dq, at, dst, query, kv)
	t.spent.add(at.Kind, time.Since(began))
	_, deciding := t.Pairs()
	t.spent.matching += deciding
}

// waited wraps a maker, nil is dense attention, so that the time of its policies is the device's while *on is true: it is waited for
// before and after each.
func waited(m attention.Maker, on *bool, s *spent) attention.Maker {
	if m == nil {
		m = attention.Dense{}
	}
	return waiting{m, on, s}
}

type waiting struct {
	attention.Maker
	on    *bool
	spent *spent
}

// New makes the wrapped maker's policy.
func (w waiting) New(dev compute.Device, dq compute.Queue, s kvcache.Shape) (attention.Policy, error) {
	p, err := w.Maker.New(dev, dq, s)
	if err != nil {
		return nil, err
	}
	return waitingPolicy{p, w}, nil
}

type waitingPolicy struct {
	attention.Policy
	waiting
}

// Attend attends; errors of the waiting stay in the queue.
func (w waitingPolicy) Attend(dq compute.Queue, at attention.Site, dst, query compute.Tensor, kv kvcache.View) {
	if !*w.on {
		w.Policy.Attend(dq, at, dst, query, kv)
		return
	}
	dq.Wait()
	began := time.Now()
	w.Policy.Attend(dq, at, dst, query, kv)
	dq.Wait()
	w.spent.add(at.Kind, time.Since(began))
}

func (s *spent) add(kind attention.Kind, d time.Duration) {
	if kind == attention.Self {
		s.self += d
	} else {
		s.cross += d
	}
}

// seldom is an interval of chunks after which a probe looks: as good as never, for its work is that of dense attention.
const seldom = 1 << 40

// probes look at both attentions of an entry.
type probes struct {
	self, cross *attention.Probe
	before      []attention.Measured
}

// probed puts probes into an entry's attention, and the attention on a clock if there is one.
func probed(e Entry, c *clock) (Entry, *probes) {
	p := &probes{}
	probe := func(m attention.Maker) (attention.Maker, *attention.Probe) {
		inner := m
		if c != nil {
			inner = tallied(m, &c.spent)
		}
		if m == nil || m == attention.Maker(attention.Dense{}) || m == attention.Maker(Reordered{}) {
			return inner, nil
		}
		a := &attention.Probe{Inner: inner, Every: seldom}
		return a, a
	}
	e.Looks, p.self = probe(e.Looks)
	e.Reads, p.cross = probe(e.Reads)
	return e, p
}

// each calls do for both probes.
func (p *probes) each(do func(*attention.Probe)) {
	for _, a := range []*attention.Probe{p.self, p.cross} {
		if a != nil {
			do(a)
		}
	}
}

// begin makes the probes look from here on.
func (p *probes) begin() {
	p.before = p.before[:0]
	p.each(func(a *attention.Probe) {
		p.before = append(p.before, a.Results()...)
		a.Every = 1
	})
}

// end stops looking and returns what was seen since begin.
func (p *probes) end() (self, cross []Share) {
	p.each(func(a *attention.Probe) {
		a.Every = seldom
		for _, m := range a.Results() {
			share, ok := since(m, p.before)
			switch {
			case !ok:
			case m.Kind == attention.Self:
				self = append(self, share)
			default:
				cross = append(cross, share)
			}
		}
	})
	return self, cross
}

// since takes what was measured before off the means of m.
func since(m attention.Measured, before []attention.Measured) (Share, bool) {
	n, density, recall := float64(m.Sampled), m.Density*float64(m.Sampled), m.Recall*float64(m.Sampled)
	for _, b := range before {
		if b.Kind == m.Kind && b.Layer == m.Layer {
			was := float64(b.Sampled)
			n, density, recall = n-was, density-b.Density*was, recall-b.Recall*was
		}
	}
	return Share{m.Layer, Fraction(density / n), Fraction(recall / n)}, n > 0
}
