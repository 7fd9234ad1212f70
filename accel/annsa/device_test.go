package annsa_test

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"longtake/accel/ann"
	"longtake/accel/annsa"
	"longtake/accel/tempcache"
	"longtake/attention"
	"longtake/compute"
	"longtake/compute/cpu"
	"longtake/internal/devicetest"
	"longtake/kvcache"
)

// TestGPUsPlanLikeTheHost compares the results of attention by plans of the device and of the host.
func TestGPUsPlanLikeTheHost(t *testing.T) {
	dev := devicetest.Open(t, "cuda-float32")
	defer dev.Close()
	plansLikeTheHost(t, dev)
}

func plansLikeTheHost(t *testing.T, dev compute.Device) {
	host, err := cpu.New(cpu.Options{Threads: 1, Kernel: "generic"})
	if err != nil {
		t.Fatal(err)
	}
	defer host.Close()
	usual := annsa.Default()
	usual.From = 0
	merged := tempcache.Prototype()
	merged.Budget.Frames = 10
	for _, c := range []struct {
		name    string
		cache   kvcache.Policy
		clamp   int
		options func(*annsa.Options)
	}{
		{"full", kvcache.Window{Recent: kvcache.Full}, 0, func(o *annsa.Options) {}},
		{"clamped", kvcache.Window{Recent: kvcache.Full}, 6, func(o *annsa.Options) { o.Least = 40 }},
		{"window with an anchor", kvcache.Window{Recent: 9, Anchor: 1}, 6, func(o *annsa.Options) { o.Least = 40 }},
		{"no dense pass", kvcache.Window{Recent: kvcache.Full}, 0, func(o *annsa.Options) { o.Dense, o.Least = 0, 30 }},
		{"groups of 3, tiles of 12", kvcache.Window{Recent: kvcache.Full}, 6, func(o *annsa.Options) { o.Group, o.Tile, o.Least, o.QueryTile = 3, 12, 60, 50 }},
		{"a group a query", kvcache.Window{Recent: kvcache.Full}, 0, func(o *annsa.Options) { o.Group, o.QueryTile, o.Temper, o.Least = 1, 40, 1, 0 }},
		{"profile", kvcache.Window{Recent: kvcache.Full}, 0, func(o *annsa.Options) {
			o.Profile = &annsa.Profile{Recall: [][]float64{{0.9, 0.1, 0.9}, {0.1, 0.1, 0.9}}, Least: 0.5}
		}},
		{"quantised to 4 bits", kvcache.Window{Recent: kvcache.Full}, 6, func(o *annsa.Options) { o.Matcher, o.Least = ann.Scalar(4), 40 }},
		{"hashed", kvcache.Window{Recent: kvcache.Full}, 6, func(o *annsa.Options) { o.Matcher, o.Least = ann.LSH{Bits: 100}, 40 }},
		{"hashed, no dense pass", kvcache.Window{Recent: kvcache.Full}, 0, func(o *annsa.Options) { o.Matcher, o.Dense, o.Least = ann.LSH{Bits: 64}, 0, 30 }},
		{"hash tables", kvcache.Window{Recent: kvcache.Full}, 6, func(o *annsa.Options) { o.Matcher, o.Least = ann.LSH{Bits: 5, Tables: 13, Probes: 1}, 40 }},
		{"hash tables, no dense pass", kvcache.Window{Recent: kvcache.Full}, 0, func(o *annsa.Options) {
			o.Matcher, o.Dense, o.Least = ann.LSH{Bits: 8, Tables: 4, Probes: 2}, 0, 30
		}},
		{"hash tables, merged keys", merged, 8, func(o *annsa.Options) { o.Matcher, o.Least = ann.LSH{Bits: 6, Tables: 8}, 40 }},
		{"no-drop", kvcache.Window{Recent: kvcache.Full}, 6, func(o *annsa.Options) { o.NoDrop, o.Least = true, 40 }},
		{"no-drop, quantised, merged keys", merged, 8, func(o *annsa.Options) { o.NoDrop, o.Matcher, o.Least = true, ann.Scalar(8), 40 }},
		{"split", kvcache.Window{Recent: kvcache.Full}, 6, func(o *annsa.Options) { o.Raster, o.Least = false, 40 }},
		{"split in tiles of 10", kvcache.Window{Recent: 9, Anchor: 1}, 6, func(o *annsa.Options) { o.Raster, o.Tile, o.Least = false, 10, 40 }},
		{"split, no-drop, hashed", kvcache.Window{Recent: kvcache.Full}, 6, func(o *annsa.Options) {
			o.Raster, o.NoDrop, o.Matcher, o.Tile, o.Least = false, true, ann.LSH{Bits: 64}, 5, 40
		}},
		{"split, merged keys", merged, 8, func(o *annsa.Options) { o.Raster, o.Least = false, 40 }},
		{"hashed, merged keys", merged, 8, func(o *annsa.Options) { o.Matcher, o.Least = ann.LSH{Bits: 64}, 40 }},
		{"merged keys", merged, 8, func(o *annsa.Options) { o.Least = 40 }},
	} {
		t.Run(c.name, func(t *testing.T) {
			o := usual
			c.options(&o)
			want, got := attended(t, host, c.cache, o, c.clamp), attended(t, dev, c.cache, o, c.clamp)
			for i := range want {
				var d, n float64
				for j, w := range want[i] {
					e := float64(got[i][j] - w)
					d += e * e
					n += float64(w) * float64(w)
				}
				if r := math.Sqrt(d / n); !(r < 2e-3) {
					t.Errorf("call %d is off by %.2g", i, r)
				}
			}
		})
	}
}

