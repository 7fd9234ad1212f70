package annca_test

import (
	"encoding/binary"
	"math"
	"math/rand/v2"
	"testing"

	"longtake/accel/ann"
	"longtake/accel/annca"
	"longtake/attention"
	"longtake/compute"
	"longtake/compute/cpu"
	"longtake/compute/cuda"
	"longtake/internal/devicetest"
	"longtake/kvcache"
)

// TestGPUsSelectLikeTheHost compares cross attention to what the device chose and to what the host chose.
func TestGPUsSelectLikeTheHost(t *testing.T) {
	dev := devicetest.GPU(t, cuda.Options{Float32: true})
	defer dev.Close()
	selectsLikeTheHost(t, dev)
}

func selectsLikeTheHost(t *testing.T, dev compute.Device) {
	host, err := cpu.New(cpu.Options{Threads: 1, Kernel: "generic"})
	if err != nil {
		t.Fatal(err)
	}
	defer host.Close()
	for name, o := range map[string]annca.Options{
		"lsh64, top 4": {Matcher: ann.LSH{Bits: 64}, Top: 4}, "exact, top 4": {Top: 4}, "exact, top 1": {Top: 1}, "exact, top 1000": {Top: 1000}, "lsh16, every pass": {Matcher: ann.LSH{Bits: 16}, Top: 2, Refresh: true},
		"buckets": annca.Paper(), "narrow buckets, two probes": {Matcher: ann.LSH{Bits: 12, Tables: 2, Probes: 2}},
		"lsh100, top 2": {Matcher: ann.LSH{Bits: 100}, Top: 2}, "many buckets": {Matcher: ann.LSH{Bits: 9, Tables: 16, Probes: 1}},
		"nearest of buckets": {Matcher: ann.LSH{Bits: 6, Tables: 8, Probes: 1}, Top: 2}, "quant8, top 3": {Matcher: ann.Scalar(8), Top: 3}, "quant2, top 1": {Matcher: ann.Scalar(2), Top: 1},
	} {
		for _, tokens := range []int{1, 2, 37, 200} {
			t.Run(name, func(t *testing.T) {
				want, got := crossed(t, host, o, tokens), crossed(t, dev, o, tokens)
				var d, n float64
				for i, w := range want {
					e := float64(got[i] - w)
					d += e * e
					n += float64(w) * float64(w)
				}
				if r := math.Sqrt(d / n); !(r < 2e-3) {
					t.Errorf("%d tokens: off by %.2g", tokens, r)
				}
			})
		}
	}
}

// crossed returns the results of three passes over a prompt of so many tokens.
func crossed(t *testing.T, dev compute.Device, o annca.Options, tokens int) (all []float32) {
	s := kvcache.Shape{Layers: 1, Heads: 3, HeadDim: 32, Rows: 3, Columns: 5, ChunkFrames: 2, Pairs: [3]int{6, 5, 5}, Theta: [3]float64{100, 16, 16}, DType: compute.F32}
	dq, err := dev.NewQueue()
	if err != nil {
		t.Fatal(err)
	}
	defer dq.Close()
	p, err := o.New(dev, dq, s)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	arena, err := dev.NewArena(0)
	if err != nil {
		t.Fatal(err)
	}
	defer arena.Free()
	rng := rand.New(rand.NewPCG(uint64(tokens), 1))
	random := func(dims ...int) compute.Tensor {
		x := arena.Tensor(compute.F32, dims...)
		var b []byte
		for range x.Elems() {
			b = binary.LittleEndian.AppendUint32(b, math.Float32bits(float32(rng.NormFloat64())))
		}
		dq.Upload(x, b)
		return x
	}
	count := random(1, tokens)
	count.Shape[0], count.Stride[0] = s.Heads, 0
	kv := kvcache.View{Keys: random(tokens, s.Heads*s.HeadDim).Heads(s.Heads), Values: random(tokens, s.Heads*s.HeadDim).Heads(s.Heads), LogCount: count}
	n := s.ChunkFrames * s.Tokens()
	out := arena.Tensor(compute.F32, n, s.Heads*s.HeadDim)
	for pass := range 3 {
		p.Attend(dq, attention.Site{Kind: attention.Cross, Chunk: 1, Pass: pass, Passes: 3, Tokens: s.Tokens()}, out.Heads(s.Heads), random(n, s.Heads*s.HeadDim).Heads(s.Heads), kv)
		b := make([]byte, out.Bytes())
		dq.Download(b, out)
		for ; len(b) > 0; b = b[4:] {
			all = append(all, math.Float32frombits(binary.LittleEndian.Uint32(b)))
		}
	}
	return all
}
