// Package attentiontest holds the laws that every attention policy keeps, whatever it leaves out (docs/terms.md: a law is a
// relation that must hold without a reference).
//
// What enters: a device and makers of policies. What leaves: test failures.
package attentiontest

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"longtake/attention"
	"longtake/compute"
	"longtake/kvcache"
)

// Suite are the makers of one kind of policy with different options; nil ones are not tested.
type Suite struct {
	Kind attention.Kind
	// Whole must select everything, so that it equals dense attention. Thin selects a part. NoDrop selects a part and keeps
	// the rest as merged keys.
	Whole, Thin, NoDrop attention.Maker
	// Ordered is set for policies whose choice depends on how keys are ordered inside a latent frame.
	Ordered bool
}

// shapes are small, and odd in different ways.
var shapes = []kvcache.Shape{
	{Layers: 2, Heads: 2, HeadDim: 32, Rows: 8, Columns: 8, ChunkFrames: 1, Pairs: [3]int{6, 5, 5}, Theta: [3]float64{256, 16, 16}, Clamp: 5},
	{Layers: 1, Heads: 3, HeadDim: 16, Rows: 5, Columns: 7, ChunkFrames: 1, Pairs: [3]int{4, 2, 2}, Theta: [3]float64{256, 16, 16}, Unit: 0.5, Clamp: 20},
	{Layers: 1, Heads: 1, HeadDim: 48, Rows: 3, Columns: 6, ChunkFrames: 3, Pairs: [3]int{8, 8, 8}, Theta: [3]float64{1e4, 1e4, 1e4}},
}

// passes of a chunk: three steps and the clean pass.
const passes = 4

// Run tests the laws on a device whose results of one call repeat.
func Run(t *testing.T, dev compute.Device, s Suite) {
	tolerance := 1e-5
	if dev.Types().Cache == compute.BF16 {
		tolerance = 2e-2
	}
	for _, shape := range shapes {
		shape.DType = dev.Types().Cache
		t.Run(fmt.Sprintf("%dx%d tokens, chunks of %d", shape.Rows, shape.Columns, shape.ChunkFrames), func(t *testing.T) {
			r := func(t *testing.T) *rig { return newRig(t, dev, shape, s.Kind) }
			if s.Whole != nil {
				t.Run("everything selected is dense", func(t *testing.T) { r(t).equalsDense(s.Whole, random, tolerance) })
				t.Run("counts and lengths are respected", func(t *testing.T) { r(t).counted(s.Whole, tolerance) })
			}
			for name, maker := range map[string]attention.Maker{"thin": s.Thin, "no-drop": s.NoDrop} {
				if maker == nil {
					continue
				}
				t.Run(name+" repeats itself and stays finite", func(t *testing.T) { r(t).repeats(maker) })
				t.Run(name+" allocates nothing", func(t *testing.T) { r(t).allocates(maker) })
				if !s.Ordered && s.Kind == attention.Self {
					t.Run(name+" does not care for the order of keys", func(t *testing.T) { r(t).permuted(maker, tolerance) })
				}
			}
			if s.NoDrop != nil {
				t.Run("no-drop of equal keys is dense", func(t *testing.T) { r(t).equalsDense(s.NoDrop, alike, tolerance) })
			}
		})
	}
}

// content says how the keys of a frame are made.
type content int

const (
	random content = iota
	alike          // all keys of a frame that have one place in its tiles are equal, apart from rotation: here, all
)

// rig feeds a cache and asks a policy.
type rig struct {
	t       *testing.T
	dev     compute.Device
	dq      compute.Queue
	kind    attention.Kind
	shape   kvcache.Shape
	arena   compute.Arena
	cache   kvcache.Cache
	k, v, q compute.Tensor // F32 [tokens, heads*headDim]
	got     compute.Tensor
	want    compute.Tensor
	prompt  kvcache.View
	order   []int // of the tokens of a frame, nil as they come
	rng     *rand.Rand
	frames  int
}

