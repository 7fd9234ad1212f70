package cpu

import (
	"fmt"
	"testing"

	"longtake/compute"
	"longtake/compute/computetest"
)

func TestEveryClassHasTheAbilitiesForImages(t *testing.T) {
	for _, c := range testClasses() {
		t.Run(c.name, func(t *testing.T) {
			computetest.RunImages(t, func(*testing.T) compute.Device { return &Device{class: c, pool: newPool(2)} }, computetest.F32)
		})
	}
}

func TestUnfoldAllocatesNothing(t *testing.T) {
	if raceBuild {
		t.Skip("the race detector allocates: runs without it")
	}
	r := newRig(t, "", 1)
	x, dst := r.arena.Tensor(compute.F32, 6, 8, 16), r.arena.Tensor(compute.F32, 48, 9*16)
	u := compute.Unfold{Sources: [3]compute.Tensor{x}, Count: 1, Size: 3, Stride: 1, Pad: 1, Up: 1, Rows: 6, Columns: 8}
	q := r.q.(compute.Unfolder)
	if n := testing.AllocsPerRun(50, func() { q.Unfold(dst, u) }); n != 0 {
		t.Errorf("%v allocations a call", n)
	}
}

// Counted: what is written.
func BenchmarkUnfold(b *testing.B) {
	eachDevice(b, func(b *testing.B, dev *Device, q compute.Queue, a compute.Arena) {
		for _, c := range []struct{ channels, frames, up int }{{96, 3, 1}, {192, 1, 2}, {16, 3, 1}} {
			b.Run(fmt.Sprintf("channels=%d/frames=%d/up=%d", c.channels, c.frames, c.up), func(b *testing.B) {
				const rows, columns = 16, 64
				u := compute.Unfold{Count: c.frames, Size: 3, Stride: 1, Pad: 1, Up: c.up, Rows: 4, Columns: columns}
				for i := range c.frames {
					u.Sources[i] = filled(a, compute.F32, rows/c.up, columns/c.up, c.channels)
				}
				dst := a.Tensor(compute.F32, 4*columns, c.frames*9*c.channels)
				measure(b, float64(dst.Bytes()), "GB/s", func() { q.(compute.Unfolder).Unfold(dst, u) })
			})
		}
	})
}
