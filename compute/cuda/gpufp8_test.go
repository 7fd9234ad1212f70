//go:build linux && (amd64 || arm64) && !nocuda

package cuda

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"testing"

	"longtake/compute"
)

// newFP8Bench opens the GPU with weights in e4m3, or skips.
func newFP8Bench(t testing.TB, f FP8) *bench {
	t.Helper()
	openForTest(t).Close()
	d, err := New(Options{Weights: compute.BF16, FP8: f})
	if errors.Is(err, compute.ErrUnsupported) && f != FP8Best {
		t.Skipf("needs a GPU that multiplies e4m3 (Hopper, Ada and newer), where dev/gpu/run.sh runs it: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	return newBenchOn(t, d)
}

// pair makes a weight in bfloat16 and the same in e4m3. Rows differ in size by up to spread.
func (b *bench) pair(out, in int, spread float64) (plain, coarse *matrix) {
	h := compute.Host{DType: compute.BF16, Shape: []int{out, in}}
	for range out {
		scale := math.Pow(spread, b.rng.Float64()) / math.Sqrt(float64(in))
		for range in {
			h.Data = binary.LittleEndian.AppendUint16(h.Data, compute.BF16FromF32(float32(b.rng.NormFloat64()*scale)))
		}
	}
	plain = b.Arena.Matrix(h).(*matrix)
	h.Coarse = true
	coarse = b.Arena.Matrix(h).(*matrix)
	if coarse.DType != compute.F8E4M3 {
		b.Fatalf("a coarse weight is %v", coarse.Tensor)
	}
	return plain, coarse
}

// TestFP8ProductsAreNearTheExactOnes: e4m3 has 3 bits of mantissa, an error of 2.5 % of an element; a product of two rounded
// operands is off by 3.6 % of its size, a sum of independent ones too.
func TestFP8ProductsAreNearTheExactOnes(t *testing.T) {
	for _, f := range []FP8{FP8Rows, FP8Tensors} {
		t.Run(f.String(), func(t *testing.T) {
			b := newFP8Bench(t, f)
			for _, size := range wanLinears {
				for _, rows := range []int{1, 77, 4680} {
					plain, coarse := b.pair(size[1], size[0], 1)
					x, bias := b.normal(1, compute.BF16, rows, size[0]), b.normal(0.1, compute.F32, size[1])
					for act := range compute.ReLU + 1 {
						want := b.Tensor(compute.F32, rows, size[1])
						b.plainLinear(want, x, plain, bias, act)
						for _, dt := range []compute.DType{compute.BF16, compute.F32} {
							got := b.Tensor(dt, rows, size[1])
							b.Linear(got, x, coarse, bias, act)
							d := distance(b.floats(got), b.floats(want))
							if !(d < 0.05) || d < 1e-3 {
								t.Errorf("%v by %v rows, activation %d, %v: off by %.2g", size, rows, act, dt, d)
							} else if act == compute.None && dt == compute.BF16 {
								t.Logf("%v by %d rows: off by %.3f", size, rows, d)
							}
						}
					}
					b.Arena.Free()
					b.Arena, _ = b.NewArena(0)
				}
			}
			// Rows of very different size: their own scales keep them, one for all loses the small ones.
			plain, coarse := b.pair(256, 1536, 1e4)
			x, _ := b.pair(64, 1536, 1e4)
			want, got := b.Tensor(compute.F32, 64, 256), b.Tensor(compute.F32, 64, 256)
			b.plainLinear(want, x.Tensor, plain, compute.Tensor{}, compute.None)
			b.Linear(got, x.Tensor, coarse, compute.Tensor{}, compute.None)
			// In units of the weights' rows every output counts as much as any; otherwise the few of the largest decide what a row's error is.
			g, w := b.floats(got), b.floats(want)
			sizes := rowSizes(b.floats(plain.Tensor), 256)
			for i := range w {
				g[i], w[i] = g[i]/sizes[i%256], w[i]/sizes[i%256]
			}
			worst := 0.0
			for r := range 64 {
				worst = max(worst, distance(g[256*r:256*(r+1)], w[256*r:256*(r+1)]))
			}
			t.Logf("rows of very different size: worst row off by %.3f", worst)
			if f == FP8Rows && !(worst < 0.05) {
				t.Errorf("a row is off by %.3f", worst)
			}
			zero := b.Tensor(compute.BF16, 16, 1536)
			b.Linear(got.Slice(0, 0, 16), zero, coarse, compute.Tensor{}, compute.None)
			for _, v := range b.floats(got.Slice(0, 0, 16)) {
				if v != 0 {
					t.Fatalf("zeros give %v", v)
				}
			}
		})
	}
}

// rowSizes returns the lengths of a matrix's rows.
func rowSizes(m []float32, rows int) []float32 {
	sizes, width := make([]float32, rows), len(m)/rows
	for r := range sizes {
		var sum float64
		for _, v := range m[r*width:][:width] {
			sum += float64(v) * float64(v)
		}
		sizes[r] = float32(math.Sqrt(sum))
	}
	return sizes
}

// TestFP8FeedForwardIsTwoProducts: bias and activation applied where the second operand is rounded give what cuBLASLt's epilogue does, but for
// one more rounding to bfloat16, before the bias instead of behind the activation.
func TestFP8FeedForwardIsTwoProducts(t *testing.T) {
	b := newFP8Bench(t, FP8Rows)
	for _, rows := range []int{1, 77, wanTokens} {
		exact1, w1 := b.pair(8960, 1536, 1)
		exact2, w2 := b.pair(1536, 8960, 1)
		x := b.normal(1, compute.BF16, rows, 1536)
		bias1, bias2 := b.normal(0.3, compute.BF16, 8960), b.normal(0.3, compute.BF16, 1536)
		hidden, want, two, one := b.Tensor(compute.BF16, rows, 8960), b.Tensor(compute.F32, rows, 1536), b.Tensor(compute.BF16, rows, 1536), b.Tensor(compute.BF16, rows, 1536)
		b.plainLinear(hidden, x, exact1, bias1, compute.GELU)
		b.plainLinear(want, hidden, exact2, bias2, compute.None)
		b.Linear(hidden, x, w1, bias1, compute.GELU)
		b.Linear(two, hidden, w2, bias2, compute.None)
		b.FeedForward(one, hidden, x, w1, w2, bias1, bias2, compute.GELU)
		apart, fused, between := distance(b.floats(two), b.floats(want)), distance(b.floats(one), b.floats(want)), distance(b.floats(one), b.floats(two))
		t.Logf("%d rows: off by %.4f in two operations, %.4f in one; %.4f between them", rows, apart, fused, between)
		sampling := 1.5 / math.Sqrt(float64(rows*1536)) // of the ratio of two errors that differ by a third of their size: five times its deviation
		if !(fused < (1.02+sampling)*apart+1e-4) || !(between < 0.03) {
			t.Errorf("%d rows: off by %.4f in two operations, %.4f in one; %.4f between them", rows, apart, fused, between)
		}
		b.Arena.Free()
		b.Arena, _ = b.NewArena(0)
	}
}

// BenchmarkFP8FeedForward times the feed-forward of a block of Wan 1.3B in two operations and in one.
func BenchmarkFP8FeedForward(b *testing.B) {
	r := newFP8Bench(b, FP8Rows)
	_, w1 := r.pair(8960, 1536, 1)
	_, w2 := r.pair(1536, 8960, 1)
	x, dst, hidden := r.normal(1, compute.BF16, wanTokens, 1536), r.Tensor(compute.BF16, wanTokens, 1536), r.Tensor(compute.BF16, wanTokens, 8960)
	bias1, bias2 := r.normal(1, compute.BF16, 8960), r.normal(1, compute.BF16, 1536)
	flops := 4 * float64(wanTokens) * 1536 * 8960
	b.Run("two operations", func(b *testing.B) {
		measure(b, r, 0, flops, func(int) {
			r.Linear(hidden, x, w1, bias1, compute.GELU)
			r.Linear(dst, hidden, w2, bias2, compute.None)
		})
	})
	b.Run("one", func(b *testing.B) {
		measure(b, r, 0, flops, func(int) { r.FeedForward(dst, hidden, x, w1, w2, bias1, bias2, compute.GELU) })
	})
}

// BenchmarkFP8 times products with rounded activations, and the rounding alone.
func BenchmarkFP8(b *testing.B) {
	for _, f := range []FP8{FP8Rows, FP8Tensors} {
		r := newFP8Bench(b, f)
		for _, size := range wanLinears {
			in, out := size[0], size[1]
			_, w := r.pair(out, in, 1)
			x, bias, dst := r.normal(1, compute.BF16, wanTokens, in), r.normal(1, compute.BF16, out), r.Tensor(compute.BF16, wanTokens, out)
			for _, c := range []struct {
				name string
				act  compute.Activation
				bias compute.Tensor
			}{{"", compute.None, compute.Tensor{}}, {" bias gelu", compute.GELU, bias}} {
				b.Run(fmt.Sprintf("%v %dx%d%s", f, in, out, c.name), func(b *testing.B) {
					measure(b, r, 0, 2*float64(wanTokens)*float64(in)*float64(out), func(int) { r.Linear(dst, x, w, c.bias, c.act) })
				})
			}
			b.Run(fmt.Sprintf("%v rounding %d wide", f, in), func(b *testing.B) {
				measure(b, r, 3*float64(wanTokens)*float64(in), 0, func(int) { r.quantised(x, compute.Tensor{}, compute.None) })
			})
		}
	}
}

// TestAddNormOfABFloat16SumIsTheTwoOperations: as networks with e4m3 products have it.
func TestAddNormOfABFloat16SumIsTheTwoOperations(t *testing.T) {
	b := newFP8Bench(t, FP8Best)
	if got := b.Types().Residual; got != compute.BF16 {
		t.Fatalf("the sum of a network is %v", got)
	}
	for _, shape := range [][2]int{{4680, 1536}, {77, 1536}, {3, 96}, {6, 20}} {
		rows, width := shape[0], shape[1]
		if testing.Short() { // under compute-sanitizer: still many enough for four rows a thread
			rows = min(rows, 1248)
		}
		groups := 1
		if rows%3 == 0 {
			groups = 3
		}
		x, y := b.normal(4, compute.BF16, rows, width), b.normal(1, compute.BF16, rows, width)
		gate, scale, shift := b.normal(1, compute.F32, groups, width), b.normal(0.3, compute.F32, groups, width), b.normal(0.3, compute.F32, groups, width)
		n := compute.Norm{Eps: 1e-6, Scale: scale, Shift: shift}
		sums, dst := [2]compute.Tensor{b.Tensor(compute.BF16, rows, width), b.Tensor(compute.BF16, rows, width)}, [2]compute.Tensor{b.Tensor(compute.BF16, rows, width), b.Tensor(compute.BF16, rows, width)}
		b.AddNorm(dst[0], sums[0], x, y, gate, n)
		b.AddGated(sums[1], x, y, gate)
		b.Norm(dst[1], sums[1], n)
		if d := distance(b.floats(sums[0]), b.floats(sums[1])); d > 1e-4 {
			t.Errorf("%v: sums differ by %.2g", shape, d)
		}
		if d := distance(b.floats(dst[0]), b.floats(dst[1])); d > 1e-3 {
			t.Errorf("%v: norms differ by %.2g", shape, d)
		}
		if width%quantAlign != 0 {
			continue
		}
		// What it rounds for a product is what the product would have rounded.
		_, w := b.pair(96, width, 1)
		out := [2]compute.Tensor{b.Tensor(compute.BF16, rows, 96), b.Tensor(compute.BF16, rows, 96)}
		b.AddNorm(dst[0], sums[0], x, y, gate, n)
		b.Linear(out[0], dst[0], w, compute.Tensor{}, compute.None)
		b.Linear(out[1], dst[0], w, compute.Tensor{}, compute.None)
		if d := distance(b.floats(out[0]), b.floats(out[1])); d > 1e-6 {
			t.Errorf("%v: products of what was rounded before and by themselves differ by %.2g", shape, d)
		}
		n.Coarse = compute.IsCoarse(w)
		b.AddNorm(dst[1], sums[1], x, y, gate, n)
		b.Linear(out[1], dst[1], w, compute.Tensor{}, compute.None)
		if d := distance(b.floats(out[0]), b.floats(out[1])); d > 1e-6 || !n.Coarse {
			t.Errorf("%v: products of what was written for them alone differ by %.2g; coarse %v", shape, d, n.Coarse)
		}
	}
}

// BenchmarkAddNorm times the sum of a network in float32 and bfloat16.
func BenchmarkAddNorm(b *testing.B) {
	r := newFP8Bench(b, FP8Best)
	gate, scale, shift := r.normal(1, compute.F32, 3, 1536), r.normal(1, compute.F32, 3, 1536), r.normal(1, compute.F32, 3, 1536)
	for _, dt := range []compute.DType{compute.F32, compute.BF16} {
		b.Run(dt.String(), func(b *testing.B) {
			var h, y, dst []compute.Tensor
			for range 6 {
				h, y, dst = append(h, r.normal(1, dt, wanTokens, 1536)), append(y, r.normal(1, compute.BF16, wanTokens, 1536)), append(dst, r.Tensor(compute.BF16, wanTokens, 1536))
			}
			bytes := float64(wanTokens) * 1536 * float64(2*dt.Size()+4)
			measure(b, r, bytes, 0, func(i int) {
				i %= 6
				r.AddNorm(dst[i], h[i], h[i], y[i], gate, compute.Norm{Eps: 1e-6, Scale: scale, Shift: shift})
			})
		})
	}
}