// extent is how much attended runs: little with -short, under compute-sanitizer.
func extent() (layers, chunks, passes int) {
	if testing.Short() {
		return 1, 4, 4
	}
	return 2, 9, 4
}

// attended runs chunks through a cache and a policy and returns the results of all calls.
func attended(t *testing.T, dev compute.Device, cached kvcache.Policy, o annsa.Options, clamp int) (all [][]float32) {
	layers, chunks, passes := extent()
	s := kvcache.Shape{Layers: layers, Heads: 3, HeadDim: 32, Rows: 6, Columns: 8, ChunkFrames: 2, Pairs: [3]int{6, 5, 5}, Theta: [3]float64{100, 16, 16}, Clamp: clamp, DType: compute.F32}
	dq, err := dev.NewQueue()
	if err != nil {
		t.Fatal(err)
	}
	defer dq.Close()
	cache, err := cached.New(dev, dq, s)
	if err != nil {
		t.Fatal(err)
	}
	defer cache.Close()
	policy, err := o.New(dev, dq, s)
	if err != nil {
		t.Fatal(err)
	}
	defer policy.Close()
	arena, err := dev.NewArena(0)
	if err != nil {
		t.Fatal(err)
	}
	defer arena.Free()
	n, d := s.ChunkFrames*s.Tokens(), s.Heads*s.HeadDim
	k, v, q, out := arena.Tensor(compute.F32, n, d), arena.Tensor(compute.F32, n, d), arena.Tensor(compute.F32, n, d), arena.Tensor(compute.F32, n, d)
	rng := rand.New(rand.NewPCG(5, 1))
	centres := make([]float32, 20*d)
	for i := range centres {
		centres[i] = float32(rng.NormFloat64())
	}
	fill := func(x compute.Tensor, scale float64) {
		b := make([]byte, 0, 4*n*d)
		for i := range n {
			c := centres[(i/5+rng.IntN(3))%20*d:]
			for j := range d {
				b = binary.LittleEndian.AppendUint32(b, math.Float32bits(c[j]+float32(scale*rng.NormFloat64())))
			}
		}
		dq.Upload(x, b)
	}
	for chunk := range chunks {
		span := kvcache.Span{Start: chunk * s.ChunkFrames, Frames: s.ChunkFrames}
		if err := cache.Begin(dq, span); err != nil {
			t.Fatal(err)
		}
		for pass := range passes {
			for l := range s.Layers {
				fill(k, 0.4)
				fill(v, 1)
				fill(q, 0.4)
				layer := cache.Layer(l)
				if pass == passes-1 {
					layer.Commit(dq, k.Heads(s.Heads), v.Heads(s.Heads))
				} else {
					layer.Draft(dq, k.Heads(s.Heads), v.Heads(s.Heads))
				}
				rope, pos := cache.Rope()
				dq.Rope(q.Heads(s.Heads), q.Heads(s.Heads), pos, rope)
				site := attention.Site{Kind: attention.Self, Layer: l, Chunk: chunk, Pass: pass, Passes: passes, Tokens: s.Tokens(), Rope: rope, Pos: pos}
				policy.Attend(dq, site, out.Heads(s.Heads), q.Heads(s.Heads), layer.View())
				all = append(all, download(dq, out))
			}
		}
		cache.End()
	}
	if err := dq.Wait(); err != nil {
		t.Fatal(fmt.Errorf("queue: %w", err))
	}
	return all
}

func download(dq compute.Queue, x compute.Tensor) []float32 {
	raw, row := make([]byte, x.Bytes()), make([]float32, x.Elems())
	dq.Download(raw, x)
	for i := range row {
		row[i] = math.Float32frombits(binary.LittleEndian.Uint32(raw[4*i:]))
	}
	return row
}
