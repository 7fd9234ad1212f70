package compare

import (
	"context"
	"encoding/binary"
	"fmt"
	"math"

	"longtake/attention"
	"longtake/compute"
	"longtake/kvcache"
	"longtake/rollout"
)

// exact compares what a policy makes of a history with attention over all of it: of a few layers one head each, whose keys and
// values it keeps a copy of from the first frame on.
type exact struct {
	layers, heads []int
	frames        int // latent frames that the copy has room for
	on            bool

	copy  kvcache.Cache // a layer for each of layers, with one head
	arena compute.Arena
	out   compute.Tensor // F32 [1, queries, headDim]
	all   compute.Tensor // F32 [1, queries], ln of the mass of everything
	mine  compute.Tensor // F32 [heads, queries], ln of the mass of what the policy used
	host  []byte

	difference, size float64 // sums of squares, of differences and of the exact outputs
	mass             float64 // sum of shares
	queries          float64
}

// newExact looks at three layers, or all of fewer.
func newExact(s kvcache.Shape, frames int) *exact {
	x := &exact{frames: frames}
	for i := range min(3, s.Layers) {
		layer := (2*i + 1) * s.Layers / (2 * min(3, s.Layers))
		x.layers, x.heads = append(x.layers, layer), append(x.heads, (5*layer+1)%s.Heads)
	}
	return x
}

// part is the shape of the copy.
func (x *exact) part(s kvcache.Shape) kvcache.Shape {
	s.Layers, s.Heads = len(x.layers), 1
	return s
}

func (x *exact) whole(s kvcache.Shape) kvcache.Window {
	return kvcache.Window{Recent: max(0, x.frames-s.ChunkFrames)}
}

// at is where a layer lies in the copy, -1 if it does not.
func (x *exact) at(layer int) int {
	for i, l := range x.layers {
		if l == layer {
			return i
		}
	}
	return -1
}

func (x *exact) reset() { x.difference, x.size, x.mass, x.queries = 0, 0, 0, 0 }

// found is the error of the outputs, relative to their size, and the share of the exact mass, of what was seen since reset.
func (x *exact) found() (err, mass Fraction) {
	return Fraction(math.Sqrt(x.difference / x.size)), Fraction(x.mass / x.queries)
}

// exactly makes an entry's history again, by clean passes alone where a clip says what they store, and at every frontier that the run
// reached one chunk that is compared.
func (o *RolloutOptions) exactly(ctx context.Context, entry Entry, run *RolloutRun) error {
	e := o.Engine
	x := newExact(e.CacheShape, e.LatentFrames(o.Frames)+(len(o.Frontiers)+1)*e.Network.ChunkFrames)
	request := o.Request
	request.Loop = rollout.Blockwise
	if entry.Looks == nil {
		entry.Looks = attention.Dense{}
	}
	if entry.Keeps == nil {
		entry.Keeps = e.Cache
	}
	entry.Keeps, entry.Looks = keeping{entry.Keeps, x}, looking{entry.Looks, x}
	t, err := newTake(ctx, e, entry.Request(request), o.Actions)
	if err != nil {
		return err
	}
	defer t.Close()
	a := &long{take: t, options: o}
	for i := range run.Frontiers {
		m := &run.Frontiers[i]
		for t.n < m.Frame {
			n := t.upcomingFrames()
			if o.Clip != nil {
				err = t.Force(ctx, a.fill(), t.upcoming()...)
			} else {
				_, err = t.Next(ctx, t.upcoming()...)
			}
			if err != nil {
				return fmt.Errorf("exact attention, frame %d: %w", t.n, err)
			}
			t.n += n
			o.Progress(entry.Name+", exact", min(t.n, o.Frames), o.Frames)
		}
		x.reset()
		x.on = true
		n := t.upcomingFrames()
		_, err := t.Next(ctx, t.upcoming()...)
		if t.n, x.on = t.n+n, false; err != nil {
			return fmt.Errorf("exact attention, frame %d: %w", t.n, err)
		}
		m.Error, m.Mass = x.found()
	}
	return nil
}

// keeping is a cache policy that also copies; looking an attention that also compares.
type (
	keeping struct {
		kvcache.Policy
		x *exact
	}
	keepingCache struct {
		kvcache.Cache
		x *exact
	}
	keepingLayer struct {
		kvcache.Layer
		copy kvcache.Layer
		head int
	}
	looking struct {
		attention.Maker
		x *exact
	}
	lookingPolicy struct {
		attention.Policy
		x *exact
	}
)

// New makes both caches.
func (k keeping) New(dev compute.Device, dq compute.Queue, s kvcache.Shape) (kvcache.Cache, error) {
	inner, err := k.Policy.New(dev, dq, s)
	if err != nil {
		return nil, err
	}
	if k.x.copy, err = k.x.whole(s).New(dev, dq, k.x.part(s)); err != nil {
		inner.Close()
		return nil, err
	}
	return keepingCache{inner, k.x}, nil
}

// Bytes is the memory of both.
func (k keeping) Bytes(dev compute.Device, s kvcache.Shape) int64 {
	return k.Policy.Bytes(dev, s) + k.x.whole(s).Bytes(dev, k.x.part(s))
}

// Begin begins the chunk in both.
func (c keepingCache) Begin(dq compute.Queue, span kvcache.Span) error {
	if err := c.Cache.Begin(dq, span); err != nil {
		return err
	}
	return c.x.copy.Begin(dq, span)
}

// End ends it.
func (c keepingCache) End() {
	c.Cache.End()
	c.x.copy.End()
}

