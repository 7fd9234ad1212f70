package kvcache_test

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"longtake/compute"
	"longtake/compute/cpu"
	"longtake/kvcache"
)

var shape = kvcache.Shape{
	Layers: 2, Heads: 2, HeadDim: 16, Rows: 2, Columns: 3, ChunkFrames: 1,
	Pairs: [3]int{4, 2, 2}, Theta: [3]float64{256, 16, 16}, Clamp: 5,
}

func open(t testing.TB) (compute.Device, compute.Queue) {
	dev, err := cpu.New(cpu.Options{Kernel: "generic", Threads: 1})
	if err != nil {
		t.Fatal(err)
	}
	dq, err := dev.NewQueue()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { dq.Close(); dev.Close() })
	return dev, dq
}

// rig feeds random chunks to a cache and remembers them.
type rig struct {
	t            *testing.T
	dq           compute.Queue
	shape        kvcache.Shape
	cache        kvcache.Cache
	rng          *rand.Rand
	keys, values compute.Tensor
	history      map[[2]int][]float32 // keys then values of (layer, frame), [tokens, heads, headDim]
}

func newRig(t *testing.T, s kvcache.Shape, p kvcache.Policy) *rig {
	dev, dq := open(t)
	c, err := p.New(dev, dq, s)
	if err != nil {
		t.Fatal(err)
	}
	arena, err := dev.NewArena(0)
	if err != nil {
		t.Fatal(err)
	}
	n := s.ChunkFrames * s.Tokens()
	t.Cleanup(c.Close)
	return &rig{t, dq, s, c, rand.New(rand.NewPCG(1, 2)), arena.Tensor(compute.F32, n, s.Heads*s.HeadDim),
		arena.Tensor(compute.F32, n, s.Heads*s.HeadDim), map[[2]int][]float32{}}
}

// pass writes random keys of the chunk in work to every layer.
func (r *rig) pass(span kvcache.Span, clean bool) {
	width := r.shape.Heads * r.shape.HeadDim
	n := span.Frames * r.shape.Tokens()
	for l := range r.shape.Layers {
		all := make([]float32, 2*n*width)
		for i := range all {
			all[i] = float32(r.rng.NormFloat64())
		}
		upload(r.dq, r.keys.Slice(0, 0, n), all[:n*width])
		upload(r.dq, r.values.Slice(0, 0, n), all[n*width:])
		k, v := r.keys.Slice(0, 0, n).Heads(r.shape.Heads), r.values.Slice(0, 0, n).Heads(r.shape.Heads)
		if clean {
			r.cache.Layer(l).Commit(r.dq, k, v)
		} else {
			r.cache.Layer(l).Draft(r.dq, k, v)
		}
		each := r.shape.Tokens() * width
		for f := range span.Frames {
			r.history[[2]int{l, span.Start + f}] = slices.Concat(all[f*each:(f+1)*each], all[n*width+f*each:n*width+(f+1)*each])
		}
	}
}

func (r *rig) begin(span kvcache.Span) {
	r.t.Helper()
	if err := r.cache.Begin(r.dq, span); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) chunk(start int) {
	r.t.Helper()
	span := kvcache.Span{Start: start, Frames: r.shape.ChunkFrames}
	r.begin(span)
	r.pass(span, false)
	r.pass(span, true)
	r.cache.End()
}

// check compares what is in view with keys rotated in float64.
func (r *rig) check(now int, frames []int) {
	r.t.Helper()
	s := r.shape
	for l := range s.Layers {
		view := r.cache.Layer(l).View()
		var seen []int
		keys, values := download(r.dq, view.Keys), download(r.dq, view.Values)
		for _, part := range view.Parts {
			seen = append(seen, part.Frame)
			want := r.history[[2]int{l, part.Frame}]
			time := max(part.Frame, now-s.Clamp)
			for i := part.Lo; i < part.Hi; i++ {
				tok := i - part.Lo
				for h := range s.Heads {
					at := (tok*s.Heads + h) * s.HeadDim
					got := (h*view.Keys.Dim(1) + i) * s.HeadDim
					near(r.t, fmt.Sprintf("layer %d frame %d token %d head %d", l, part.Frame, tok, h),
						keys[got:got+s.HeadDim], rotate(want[at:at+s.HeadDim], s, time, tok))
					v := want[len(want)/2+at:]
					if !slices.Equal(values[got:got+s.HeadDim], v[:s.HeadDim]) {
						r.t.Fatalf("layer %d frame %d: values differ", l, part.Frame)
					}
				}
			}
		}
		slices.Sort(seen)
		if !slices.Equal(seen, frames) {
			r.t.Fatalf("at frame %d layer %d sees %v, want %v", now, l, seen, frames)
		}
	}
}

func rotate(x []float32, s kvcache.Shape, time, tok int) []float64 {
	out, pair := make([]float64, len(x)), 0
	for axis, p := range [3]int{time, tok / s.Columns, tok % s.Columns} {
		for j := range s.Pairs[axis] {
			sin, cos := math.Sincos(float64(p) * math.Pow(s.Theta[axis], -float64(j)/float64(s.Pairs[axis])))
			a, b := float64(x[2*pair]), float64(x[2*pair+1])
			out[2*pair], out[2*pair+1] = a*cos-b*sin, a*sin+b*cos
			pair++
		}
	}
	return out
}

