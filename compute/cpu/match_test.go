package cpu

import (
	"fmt"
	"math"
	"testing"
	"unsafe"

	"longtake/compute"
)

func floatsOf(t compute.Tensor) []float64 {
	out := make([]float64, t.Elems())
	each(t, func(i int, p unsafe.Pointer) {
		switch t.DType {
		case compute.F32:
			out[i] = float64(*(*float32)(p))
		case compute.BF16:
			out[i] = float64(compute.F32FromBF16(*(*uint16)(p)))
		}
	})
	return out
}

func TestMatchFindsTheNearestKey(t *testing.T) {
	eachClass(t, 2, func(r *rig) {
		for _, dt := range []compute.DType{compute.F32, compute.BF16} {
			for _, n := range []struct{ heads, queries, keys, headDim int }{{4, 64, 1000, 64}, {1, 1, 1, 16}, {3, 37, 97, 128}, {2, 17, 0, 16}} {
				r.Run(fmt.Sprint(dt, n), func(t *testing.T) {
					query, keys := r.random(dt, n.heads, n.queries, n.headDim), r.random(dt, n.heads, n.keys, n.headDim)
					best, score := r.arena.Tensor(compute.I32, n.heads, n.queries), r.arena.Tensor(compute.F32, n.heads, n.queries)
					lengths := r.arena.Tensor(compute.I32, n.heads)
					for h := range n.heads {
						I32(lengths)[h] = int32(max(0, n.keys-h))
					}
					r.q.(compute.Matcher).Match(best, score, query, keys, lengths)
					q, k := floatsOf(query), floatsOf(keys)
					for i, got := range I32(best) {
						h := i / n.queries
						top, at := math.Inf(-1), -1
						for j := range max(0, n.keys-h) {
							var dot float64
							for e := range n.headDim {
								dot += q[i*n.headDim+e] * k[(h*n.keys+j)*n.headDim+e]
							}
							if dot > top {
								top, at = dot, j
							}
						}
						if int(got) != at || n.keys > 0 && math.Abs(float64(F32(score)[i])-top) > 1e-4 {
							t.Fatalf("query %d: key %d with %v, want %d with %v", i, got, F32(score)[i], at, top)
						}
					}
				})
			}
		}
	})
}

func TestScoresAreDotProducts(t *testing.T) {
	eachClass(t, 3, func(r *rig) {
		for _, dt := range []compute.DType{compute.F32, compute.BF16} {
			for _, n := range []struct{ heads, queries, keys, headDim int }{{4, 32, 1700, 64}, {1, 1, 1, 16}, {3, 37, 97, 128}, {2, 17, 0, 16}} {
				query, keys := r.random(dt, n.heads, n.queries, n.headDim), r.random(dt, n.heads, n.keys, n.headDim)
				dst := r.arena.Tensor(compute.F32, n.heads, n.keys, n.queries)
				r.q.(compute.Scorer).Score(dst, query, keys)
				q, k := floatsOf(query), floatsOf(keys)
				for i, got := range F32(dst) {
					h, key, row := i/n.queries/n.keys, i/n.queries%n.keys, i%n.queries
					dot := 0.0
					for e := range n.headDim {
						dot += q[(h*n.queries+row)*n.headDim+e] * k[(h*n.keys+key)*n.headDim+e]
					}
					if math.Abs(float64(got)-dot) > 1e-4 {
						t.Fatalf("%v %+v: head %d, key %d, query %d: %v, want %v", dt, n, h, key, row, got, dot)
					}
				}
			}
		}
	})
}

func TestOfEqualKeysTheFirstMatches(t *testing.T) {
	eachClass(t, 1, func(r *rig) {
		key := make([]float64, 300*16)
		for i := range key {
			key[i] = float64(i%16) - 3
		}
		query, keys := r.dense(compute.F32, key[:5*16], 1, 5, 16), r.dense(compute.F32, key, 1, 300, 16)
		best, score := r.arena.Tensor(compute.I32, 1, 5), r.arena.Tensor(compute.F32, 1, 5)
		r.q.(compute.Matcher).Match(best, score, query, keys, compute.Tensor{})
		for i, b := range I32(best) {
			if b != 0 {
				t.Errorf("query %d found key %d, want the first", i, b)
			}
		}
	})
}

func TestMapIsTheTensorsMemory(t *testing.T) {
	r := newRig(t, "generic", 1)
	x := r.random(compute.F32, 3, 4, 5)
	mem := r.q.(compute.Mapper).Map(x)
	if want := (2*x.Stride[0] + 3*x.Stride[1] + 5) * 4; len(mem) != want {
		t.Fatalf("%d bytes mapped, want %d", len(mem), want)
	}
	*(*float32)(unsafe.Pointer(&mem[4*(x.Stride[0]+2*x.Stride[1]+3)])) = 42
	if got := floatsOf(x)[1*20+2*5+3]; got != 42 {
		t.Errorf("element is %v after a write of 42", got)
	}
	if r.q.(compute.Mapper).Map(x.Slice(1, 2, 2)) != nil {
		t.Error("an empty view has bytes")
	}
}

func BenchmarkMatch(b *testing.B) {
	dev, _ := New(Options{})
	defer dev.Close()
	dq, _ := dev.NewQueue()
	arena, _ := dev.NewArena(0)
	defer arena.Free()
	query, keys := arena.Tensor(compute.F32, 4, 64, 64), arena.Tensor(compute.F32, 4, 1000, 64)
	dq.Noise(query, compute.NoiseKey{Seed: 1})
	dq.Noise(keys, compute.NoiseKey{Seed: 2})
	best, score := arena.Tensor(compute.I32, 4, 64), arena.Tensor(compute.F32, 4, 64)
	m := dq.(compute.Matcher)
	b.ReportAllocs()
	for b.Loop() {
		m.Match(best, score, query, keys, compute.Tensor{})
	}
}
