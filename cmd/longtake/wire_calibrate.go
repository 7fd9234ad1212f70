package main

import (
	"slices"

	"longtake/accel/annsa"
	"longtake/attention"
	"longtake/kvcache"
	"longtake/rollout"
)

// gauge measures what annsa's best choice would keep, head by head.
type gauge struct {
	options annsa.Options
	probe   *attention.Probe
}

func newGauge(density float64) *gauge {
	o := annsa.Default()
	o.Oracle, o.Fraction, o.Missed, o.Dense, o.Least, o.From = true, density, 0, 0, 0, 0
	o.Temper = 0
	o.NoDrop, o.SecondOrder, o.Profile = false, false, nil
	return &gauge{o, &attention.Probe{Inner: o}}
}

// request has the gauge look at a session over a full cache.
func (g *gauge) request(r rollout.Request) rollout.Request {
	r.Cache, r.Self = kvcache.Window{Recent: kvcache.Full}, g.probe
	return r
}

// profile returns what was measured as a file, and as a table; a share of the heads, the worst, stays dense.
func (g *gauge) profile(e *rollout.Engine, samples int, dense float64) (raw []byte, table string, err error) {
	p := annsa.Profile{Format: "longtake-annsa-profile-v1", Model: e.Name, Hash: e.Hash(), Density: g.options.Fraction, Tile: g.options.Tile, Samples: samples}
	var all []float64
	for _, m := range g.probe.Results() {
		if m.Kind != attention.Self {
			continue
		}
		if m.HeadRecall == nil {
			return nil, "", usagef("layer %d was never thinned: the history is too short, use more --frames or a smaller --density", m.Layer)
		}
		p.Recall, all = append(p.Recall, m.HeadRecall), append(all, m.HeadRecall...)
	}
	slices.Sort(all)
	if at := int(dense * float64(len(all))); at < len(all) {
		p.Least = all[at]
	} else {
		p.Least = 2 // no head keeps more than all
	}
	raw = jsonText(p)
	if _, err := annsa.ParseProfile(raw, e.Name, e.Hash()); err != nil {
		return nil, "", err
	}
	return raw, recallTable(p.Recall, p.Least), nil
}
