package tempcache_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"longtake/accel/tempcache"
	"longtake/compute"
	"longtake/compute/cpu"
	"longtake/compute/cuda"
	"longtake/internal/devicetest"
	"longtake/kvcache"
	"longtake/kvcache/kvcachetest"
)

// TestEveryPolicyKeepsTheLawsOnAGPU is the suite on the device that merges by itself.
func TestEveryPolicyKeepsTheLawsOnAGPU(t *testing.T) {
	devicetest.GPU(t, cuda.Options{}).Close()
	for _, float := range []bool{true, false} {
		dev := devicetest.GPU(t, cuda.Options{Float32: float})
		if _, ok := dev.(compute.MergingDevice); !ok {
			t.Fatal("the device does not merge")
		}
		for name, p := range all() {
			t.Run(fmt.Sprintf("%s, float32 %v", name, float), func(t *testing.T) { keepsTheLaws(t, dev, name, p) })
		}
		dev.Close()
	}
}

// TestGPUsMergeLikeTheHost feeds the same video to a cache on the CPU and to one on the GPU.
func TestGPUsMergeLikeTheHost(t *testing.T) {
	dev := devicetest.GPU(t, cuda.Options{Float32: true})
	defer dev.Close()
	mergesLikeTheHost(t, dev, "")
}

// TestQueriesAreTurnedBackByTheTimeOfTheirFrame: where queries equal keys, an entry found by the query is the one found by the key.
func TestQueriesAreTurnedBackByTheTimeOfTheirFrame(t *testing.T) {
	host, err := cpu.New(cpu.Options{Threads: 2, Kernel: "generic"})
	if err != nil {
		t.Fatal(err)
	}
	defer host.Close()
	shape := kvcache.Shape{Layers: 2, Heads: 3, HeadDim: 32, Rows: 5, Columns: 7, ChunkFrames: 2, Pairs: [3]int{6, 5, 5}, Theta: [3]float64{100, 16, 16}, Clamp: 14}
	for _, space := range []tempcache.Space{tempcache.Unrotated, tempcache.Spatial} {
		p := tempcache.Prototype()
		p.Space = space
		byKey := newFed(t, host, p, shape)
		p.ByQuery = true
		byQuery := newFed(t, host, p, shape)
		byKey.hands, byQuery.hands = true, true
		for range 8 {
			byKey.chunk()
			byQuery.chunk()
		}
		for i, x := range byQuery.cache.Stats().Heads {
			if y := byKey.cache.Stats().Heads[i]; x.Kept != y.Kept || x.Merged != y.Merged {
				t.Errorf("%v, head %d: %d kept and %d merged by query, %d and %d by key", space, i, x.Kept, x.Merged, y.Kept, y.Merged)
			}
		}
	}
}

// keepsTheLaws runs a policy without a budget on one shape and with one on the other.
func keepsTheLaws(t *testing.T, dev compute.Device, name string, p tempcache.Policy) {
	for i, s := range kvcachetest.Shapes {
		p, budget := shaped(p, s), (i+len(name))%2 == 0
		e := kvcachetest.Exam{Anchor: p.Anchor, Recent: p.Recent, Shape: s, Complete: counted(p) && !budget, Fixed: budget}
		if budget {
			p.Budget.Frames = p.Anchor + p.Recent + 5
		}
		e.Policy = p
		kvcachetest.Run(t, dev, e)
	}
}

// scenery makes keys and values of a picture that moves and comes back, a few tokens of which are new in every frame.
type scenery struct {
	rng  *rand.Rand
	seen [][]float32 // by place of a ring that is wider than the picture
}

func (v *scenery) frame(tokens, width, frame int) []float32 {
	var out []float32
	for i := range tokens {
		at := (i + frame/2) % len(v.seen)
		if v.seen[at] == nil || v.rng.Float64() < 0.1 {
			v.seen[at] = make([]float32, width)
			for j := range v.seen[at] {
				v.seen[at][j] = float32(v.rng.NormFloat64())
			}
		}
		jitter := 0.3 * v.rng.Float64()
		for _, x := range v.seen[at] {
			out = append(out, x+float32(jitter*v.rng.NormFloat64()))
		}
	}
	return out
}

