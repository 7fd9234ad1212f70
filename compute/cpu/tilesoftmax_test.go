package cpu

import (
	"math"
	"testing"
	"unsafe"

	"longtake/compute"
)

// eachTiled runs a test on every class with tiles.
func eachTiled(t *testing.T, f func(r *rig)) {
	for _, c := range testClasses() {
		if c.tiles != nil {
			t.Run(c.name, func(t *testing.T) { f(rigOf(t, c, 1)) })
		}
	}
}

// The kernel that makes probabilities as bfloat16 bits, over two blocks, with hidden keys, NaN and lanes without any key.
func TestSoftmaxOfTilesEqualsFloat64(t *testing.T) {
	const keys, stride = 96, tileSize
	eachTiled(t, func(r *rig) {
		for round := range rounds(200) {
			scale := []float64{0.1, 1, 10, 1000}[round%4]
			var top, sum, rescale [16]float32
			var truth [16]float64 // sums of rounded probabilities
			for i := range top {
				top[i] = -math.MaxFloat32
			}
			for range 2 {
				s, out, count := make([]float32, keys*stride), make([]uint16, keys*stride), make([]float32, keys)
				for i := range s {
					s[i] = float32(r.rng.NormFloat64() * scale)
				}
				for k := range count {
					count[k] = float32(r.rng.IntN(3))
					s[k*stride+3] = float32(math.Inf(-1)) // lane 3 sees nothing
				}
				count[5] = float32(math.Inf(-1))
				s[7*stride+4] = float32(math.NaN())
				a := softmaxArgs{s: ptr(&s[0]), stride: stride * 4, keys: keys, max: ptr(&top), sum: ptr(&sum), rescale: ptr(&rescale),
					out: ptr(&out[0]), ahead: ptr(&zeros)}
				counted := r.rng.IntN(2) == 0
				if counted {
					a.count = ptr(&count[0])
				} else {
					clear(count)
				}
				logits, old := append([]float32{}, s...), top
				r.dev.class.tiles.softmax(&a)
				for lane := range 16 {
					if lane == 4 {
						continue
					}
					high := float64(old[lane])
					for k := range keys {
						high = max(high, float64(logits[k*stride+lane]+count[k]))
					}
					if float64(top[lane]) != high {
						r.Fatalf("lane %d: maximum %v, want %v", lane, top[lane], high)
					}
					change := math.Exp(float64(old[lane]) - high)
					if got := float64(rescale[lane]); change != 1 && !(math.Abs(got-change) <= 1e-6) || change != 1 && a.changed == 0 {
						r.Fatalf("lane %d: rescale %v, want %v (changed %d)", lane, got, change, a.changed)
					}
					truth[lane] *= change
					for k := range keys {
						got := float64(compute.F32FromBF16(out[k/2*stride*2+lane*2+k%2]))
						want := math.Exp(float64(logits[k*stride+lane]+count[k]) - high)
						if math.IsInf(float64(logits[k*stride+lane]), -1) {
							want = 0
						}
						truth[lane] += got
						// A logit of a thousand is itself rounded.
						if tol := (7.5e-3+3e-7*math.Abs(high))*want + 1e-38; !(math.Abs(got-want) <= tol) {
							r.Fatalf("lane %d key %d: %v, want %v", lane, k, got, want)
						}
					}
				}
			}
			for lane := range 16 {
				if lane == 4 {
					if sum[lane] == sum[lane] {
						r.Fatalf("a sum with a NaN in it is %v", sum[lane])
					}
				} else if d := math.Abs(float64(sum[lane]) - truth[lane]); !(d <= 3e-3*truth[lane]) {
					r.Fatalf("lane %d: sum %v, its probabilities make %v", lane, sum[lane], truth[lane])
				}
			}
		}
	})
}

// Rows of values become columns.
func TestTurnRows(t *testing.T) {
	eachTiled(t, func(r *rig) {
		const columns, step = 40, 64
		x, dst := make([]uint16, 32*step), make([]uint16, columns*step)
		for i := range x {
			x[i] = uint16(i*7919 + 1)
		}
		r.dev.class.tiles.turnRows(unsafe.Pointer(&dst[0]), step*2, unsafe.Pointer(&x[0]), step*2, columns/8)
		for i, v := range dst {
			c, row := i/step, i%step
			if row < 32 && v != x[row*step+c] || row >= 32 && v != 0 {
				r.Fatalf("row %d of column %d is %d", row, c, v)
			}
		}
	})
}
