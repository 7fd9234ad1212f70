package analyze

import (
	"encoding/binary"
	"math"
	"slices"

	"longtake/attention"
	"longtake/compute"
	"longtake/kvcache"
)

// recorder copies what passes between network, cache and attention. It makes the session's cache (kvcache.Policy) and, through
// eyes, its attention; it serves one session.
type recorder struct {
	kvcache.Window
	o     *Options
	clip  *clip
	scrap scrap

	cache   *teed
	span    kvcache.Span
	now     *moment // the examined chunk in work, or nil
	drafted map[int][]float32
}

func newRecorder(o *Options) *recorder {
	r := &recorder{Window: kvcache.Window{Recent: kvcache.Full}, o: o, drafted: map[int][]float32{}}
	r.clip = &clip{geometry: geometryOf(o.Engine.CacheShape), first: len(o.Request.Start), drawn: o.pictured(),
		keys: map[place][]float32{}, values: map[place][]float32{}, queries: map[place][]float32{}}
	return r
}

// New makes the full cache and those on trial.
func (r *recorder) New(dev compute.Device, dq compute.Queue, s kvcache.Shape) (kvcache.Cache, error) {
	arena, err := dev.NewArena(0)
	if err != nil {
		return nil, err
	}
	r.scrap.arena = arena
	c := &teed{recorder: r}
	r.cache = c
	if c.Cache, err = r.Window.New(dev, dq, s); err != nil {
		arena.Free()
		return nil, err
	}
	for _, t := range r.o.Trials {
		shadow, err := t.Cache.New(dev, dq, s)
		if err != nil {
			c.Close()
			return nil, err
		}
		c.shadows = append(c.shadows, shadow)
	}
	return c, nil
}

// wants reports whether a layer is studied.
func (r *recorder) wants(layer int) bool { return slices.Contains(r.o.Layers, layer) }

// teed hands everything to the full cache and to those on trial.
type teed struct {
	kvcache.Cache
	*recorder
	shadows []kvcache.Cache
}

// Begin finds out whether the chunk is one to examine.
func (c *teed) Begin(dq compute.Queue, span kvcache.Span) error {
	r := c.recorder
	r.span, r.now = span, nil
	for _, at := range r.o.At {
		if at >= span.Start && at < span.Start+span.Frames && span.Start >= r.clip.first {
			r.now = &moment{at: at, span: span, drafts: map[int][]float32{}, asked: map[int][]float32{}, prompt: map[int]*promptMass{}}
		}
	}
	for _, s := range c.shadows {
		if err := s.Begin(dq, span); err != nil {
			return err
		}
	}
	return c.Cache.Begin(dq, span)
}

// End keeps the moment.
func (c *teed) End() {
	c.Cache.End()
	for _, s := range c.shadows {
		s.End()
	}
	if r := c.recorder; r.now != nil && len(r.now.asked) > 0 {
		r.clip.moments = append(r.clip.moments, r.now)
	}
}

// Reset forgets everything but what was recorded.
func (c *teed) Reset() {
	c.Cache.Reset()
	for _, s := range c.shadows {
		s.Reset()
	}
}

// Bytes returns the full cache's memory; trials come on top.
func (c *teed) Bytes(dev compute.Device, s kvcache.Shape) int64 {
	return c.recorder.Window.Bytes(dev, s)
}

// Close gives all memory back.
func (c *teed) Close() {
	c.Cache.Close()
	for _, s := range c.shadows {
		s.Close()
	}
	c.scrap.arena.Free()
}

// Layer returns a block's side.
func (c *teed) Layer(i int) kvcache.Layer { return teedLayer{c, i} }

type teedLayer struct {
	cache *teed
	index int
}

// Draft copies the keys of an examined chunk.
func (l teedLayer) Draft(dq compute.Queue, keys, values compute.Tensor) {
	c := l.cache
	c.Cache.Layer(l.index).Draft(dq, keys, values)
	for _, s := range c.shadows {
		s.Layer(l.index).Draft(dq, keys, values)
	}
	if c.now != nil && c.wants(l.index) {
		c.drafted[l.index] = c.scrap.fetch(dq, keys)
	}
}

