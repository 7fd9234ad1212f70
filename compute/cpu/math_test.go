package cpu

import (
	"fmt"
	"math"
	"testing"

	"longtake/compute"
)

func actRef(x float64, act compute.Activation) float64 {
	switch act {
	case compute.GELU:
		return 0.5 * x * (1 + math.Tanh(math.Sqrt(2/math.Pi)*(x+0.044715*x*x*x)))
	case compute.SiLU:
		return x / (1 + math.Exp(-x))
	case compute.ReLU:
		return math.Max(x, 0)
	}
	return x
}

// bf16 rounds as operands of the class are rounded.
func (r *rig) bf16(v []float64) []float64 {
	if r.dev.class.cache != compute.BF16 {
		return v
	}
	out := make([]float64, len(v))
	for i := range v {
		out[i] = float64(compute.F32FromBF16(compute.BF16FromF32(float32(v[i]))))
	}
	return out
}

func TestLinearEqualsFloat64Loops(t *testing.T) {
	eachClass(t, 2, func(r *rig) {
		for range rounds(250) {
			rows, in, out := r.pick(0, 1, 2, 3, 4, 5, 6, 7, 13, 64, 97, 111), r.pick(0, 1, 3, 16, 31, 64, 100, 256, 384, 385, 700), r.pick(1, 2, 15, 16, 17, 48, 63, 64, 129, 200)
			act := compute.Activation(r.rng.IntN(4))
			h, wv := r.host([]compute.DType{compute.F32, compute.BF16, compute.F16}[r.rng.IntN(3)], out, in)
			w := r.arena.Matrix(h)
			x, dst := r.random(r.dtype(), rows, in), r.tensor(r.dtype(), rows, out)
			var bias compute.Tensor
			bv := make([]float64, out)
			if r.rng.IntN(2) == 0 {
				bias = r.random(compute.F32, out)
				bv = read(bias)
			}
			xv, wr := r.bf16(read(x)), r.bf16(wv)
			want := make([]float64, rows*out)
			for i := range rows {
				for o := range out {
					s := bv[o]
					for k := range in {
						s += xv[i*in+k] * wr[o*in+k]
					}
					want[i*out+o] = actRef(s, act)
				}
			}
			r.arm()
			r.q.Linear(dst, x, w, bias, act)
			r.check(fmt.Sprintf("linear %dx%dx%d act %d", rows, in, out, act), dst, want, 2e-6*math.Sqrt(float64(in+1)))
		}
	})
}

func TestNormEqualsFloat64Loops(t *testing.T) {
	eachClass(t, 2, func(r *rig) {
		for range rounds(200) {
			groups, per, width := r.pick(1, 2, 3), r.pick(0, 1, 5, 40), r.pick(1, 2, 7, 8, 33, 64, 256, 300)
			rows := groups * per
			n := compute.Norm{RMS: r.rng.IntN(2) == 0, Eps: 1e-6}
			maybe := func(dims ...int) compute.Tensor {
				if r.rng.IntN(2) == 0 {
					return compute.Tensor{}
				}
				return r.random(compute.F32, dims...)
			}
			n.Weight, n.Bias, n.Scale, n.Shift = maybe(width), maybe(width), maybe(groups, width), maybe(groups, width)
			x := r.random(r.dtype(), rows, width)
			dst := x
			if r.rng.IntN(2) == 0 {
				dst = r.tensor(r.dtype(), rows, width)
			}
			xv, want := read(x), make([]float64, rows*width)
			for i := range rows {
				row := xv[i*width : (i+1)*width]
				var mean, variance float64
				for _, v := range row {
					mean += v / float64(width)
				}
				if n.RMS {
					mean = 0
				}
				for _, v := range row {
					variance += (v - mean) * (v - mean) / float64(width)
				}
				for j, v := range row {
					y := (v - mean) / math.Sqrt(variance+1e-6)
					want[i*width+j] = y
				}
			}
			wv, bv, sv, tv := read0(n.Weight, width, 1), read0(n.Bias, width, 0), read0(n.Scale, groups*width, 0), read0(n.Shift, groups*width, 0)
			for i := range want {
				j, g := i%width, i/width/max(per, 1)*width+i%width
				want[i] = (want[i]*wv[j]+bv[j])*(1+sv[g]) + tv[g]
			}
			r.arm()
			r.q.Norm(dst, x, n)
			tol := 2e-5
			if width < 3 {
				tol = 1e-3 // the variance of two numbers may be tiny: cancellation
			}
			r.check("norm", dst, want, tol)
		}
	})
}

func read0(t compute.Tensor, n int, def float64) []float64 {
	if !t.IsZero() {
		return read(t)
	}
	v := make([]float64, n)
	for i := range v {
		v[i] = def
	}
	return v
}

