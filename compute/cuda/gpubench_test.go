//go:build linux && (amd64 || arm64) && !nocuda

package cuda

import (
	"fmt"
	"math"
	"runtime"
	"slices"
	"testing"
	"time"

	"longtake/compute"
)

// Shapes of Wan 2.1 1.3B at 832 x 480: three latent frames of 1560 tokens.
const (
	wanTokens = 4680
	wanWidth  = 1536
	wanHeads  = 12
)

// measure times calls by replaying a graph of them, and reports the median of one call. call is given a number by which it
// chooses among copies of its tensors, so that the data do not stay in the L2 cache.
func measure(b *testing.B, r *bench, bytes, flops float64, call func(i int)) {
	b.Helper()
	const calls, replays = 24, 15
	call(0)
	g, err := r.Capture(func() {
		for i := range calls {
			call(i)
		}
	})
	if err != nil {
		b.Fatal(err)
	}
	defer g.Close()
	us := medianOf(b, r, replays, func() { r.Replay(g) }) / calls
	b.ReportMetric(us, "us/call")
	if bytes > 0 {
		b.ReportMetric(bytes/us/1e3, "GB/s")
	}
	if flops > 0 {
		b.ReportMetric(flops/us/1e6, "TFLOP/s")
	}
	b.ReportMetric(0, "ns/op")
}

// medianOf runs f a few times between events and returns the median microseconds.
func medianOf(b *testing.B, r *bench, times int, f func()) float64 {
	b.Helper()
	d := r.Device.drv
	from, err := d.NewEvent(true)
	if err != nil {
		b.Fatal(err)
	}
	to, _ := d.NewEvent(true)
	defer d.FreeEvent(from)
	defer d.FreeEvent(to)
	var all []float64
	for i := range times + 3 {
		d.Record(from, r.stream)
		f()
		d.Record(to, r.stream)
		if err := r.Wait(); err != nil {
			b.Fatal(err)
		}
		ms, err := d.Elapsed(from, to)
		if err != nil {
			b.Fatal(err)
		}
		if i >= 3 {
			all = append(all, float64(ms)*1e3)
		}
	}
	slices.Sort(all)
	return all[len(all)/2]
}

// copies makes tensors enough to overflow the L2 cache.
const copies = 8

func several(make func() compute.Tensor) []compute.Tensor {
	list := []compute.Tensor{}
	for range copies {
		list = append(list, make())
	}
	return list
}

