package attention_test

import (
	"encoding/binary"
	"math"
	"math/rand/v2"
	"testing"

	"longtake/attention"
	"longtake/compute"
	"longtake/compute/cpu"
	"longtake/kvcache"
)

// TestAGazeChangesNothingAndSeesTheSoftmax compares with float64 loops, over a window and over keys with counts and lengths.
func TestAGazeChangesNothingAndSeesTheSoftmax(t *testing.T) {
	dev, err := cpu.New(cpu.Options{})
	if err != nil {
		t.Fatal(err)
	}
	s := kvcache.Shape{Layers: 2, Heads: 3, HeadDim: 16, Rows: 4, Columns: 4, ChunkFrames: 1, DType: compute.F32}
	const keys = 600 // more than are read at a time
	dq, err := dev.NewQueue()
	if err != nil {
		t.Fatal(err)
	}
	defer dq.Close()
	a, err := dev.NewArena(1 << 20)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Free()
	r := rand.New(rand.NewPCG(uint64(keys), 9))
	random := func(shape ...int) (compute.Tensor, []float32) { return normal(dq, a, r, shape...) }
	query, q := random(s.Heads, s.Tokens(), s.HeadDim)
	k, hostK := random(s.Heads, keys, s.HeadDim)
	v, _ := random(s.Heads, keys, s.HeadDim)
	logs, hostLogs := random(s.Heads, keys)
	lengths := a.Tensor(compute.I32, s.Heads)
	var b []byte
	for h := range s.Heads {
		b = binary.LittleEndian.AppendUint32(b, uint32(keys-50*h))
	}
	dq.Upload(lengths, b)
	plain, seen := a.Tensor(compute.F32, s.Heads, s.Tokens(), s.HeadDim), a.Tensor(compute.F32, s.Heads, s.Tokens(), s.HeadDim)
	for _, view := range []kvcache.View{{Keys: k, Values: v}, {Keys: k, Values: v, LogCount: logs, Lengths: lengths}} {
		g := &attention.Gaze{Inner: attention.Dense{}, On: true}
		if g.Bytes(dev, s) <= 0 {
			t.Error("a gaze takes memory")
		}
		p, err := g.New(dev, dq, s)
		if err != nil {
			t.Fatal(err)
		}
		for turn := range s.Layers * s.Heads {
			for layer := range s.Layers {
				at := attention.Site{Kind: attention.Self, Layer: layer, Chunk: turn, Pass: 4, Passes: 5, Tokens: s.Tokens()}
				attention.Dense{}.Attend(dq, at, plain, query, view)
				p.Attend(dq, at, seen, query, view)
				one, other := make([]byte, plain.Bytes()), make([]byte, plain.Bytes())
				dq.Download(one, plain)
				dq.Download(other, seen)
				if string(one) != string(other) {
					t.Fatal("the gaze changed what it looked at")
				}
			}
			last := g.Last
			if last.Layer != turn/s.Heads || last.Head != turn%s.Heads {
				t.Fatalf("turn %d looked at layer %d, head %d", turn, last.Layer, last.Head)
			}
			n, logs := keys, []float32(nil)
			if !view.Lengths.IsZero() {
				n, logs = keys-50*last.Head, hostLogs[last.Head*keys:]
			}
			near(t, last.Mass, mass(q[last.Head*s.Tokens()*s.HeadDim:], hostK[last.Head*keys*s.HeadDim:], logs, s, n))
		}
		p.Close()
	}
}

func normal(dq compute.Queue, a compute.Arena, r *rand.Rand, shape ...int) (compute.Tensor, []float32) {
	x := a.Tensor(compute.F32, shape...)
	host, b := make([]float32, x.Elems()), make([]byte, 0, x.Bytes())
	for i := range host {
		host[i] = float32(2 * r.NormFloat64())
		b = binary.LittleEndian.AppendUint32(b, math.Float32bits(host[i]))
	}
	dq.Upload(x, b)
	return x, host
}

func near(t *testing.T, got []float32, want []float64) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%d keys, not %d", len(got), len(want))
	}
	for i, w := range want {
		if math.Abs(float64(got[i])-w) > 1e-4*(1e-3+w) {
			t.Fatalf("key %d: %v, not %v", i, got[i], w)
		}
	}
}

// mass is the mean share of each key for every second of 16 queries.
func mass(q, k, logs []float32, s kvcache.Shape, keys int) []float64 {
	out := make([]float64, keys)
	for i := 0; i < s.Tokens(); i += 2 {
		e, sum := make([]float64, keys), 0.0
		for j := range e {
			dot := 0.0
			for d := range s.HeadDim {
				dot += float64(q[i*s.HeadDim+d]) * float64(k[j*s.HeadDim+d])
			}
			dot /= 4 // the root of 16
			if logs != nil {
				dot += float64(logs[j])
			}
			e[j] = math.Exp(dot)
			sum += e[j]
		}
		for j := range e {
			out[j] += e[j] / sum / 8
		}
	}
	return out
}