func TestElementwiseOperationsEqualFloat64Loops(t *testing.T) {
	eachClass(t, 2, func(r *rig) {
		for range rounds(300) {
			dims := [][]int{{r.pick(0, 1, 3, 17)}, {r.pick(1, 5, 64), r.pick(1, 7, 8, 31, 256, 2049)}, {2, 3, 19}, {2, 3, 2, 9}}[r.rng.IntN(4)]
			x, y := r.random(r.dtype(), dims...), r.random(r.dtype(), dims...)
			dst := x
			if r.rng.IntN(2) == 0 {
				dst = r.tensor(r.dtype(), dims...)
			}
			xv, yv, want := read(x), read(y), make([]float64, x.Elems())
			apply := func(f func(x, y float64) float64) {
				for i := range want {
					want[i] = f(xv[i], yv[i])
				}
			}
			r.arm()
			switch op := r.rng.IntN(5); op {
			case 0:
				apply(func(x, y float64) float64 { return x })
				r.q.Copy(dst, x)
				r.check("copy", dst, want, 0)
			case 1:
				act := compute.Activation(r.rng.IntN(4))
				apply(func(x, y float64) float64 { return actRef(x, act) })
				r.q.Activate(dst, x, act)
				r.check("activate", dst, want, 1e-6)
			case 2:
				apply(func(x, y float64) float64 { return -0.75*x + 1.5*y })
				r.q.Mix(dst, -0.75, x, 1.5, y)
				r.check("mix", dst, want, 1e-6)
			case 3:
				apply(func(x, y float64) float64 { return 2.5 * x })
				r.q.Mix(dst, 2.5, x, 9, compute.Tensor{})
				r.check("scale", dst, want, 1e-6)
			case 4:
				apply(func(x, y float64) float64 { return math.Max(-0.5, math.Min(0.25, x)) })
				r.q.Clamp(dst, x, -0.5, 0.25)
				r.check("clamp", dst, want, 0)
			}
		}
	})
}

func TestActivationsHoldOverTheWholeRange(t *testing.T) {
	eachClass(t, 1, func(r *rig) {
		var in []float64
		for x := -130.0; x <= 130; x += 0.0371 {
			in = append(in, float64(float32(x)))
		}
		in = append(in, 0, 1e-30, -1e-30, 1e-38, 3e4, -3e4, 1e15, -1e15)
		x, dst := r.dense(compute.F32, in, len(in)), r.arena.Tensor(compute.F32, len(in))
		for _, act := range []compute.Activation{compute.None, compute.GELU, compute.SiLU, compute.ReLU} {
			r.q.Activate(dst, x, act)
			for i, v := range F32(dst) {
				if want := actRef(in[i], act); math.Abs(float64(v)-want) > 3e-6*math.Abs(want)+1e-30 && !(math.Abs(want) < 1e-6 && math.Abs(float64(v)-want) < 1e-6) {
					r.Fatalf("activation %d of %v is %v, want %v", act, in[i], v, want)
				}
			}
		}
	})
}

func TestNaNStaysNaN(t *testing.T) {
	eachClass(t, 1, func(r *rig) {
		in := make([]float64, 37)
		for i := range in {
			in[i] = math.NaN()
		}
		x, dst := r.dense(compute.F32, in, 37), r.arena.Tensor(compute.F32, 37)
		all := func(what string) {
			for i, v := range read(dst) {
				if v == v {
					r.Fatalf("%s: element %d is %v, want NaN", what, i, v)
				}
			}
		}
		r.q.Clamp(dst, x, -1, 1)
		all("clamp")
		for _, act := range []compute.Activation{compute.GELU, compute.SiLU, compute.ReLU} {
			r.q.Activate(dst, x, act)
			all(fmt.Sprint("activation ", act))
		}
		dst = r.arena.Tensor(compute.BF16, 37)
		r.q.Copy(dst, x)
		all("narrowing")
	})
}

func TestAddGatedEqualsFloat64Loops(t *testing.T) {
	eachClass(t, 2, func(r *rig) {
		for range rounds(100) {
			groups, per, width := r.pick(1, 2, 5), r.pick(0, 1, 4, 64), r.pick(1, 9, 64, 256)
			rows := groups * per
			x, y := r.random(r.dtype(), rows, width), r.random(r.dtype(), rows, width)
			var gate compute.Tensor
			if r.rng.IntN(3) > 0 {
				gate = r.random(compute.F32, groups, width)
			}
			dst := x
			if r.rng.IntN(2) == 0 {
				dst = r.tensor(r.dtype(), rows, width)
			}
			xv, yv, gv, want := read(x), read(y), read0(gate, groups*width, 1), make([]float64, rows*width)
			for i := range want {
				want[i] = xv[i] + yv[i]*gv[i/width/per*width+i%width]
			}
			r.arm()
			r.q.AddGated(dst, x, y, gate)
			r.check("add gated", dst, want, 1e-6)
		}
	})
}