func newRig(t *testing.T, dev compute.Device, s kvcache.Shape, kind attention.Kind) *rig {
	dq, err := dev.NewQueue()
	if err != nil {
		t.Fatal(err)
	}
	arena, err := dev.NewArena(0)
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{t: t, dev: dev, dq: dq, kind: kind, shape: s, arena: arena, rng: rand.New(rand.NewPCG(3, 4))}
	n, width := s.ChunkFrames*s.Tokens(), s.Heads*s.HeadDim
	for _, x := range []*compute.Tensor{&r.k, &r.v, &r.q, &r.got, &r.want} {
		*x = arena.Tensor(compute.F32, n, width)
	}
	const words = 37
	r.prompt = kvcache.View{Keys: arena.Tensor(s.DType, words, width).Heads(s.Heads), Values: arena.Tensor(s.DType, words, width).Heads(s.Heads)}
	for _, x := range [...]compute.Tensor{r.prompt.Keys, r.prompt.Values} {
		rows := arena.Tensor(compute.F32, words, width)
		r.upload(rows, r.numbers(words*width))
		dq.Copy(x, rows.Heads(s.Heads))
	}
	t.Cleanup(func() { dq.Close(); arena.Free() })
	return r
}

func (r *rig) numbers(n int) []float32 {
	out := make([]float32, n)
	for i := range out {
		out[i] = float32(r.rng.NormFloat64())
	}
	return out
}

func (r *rig) upload(dst compute.Tensor, v []float32) {
	b := make([]byte, 0, 4*len(v))
	for _, x := range v {
		b = binary.LittleEndian.AppendUint32(b, math.Float32bits(x))
	}
	r.dq.Upload(dst, b)
}

func (r *rig) download(t compute.Tensor) []float32 {
	b := make([]byte, t.Bytes())
	r.dq.Download(b, t)
	out := make([]float32, t.Elems())
	for i := range out {
		out[i] = math.Float32frombits(binary.LittleEndian.Uint32(b[4*i:]))
	}
	return out
}

// begin makes an empty cache and the policy.
func (r *rig) begin(m attention.Maker) attention.Policy {
	r.t.Helper()
	cache, err := kvcache.Window{Recent: kvcache.Full}.New(r.dev, r.dq, r.shape)
	if err != nil {
		r.t.Fatal(err)
	}
	p, err := m.New(r.dev, r.dq, r.shape)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { p.Close(); cache.Close() })
	r.cache, r.frames, r.rng = cache, 0, rand.New(rand.NewPCG(3, 4))
	return p
}

// fill makes the keys, values and queries of a forward.
func (r *rig) fill(c content) {
	s := r.shape
	n, width := s.ChunkFrames*s.Tokens(), s.Heads*s.HeadDim
	k, v, q := r.numbers(n*width), r.numbers(n*width), r.numbers(n*width)
	for i := range n {
		if c == alike {
			copy(k[i*width:][:width], k[i/s.Tokens()*s.Tokens()*width:])
		}
	}
	if r.order != nil {
		k, v = r.reorder(k), r.reorder(v)
	}
	r.upload(r.k, k)
	r.upload(r.v, v)
	r.upload(r.q, q)
}

func (r *rig) reorder(rows []float32) []float32 {
	width, out := r.shape.Heads*r.shape.HeadDim, make([]float32, 0, len(rows))
	for f := range r.shape.ChunkFrames {
		for _, t := range r.order {
			at := (f*r.shape.Tokens() + t) * width
			out = append(out, rows[at:at+width]...)
		}
	}
	return out
}

// flat is the shape without places, whose rotation would make equal keys different.
func flat(s kvcache.Shape) kvcache.Shape {
	s.Pairs = [3]int{s.Pairs[0] + s.Pairs[1] + s.Pairs[2]}
	return s
}

// chunk runs the passes of a chunk and calls each after every attention.
func (r *rig) chunk(p attention.Policy, number int, c content, each func(pass, layer int, view kvcache.View)) {
	r.t.Helper()
	span := kvcache.Span{Start: r.frames, Frames: r.shape.ChunkFrames}
	if err := r.cache.Begin(r.dq, span); err != nil {
		r.t.Fatal(err)
	}
	heads := r.shape.Heads
	for pass := range passes {
		for layer := range r.shape.Layers {
			r.fill(c)
			l := r.cache.Layer(layer)
			if pass == passes-1 {
				l.Commit(r.dq, r.k.Heads(heads), r.v.Heads(heads))
			} else {
				l.Draft(r.dq, r.k.Heads(heads), r.v.Heads(heads))
			}
			at := attention.Site{Kind: r.kind, Layer: layer, Chunk: number, Pass: pass, Passes: passes, Tokens: r.shape.Tokens()}
			at.Rope, at.Pos = r.cache.Rope()
			view := l.View()
			if r.kind == attention.Cross {
				view = r.prompt
			}
			p.Attend(r.dq, at, r.got.Heads(heads), r.q.Heads(heads), view)
			each(pass, layer, view)
		}
	}
	r.cache.End()
	r.frames += r.shape.ChunkFrames
}