func BenchmarkKernels(b *testing.B) {
	const rows, width = wanTokens, wanWidth
	const n = float64(rows * width)
	r := newBench(b)
	f32 := several(func() compute.Tensor { return r.normal(1, compute.F32, rows, width) })
	other := several(func() compute.Tensor { return r.normal(1, compute.F32, rows, width) })
	b16 := several(func() compute.Tensor { return r.normal(1, compute.BF16, rows, width) })
	out16 := several(func() compute.Tensor { return r.Tensor(compute.BF16, rows, width) })
	mod, shift := r.normal(1, compute.F32, 3, width), r.normal(1, compute.F32, 3, width)
	weight := r.normal(1, compute.F32, width)
	pos := r.Tensor(compute.I32, rows, 3)
	rope := compute.Rope{Time: r.normal(1, compute.F32, 64, 22, 2), Row: r.normal(1, compute.F32, 64, 21, 2), Column: r.normal(1, compute.F32, 64, 21, 2)}
	cache := several(func() compute.Tensor { return r.Tensor(compute.BF16, wanHeads, rows, 128) })
	large, large2 := r.normal(1, compute.F32, 1<<28), r.Tensor(compute.F32, 1<<28)
	for _, c := range []struct {
		name  string
		bytes float64
		call  func(i int)
	}{
		{"copy by the driver, 1 GiB", 8 * float64(large.Elems()), func(int) { r.Copy(large2, large) }},
		{"copy by the kernel, 1 GiB", 8 * float64(large.Elems()), func(int) { r.Activate(large2, large, compute.None) }},
		{"copy f32 to bf16", 6 * n, func(i int) { r.Copy(out16[i%copies], f32[i%copies]) }},
		{"copy rows to heads", 4 * n, func(i int) { r.Copy(cache[i%copies], b16[i%copies].Heads(wanHeads)) }},
		{"activate silu bf16", 4 * n, func(i int) { r.Activate(out16[i%copies], b16[i%copies], compute.SiLU) }},
		{"mix f32", 12 * n, func(i int) { r.Mix(f32[i%copies], 0.5, f32[i%copies], 0.5, other[i%copies]) }},
		{"add gated f32 += bf16*gate", 10 * n, func(i int) { r.AddGated(f32[i%copies], f32[i%copies], b16[i%copies], mod) }},
		{"norm modulated f32 to bf16", 6 * n, func(i int) { r.Norm(out16[i%copies], f32[i%copies], compute.Norm{Eps: 1e-6, Scale: mod, Shift: shift}) }},
		{"norm rms bf16", 4 * n, func(i int) {
			r.Norm(out16[i%copies], b16[i%copies], compute.Norm{RMS: true, Eps: 1e-6, Weight: weight})
		}},
		{"rope bf16 rows to heads", 4 * n, func(i int) { r.Rope(cache[i%copies], b16[i%copies].Heads(wanHeads), pos, rope) }},
		{"add gated, then norm", 12 * n, func(i int) {
			r.AddNorm(out16[i%copies], f32[i%copies], f32[i%copies], b16[i%copies], mod, compute.Norm{Eps: 1e-6, Scale: mod, Shift: shift})
		}},
		{"norm and rope, rows to heads", 4 * n, func(i int) {
			r.NormRope(cache[i%copies], b16[i%copies], compute.Norm{RMS: true, Eps: 1e-6, Weight: weight}, pos, rope)
		}},
		{"noise f32", 4 * n, func(i int) { r.Noise(f32[i%copies], compute.NoiseKey{Step: uint32(i)}) }},
	} {
		b.Run(c.name, func(b *testing.B) { measure(b, r, c.bytes, 0, c.call) })
		if early := r.device.early; c.bytes < 1<<30 {
			r.device.early = nil
			b.Run(c.name+", one after the other", func(b *testing.B) { measure(b, r, c.bytes, 0, c.call) })
			r.device.early = early
		}
		if c.name == "add gated, then norm" {
			r.normPairs = false
			b.Run(c.name+", one row at a time", func(b *testing.B) { measure(b, r, c.bytes, 0, c.call) })
			r.normPairs = true
		}
	}
}

// BenchmarkConvolve times 3x3 convolutions of the decoders at 832x480: in one go, and by patches.
func BenchmarkConvolve(b *testing.B) {
	r := newBench(b)
	for _, c := range []struct{ height, width, in, out, count, up int }{
		{240, 416, 64, 64, 2, 1}, {480, 832, 64, 64, 1, 2}, {60, 104, 256, 256, 2, 1}, {480, 832, 96, 96, 3, 1}, {240, 416, 192, 192, 3, 1}, {120, 208, 384, 384, 3, 1},
		{480, 832, 96, 3, 3, 1},
	} {
		u := compute.Unfold{Count: c.count, Size: 3, Stride: 1, Pad: 1, Up: c.up, Rows: c.height, Columns: c.width}
		for i := range c.count {
			u.Sources[i] = r.normal(1, compute.BF16, c.height/c.up, c.width/c.up, c.in)
		}
		depth := 9 * c.count * c.in
		w, bias, dst := r.weight(c.out, depth), r.normal(1, compute.F32, c.out), r.Tensor(compute.BF16, c.height*c.width, c.out)
		flops := 2 * float64(c.height*c.width) * float64(depth) * float64(c.out)
		name := fmt.Sprintf("%dx%dx%d x%d to %d", c.height, c.width, c.in, c.count, c.out)
		b.Run(name, func(b *testing.B) {
			r.Convolve(dst, u, w, bias, compute.None)
			us := medianOf(b, r, 5, func() { r.Convolve(dst, u, w, bias, compute.None) })
			b.ReportMetric(us, "us/call")
			b.ReportMetric(flops/us/1e6, "TFLOP/s")
			b.ReportMetric(0, "ns/op")
		})
		b.Run(name+" by patches", func(b *testing.B) {
			run := func() { r.convolvePatches(dst, u, compute.BF16, depth, w, bias, compute.None) }
			run()
			us := medianOf(b, r, 3, run)
			b.ReportMetric(us, "us/call")
			b.ReportMetric(flops/us/1e6, "TFLOP/s")
			b.ReportMetric(0, "ns/op")
		})
	}
}

