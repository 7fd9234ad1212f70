package main

import (
	"slices"

	"longtake/api"
	"longtake/attention"
	"longtake/kvcache"
	"longtake/rollout"
)

// charted is a session with a map of what its cache holds and where its queries look, for serve.Timeline.
type charted struct {
	*rollout.Session
	gaze     *attention.Gaze
	shape    kvcache.Shape
	attended []float32
	share    []float32
}

func newCharted(s *rollout.Session, g *attention.Gaze, shape kvcache.Shape) *charted {
	n := shape.Tokens()
	return &charted{s, g, shape, make([]float32, n), make([]float32, n)}
}

// Look implements serve.Timeline.
func (c *charted) Look(on bool) {
	if !on {
		clear(c.attended)
		c.gaze.Last = attention.Glance{}
	}
	c.gaze.On = on
}

// gazeWeight is the weight of a new finding in the running mean: about a turn through the heads of the embedded model, of which
// every map sees one in four.
const gazeWeight = 0.15

// Map implements serve.Timeline.
func (c *charted) Map() *api.Map {
	n := c.shape.Tokens()
	m := &api.Map{Rows: c.shape.Rows, Columns: c.shape.Columns, Kept: make([]float32, n), Merged: make([]float32, n)}
	each := 1 / float32(c.shape.Layers*c.shape.Heads)
	for layer := range c.shape.Layers {
		for head := range c.shape.Heads {
			known := c.Chart(layer, head, func(_, token, stands int) {
				if stands > 1 {
					m.Merged[token] += float32(stands) * each
				} else {
					m.Kept[token] += each
				}
			})
			if !known {
				return nil
			}
		}
	}
	c.learn()
	m.Attended = slices.Clone(c.attended)
	return m
}

// learn adds the newest finding to the running mean.
func (c *charted) learn() {
	last := c.gaze.Last
	if last.Mass == nil {
		return
	}
	clear(c.share)
	sum := float32(0)
	c.Chart(last.Layer, last.Head, func(key, token, _ int) {
		if key < len(last.Mass) {
			c.share[token] += last.Mass[key]
			sum += last.Mass[key]
		}
	})
	if sum == 0 {
		return
	}
	weight := float32(gazeWeight)
	if slices.Max(c.attended) == 0 {
		weight = 1
	}
	for i, v := range c.share {
		c.attended[i] += weight * (v/sum - c.attended[i])
	}
}
