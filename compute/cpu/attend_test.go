package cpu

import (
	"fmt"
	"math"
	"slices"
	"testing"
	"unsafe"

	"longtake/compute"
)

type ptr = unsafe.Pointer

// attendCase is a random call and its float64 answer.
type attendCase struct {
	dst, query, keys, values compute.Tensor
	a                        compute.Attention
}

func (r *rig) attendCase(heads, queries, keys, headDim int) attendCase {
	c := attendCase{query: r.random(r.dtype(), queries, heads*headDim).Heads(heads)}
	dt := r.dtype()
	if r.rng.IntN(2) == 0 {
		c.keys, c.values = r.random(dt, heads, keys, headDim), r.random(dt, keys, heads*headDim).Heads(heads)
	} else {
		c.keys, c.values = r.random(dt, keys, heads*headDim).Heads(heads), r.random(dt, heads, keys, headDim)
	}
	c.dst = r.tensor(r.dtype(), queries, heads*headDim).Heads(heads)
	c.a.Scale = float32(1 / math.Sqrt(float64(headDim)))
	if r.rng.IntN(2) == 0 {
		c.a.LogSumExp = r.tensor(compute.F32, heads, queries)
	}
	if r.rng.IntN(2) == 0 {
		c.a.LogCount = r.random(compute.F32, heads, keys)
		each(c.a.LogCount, func(i int, p ptr) {
			if r.rng.IntN(4) == 0 {
				*(*float32)(p) = float32(math.Inf(-1))
			}
		})
	}
	if r.rng.IntN(2) == 0 {
		c.a.Lengths = r.tensor(compute.I32, heads)
		each(c.a.Lengths, func(i int, p ptr) { *(*int32)(p) = int32(r.rng.IntN(keys + 1)) })
	}
	if r.rng.IntN(2) == 0 {
		c.a.Tiles = r.tiles(heads, queries, keys)
	}
	return c
}

func (r *rig) tiles(heads, queries, keys int) compute.Tiles {
	t := compute.Tiles{QueryTile: r.pick(1, 5, 16, 64, 100), KeyTile: r.pick(1, 7, 16, 64)}
	var list, ends []float64
	for range heads * ((queries + t.QueryTile - 1) / t.QueryTile) {
		for k := range (keys + t.KeyTile - 1) / t.KeyTile {
			if r.rng.IntN(2) == 0 {
				list = append(list, float64(k))
			}
		}
		ends = append(ends, float64(len(list)))
	}
	t.Ends = r.dense(compute.I32, ends, len(ends))
	t.Keys = r.dense(compute.I32, append(list, -1), len(list)+1)
	return t
}

// sees reports whether query i of head h may look at key j.
func (c *attendCase) sees(h, i, j int) bool {
	if c.a.Lengths.Rank != 0 && float64(j) >= read(c.a.Lengths)[h] {
		return false
	}
	t := c.a.Tiles
	if t.Ends.Rank == 0 {
		return true
	}
	ends, at := read(t.Ends), h*((c.query.Shape[1]+t.QueryTile-1)/t.QueryTile)+i/t.QueryTile
	lo := 0
	if at > 0 {
		lo = int(ends[at-1])
	}
	for _, k := range read(t.Keys)[lo:int(ends[at])] {
		if int(k) == j/t.KeyTile {
			return true
		}
	}
	return false
}

func (c *attendCase) answer(r *rig) (out, lse []float64) {
	heads, queries, keys, d := c.query.Shape[0], c.query.Shape[1], c.keys.Shape[1], c.query.Shape[2]
	out, lse = make([]float64, heads*queries*d), make([]float64, heads*queries)
	qv, kv, vv := read(c.query), read(c.keys), read(c.values)
	count := read0(c.a.LogCount, heads*keys, 0)
	for h := range heads {
		for i := range queries {
			logit, top := make([]float64, keys), math.Inf(-1)
			for j := range keys {
				logit[j] = math.Inf(-1)
				if !c.sees(h, i, j) {
					continue
				}
				var s float64
				for x := range d {
					s += qv[(h*queries+i)*d+x] * kv[(h*keys+j)*d+x]
				}
				logit[j] = s*float64(c.a.Scale) + count[h*keys+j]
				top = math.Max(top, logit[j])
			}
			var sum float64
			for j, l := range logit {
				if math.IsInf(l, -1) {
					continue
				}
				p := math.Exp(l - top)
				sum += p
				for x := range d {
					out[(h*queries+i)*d+x] += p * vv[(h*keys+j)*d+x]
				}
			}
			lse[h*queries+i] = top + math.Log(sum)
			if sum == 0 {
				lse[h*queries+i] = math.Inf(-1)
				continue
			}
			for x := range d {
				out[(h*queries+i)*d+x] /= sum
			}
		}
	}
	return out, lse
}

