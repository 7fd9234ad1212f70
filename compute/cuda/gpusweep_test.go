//go:build linux && (amd64 || arm64) && !nocuda

package cuda

import (
	"fmt"
	"testing"
	"time"

	"longtake/compute"
)

// newSweep returns operands of the memory-bound kernels: float32 and bfloat16 rows of a Wan token each, results, and results by heads.
func newSweep(b *testing.B) (r *bench, x, y, out, heads []compute.Tensor) {
	const rows, width = wanTokens, wanWidth
	r = newBench(b)
	x = several(func() compute.Tensor { return r.normal(1, compute.F32, rows, width) })
	y = several(func() compute.Tensor { return r.normal(1, compute.BF16, rows, width) })
	out = several(func() compute.Tensor { return r.Tensor(compute.BF16, rows, width) })
	heads = several(func() compute.Tensor { return r.Tensor(compute.BF16, wanHeads, rows, 128) })
	return r, x, y, out, heads
}

// reload compiles a file of kernels with other options. Of its sets of functions, the one that begins with but stays.
func reload(b *testing.B, r *bench, name, but string, options []string) {
	module, err := r.modules.load(name, options...)
	if err != nil {
		b.Fatal(err)
	}
	for _, f := range r.kernels.files() {
		if f.name == name && f.functions[0] != but {
			if err := r.modules.functions(module, f); err != nil {
				b.Fatal(err)
			}
		}
	}
}

// BenchmarkSweep times other ways to cut the memory-bound kernels, to choose the constants in map.go.
func BenchmarkSweep(b *testing.B) {
	const n = float64(wanTokens * wanWidth)
	r, x, y, out, heads := newSweep(b)
	mod := r.normal(1, compute.F32, 3, wanWidth)
	for _, u := range [][2]int{{1, 1}, {2, 2}, {4, 4}} {
		r.unroll1, r.unroll2 = u[0], u[1]
		reload(b, r, "map", "", mapOptions(u[0], u[1]))
		name := fmt.Sprintf("unroll=%d,%d ", u[0], u[1])
		b.Run(name+"f32 to bf16", func(b *testing.B) {
			measure(b, r, 6*n, 0, func(i int) { r.Copy(out[i%copies], x[i%copies]) })
		})
		b.Run(name+"bf16", func(b *testing.B) {
			measure(b, r, 4*n, 0, func(i int) { r.Activate(out[i%copies], y[i%copies], compute.None) })
		})
		b.Run(name+"rows to heads", func(b *testing.B) {
			measure(b, r, 4*n, 0, func(i int) { r.Copy(heads[i%copies], y[i%copies].Heads(wanHeads)) })
		})
		b.Run(name+"silu", func(b *testing.B) {
			measure(b, r, 4*n, 0, func(i int) { r.Activate(out[i%copies], y[i%copies], compute.SiLU) })
		})
		b.Run(name+"add gated", func(b *testing.B) {
			measure(b, r, 10*n, 0, func(i int) { r.AddGated(x[i%copies], x[i%copies], y[i%copies], mod) })
		})
	}
	r.unroll1, r.unroll2 = mapUnroll1, mapUnroll2
}

// BenchmarkNorms times other ways to cut the norms, three times in turns, beside copies of the same bytes: to choose the constants in
// norm.go.
func BenchmarkNorms(b *testing.B) {
	const rows, width = wanTokens, wanWidth
	const n = float64(rows * width)
	r, x, y, out, heads := newSweep(b)
	mod, shift, weight := r.normal(1, compute.F32, 3, width), r.normal(1, compute.F32, 3, width), r.normal(1, compute.F32, width)
	pos := r.Tensor(compute.I32, rows, 3)
	rope := compute.Rope{Time: r.normal(1, compute.F32, 64, 22, 2), Row: r.normal(1, compute.F32, 64, 21, 2), Column: r.normal(1, compute.F32, 64, 21, 2)}
	rms := compute.Norm{RMS: true, Eps: 1e-6, Weight: weight}
	for turn := range 3 {
		name := fmt.Sprintf("turn=%d ", turn)
		b.Run(name+"copy f32 to bf16", func(b *testing.B) { measure(b, r, 6*n, 0, func(i int) { r.Copy(out[i%copies], x[i%copies]) }) })
		b.Run(name+"copy rows to heads", func(b *testing.B) {
			measure(b, r, 4*n, 0, func(i int) { r.Copy(heads[i%copies], y[i%copies].Heads(wanHeads)) })
		})
		for _, held := range []int{2, 3, 6} {
			r.normHeld = held
			reload(b, r, "norm", "norm_wide_ff", normOptions(held))
			name := fmt.Sprintf("%sheld=%d ", name, held)
			b.Run(name+"modulated", func(b *testing.B) {
				measure(b, r, 6*n, 0, func(i int) {
					r.Norm(out[i%copies], x[i%copies], compute.Norm{Eps: 1e-6, Scale: mod, Shift: shift})
				})
			})
			b.Run(name+"rms", func(b *testing.B) { measure(b, r, 4*n, 0, func(i int) { r.Norm(out[i%copies], y[i%copies], rms) }) })
			for _, alike := range []bool{false, true} {
				r.normAlike = alike
				b.Run(fmt.Sprintf("%srms and rope, alike=%v", name, alike), func(b *testing.B) {
					measure(b, r, 4*n, 0, func(i int) { r.NormRope(heads[i%copies], y[i%copies], rms, pos, rope) })
				})
			}
		}
	}
}

