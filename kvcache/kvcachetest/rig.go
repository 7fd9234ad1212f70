package kvcachetest

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"

	"longtake/compute"
	"longtake/kvcache"
)

// Exam is a policy and what it promises.
type Exam struct {
	Policy kvcache.Policy
	// Anchor first frames and the Recent newest before the chunk are in view as they are.
	Anchor, Recent int
	// Fixed says that the memory never grows; Complete that every token of the past is in view, itself or as part of another.
	Fixed, Complete bool
	// Poses says where a frame was made, for caches that want to know; nil: no two frames at one place.
	Poses func(frame int) kvcache.Pose
	// Shape is the model; the zero value takes Shapes in turn. F32 keys become the device's own type.
	Shape kvcache.Shape
}

// Shapes are small models: a latent frame a chunk, and three.
var Shapes = []kvcache.Shape{
	{Layers: 2, Heads: 2, HeadDim: 16, Rows: 2, Columns: 3, ChunkFrames: 1, Pairs: [3]int{4, 2, 2}, Theta: [3]float64{256, 16, 16}, Clamp: 12, Latent: 4},
	{Layers: 2, Heads: 3, HeadDim: 32, Rows: 3, Columns: 2, ChunkFrames: 3, Pairs: [3]int{6, 5, 5}, Theta: [3]float64{100, 16, 16}, Unit: 0.5, Clamp: 14, Latent: 5},
}

// content makes the keys and values of a video.
type content uint8

// Kinds of content: new in every frame; repeating with a little noise; one picture for ever.
const (
	motion content = iota
	rest
	still
)

// rig feeds chunks to a cache and remembers what it fed.
type rig struct {
	testing.TB
	dev                 compute.Device
	dq                  compute.Queue
	shape               kvcache.Shape
	policy              kvcache.Policy
	poses               func(frame int) kvcache.Pose
	cache               kvcache.Cache
	at                  []kvcache.Pose // of the chunk in work
	content             content
	keys, values, query compute.Tensor // F32 [tokens, heads*headDim]
	frames              int            // fed so far
	history             [][]frame      // [layer][frame] as committed or last drafted
	out, latent         compute.Tensor
	kept                map[int]int // the frame of a number, of a kvcache.Recaller
	hasty               bool        // recalls frames without looking, with whatever keys are at hand
}

// frame is the keys and values of a latent frame, [tokens, heads, headDim].
type frame struct{ keys, values []float32 }

func newRig(t testing.TB, dev compute.Device, e Exam, kind content) *rig {
	t.Helper()
	p, s := e.Policy, e.Shape
	dq, err := dev.NewQueue()
	if err != nil {
		t.Fatal(err)
	}
	if s.DType == compute.F32 {
		s.DType = dev.Types().Cache
	}
	cache, err := p.New(dev, dq, s)
	if err != nil {
		t.Fatal(err)
	}
	arena, err := dev.NewArena(0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cache.Close(); arena.Free(); dq.Close() })
	n, d := s.ChunkFrames*s.Tokens(), s.Heads*s.HeadDim
	r := &rig{TB: t, dev: dev, dq: dq, shape: s, policy: p, poses: e.Poses, cache: cache, content: kind, history: make([][]frame, s.Layers)}
	r.keys, r.values = arena.Tensor(compute.F32, n, d), arena.Tensor(compute.F32, n, d)
	r.query, r.out = arena.Tensor(compute.F32, n, d), arena.Tensor(compute.F32, n, d)
	r.latent = arena.Tensor(compute.F32, s.Tokens(), s.Latent)
	if err := arena.Err(); err != nil {
		t.Fatal(err)
	}
	return r
}

// made remembers numbers, which are drawn again and again by the rigs of a suite.
var made sync.Map // drawing -> []float32

// drawing names the numbers of a frame; which is 0 for keys, 1 for values, 2 for queries.
type drawing struct {
	content                         content
	which, layer, frame, pass, size int
}

// numbers are the keys, values or queries of a frame in a pass; they are not to be changed.
func (r *rig) numbers(which, layer, frame, pass int) []float32 {
	key := drawing{r.content, which, layer, frame, pass, r.shape.Tokens() * r.shape.Heads * r.shape.HeadDim}
	if v, ok := made.Load(key); ok {
		return v.([]float32)
	}
	v := key.draw()
	made.Store(key, v)
	return v
}

func (d drawing) draw() []float32 {
	at, spread, pass := d.frame, float32(0), d.pass
	switch d.content {
	case rest:
		at, spread = d.frame%4, 0.05
	case still:
		at, pass = 0, 0
	}
	if pass > 0 {
		at += 1000 * pass // drafts have nothing to do with what is committed
	}
	seed := uint64(d.which)<<40 | uint64(d.layer)<<32
	rng, jitter := rand.New(rand.NewPCG(1, seed|uint64(at))), rand.New(rand.NewPCG(2, seed|uint64(d.frame)))
	out := make([]float32, d.size)
	for i := range out {
		out[i] = float32(rng.NormFloat64()) + spread*float32(jitter.NormFloat64())
	}
	return out
}

