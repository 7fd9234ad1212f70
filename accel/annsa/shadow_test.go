package annsa_test

import (
	"encoding/binary"
	"math"
	"strings"
	"testing"
	"time"

	"longtake/attention"
	"longtake/compute"
	"longtake/compute/cpu"
	"longtake/kvcache"
	"longtake/model/modeltest"
	"longtake/rollout"
	"longtake/world"
)

// shadow attends densely, and from chunk first on lets other policies attend to the same, whose results it only compares: all
// options are judged on the same queries and keys.
type shadow struct {
	first    int
	variants []variant
	found    []judged
}

// judged is what became of one variant: sums over calls of sparse passes.
type judged struct {
	calls                  int
	wrong, norm            float64 // squared
	density, recall, worst float64
	deciding, took, dense  time.Duration
}

func (s *shadow) New(dev compute.Device, dq compute.Queue, shape kvcache.Shape) (attention.Policy, error) {
	arena, err := dev.NewArena(0)
	if err != nil {
		return nil, err
	}
	n := shape.ChunkFrames * shape.Tokens()
	p := &shadowing{shadow: s, arena: arena, shape: shape, out: arena.Tensor(compute.F32, n, shape.Heads*shape.HeadDim),
		all: arena.Tensor(compute.F32, shape.Heads, n), kept: arena.Tensor(compute.F32, shape.Heads, n)}
	for _, v := range s.variants {
		policy, err := v.options.New(dev, dq, shape)
		if err != nil {
			return nil, err
		}
		p.policies = append(p.policies, policy)
	}
	if s.found == nil {
		s.found = make([]judged, len(s.variants))
	}
	return p, nil
}

func (s *shadow) Bytes(compute.Device, kvcache.Shape) int64 { return 0 }
func (s *shadow) String() string                            { return "shadow" }

type shadowing struct {
	*shadow
	policies       []attention.Policy
	arena          compute.Arena
	shape          kvcache.Shape
	out, all, kept compute.Tensor
}

func (p *shadowing) Attend(dq compute.Queue, at attention.Site, dst, query compute.Tensor, kv kvcache.View) {
	began := time.Now()
	attention.Dense{}.Attend(dq, at, dst, query, kv)
	dense := time.Since(began)
	if at.Chunk < p.first {
		return
	}
	want := fetch(dq, dst)
	for i, policy := range p.policies {
		f := &p.found[i]
		began := time.Now()
		policy.Attend(dq, at, p.out.Heads(p.shape.Heads), query, kv)
		took := time.Since(began)
		sparse, ok := policy.(attention.Sparse)
		if !ok {
			continue
		}
		pairs, deciding := sparse.Pairs()
		all := attention.Pairs(dq, query, kv)
		if pairs >= all || at.Chunk == p.first { // the first chunk puts all of the history into the index
			continue
		}
		f.took, f.dense, f.deciding = f.took+took, f.dense+dense, f.deciding+deciding
		f.calls++
		wrong, norm := 0.0, 0.0
		for j, g := range fetch(dq, p.out.Heads(p.shape.Heads)) {
			d := float64(g - want[j])
			wrong, norm = wrong+d*d, norm+float64(want[j])*float64(want[j])
		}
		f.wrong, f.norm, f.worst = f.wrong+wrong/norm, f.norm+1, max(f.worst, wrong/norm)
		f.density += float64(pairs) / float64(all)
		attention.Mass(dq, p.all, p.arena.Tensor(compute.F32, query.Elems()), query, kv)
		sparse.Kept(dq, at, p.kept, query, kv)
		a, k := fetch(dq, p.all), fetch(dq, p.kept)
		for j := range a {
			f.recall += math.Exp(float64(k[j]-a[j])) / float64(len(a))
		}
	}
}

func (p *shadowing) Close() {
	for _, x := range p.policies {
		x.Close()
	}
	p.arena.Free()
}

// fetch reads an F32 tensor with any strides.
func fetch(dq compute.Queue, t compute.Tensor) []float32 {
	mem := dq.(compute.Mapper).Map(t)
	var out []float32
	var walk func(dim, at int)
	walk = func(dim, at int) {
		if dim == t.Rank {
			out = append(out, math.Float32frombits(binary.LittleEndian.Uint32(mem[4*at:])))
			return
		}
		for i := range t.Shape[dim] {
			walk(dim+1, at+i*t.Stride[dim])
		}
	}
	walk(0, 0)
	return out
}

// TestShadow prints how wrong each variant's attention is on the embedded model's own queries and keys:
// go test ./accel/annsa -run Shadow -measure -v -timeout 1h
func TestShadow(t *testing.T) {
	if !*measureFlag {
		t.Skip("minutes of measuring: -run Shadow -measure -v -timeout 1h")
	}
	e := modeltest.TinyWorld(t, cpu.Options{Threads: 2})
	for _, test := range []struct {
		name        string
		kind        world.Kind
		span, known int
	}{{"look back", world.LookAround, 30, 56}, {"mixed", world.Mixed, 0, 90}} {
		if !strings.Contains(test.name, *tests) {
			continue
		}
		s := &shadow{first: test.known}
		for _, v := range variants() {
			if strings.Contains(v.name, *only) {
				s.variants = append(s.variants, v)
			}
		}
		for i := range *clips {
			newClip(t, uint32(61000+i), test.known+3, test.kind, test.span).roll(t, e, test.known, rollout.Request{Cache: kvcache.Window{Recent: kvcache.Full}, Self: s})
		}
		t.Logf("%s, %d frames of history, %d clips: relative error of sparse calls (mean, worst), density, recall, deciding ms a call, time over dense", test.name, test.known, *clips)
		for i, f := range s.found {
			n := float64(max(f.calls, 1))
			t.Logf("| %s | %.4f | %.3f | %.3f | %.3f | %.2f | %.2f |", s.variants[i].name, math.Sqrt(f.wrong/n), math.Sqrt(f.worst), f.density/n, f.recall/n,
				f.deciding.Seconds()*1e3/n, f.took.Seconds()/f.dense.Seconds())
		}
	}
}