// attendTol is how far a class may be from float64 on normal numbers.
func (r *rig) attendTol() float64 {
	if r.dev.class.cache == compute.BF16 {
		return 2e-2
	}
	return 3e-6
}

func TestAttendEqualsFloat64Loops(t *testing.T) {
	eachClass(t, 2, func(r *rig) {
		for range rounds(120) {
			c := r.attendCase(r.pick(1, 2, 3), r.pick(0, 1, 15, 16, 17, 33, 64, 70), r.pick(0, 1, 5, 6, 64, 95, 96, 97, 200), r.pick(16, 32, 64, 128))
			out, lse := c.answer(r)
			outs := r.outs
			r.arm()
			if c.a.LogSumExp.Rank != 0 {
				r.q.Attend(c.dst, c.query, c.keys, c.values, c.a)
				got := read(c.a.LogSumExp)
				for i := range lse {
					if d := math.Abs(got[i] - lse[i]); !(d <= r.attendTol()*(1+math.Abs(lse[i]))) && got[i] != lse[i] {
						r.Fatalf("log-sum-exp %d is %v, want %v", i, got[i], lse[i])
					}
				}
				r.outs = outs
				c.a.LogSumExp = compute.Tensor{}
				r.arm()
			}
			r.q.Attend(c.dst, c.query, c.keys, c.values, c.a)
			r.check(fmt.Sprintf("attend %v over %v tiles %d/%d", c.query, c.keys, c.a.Tiles.QueryTile, c.a.Tiles.KeyTile), c.dst, out, r.attendTol())
		}
	})
}

// A long history under few queries is cut into segments, see split.go.
func TestAttendOverLongHistoryEqualsFloat64Loops(t *testing.T) {
	eachClass(t, 3, func(r *rig) {
		for range rounds(6) {
			c := r.attendCase(r.pick(1, 2), r.pick(1, 16, 33, 70), 2*splitKeys+r.pick(0, 1, 95, 5000), r.pick(16, 64))
			c.a.Tiles = compute.Tiles{}
			out, lse := c.answer(r)
			c.a.LogSumExp = compute.Tensor{}
			r.arm()
			r.q.Attend(c.dst, c.query, c.keys, c.values, c.a)
			if r.q.(*Queue).attend.segments < 2 {
				r.Fatal("the keys were not cut")
			}
			r.check(fmt.Sprintf("attend %v over %v", c.query, c.keys), c.dst, out, r.attendTol())
			c.a.LogSumExp = r.tensor(compute.F32, c.query.Shape[0], c.query.Shape[1])
			r.q.Attend(c.dst, c.query, c.keys, c.values, c.a)
			for i, got := range read(c.a.LogSumExp) {
				if d := math.Abs(got - lse[i]); !(d <= r.attendTol()*(1+math.Abs(lse[i]))) && got != lse[i] {
					r.Fatalf("log-sum-exp %d is %v, want %v", i, got, lse[i])
				}
			}
		}
	})
}

func TestAttendOverLongHistoryDoesNotDependOnThreads(t *testing.T) {
	for _, class := range testClasses() {
		t.Run(class.name, func(t *testing.T) {
			var first []float64
			for _, threads := range []int{1, 2, 8} {
				r := rigOf(t, class, threads) // the same numbers each time
				c := attendCase{query: r.random(compute.F32, 64, 2*64).Heads(2), keys: r.random(compute.BF16, 2, 2*splitKeys+70, 64),
					values: r.random(compute.BF16, 2, 2*splitKeys+70, 64), dst: r.tensor(compute.F32, 64, 2*64).Heads(2)}
				r.q.Attend(c.dst, c.query, c.keys, c.values, compute.Attention{Scale: 0.125})
				got := read(c.dst)
				if first == nil {
					first = got
				}
				if !slices.Equal(got, first) {
					t.Errorf("%d threads change the result", threads)
				}
			}
		})
	}
}

func TestAttendSurvivesLargeLogits(t *testing.T) {
	eachClass(t, 1, func(r *rig) {
		c := r.attendCase(1, 17, 130, 64)
		c.a = compute.Attention{Scale: 8}
		out, _ := c.answer(r)
		r.q.Attend(c.dst, c.query, c.keys, c.values, c.a)
		r.outs = nil
		if r.dev.class.cache == compute.BF16 {
			r.Skip("needs a class with float32 logits, which rounding to bfloat16 moves by more than 1; avx512, avx2 and generic run it")
		}
		r.check("attend with large logits", c.dst, out, 3e-4)
	})
}
