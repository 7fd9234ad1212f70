package cpu

import (
	"fmt"
	"math"
	"testing"

	"longtake/compute"
)

func TestBiasedAttentionIsSoftmaxOfBiasedLogits(t *testing.T) {
	eachClass(t, 2, func(r *rig) {
		for _, n := range []struct{ heads, queries, keys, headDim int }{{1, 1, 1, 16}, {2, 20, 20, 16}, {3, 65, 97, 64}, {2, 150, 193, 64}, {2, 3, 0, 16}} {
			dt := r.dtype()
			query, dst := r.random(r.dtype(), n.heads, n.queries, n.headDim), r.tensor(r.dtype(), n.heads, n.queries, n.headDim)
			keys, values := r.random(dt, n.heads, n.keys, n.headDim), r.random(dt, n.heads, n.keys, n.headDim)
			want, scale := make([]float64, dst.Elems()), float32(0.25)
			for _, bias := range []compute.Tensor{r.random(compute.F32, n.heads, n.queries, n.keys), relative(r, n.heads, n.queries, n.keys)} {
				q, k, v, b := read(query), read(keys), read(values), read(bias)
				for row := range n.heads * n.queries {
					h := row / n.queries
					logit, sum := make([]float64, n.keys), 0.0
					for j := range logit {
						for e := range n.headDim {
							logit[j] += float64(scale) * q[row*n.headDim+e] * k[(h*n.keys+j)*n.headDim+e]
						}
						logit[j] = math.Exp(logit[j] + b[row*n.keys+j])
						sum += logit[j]
					}
					for e := range n.headDim {
						want[row*n.headDim+e] = 0
						for j, p := range logit {
							want[row*n.headDim+e] += p / sum * v[(h*n.keys+j)*n.headDim+e]
						}
					}
				}
				what := fmt.Sprint("biased attend ", n, " with ", bias)
				saved := r.outs
				r.arm()
				r.q.(compute.BiasedAttender).AttendBiased(dst, query, keys, values, bias, scale)
				r.check(what, dst, want, 2e-5)
				r.outs = saved
				compute.ComposeBiased(r.q, dst, query, keys, values, bias, scale)
				r.check(what+", composed", dst, want, 2e-2)
				r.outs = saved
			}
			r.outs = nil
		}
	})
}

// relative is a bias of key minus query: a view with a stride of -1.
func relative(r *rig, heads, queries, keys int) compute.Tensor {
	row := r.random(compute.F32, heads, queries+keys)
	return compute.Tensor{DType: compute.F32, Rank: 3, Buffer: row.Buffer, Offset: row.Offset + queries - 1,
		Shape: [compute.MaxRank]int{heads, queries, keys}, Stride: [compute.MaxRank]int{row.Stride[0], -1, 1}}
}

func TestBiasedAttentionRefusesOtherShapes(t *testing.T) {
	r := newRig(t, "", 1)
	x := r.random(compute.F32, 2, 3, 16)
	for _, bias := range []compute.Tensor{{}, r.random(compute.F32, 2, 3, 4), r.random(compute.BF16, 2, 3, 3)} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("a bias of %v did not panic", bias)
				}
			}()
			r.q.(compute.BiasedAttender).AttendBiased(x, x, x, x, bias, 1)
		}()
	}
}