func near(t *testing.T, what string, got []float32, want []float64) {
	t.Helper()
	for i := range got {
		if math.Abs(float64(got[i])-want[i]) > 1e-5 {
			t.Fatalf("%s: element %d is %v, want %v", what, i, got[i], want[i])
		}
	}
}

func upload(dq compute.Queue, dst compute.Tensor, v []float32) {
	var b []byte
	for _, x := range v {
		b = binary.LittleEndian.AppendUint32(b, math.Float32bits(x))
	}
	dq.Upload(dst, b)
}

// download copies a view; storage is larger than the view, so head by head.
func download(dq compute.Queue, x compute.Tensor) []float32 {
	var out []float32
	for h := range x.Dim(0) {
		b := make([]byte, x.Index(h).Bytes())
		dq.Download(b, x.Index(h))
		for i := 0; i < len(b); i += 4 {
			out = append(out, math.Float32frombits(binary.LittleEndian.Uint32(b[i:])))
		}
	}
	return out
}

func TestAWindowShowsAnchorsRecentFramesAndTheChunk(t *testing.T) {
	for _, c := range []struct {
		policy kvcache.Window
		frames int // of a chunk
	}{
		{kvcache.Window{Recent: 3}, 1},
		{kvcache.Window{Anchor: 2, Recent: 4}, 1},
		{kvcache.Window{Anchor: 3, Recent: 6}, 3},
		{kvcache.Window{Recent: 0}, 1},
		{kvcache.Window{Recent: 9}, 1}, // longer than the clamp
		{kvcache.Window{Recent: kvcache.Full}, 1},
		{kvcache.Window{Recent: kvcache.Full}, 2},
	} {
		t.Run(fmt.Sprint(c.policy, " chunks of ", c.frames), func(t *testing.T) {
			s := shape
			s.ChunkFrames = c.frames
			r := newRig(t, s, c.policy)
			for start := 0; start < 150; start += c.frames {
				span := kvcache.Span{Start: start, Frames: c.frames}
				r.begin(span)
				r.pass(span, false)
				var want []int
				for f := range start + c.frames {
					if f < c.policy.Anchor || c.policy.Recent == kvcache.Full || f >= start-c.policy.Recent {
						want = append(want, f)
					}
				}
				if start < 24 || start > 140 {
					r.check(start, want)
				}
				r.pass(span, true)
				r.cache.End()
			}
		})
	}
}

func TestAnInterruptedChunkLeavesTheHistoryAlone(t *testing.T) {
	r := newRig(t, shape, kvcache.Window{Anchor: 1, Recent: 3})
	for f := range 9 {
		r.chunk(f)
	}
	before := map[[2]int][]float32{}
	for k, v := range r.history {
		before[k] = v
	}
	r.begin(kvcache.Span{Start: 9, Frames: 1})
	r.pass(kvcache.Span{Start: 9, Frames: 1}, false)
	r.begin(kvcache.Span{Start: 9, Frames: 1}) // again, as after a cancelled context
	r.pass(kvcache.Span{Start: 9, Frames: 1}, false)
	r.check(9, []int{0, 6, 7, 8, 9})
	if err := r.cache.Begin(r.dq, kvcache.Span{Start: 11, Frames: 1}); err == nil {
		t.Error("a gap in the frames was accepted")
	}
}

func TestBytesAreFlatOnceAWindowIsFullAndKnownBefore(t *testing.T) {
	dev, _ := open(t)
	policy := kvcache.Window{Anchor: 1, Recent: 4}
	r := newRig(t, shape, policy)
	if got, want := r.cache.Stats().Bytes, policy.Bytes(dev, shape); got > want || got < want*9/10 {
		t.Errorf("cache takes %d bytes, arithmetic says %d", got, want)
	}
	first := r.cache.Stats().Bytes
	for f := range 40 {
		r.chunk(f)
		if b := r.cache.Stats().Bytes; b != first {
			t.Fatalf("frame %d: %d bytes, %d at the start", f, b, first)
		}
	}
}

func TestResetStartsAnew(t *testing.T) {
	r := newRig(t, shape, kvcache.Window{Anchor: 1, Recent: 2})
	for f := range 12 {
		r.chunk(f)
	}
	r.cache.Reset()
	for f := range 3 {
		r.chunk(f)
	}
	r.begin(kvcache.Span{Start: 3, Frames: 1})
	r.pass(kvcache.Span{Start: 3, Frames: 1}, false)
	r.check(3, []int{0, 1, 2, 3})
}

func TestImpossibleWindowsAreRefused(t *testing.T) {
	dev, dq := open(t)
	for _, w := range []kvcache.Window{{Anchor: -1}, {Recent: -2}} {
		if _, err := w.New(dev, dq, shape); err == nil {
			t.Errorf("%+v was accepted", w)
		}
	}
}