func BenchmarkLinear(b *testing.B) {
	r := newBench(b)
	for _, size := range wanLinears {
		in, out := size[0], size[1]
		x, w, bias := r.normal(1, compute.BF16, wanTokens, in), r.weight(out, in), r.normal(1, compute.F32, out)
		half, full := r.Tensor(compute.BF16, wanTokens, out), r.Tensor(compute.F32, wanTokens, out)
		flops := 2 * float64(wanTokens) * float64(in) * float64(out)
		for _, c := range []struct {
			name string
			call func(int)
		}{
			{"bf16", func(int) { r.Linear(half, x, w, compute.Tensor{}, compute.None) }},
			{"bf16 bias", func(int) { r.Linear(half, x, w, bias, compute.None) }},
			{"bf16 bias gelu", func(int) { r.Linear(half, x, w, bias, compute.GELU) }},
			{"bf16 to f32 bias", func(int) { r.Linear(full, x, w, bias, compute.None) }},
		} {
			b.Run(fmt.Sprintf("%dx%dx%d %s", wanTokens, in, out, c.name), func(b *testing.B) { measure(b, r, 0, flops, c.call) })
		}
	}
}

// BenchmarkAttend times dense attention without and with log-counts, and that of a long rollout: head lengths, and log-counts
// on what is not of the chunk itself.
func BenchmarkAttend(b *testing.B) {
	r := newBench(b)
	for _, keys := range []int{23, wanTokens, 7800, 14040, 32760} {
		q := r.normal(1, compute.BF16, wanTokens, wanWidth).Heads(wanHeads)
		k, v := r.normal(1, compute.BF16, wanHeads, keys, 128), r.normal(1, compute.BF16, wanHeads, keys, 128)
		dst := r.Tensor(compute.BF16, wanTokens, wanWidth).Heads(wanHeads)
		logCount := r.normal(1, compute.F32, wanHeads, keys)
		counts := make([]float32, wanHeads*keys)
		for i := range counts {
			if i%keys >= wanTokens {
				counts[i] = float32(math.Log(float64(1 + r.rng.IntN(32))))
			}
		}
		merged, lengths := r.upload(counts, wanHeads, keys), r.ints(slices.Repeat([]int32{int32(keys)}, wanHeads)...)
		flops := 4 * float64(wanTokens) * float64(keys) * wanWidth
		for name, a := range map[string]compute.Attention{"dense": {Scale: 0.088}, "counts": {Scale: 0.088, LogCount: logCount},
			"merged": {Scale: 0.088, LogCount: merged, Lengths: lengths}} {
			b.Run(fmt.Sprintf("keys=%d %s", keys, name), func(b *testing.B) {
				r.Attend(dst, q, k, v, a)
				us := medianOf(b, r, 5, func() { r.Attend(dst, q, k, v, a) })
				b.ReportMetric(us, "us/call")
				b.ReportMetric(flops/us/1e6, "TFLOP/s")
				b.ReportMetric(0, "ns/op")
			})
		}
	}
}

