package tempcache_test

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"math"
	"math/rand/v2"
	"strings"
	"testing"

	"longtake/accel/tempcache"
	"longtake/attention"
	"longtake/compute"
	"longtake/compute/cpu"
	"longtake/kvcache"
)

// TestLocalHeadsKeepNoEntriesAndChangeNoOther: what the other heads keep is what they keep without routing.
func TestLocalHeadsKeepNoEntriesAndChangeNoOther(t *testing.T) {
	host, err := cpu.New(cpu.Options{Threads: 1, Kernel: "generic"})
	if err != nil {
		t.Fatal(err)
	}
	defer host.Close()
	shape := kvcache.Shape{Layers: 2, Heads: 3, HeadDim: 32, Rows: 5, Columns: 7, ChunkFrames: 2, Pairs: [3]int{6, 5, 5}, Theta: [3]float64{100, 16, 16}, Clamp: 14}
	p := tempcache.Default()
	p.Budget.Frames = 9
	whole := newFed(t, host, p, shape)
	p.Local = [][]bool{{true, false, false}, {false, true, true}}
	routed := newFed(t, host, p, shape)
	for range 10 {
		whole.chunk()
		routed.chunk()
	}
	next := kvcache.Span{Start: whole.frames, Frames: shape.ChunkFrames}
	if err := errors.Join(whole.cache.Begin(whole.dq, next), routed.cache.Begin(routed.dq, next)); err != nil {
		t.Fatal(err)
	}
	dense := (p.Recent + shape.ChunkFrames) * shape.Tokens()
	for l := range shape.Layers {
		for h := range shape.Heads {
			x, n := whole.view(l, h)
			y, m := routed.view(l, h)
			i := l*shape.Heads + h
			a, b := whole.cache.Stats().Heads[i], routed.cache.Stats().Heads[i]
			if p.Local[l][h] {
				if m != dense || b.Kept != 0 || b.Merged != 0 || b.Evicted != int64((routed.frames-p.Recent)*shape.Tokens()) {
					t.Errorf("layer %d, head %d: a local head sees %d keys, want the %d newest; %+v", l, h, m, dense, b)
				}
				continue
			}
			if n != m || a != b {
				t.Fatalf("layer %d, head %d: %d keys, %+v; with local heads beside it %d, %+v", l, h, n, a, m, b)
			}
			for k := range x {
				for j := range x[k] {
					if x[k][j] != y[k][j] {
						t.Fatalf("layer %d, head %d: number %d differs: %v, %v with local heads beside it", l, h, j, x[k][j], y[k][j])
					}
				}
			}
		}
	}
}