// pass runs one forward of every layer: pass 0 is the clean one.
func (r *rig) pass(span kvcache.Span, pass int) {
	n := span.Frames * r.shape.Tokens()
	k, v, q := r.keys.Slice(0, 0, n), r.values.Slice(0, 0, n), r.query.Slice(0, 0, n)
	for l := range r.shape.Layers {
		var all [3][]float32
		for f := range span.Frames {
			for which := range all {
				all[which] = append(all[which], r.numbers(which, l, span.Start+f, pass)...)
			}
			made := frame{r.numbers(0, l, span.Start+f, pass), r.numbers(1, l, span.Start+f, pass)}
			r.history[l] = append(r.history[l][:span.Start+f:span.Start+f], made)
		}
		upload(r.dq, k, all[0])
		upload(r.dq, v, all[1])
		upload(r.dq, q, all[2])
		layer, heads := r.cache.Layer(l), r.shape.Heads
		if pass == 0 {
			layer.Commit(r.dq, k.Heads(heads), v.Heads(heads))
		} else {
			layer.Draft(r.dq, k.Heads(heads), v.Heads(heads))
		}
		rope, pos := r.cache.Rope()
		r.dq.Rope(q.Heads(heads), q.Heads(heads), pos, rope)
		if w := layer.View().Watcher; w != nil {
			w.Watch(r.dq, q.Heads(heads))
		}
	}
}

func (r *rig) begin(span kvcache.Span) {
	r.Helper()
	r.setPoses(span)
	r.recall(span)
	if err := r.cache.Begin(r.dq, span); err != nil {
		r.Fatalf("begin %+v: %v", span, err)
	}
}

// recall makes the keys again that a cache has given up: as they were, since those of a rig depend on nothing. It looks whether the latents
// are those of the frame, and whether the frame sees itself and nothing else.
func (r *rig) recall(span kvcache.Span) {
	r.Helper()
	cache, ok := r.cache.(kvcache.Recaller)
	for ok {
		back, more := cache.Recall(r.dq, span)
		if !more {
			return
		}
		frame, s := r.kept[back.Number], r.shape
		if !r.hasty {
			if got := r.floats(back.Latent); !slices.Equal(got, r.latentOf(frame)) {
				r.Fatalf("frame %d is recalled with latents %v, want %v", frame, got, r.latentOf(frame))
			}
		}
		k, v := r.keys.Slice(0, 0, s.Tokens()), r.values.Slice(0, 0, s.Tokens())
		for l := range s.Layers {
			if !r.hasty {
				upload(r.dq, k, r.numbers(0, l, frame, 0))
				upload(r.dq, v, r.numbers(1, l, frame, 0))
			}
			layer := back.Layers.Layer(l)
			layer.Commit(r.dq, k.Heads(s.Heads), v.Heads(s.Heads))
			if view := layer.View(); view.Keys.Dim(1) != s.Tokens() || view.Values.Dim(1) != s.Tokens() {
				r.Fatalf("frame %d sees %d keys when it is recalled, want its own %d", frame, view.Keys.Dim(1), s.Tokens())
			}
		}
	}
}

// keep gives the latents of the chunk that is history now to a cache that wants them.
func (r *rig) keep(span kvcache.Span) {
	r.Helper()
	cache, ok := r.cache.(kvcache.Recaller)
	if !ok {
		return
	}
	for f := span.Start; f < span.Start+span.Frames; f++ {
		if !r.hasty {
			upload(r.dq, r.latent, r.latentOf(f))
		}
		if r.kept == nil {
			r.kept = map[int]int{}
		}
		r.kept[cache.Keep(r.dq, f, r.latent)] = f
	}
}

// latentOf are the latents of a frame, which say which one it is and are exact in bfloat16.
func (r *rig) latentOf(frame int) []float32 {
	out := make([]float32, r.shape.Tokens()*r.shape.Latent)
	for i := range out {
		out[i] = float32((frame+i)%256) - 128
	}
	return out
}

// setPoses tells a cache that wants to know where the frames of span are made.
func (r *rig) setPoses(span kvcache.Span) {
	posed, ok := r.cache.(kvcache.Posed)
	if !ok {
		return
	}
	r.at = r.at[:0]
	for f := span.Start; f < span.Start+span.Frames; f++ {
		if r.poses != nil {
			r.at = append(r.at, r.poses(f))
		} else {
			r.at = append(r.at, kvcache.Pose{X: 10 * float64(f)})
		}
	}
	posed.SetPoses(r.at)
}