// Commit copies the clean keys and values of every chunk.
func (l teedLayer) Commit(dq compute.Queue, keys, values compute.Tensor) {
	c := l.cache
	c.Cache.Layer(l.index).Commit(dq, keys, values)
	for _, s := range c.shadows {
		s.Layer(l.index).Commit(dq, keys, values)
	}
	if !c.wants(l.index) {
		return
	}
	n := c.clip.tokens()
	for f := range c.span.Frames {
		at := place{l.index, c.span.Start + f}
		c.clip.keys[at] = c.scrap.fetch(dq, keys.Slice(1, f*n, (f+1)*n))
		c.clip.values[at] = c.scrap.fetch(dq, values.Slice(1, f*n, (f+1)*n))
	}
}

// View is the full cache's.
func (l teedLayer) View() kvcache.View { return l.cache.Cache.Layer(l.index).View() }

// eyes is a Maker of dense attention that shows the recorder what is asked.
type eyes struct {
	attention.Dense
	r *recorder
}

// New returns eyes.
func (e eyes) New(compute.Device, compute.Queue, kvcache.Shape) (attention.Policy, error) {
	return e, nil
}

// Attend is dense, and copies queries in the examined pass.
func (e eyes) Attend(dq compute.Queue, at attention.Site, dst, query compute.Tensor, kv kvcache.View) {
	e.Dense.Attend(dq, at, dst, query, kv)
	r := e.r
	if at.Kind == attention.Self {
		for _, s := range r.cache.shadows {
			if w := s.Layer(at.Layer).View().Watcher; w != nil {
				w.Watch(dq, query)
			}
		}
	}
	if at.Pass != r.o.Pass || at.Pass == at.Passes-1 || !r.wants(at.Layer) {
		return
	}
	if at.Kind == attention.Cross {
		if r.now != nil {
			r.now.prompt[at.Layer] = r.promptMass(dq, query, kv)
		}
		return
	}
	drawn := slices.ContainsFunc(r.clip.drawn, func(f int) bool { return f >= r.span.Start && f < r.span.Start+r.span.Frames })
	if !drawn && r.now == nil {
		return
	}
	asked := r.scrap.unrotated(dq, at, query)
	n := r.clip.tokens()
	for f := range r.span.Frames {
		r.clip.queries[place{at.Layer, r.span.Start + f}] = r.clip.part(asked, r.span.Frames*n, f*n, n)
	}
	if r.now != nil {
		r.now.drafts[at.Layer], r.now.asked[at.Layer] = r.drafted[at.Layer], asked
		r.try(dq, at, dst, query)
	}
}

// scrap is device memory for copies on their way to the host.
type scrap struct {
	arena        compute.Arena
	flat, second compute.Tensor
	bytes        []byte
}

// room returns a contiguous F32 tensor of t's shape that is valid until the next call with the same slot.
func (s *scrap) room(slot *compute.Tensor, t compute.Tensor) compute.Tensor {
	if slot.Elems() < t.Elems() {
		*slot = s.arena.Tensor(compute.F32, t.Elems())
	}
	return slot.Slice(0, 0, t.Elems()).Reshape(t.Shape[:t.Rank]...)
}

// fetch returns the elements of t in row-major order.
func (s *scrap) fetch(dq compute.Queue, t compute.Tensor) []float32 {
	flat := s.room(&s.flat, t)
	dq.Copy(flat, t)
	return s.download(dq, flat)
}

// unrotated undoes the rotation of queries.
func (s *scrap) unrotated(dq compute.Queue, at attention.Site, query compute.Tensor) []float32 {
	flat, rope := s.room(&s.flat, query), at.Rope
	rope.Inverse = true
	dq.Rope(flat, query, at.Pos, rope)
	return s.download(dq, flat)
}

func (s *scrap) download(dq compute.Queue, flat compute.Tensor) []float32 {
	if n := int(flat.Bytes()); len(s.bytes) < n {
		s.bytes = make([]byte, n)
	}
	b := s.bytes[:flat.Bytes()]
	dq.Download(b, flat)
	out := make([]float32, flat.Elems())
	for i := range out {
		out[i] = math.Float32frombits(binary.LittleEndian.Uint32(b[4*i:]))
	}
	return out
}