// TestRouterFindsTheMassOnOldKeys compares what is measured with sums in float64, over a cache of everything.
func TestRouterFindsTheMassOnOldKeys(t *testing.T) {
	dev, err := cpu.New(cpu.Options{Threads: 1, Kernel: "generic"})
	if err != nil {
		t.Fatal(err)
	}
	defer dev.Close()
	dq, _ := dev.NewQueue()
	defer dq.Close()
	arena, _ := dev.NewArena(0)
	defer arena.Free()
	s := kvcache.Shape{Layers: 1, Heads: 2, HeadDim: 16, Rows: 2, Columns: 3, ChunkFrames: 2, Pairs: [3]int{4, 2, 2}, Theta: [3]float64{100, 16, 16}, DType: compute.F32}
	const frames, recent = 9, 2
	queries, keys := s.ChunkFrames*s.Tokens(), frames*s.Tokens()
	rng := rand.New(rand.NewPCG(1, 2))
	draw := func(dims ...int) ([]float32, compute.Tensor) {
		x := arena.Tensor(compute.F32, dims...)
		values, b := make([]float32, x.Elems()), []byte(nil)
		for i := range values {
			values[i] = float32(rng.NormFloat64())
			b = binary.LittleEndian.AppendUint32(b, math.Float32bits(values[i]))
		}
		dq.Upload(x, b)
		return values, x
	}
	q, tq := draw(s.Heads, queries, s.HeadDim)
	k, tk := draw(s.Heads, keys, s.HeadDim)
	_, tv := draw(s.Heads, keys, s.HeadDim)
	_, dst := draw(s.Heads, queries, s.HeadDim)
	view := kvcache.View{Keys: tk, Values: tv}
	order := []int{6, 1, 0, 2, 3, 4, 5, 7, 8} // of frames in memory: a ring that has turned
	var old []bool
	for i, f := range order {
		kind := kvcache.History
		if f >= frames-s.ChunkFrames {
			kind = kvcache.Current
		}
		view.Parts = append(view.Parts, kvcache.Part{Kind: kind, Lo: i * s.Tokens(), Hi: (i + 1) * s.Tokens(), Frame: f})
		for range s.Tokens() {
			old = append(old, f < frames-s.ChunkFrames-recent)
		}
	}
	r := tempcache.Router{Recent: recent, From: 1}
	if _, err := r.Routing("m", "hash", 0.1); err == nil || !strings.Contains(err.Error(), "nothing was measured") {
		t.Errorf("nothing was measured: %v", err)
	}
	p, err := r.New(dev, dq, s)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	p.Attend(dq, attention.Site{Kind: attention.Self, Tokens: s.Tokens()}, dst, tq, view)
	got, err := r.Routing("m", "hash", 0.1)
	if err != nil {
		t.Fatal(err)
	}
	for h := range s.Heads {
		want := massOn(old, q[h*queries*s.HeadDim:][:queries*s.HeadDim], k[h*keys*s.HeadDim:][:keys*s.HeadDim], s.HeadDim)
		if math.Abs(got.Mean[0][h]-want) > 2e-6 || got.Most[0][h] != got.Mean[0][h] {
			t.Errorf("head %d: %v of the attention on old keys, want %v", h, got.Mean[0][h], want)
		}
	}
}

// massOn is the share of a head's attention on the keys that are old, in the mean over its queries.
func massOn(old []bool, q, k []float32, headDim int) (mean float64) {
	for i := 0; i < len(q); i += headDim {
		all, aged := 0.0, 0.0
		for j, is := range old {
			dot := 0.0
			for d := range headDim {
				dot += float64(q[i+d]) * float64(k[j*headDim+d])
			}
			w := math.Exp(dot / math.Sqrt(float64(headDim)))
			if all += w; is {
				aged += w
			}
		}
		mean += aged / all / float64(len(q)/headDim)
	}
	return mean
}

// TestRoutingsAreChecked: whose they are, and for which caches.
func TestRoutingsAreChecked(t *testing.T) {
	got := &tempcache.Routing{Format: "longtake-routing-v1", Model: "m", Hash: "hash", Recent: 2, Most: [][]float64{{0.1, 0.2}, {0, 0.3}}, Least: 0.1}
	local, err := got.Local(2)
	if err != nil || !local[0][0] || local[0][1] || !local[1][0] || local[1][1] {
		t.Errorf("local heads %v of %v, %v", local, got.Most, err)
	}
	if _, err := got.Local(1); err == nil {
		t.Error("a window smaller than the one measured with was taken")
	}
	raw, _ := json.Marshal(got)
	if _, err := tempcache.ParseRouting(raw, "m", "other"); err == nil || !strings.Contains(err.Error(), "not of m") {
		t.Errorf("another model's routing: %v", err)
	}
	for _, bad := range []string{`{`, `{"format":"x"}`, `{"format":"longtake-routing-v1","hash":"hash"}`, `{"format":"longtake-routing-v1","hash":"hash","most":[[0.1],[]]}`} {
		if _, err := tempcache.ParseRouting([]byte(bad), "m", "hash"); err == nil {
			t.Errorf("%s was taken", bad)
		}
	}
}