// Reset forgets everything.
func (c keepingCache) Reset() {
	c.Cache.Reset()
	c.x.copy.Reset()
}

// Close gives the memory back.
func (c keepingCache) Close() {
	c.Cache.Close()
	c.x.copy.Close()
}

// Layer is the inner cache's, or writes both.
func (c keepingCache) Layer(i int) kvcache.Layer {
	at := c.x.at(i)
	if at < 0 {
		return c.Cache.Layer(i)
	}
	return keepingLayer{c.Cache.Layer(i), c.x.copy.Layer(at), c.x.heads[at]}
}

// Draft stores the keys of a forward on noise in both.
func (l keepingLayer) Draft(dq compute.Queue, keys, values compute.Tensor) {
	l.Layer.Draft(dq, keys, values)
	l.copy.Draft(dq, keys.Slice(0, l.head, l.head+1), values.Slice(0, l.head, l.head+1))
}

// Commit stores those of the clean chunk.
func (l keepingLayer) Commit(dq compute.Queue, keys, values compute.Tensor) {
	l.Layer.Commit(dq, keys, values)
	l.copy.Commit(dq, keys.Slice(0, l.head, l.head+1), values.Slice(0, l.head, l.head+1))
}

// New makes the wrapped maker's policy and the memory to compare.
func (k looking) New(dev compute.Device, dq compute.Queue, s kvcache.Shape) (attention.Policy, error) {
	inner, err := k.Maker.New(dev, dq, s)
	if err != nil {
		return nil, err
	}
	x := k.x
	meter := &compute.Meter{Device: dev}
	x.allocate(meter, s)
	if x.arena, err = dev.NewArena(meter.Bytes()); err != nil {
		inner.Close()
		return nil, err
	}
	x.allocate(x.arena, s)
	return lookingPolicy{inner, x}, x.arena.Err()
}

func (x *exact) allocate(a compute.Arena, s kvcache.Shape) {
	n := s.ChunkFrames * s.Tokens()
	x.out, x.all, x.mine = a.Tensor(compute.F32, 1, n, s.HeadDim), a.Tensor(compute.F32, 1, n), a.Tensor(compute.F32, s.Heads, n)
	x.host = make([]byte, 4*n*s.HeadDim)
}

// Close gives the memory back.
func (p lookingPolicy) Close() {
	p.Policy.Close()
	p.x.arena.Free()
}

// Attend attends, and compares.
func (p lookingPolicy) Attend(dq compute.Queue, at attention.Site, dst, query compute.Tensor, kv kvcache.View) {
	p.Policy.Attend(dq, at, dst, query, kv)
	if i := p.x.at(at.Layer); p.x.on && at.Kind == attention.Self && i >= 0 {
		p.compare(dq, at, i, dst, query, kv)
	}
}

func (p lookingPolicy) compare(dq compute.Queue, at attention.Site, i int, dst, query compute.Tensor, kv kvcache.View) {
	x, n := p.x, query.Dim(1)
	h, out := x.heads[i], x.out.Slice(1, 0, n)
	got := append([]float32(nil), x.read(dq, out, dst.Slice(0, h, h+1))...)
	one := query.Slice(0, h, h+1)
	mine := x.mine.Reshape(x.mine.Elems()).Slice(0, 0, query.Dim(0)*n).Reshape(query.Dim(0), n)
	pairs := int64(math.MaxInt64)
	sparse, ok := p.Policy.(attention.Sparse)
	if ok {
		pairs, _ = sparse.Pairs()
	}
	if ok && pairs < attention.Pairs(dq, query, kv) {
		sparse.Kept(dq, at, mine, query, kv)
		mine = mine.Slice(0, h, h+1)
	} else {
		a := compute.Attention{Scale: attention.Scale(query), LogSumExp: mine.Slice(0, h, h+1)}
		if !kv.LogCount.IsZero() {
			a.LogCount = kv.LogCount.Slice(0, h, h+1)
		}
		if !kv.Lengths.IsZero() {
			a.Lengths = kv.Lengths.Slice(0, h, h+1)
		}
		dq.Attend(out, one, kv.Keys.Slice(0, h, h+1), kv.Values.Slice(0, h, h+1), a)
		mine = a.LogSumExp
	}
	all, view := x.all.Slice(1, 0, n), x.copy.Layer(i).View()
	dq.Attend(out, one, view.Keys, view.Values, compute.Attention{Scale: attention.Scale(query), LogCount: view.LogCount, Lengths: view.Lengths, LogSumExp: all})
	for k, want := range x.read(dq, out, compute.Tensor{}) {
		d := float64(want - got[k])
		x.difference, x.size = x.difference+d*d, x.size+float64(want)*float64(want)
	}
	kept := append([]float32(nil), x.read(dq, mine, compute.Tensor{})...)
	for k, whole := range x.read(dq, all, compute.Tensor{}) {
		x.mass += min(1, math.Exp(float64(kept[k]-whole)))
	}
	x.queries += float64(n)
}

// read downloads an F32 tensor, after a copy to it of from if there is one. The result is good until the next call.
func (x *exact) read(dq compute.Queue, t, from compute.Tensor) []float32 {
	if !from.IsZero() {
		dq.Copy(t, from)
	}
	dq.Download(x.host[:t.Bytes()], t)
	out := make([]float32, t.Elems())
	for i := range out {
		out[i] = math.Float32frombits(binary.LittleEndian.Uint32(x.host[4*i:]))
	}
	return out
}
