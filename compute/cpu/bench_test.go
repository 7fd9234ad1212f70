package cpu

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"longtake/compute"
)

// measure reports the best and the median rate: the machines that run this are seldom idle.
func measure(b *testing.B, work float64, unit string, f func()) {
	f()
	var times []time.Duration
	for b.Loop() {
		start := time.Now()
		f()
		times = append(times, time.Since(start))
	}
	slices.Sort(times)
	b.ReportMetric(work/times[0].Seconds()/1e9, "best-"+unit)
	b.ReportMetric(work/times[len(times)/2].Seconds()/1e9, "median-"+unit)
}

// eachDevice runs a benchmark for every class and number of threads.
func eachDevice(b *testing.B, f func(b *testing.B, dev *Device, q compute.Queue, a compute.Arena)) {
	for _, name := range Kernels() {
		for _, threads := range []int{1, 2} {
			b.Run(fmt.Sprintf("kernel=%s/threads=%d", name, threads), func(b *testing.B) {
				dev, err := New(Options{Kernel: name, Threads: threads})
				if err != nil {
					b.Fatal(err)
				}
				q, _ := dev.NewQueue()
				a, _ := dev.NewArena(0)
				f(b, dev, q, a)
				q.Close()
				a.Free()
				dev.Close()
			})
		}
	}
}

// filled returns a tensor of small numbers.
func filled(a compute.Arena, dt compute.DType, dims ...int) compute.Tensor {
	t := a.Tensor(dt, dims...)
	for i := range t.Elems() {
		v := float32(i*2654435761%1000)/500 - 1
		if dt == compute.BF16 {
			BF16(t)[i] = compute.BF16FromF32(v)
		} else {
			F32(t)[i] = v
		}
	}
	return t
}

func BenchmarkLinear(b *testing.B) {
	eachDevice(b, func(b *testing.B, dev *Device, q compute.Queue, a compute.Arena) {
		for _, s := range [][3]int{{64, 256, 256}, {64, 256, 768}, {64, 256, 1024}, {64, 1024, 256}, {64, 256, 192}, {512, 512, 512}, {1, 1536, 1536}, {2, 1536, 1536}, {3, 1536, 1536}, {4, 1536, 1536}, {256, 1536, 1536}} {
			b.Run(fmt.Sprintf("m=%d/k=%d/n=%d", s[0], s[1], s[2]), func(b *testing.B) {
				x, dst := filled(a, dev.Types().Operand, s[0], s[1]), a.Tensor(compute.F32, s[0], s[2])
				w := a.Matrix(compute.Host{DType: compute.BF16, Shape: []int{s[2], s[1]}, Data: make([]byte, 2*s[1]*s[2])})
				bias := filled(a, compute.F32, s[2])
				measure(b, 2*float64(s[0]*s[1]*s[2]), "GFLOP/s", func() { q.Linear(dst, x, w, bias, compute.None) })
			})
		}
	})
}

func BenchmarkAttend(b *testing.B) {
	eachDevice(b, func(b *testing.B, dev *Device, q compute.Queue, a compute.Arena) {
		for _, s := range [][5]int{{4, 64, 2112, 64, 0}, {4, 64, 2112, 64, 1}, {4, 64, 128, 64, 0}, {12, 256, 1024, 128, 0}, {12, 256, 1024, 128, 1}} {
			b.Run(fmt.Sprintf("heads=%d/queries=%d/keys=%d/dim=%d/layout=%s", s[0], s[1], s[2], s[3], []string{"tokens", "heads"}[s[4]]), func(b *testing.B) {
				cache := dev.Types().Cache
				query, dst := filled(a, compute.F32, s[1], s[0]*s[3]).Heads(s[0]), a.Tensor(compute.F32, s[1], s[0]*s[3]).Heads(s[0])
				keys, values := filled(a, cache, s[2], s[0]*s[3]).Heads(s[0]), filled(a, cache, s[2], s[0]*s[3]).Heads(s[0])
				if s[4] == 1 {
					keys, values = filled(a, cache, s[0], s[2], s[3]), filled(a, cache, s[0], s[2], s[3])
				}
				measure(b, 4*float64(s[0]*s[1]*s[2]*s[3]), "GFLOP/s", func() {
					q.Attend(dst, query, keys, values, compute.Attention{Scale: 0.125})
				})
			})
		}
	})
}

func BenchmarkElements(b *testing.B) {
	const rows, width = 64, 256
	eachDevice(b, func(b *testing.B, dev *Device, q compute.Queue, a compute.Arena) {
		x, y, dst := filled(a, compute.F32, rows, width), filled(a, compute.F32, rows, width), a.Tensor(compute.F32, rows, width)
		gate, half, pos := filled(a, compute.F32, 1, width), filled(a, compute.BF16, rows, width), a.Tensor(compute.I32, rows, 3)
		axis := filled(a, compute.F32, 9, 12, 2)
		rope := compute.Rope{Time: axis, Row: filled(a, compute.F32, 9, 10, 2), Column: filled(a, compute.F32, 9, 10, 2)}
		for _, c := range []struct {
			name    string
			tensors float64
			run     func()
		}{
			{"norm", 2, func() { q.Norm(dst, x, compute.Norm{Eps: 1e-6, Scale: gate, Shift: gate}) }},
			{"rms", 2, func() { q.Norm(dst, x, compute.Norm{RMS: true, Eps: 1e-6}) }},
			{"rope", 2, func() { q.Rope(dst.Heads(4), x.Heads(4), pos, rope) }},
			{"addgated", 3, func() { q.AddGated(dst, x, y, gate) }},
			{"mix", 3, func() { q.Mix(dst, 0.5, x, 0.5, y) }},
			{"gelu", 2, func() { q.Activate(dst, x, compute.GELU) }},
			{"silu", 2, func() { q.Activate(dst, x, compute.SiLU) }},
			{"widen", 1.5, func() { q.Copy(dst, half) }},
			{"narrow", 1.5, func() { q.Copy(half, x) }},
			{"noise", 1, func() { q.Noise(dst, compute.NoiseKey{}) }},
		} {
			b.Run(c.name, func(b *testing.B) { measure(b, c.tensors*rows*width*4, "GB/s", c.run) })
		}
	})
}