// mergesLikeTheHost compares caches of all policies that contain a word.
func mergesLikeTheHost(t *testing.T, dev compute.Device, word string) {
	host, err := cpu.New(cpu.Options{Threads: 1, Kernel: "generic"})
	if err != nil {
		t.Fatal(err)
	}
	defer host.Close()
	shape := kvcache.Shape{Layers: 2, Heads: 3, HeadDim: 32, Rows: 5, Columns: 7, ChunkFrames: 2, Pairs: [3]int{6, 5, 5}, Theta: [3]float64{100, 16, 16}, Clamp: 14}
	chunks := 14
	if testing.Short() { // under compute-sanitizer
		chunks = 7
	}
	for name, p := range all() {
		if !strings.Contains(name, word) {
			continue
		}
		for budget := range 5 {
			p := p
			switch budget {
			case 1:
				p.Budget.Frames = p.Anchor + p.Recent + shape.ChunkFrames + 3
			case 2: // nothing is near enough to be united: entries are forgotten
				p.Budget.Frames, p.Floor = p.Anchor+p.Recent+shape.ChunkFrames+2, 0.99
			case 4: // a frame may find no place for all of its own tokens
				p.Budget.Frames, p.Floor = p.Anchor+p.Recent+shape.ChunkFrames+1, 0.99
			case 3: // nothing is ever forgotten
				p.Budget.Frames, p.Floor = p.Anchor+p.Recent+shape.ChunkFrames+1, -1
			}
			t.Run(fmt.Sprintf("%s, budget %d", name, budget), func(t *testing.T) {
				a, b := newFed(t, host, likeDevices(p, shape), shape), newFed(t, dev, p, shape)
				for range chunks {
					a.chunk()
					b.chunk()
				}
				next := kvcache.Span{Start: a.frames, Frames: shape.ChunkFrames}
				if err := errors.Join(a.cache.Begin(a.dq, next), b.cache.Begin(b.dq, next)); err != nil {
					t.Fatal(err)
				}
				a.sameAs(b)
			})
		}
	}
}

// likeDevices gives the heads of a layer equal room, as devices do that merge by themselves.
func likeDevices(p tempcache.Policy, s kvcache.Shape) tempcache.Policy {
	if len(p.Shares) <= s.Layers {
		return p
	}
	means := make([]float64, s.Layers)
	for i, v := range p.Shares {
		means[i/s.Heads] += v / float64(s.Heads)
	}
	p.Shares = means
	return p
}

// fed is a cache that is fed a video.
type fed struct {
	testing.TB
	dq           compute.Queue
	shape        kvcache.Shape
	cache        kvcache.Cache
	x, y, q      compute.Tensor
	video, other scenery
	frames       int
	hands        bool // keys are hands of a clock, and queries equal them
}

func newFed(t *testing.T, dev compute.Device, p tempcache.Policy, s kvcache.Shape) *fed {
	dq, err := dev.NewQueue()
	if err != nil {
		t.Fatal(err)
	}
	s.DType = compute.F32
	c, err := p.New(dev, dq, s)
	if err != nil {
		t.Fatal(err)
	}
	arena, err := dev.NewArena(0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close(); arena.Free(); dq.Close() })
	n, d := s.ChunkFrames*s.Tokens(), s.Heads*s.HeadDim
	f := &fed{TB: t, dq: dq, shape: s, cache: c, x: arena.Tensor(compute.F32, n, d), y: arena.Tensor(compute.F32, n, d), q: arena.Tensor(compute.F32, n, d)}
	f.video = scenery{rand.New(rand.NewPCG(3, 1)), make([][]float32, s.Tokens()+9)}
	f.other = scenery{rand.New(rand.NewPCG(4, 1)), make([][]float32, s.Tokens()+9)}
	return f
}