func TestGatherAddsOrCopiesRows(t *testing.T) {
	eachClass(t, 2, func(r *rig) {
		for range rounds(60) {
			n, rows, width := r.pick(1, 7), r.pick(0, 1, 30), r.pick(1, 31, 256)
			table, idx := r.random(compute.F32, n, width), r.tensor(compute.I32, rows)
			for i := range rows {
				I32(idx)[i] = int32(r.rng.IntN(n))
			}
			acc := r.rng.IntN(2) == 0
			dst := r.random(r.dtype(), rows, width)
			was, tv, want := read(dst), read(table), make([]float64, rows*width)
			for i := range want {
				want[i] = tv[int(I32(idx)[i/width])*width+i%width]
				if acc {
					want[i] += was[i]
				}
			}
			r.arm()
			r.q.Gather(dst, table, idx, acc)
			r.check("gather", dst, want, 1e-6)
		}
	})
}

func TestTimeEmbedEqualsTheFormula(t *testing.T) {
	eachClass(t, 1, func(r *rig) {
		ts, dst := r.dense(compute.F32, []float64{0, 1, 37.5, 999}, 4), r.tensor(r.dtype(), 4, 64)
		want := make([]float64, 4*64)
		for i, v := range read(ts) {
			for j := range 32 {
				a := v * math.Pow(10000, -float64(j)/32)
				want[i*64+j], want[i*64+32+j] = math.Cos(a), math.Sin(a)
			}
		}
		r.arm()
		r.q.TimeEmbed(dst, ts, 10000)
		r.check("time embedding", dst, want, 1e-6)
	})
}

func TestNoiseHasTheBitsOfTheDefinition(t *testing.T) {
	eachClass(t, 2, func(r *rig) {
		for _, n := range []int{0, 1, 5, 64, 2047, 2048, 2049, 40001} {
			key := compute.NoiseKey{Seed: r.rng.Uint64(), Chunk: r.rng.Uint32(), Step: 3}
			want := make([]float32, n)
			compute.FillNoise(want, key, 0)
			dst, half := r.arena.Tensor(compute.F32, max(n, 1)).Slice(0, 0, n), r.arena.Tensor(compute.BF16, max(n, 1)).Slice(0, 0, n)
			r.q.Noise(dst, key)
			r.q.Noise(half, key)
			for i := range want {
				if F32(dst)[i] != want[i] || BF16(half)[i] != compute.BF16FromF32(want[i]) {
					r.Fatalf("element %d of %d is %v, want %v", i, n, F32(dst)[i], want[i])
				}
			}
		}
	})
}

func TestRopeEqualsFloat64Loops(t *testing.T) {
	eachClass(t, 2, func(r *rig) {
		for range rounds(120) {
			heads, tokens := r.pick(1, 4), r.pick(0, 1, 9, 64)
			pairs := [3]int{r.pick(12, 4, 0), 10, r.pick(10, 2)}
			headDim, ring := 2*(pairs[0]+pairs[1]+pairs[2]), 7
			rp := compute.Rope{MinTime: r.pick(-100, 3), Inverse: r.rng.IntN(2) == 0}
			rp.Row, rp.Column = r.dense(compute.F32, normals(r, 100), 5, 10, 2), r.dense(compute.F32, normals(r, 12*pairs[2]), 6, pairs[2], 2)
			if pairs[0] > 0 {
				rp.Time = r.dense(compute.F32, normals(r, 2*ring*pairs[0]), ring, pairs[0], 2)
			}
			pos := r.tensor(compute.I32, tokens, 3)
			perHead := r.rng.IntN(2) == 0
			if perHead {
				pos = r.tensor(compute.I32, heads, tokens, 3)
			}
			limit := [3]int{40, 5, 6}
			each(pos, func(i int, p ptr) { *(*int32)(p) = int32(r.rng.IntN(limit[i%3])) })
			x := r.random(r.dtype(), tokens, heads*headDim).Heads(heads)
			dst := x
			if r.rng.IntN(2) == 0 {
				dst = r.tensor(r.dtype(), heads, tokens, headDim)
			}
			r.arm()
			want := ropeRef(read(x), read(pos), heads, tokens, headDim, perHead, rp, pairs)
			r.q.Rope(dst, x, pos, rp)
			r.check("rope", dst, want, 2e-6)
		}
	})
}

func normals(r *rig, n int) []float64 {
	v := make([]float64, n)
	for i := range v {
		v[i] = r.rng.NormFloat64()
	}
	return v
}

func ropeRef(x, pos []float64, heads, tokens, headDim int, perHead bool, rp compute.Rope, pairs [3]int) []float64 {
	tables := [3][]float64{nil, read(rp.Row), read(rp.Column)}
	if pairs[0] > 0 {
		tables[0] = read(rp.Time)
	}
	out := make([]float64, len(x))
	for h := range heads {
		for k := range tokens {
			at := k
			if perHead {
				at = h*tokens + k
			}
			j := (h*tokens + k) * headDim
			for axis := range 3 {
				p := int(pos[at*3+axis])
				if axis == 0 {
					p = max(p, rp.MinTime) % 7
				}
				for i := range pairs[axis] {
					c, s := tables[axis][(p*pairs[axis]+i)*2], tables[axis][(p*pairs[axis]+i)*2+1]
					if rp.Inverse {
						s = -s
					}
					a, b := x[j], x[j+1]
					out[j], out[j+1] = a*c-b*s, a*s+b*c
					j += 2
				}
			}
		}
	}
	return out
}