// BenchmarkChoices times what cuBLASLt offers besides its best guess, and how it takes the bias.
func BenchmarkChoices(b *testing.B) {
	r := newBench(b)
	for _, size := range wanLinears {
		in, out := size[0], size[1]
		x, w, bias, half := r.normal(1, compute.BF16, wanTokens, in), r.weight(out, in), r.normal(1, compute.BF16, out), r.normal(1, compute.BF16, wanTokens, out)
		flops := 2 * float64(wanTokens) * float64(in) * float64(out)
		for choice := range 8 {
			for _, with := range []string{"", "bf16 bias", "f32 bias"} {
				key := product{rows: wanTokens, in: in, out: out, xStride: in, dstStride: out, half: true, dstHalf: true, bias: with != "", biasHalf: with == "bf16 bias",
					choice: choice, xAlign: 256, dstAlign: 256, wAlign: 256, workspaceBytes: workspaceBytes}
				p, err := r.Device.drv.NewProduct(key)
				if err != nil || p == nil {
					b.Logf("%v choice %d %q: none (%v)", size, choice, with, err)
					continue
				}
				b.Run(fmt.Sprintf("%dx%d choice=%d %s", in, out, choice, with), func(b *testing.B) {
					measure(b, r, 0, flops, func(int) {
						r.fail("multiply", r.Device.drv.Multiply(p, operands{dst: address(half), x: address(x), w: address(w.(*matrix).Tensor), bias: address(bias)}, r.work.ptr, r.stream))
					})
				})
			}
		}
	}
}

// wanBlock is one transformer block of Wan 1.3B on three latent frames, with the operations in the order of package dit.
type wanBlock struct {
	r                                                                *bench
	residual, hidden, qkv, wide, mod, weight, affine, bias, wideBias compute.Tensor
	keys, values, textKeys, textValues, qkvBias, pos, query, out     compute.Tensor
	rope                                                             compute.Rope
	wQKV, wOut, wQuery, wUp, wDown                                   compute.Matrix
}

func newWanBlock(r *bench, keys int) *wanBlock {
	f, h := compute.F32, compute.BF16
	return &wanBlock{r: r, residual: r.normal(1, f, wanTokens, wanWidth), hidden: r.normal(1, h, wanTokens, wanWidth), qkv: r.normal(1, h, wanTokens, 3*wanWidth),
		wide: r.normal(1, h, wanTokens, 8960), mod: r.normal(0.1, f, 3, wanWidth), weight: r.normal(0.1, f, wanWidth), bias: r.normal(0.1, h, wanWidth), affine: r.normal(0.1, f, wanWidth),
		wideBias: r.normal(0.1, h, 8960), qkvBias: r.normal(0.1, h, 3*wanWidth), keys: r.normal(1, h, wanHeads, keys, 128), values: r.normal(1, h, wanHeads, keys, 128),
		textKeys: r.normal(1, h, wanHeads, 512, 128), textValues: r.normal(1, h, wanHeads, 512, 128), query: r.normal(1, h, wanTokens, wanWidth), out: r.normal(1, h, wanTokens, wanWidth),
		pos: r.Tensor(compute.I32, wanTokens, 3), rope: compute.Rope{Time: r.normal(1, f, 64, 22, 2), Row: r.normal(1, f, 64, 21, 2), Column: r.normal(1, f, 64, 21, 2)},
		wQKV: r.weight(3*wanWidth, wanWidth), wOut: r.weight(wanWidth, wanWidth), wQuery: r.weight(wanWidth, wanWidth), wUp: r.weight(8960, wanWidth), wDown: r.weight(wanWidth, 8960)}
}