// chunk runs a whole chunk.
func (r *rig) chunk() {
	r.Helper()
	span := r.next()
	r.begin(span)
	r.pass(span, 1)
	r.pass(span, 0)
	r.cache.End()
	r.keep(span)
	r.frames += span.Frames
}

// feed runs chunks until so many frames are in the cache.
func (r *rig) feed(frames int) {
	r.Helper()
	for r.frames < frames {
		r.chunk()
	}
}

func (r *rig) next() kvcache.Span { return kvcache.Span{Start: r.frames, Frames: r.shape.ChunkFrames} }

// visible is what a layer's view shows, on the host.
type visible struct {
	keys, values, counts []float32 // [heads, keys, ...]; counts empty without LogCount
	lengths              []int32
	n                    int
	parts                []kvcache.Part
}

// equal compares what queries can see: what lies behind a head's length may differ.
func (v visible) equal(w visible) error {
	if v.n != w.n || !slices.Equal(v.lengths, w.lengths) || !slices.Equal(v.parts, w.parts) || len(v.counts) != len(w.counts) {
		return fmt.Errorf("%d keys, lengths %v, parts %v; want %d, %v, %v", v.n, v.lengths, v.parts, w.n, w.lengths, w.parts)
	}
	d := len(v.keys) / len(v.lengths) / max(v.n, 1)
	for h, n := range v.lengths {
		for i := range int(n) {
			at := h*v.n + i
			for name, x := range map[string][2][]float32{"key": {v.keys, w.keys}, "value": {v.values, w.values}} {
				if !slices.Equal(x[0][at*d:(at+1)*d], x[1][at*d:(at+1)*d]) {
					return fmt.Errorf("%s %d of head %d differs", name, i, h)
				}
			}
			if len(v.counts) > 0 && v.counts[at] != w.counts[at] {
				return fmt.Errorf("log count %d of head %d is %v, want %v", i, h, v.counts[at], w.counts[at])
			}
		}
	}
	return nil
}

// look downloads the view of a layer.
func (r *rig) look(layer int) visible {
	v := r.cache.Layer(layer).View()
	out := visible{n: v.Keys.Dim(1), parts: slices.Clone(v.Parts), lengths: make([]int32, r.shape.Heads)}
	for h := range r.shape.Heads {
		out.keys = append(out.keys, r.floats(v.Keys.Index(h))...)
		out.values = append(out.values, r.floats(v.Values.Index(h))...)
		if !v.LogCount.IsZero() {
			out.counts = append(out.counts, r.floats(v.LogCount.Index(h))...)
		}
		out.lengths[h] = int32(out.n)
	}
	if !v.Lengths.IsZero() {
		b := make([]byte, 4*r.shape.Heads)
		r.dq.Download(b, v.Lengths)
		for h := range out.lengths {
			out.lengths[h] = int32(binary.LittleEndian.Uint32(b[4*h:]))
		}
	}
	return out
}

func (r *rig) lookAll() (all []visible) {
	for l := range r.shape.Layers {
		all = append(all, r.look(l))
	}
	return all
}

// floats downloads a contiguous tensor.
func (r *rig) floats(x compute.Tensor) []float32 {
	b := make([]byte, x.Bytes())
	r.dq.Download(b, x)
	out := make([]float32, x.Elems())
	for i := range out {
		if x.DType == compute.BF16 {
			out[i] = compute.F32FromBF16(binary.LittleEndian.Uint16(b[2*i:]))
		} else {
			out[i] = math.Float32frombits(binary.LittleEndian.Uint32(b[4*i:]))
		}
	}
	return out
}

func upload(dq compute.Queue, dst compute.Tensor, v []float32) {
	b := make([]byte, 0, 4*len(v))
	for _, x := range v {
		b = binary.LittleEndian.AppendUint32(b, math.Float32bits(x))
	}
	dq.Upload(dst, b)
}

// rotate is the rotation of a key in float64, as kvcache defines it.
func rotate(x []float32, s kvcache.Shape, time, token int) []float64 {
	out, pair := make([]float64, len(x)), 0
	for axis, p := range [3]int{time, token / s.Columns, token % s.Columns} {
		at := float64(p)
		if axis > 0 && s.Unit > 0 {
			at *= s.Unit
		}
		for j := range s.Pairs[axis] {
			sin, cos := math.Sincos(at * math.Pow(s.Theta[axis], -float64(j)/float64(s.Pairs[axis])))
			a, b := float64(x[2*pair]), float64(x[2*pair+1])
			out[2*pair], out[2*pair+1] = a*cos-b*sin, a*sin+b*cos
			pair++
		}
	}
	return out
}
