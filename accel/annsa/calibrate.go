package annsa

import (
	"fmt"
	"math"
	"slices"

	"longtake/accel/ann"
	"longtake/attention"
	"longtake/compute"
	"longtake/kvcache"
)

// Calibration finds out which heads of a model are sparse: run sessions with it as the maker of self attention (it attends
// densely), then ask for the Profile. The zero value is not ready; see NewCalibration.
type Calibration struct {
	o       Options
	every   int
	samples []int // of each layer
	recall  [][]float64
}

// NewCalibration measures the recall of an oracle that keeps o.Fraction of the history in tiles as o makes them, in the last
// step of every n-th chunk.
func NewCalibration(o Options, n int) *Calibration {
	o.Oracle, o.NoDrop, o.SecondOrder, o.Profile, o.Missed, o.Dense, o.Queries = true, false, false, nil, 0, 0, nil
	o.Least, o.From = min(o.Least, leastHistory), 0
	return &Calibration{o: o, every: max(n, 1)}
}

// Calibrate runs a function that generates video with the self attention it is given, as many sessions as it likes one after
// another, and returns the profile of the model. The worst 30 % of the heads count as not sparse (the paper's 70 % of the blocks),
// and every head below least.
func Calibrate(model, hash string, o Options, least float64, run func(self attention.Maker) error) (*Profile, error) {
	c := NewCalibration(o, 4)
	if err := run(c); err != nil {
		return nil, fmt.Errorf("calibrate: %w", err)
	}
	return c.Profile(model, hash, least)
}

// New makes a policy that attends densely and looks.
func (c *Calibration) New(dev compute.Device, dq compute.Queue, s kvcache.Shape) (attention.Policy, error) {
	inner, err := c.o.New(dev, dq, s)
	if err != nil {
		return nil, err
	}
	if c.recall == nil {
		c.recall, c.samples = make([][]float64, s.Layers), make([]int, s.Layers)
		for i := range c.recall {
			c.recall[i] = make([]float64, s.Heads)
		}
	}
	m := &compute.Meter{Device: dev}
	p := &calibrating{Calibration: c, inner: inner.(*policy)}
	p.allocate(m, s)
	arena, err := dev.NewArena(m.Bytes())
	if err != nil {
		inner.Close()
		return nil, fmt.Errorf("calibrate: %w", err)
	}
	p.arena = arena
	p.allocate(arena, s)
	return p, arena.Err()
}

// Bytes returns the memory that New takes.
func (c *Calibration) Bytes(dev compute.Device, s kvcache.Shape) int64 {
	m := &compute.Meter{Device: dev}
	new(calibrating).allocate(m, s)
	return m.Bytes() + c.o.Bytes(dev, s)
}

// String returns "dense, calibrating".
func (c *Calibration) String() string { return "dense, calibrating" }

// Profile returns what was found.
func (c *Calibration) Profile(model, hash string, least float64) (*Profile, error) {
	for _, n := range append([]int{len(c.samples)}, c.samples...) {
		if n == 0 {
			return nil, fmt.Errorf("calibrate: no generated chunk with at least %d tokens of history was seen", leastHistory)
		}
	}
	p := &Profile{Format: profileFormat, Model: model, Hash: hash, Density: c.o.Fraction, Tile: c.o.Tile, Samples: slices.Min(c.samples), Least: least}
	for i, layer := range c.recall {
		var row []float64
		for _, r := range layer {
			row = append(row, math.Round(1e4*r/float64(c.samples[i]))/1e4)
		}
		p.Recall = append(p.Recall, row)
	}
	p.Least = max(p.Least, p.quantile(0.3))
	return p, nil
}

// calibrating is the policy of one session.
type calibrating struct {
	*Calibration
	inner     *policy
	arena     compute.Arena
	all, kept compute.Tensor // F32 [heads*queries]
	out       compute.Tensor
	a, k      []float32
}

func (p *calibrating) allocate(a compute.Arena, s kvcache.Shape) {
	n := s.Heads * s.ChunkFrames * s.Tokens()
	p.all, p.kept, p.out = a.Tensor(compute.F32, n), a.Tensor(compute.F32, n), a.Tensor(compute.F32, n*s.HeadDim)
	p.a, p.k = make([]float32, n), make([]float32, n)
}

// Attend attends densely. What the inner policy would do is only measured.
func (p *calibrating) Attend(dq compute.Queue, at attention.Site, dst, query compute.Tensor, kv kvcache.View) {
	measured := at.Pass == at.Passes-2 // the last step; the last block has no clean pass
	if at.Kind == attention.Self && measured && at.Chunk%p.every == 0 {
		p.inner.Attend(dq, at, dst, query, kv)
		if pairs, _ := p.inner.Pairs(); pairs < math.MaxInt64 {
			p.look(dq, at, query, kv)
		}
	}
	attention.Dense{}.Attend(dq, at, dst, query, kv)
}

// look adds the recall of every head.
func (p *calibrating) look(dq compute.Queue, at attention.Site, query compute.Tensor, kv kvcache.View) {
	heads, queries := query.Dim(0), query.Dim(1)
	n := heads * queries
	all, kept := p.all.Slice(0, 0, n), p.kept.Slice(0, 0, n)
	attention.Mass(dq, all.Reshape(heads, queries), p.out, query, kv)
	p.inner.Kept(dq, at, kept.Reshape(heads, queries), query, kv)
	for dst, t := range map[*[]float32]compute.Tensor{&p.a: all, &p.k: kept} {
		ann.Load(dq, *dst, t.Reshape(1, n), p.inner.lse, p.inner.host)
	}
	for h := range heads {
		sum := 0.0
		for i := h * queries; i < (h+1)*queries; i++ {
			sum += math.Exp(float64(p.k[i] - p.a[i]))
		}
		p.recall[at.Layer][h] += sum / float64(queries)
	}
	p.samples[at.Layer]++
}

// Close gives the memory back.
func (p *calibrating) Close() {
	p.inner.Close()
	p.arena.Free()
}