// run is a block in the order of package dit; fused uses the operations that take several steps at once.
func (w *wanBlock) run(fused bool) {
	dq := compute.Queue(w.r.queue)
	if !fused {
		dq = struct{ compute.Queue }{dq}
	}
	none, eps, h := compute.Tensor{}, float32(1e-6), wanHeads
	n := w.keys.Shape[1]
	part := func(i int) compute.Tensor { return w.qkv.Slice(1, i*wanWidth, (i+1)*wanWidth) }
	rms := compute.Norm{RMS: true, Eps: eps, Weight: w.weight}
	modulated := compute.Norm{Eps: eps, Scale: w.mod, Shift: w.mod}
	dq.Linear(w.qkv, w.hidden, w.wQKV, w.qkvBias, compute.None)
	compute.NormRope(dq, w.keys.Slice(1, n-wanTokens, n), part(1), rms, w.pos, w.rope)
	dq.Copy(w.values.Slice(1, n-wanTokens, n), part(2).Heads(h))
	compute.NormRope(dq, part(0).Heads(h), part(0), rms, w.pos, w.rope)
	dq.Attend(w.out.Heads(h), part(0).Heads(h), w.keys, w.values, compute.Attention{Scale: 0.088})
	dq.Linear(w.hidden, w.out, w.wOut, w.bias, compute.None)
	compute.AddNorm(dq, w.hidden, w.residual, w.residual, w.hidden, w.mod, compute.Norm{Eps: eps, Weight: w.weight, Bias: w.affine})
	dq.Linear(w.query, w.hidden, w.wQuery, w.bias, compute.None)
	dq.Norm(w.query, w.query, rms)
	dq.Attend(w.out.Heads(h), w.query.Heads(h), w.textKeys, w.textValues, compute.Attention{Scale: 0.088})
	dq.Linear(w.hidden, w.out, w.wOut, w.bias, compute.None)
	compute.AddNorm(dq, w.hidden, w.residual, w.residual, w.hidden, none, modulated)
	dq.Linear(w.wide, w.hidden, w.wUp, w.wideBias, compute.GELU)
	dq.Linear(w.hidden, w.wide, w.wDown, w.bias, compute.None)
	compute.AddNorm(dq, w.hidden, w.residual, w.residual, w.hidden, w.mod, modulated)
}

// BenchmarkForward times 30 blocks of Wan 1.3B: operation by operation, fused, as batches that come again, as batches that
// are new every time, and as a graph, which the host has no part in. What a batch takes beyond the graph is idle.
func BenchmarkForward(b *testing.B) {
	for _, keys := range []int{wanTokens, 24 * 1560} { // no past, 21 latent frames of past
		r := newBench(b)
		w := newWanBlock(r, keys)
		forward := func(fused bool) {
			for range 30 {
				w.run(fused)
			}
		}
		forward(true)
		g, err := r.Capture(func() { forward(true) })
		if err != nil {
			b.Fatal(err)
		}
		turn := float32(0)
		batched := func(new bool) {
			r.BeginBatch()
			if turn++; new {
				r.Mix(w.mod, 1, w.mod, turn, compute.Tensor{})
			}
			forward(true)
			r.EndBatch()
		}
		for _, c := range []struct {
			name string
			run  func()
		}{
			{"composed", func() { forward(false) }}, {"fused", func() { forward(true) }}, {"graph", func() { r.Replay(g) }},
			{"batch", func() { batched(false) }}, {"new batch", func() { batched(true) }}, {"graph", func() { r.Replay(g) }},
		} {
			b.Run(fmt.Sprintf("keys=%d %s", keys, c.name), func(b *testing.B) {
				const times = 6
				us := medianOf(b, r, 3, func() {
					for range times {
						c.run()
					}
				})
				b.ReportMetric(us/1e3/times, "ms/forward")
				start := time.Now()
				c.run()
				b.ReportMetric(float64(time.Since(start).Microseconds())/1e3, "ms/host")
				b.ReportMetric(0, "ns/op")
			})
		}
		if err := r.Wait(); err != nil {
			b.Fatal(err)
		}
	}
}