// BenchmarkTiles times attention over lists of key tiles drawn at random, without and with log-counts; work is what is executed.
func BenchmarkTiles(b *testing.B) {
	r := newBench(b)
	const queryTiles, keyTile = 37, 64
	for _, c := range []struct {
		keys    int
		density float64
	}{{32768, 0.2}, {131072, 0.05}} {
		q, dst := r.normal(1, compute.BF16, wanHeads, queryTiles*attendRows, 128), r.Tensor(compute.BF16, wanHeads, queryTiles*attendRows, 128)
		k, v := r.normal(1, compute.BF16, wanHeads, c.keys, 128), r.normal(1, compute.BF16, wanHeads, c.keys, 128)
		var ids, ends []int32
		each := int(float64(c.keys/keyTile) * c.density)
		for range wanHeads * queryTiles {
			list := r.rng.Perm(c.keys / keyTile)[:each]
			slices.Sort(list)
			for _, id := range list {
				ids = append(ids, int32(id))
			}
			ends = append(ends, int32(len(ids)))
		}
		tiles := compute.Tiles{QueryTile: attendRows, KeyTile: keyTile, Keys: r.ints(ids...), Ends: r.ints(ends...)}
		flops := 4 * float64(len(ids)) * attendRows * keyTile * 128
		for _, a := range []compute.Attention{{Scale: 0.088, Tiles: tiles}, {Scale: 0.088, Tiles: tiles, LogCount: r.normal(1, compute.F32, wanHeads, c.keys)}} {
			b.Run(fmt.Sprintf("keys=%d density=%v counts=%v", c.keys, c.density, !a.LogCount.IsZero()), func(b *testing.B) {
				r.Attend(dst, q, k, v, a)
				us := medianOf(b, r, 5, func() { r.Attend(dst, q, k, v, a) })
				b.ReportMetric(us, "us/call")
				b.ReportMetric(flops/us/1e6, "TFLOP/s")
				b.ReportMetric(0, "ns/op")
			})
		}
	}
}

// BenchmarkHost is what the host spends to start things.
func BenchmarkHost(b *testing.B) {
	r := newBench(b)
	x := r.normal(1, compute.F32, 64)
	g := r.Device.drv.(*gpu)
	b.Run("set context", func(b *testing.B) {
		for b.Loop() {
			g.current()
			runtime.UnlockOSThread()
		}
	})
	b.Run("launch", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			r.Clamp(x, x, 0, 1)
		}
		r.Wait()
	})
	b.Run("linear", func(b *testing.B) {
		b.ReportAllocs()
		y, w := r.normal(1, compute.BF16, 64, 64), r.weight(64, 64)
		r.Linear(y, y, w, compute.Tensor{}, compute.None)
		for b.Loop() {
			r.Linear(y, y, w, compute.Tensor{}, compute.None)
		}
		r.Wait()
	})
	b.Run("graph node", func(b *testing.B) {
		const nodes = 600
		g, err := r.Capture(func() {
			for range nodes {
				r.Clamp(x, x, 0, 1)
			}
		})
		if err != nil {
			b.Fatal(err)
		}
		r.Replay(g)
		r.Wait()
		start := time.Now()
		for range 20 {
			r.Replay(g)
		}
		enqueued := time.Since(start)
		r.Wait()
		b.ReportMetric(float64(enqueued.Nanoseconds())/20/nodes, "ns/node-enqueue")
		b.ReportMetric(float64(time.Since(start).Nanoseconds())/20/nodes, "ns/node")
		b.ReportMetric(0, "ns/op")
	})
	b.Run("upload 64 MiB", func(b *testing.B) {
		t, data := r.Tensor(compute.U8, 64<<20), make([]byte, 64<<20)
		b.SetBytes(64 << 20)
		for b.Loop() {
			r.Upload(t, data)
		}
		r.Wait()
	})
	b.Run("download 64 MiB", func(b *testing.B) {
		t, data := r.Tensor(compute.U8, 64<<20), make([]byte, 64<<20)
		b.SetBytes(64 << 20)
		for b.Loop() {
			r.Download(data, t)
		}
	})
}
