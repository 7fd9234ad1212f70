package main

import (
	"slices"

	"longtake/accel/annsa"
	"longtake/accel/tempcache"
	"longtake/attention"
	"longtake/kvcache"
	"longtake/rollout"
)

// gauge is what "calibrate" measures with.
type gauge interface {
	// request has the gauge look at a session over a full cache.
	request(r rollout.Request) rollout.Request
	// profile returns what was measured as a file, and as a table.
	profile(e *rollout.Engine, samples int) (raw []byte, table string, err error)
}

func (c *calibrateCommand) gauge() gauge {
	if c.For == "tempcache" {
		return &routes{tempcache.Router{Recent: c.Recent, From: 8}, c.Least}
	}
	o := annsa.Default()
	o.Oracle, o.Fraction, o.Missed, o.Dense, o.Least, o.From = true, c.Density, 0, 0, 0, 0
	o.Temper = 0
	o.NoDrop, o.SecondOrder, o.Profile = false, false, nil
	return &recalls{o, &attention.Probe{Inner: o}, c.Dense}
}

// routes measures which heads ignore history.
type routes struct {
	router tempcache.Router
	least  float64
}

func (g *routes) request(r rollout.Request) rollout.Request {
	r.Cache, r.Self = kvcache.Window{Recent: kvcache.Full}, &g.router
	return r
}

func (g *routes) profile(e *rollout.Engine, _ int) (raw []byte, table string, err error) {
	r, err := g.router.Routing(e.Name, e.Hash(), g.least)
	if err != nil {
		return nil, "", usageError{err}
	}
	raw = jsonText(r)
	if _, err := tempcache.ParseRouting(raw, e.Name, e.Hash()); err != nil {
		return nil, "", err
	}
	return raw, headTable("largest share of attention on history, by layer and head; * keeps none", r.Most, func(v float64) bool { return v <= r.Least }), nil
}

// recalls measures what annsa's best choice would keep, head by head; a share of the heads, the worst, stays dense.
type recalls struct {
	options annsa.Options
	probe   *attention.Probe
	dense   float64
}

func (g *recalls) request(r rollout.Request) rollout.Request {
	r.Cache, r.Self = kvcache.Window{Recent: kvcache.Full}, g.probe
	return r
}

func (g *recalls) profile(e *rollout.Engine, samples int) (raw []byte, table string, err error) {
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
	if at := int(g.dense * float64(len(all))); at < len(all) {
		p.Least = all[at]
	} else {
		p.Least = 2 // no head keeps more than all
	}
	raw = jsonText(p)
	if _, err := annsa.ParseProfile(raw, e.Name, e.Hash()); err != nil {
		return nil, "", err
	}
	return raw, headTable("share of attention kept, by layer and head; * stays dense", p.Recall, func(v float64) bool { return v < p.Least }), nil
}