func (f *fed) chunk() {
	s, n := f.shape, f.shape.Tokens()
	span := kvcache.Span{Start: f.frames, Frames: s.ChunkFrames}
	if err := f.cache.Begin(f.dq, span); err != nil {
		f.Fatal(err)
	}
	for i := range s.Layers {
		var k, v, q []float32
		for j := range span.Frames {
			k = append(k, f.video.frame(n, s.Heads*s.HeadDim, f.frames+j)...)
			v = append(v, f.other.frame(n, s.Heads*s.HeadDim, f.frames+j)...)
		}
		for j, x := range k {
			if f.hands {
				at, token := j%s.HeadDim, j/(s.Heads*s.HeadDim)%n
				if k[j] = 0; at < 2 { // at hours that one frame's turn takes for each other
					k[j] = float32([2]float64{math.Cos(float64(token % 6)), math.Sin(float64(token % 6))}[at])
				}
				q = append(q, k[j])
				continue
			}
			q = append(q, 0.8*x+0.2*v[j])
		}
		for t, values := range map[*compute.Tensor][]float32{&f.x: k, &f.y: v, &f.q: q} {
			b := make([]byte, 0, 4*len(values))
			for _, x := range values {
				b = binary.LittleEndian.AppendUint32(b, math.Float32bits(x))
			}
			f.dq.Upload(*t, b)
		}
		f.cache.Layer(i).Commit(f.dq, f.x.Heads(s.Heads), f.y.Heads(s.Heads))
		rope, pos := f.cache.Rope()
		f.dq.Rope(f.q.Heads(s.Heads), f.q.Heads(s.Heads), pos, rope)
		if w := f.cache.Layer(i).View().Watcher; w != nil {
			w.Watch(f.dq, f.q.Heads(s.Heads))
		}
	}
	f.cache.End()
	f.frames += span.Frames
}

// view downloads what head h of a layer sees: keys, values, counts.
func (f *fed) view(layer, h int) (out [3][]float32, n int) {
	v := f.cache.Layer(layer).View()
	n = v.Keys.Dim(1)
	if !v.Lengths.IsZero() {
		b := make([]byte, v.Lengths.Bytes())
		f.dq.Download(b, v.Lengths)
		n = int(binary.LittleEndian.Uint32(b[4*h:]))
	}
	for i, t := range [3]compute.Tensor{v.Keys, v.Values, v.LogCount} {
		if t.IsZero() {
			continue
		}
		row := t.Index(h).Slice(0, 0, n)
		b := make([]byte, row.Bytes())
		f.dq.Download(b, row)
		for ; len(b) > 0; b = b[4:] {
			out[i] = append(out[i], math.Float32frombits(binary.LittleEndian.Uint32(b)))
		}
	}
	return out, n
}

func (f *fed) sameAs(g *fed) {
	f.Helper()
	a, b := f.cache.Stats(), g.cache.Stats()
	for i, x := range a.Heads {
		y := b.Heads[i]
		if x.Kept != y.Kept || x.Merged != y.Merged || x.Evicted != y.Evicted || math.Abs(x.LogitError-y.LogitError) > 1e-4*(1+x.LogitError) {
			f.Errorf("head %d: the host has %+v, the device %+v", i, x, y)
		}
	}
	for l := range f.shape.Layers {
		for h := range f.shape.Heads {
			x, n := f.view(l, h)
			y, m := g.view(l, h)
			if n != m {
				f.Errorf("layer %d, head %d: %d keys in view, %d on the device", l, h, n, m)
				continue
			}
			for i, name := range []string{"keys", "values", "log counts"} {
				if j := slices.IndexFunc(x[i], math32NaN); j >= 0 || len(x[i]) != len(y[i]) {
					f.Fatalf("layer %d, head %d: %s: %d and %d numbers, NaN at %d", l, h, name, len(x[i]), len(y[i]), j)
				}
				for j := range x[i] {
					if !(math.Abs(float64(x[i][j]-y[i][j])) < 2e-4) {
						f.Errorf("layer %d, head %d, %s, number %d of %d: %v, %v on the device", l, h, name, j, len(x[i]), x[i][j], y[i][j])
						break
					}
				}
			}
		}
	}
}

func math32NaN(x float32) bool { return x != x }
