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

// softmaxRig is 16 queries in the kernel that makes probabilities as bfloat16 bits.
type softmaxRig struct {
	*rig
	top, sum, rescale [16]float32
	truth             [16]float64 // sums of the probabilities made
}

const softmaxKeys, softmaxStride, lostLane, blindLane = 96, tileSize, 4, 3

// block runs one block of random logits and checks it, lane by lane. Lane lostLane meets a NaN, lane blindLane sees nothing.
func (r *softmaxRig) block(scale float64) {
	s, out, count := make([]float32, softmaxKeys*softmaxStride), make([]uint16, softmaxKeys*softmaxStride), make([]float32, softmaxKeys)
	for i := range s {
		s[i] = float32(r.rng.NormFloat64() * scale)
	}
	for k := range count {
		count[k] = float32(r.rng.IntN(3))
		s[k*softmaxStride+blindLane] = float32(math.Inf(-1))
	}
	count[5] = float32(math.Inf(-1))
	s[7*softmaxStride+lostLane] = float32(math.NaN())
	a := softmaxArgs{s: ptr(&s[0]), stride: softmaxStride * 4, keys: softmaxKeys, max: ptr(&r.top), sum: ptr(&r.sum), rescale: ptr(&r.rescale),
		out: ptr(&out[0]), ahead: ptr(&zeros)}
	if r.rng.IntN(2) == 0 {
		a.count = ptr(&count[0])
	} else {
		clear(count)
	}
	logits, old := append([]float32{}, s...), r.top
	r.dev.class.tiles.softmax(&a)
	for lane := range 16 {
		if lane == lostLane {
			continue
		}
		high := float64(old[lane])
		for k := range softmaxKeys {
			high = max(high, float64(logits[k*softmaxStride+lane]+count[k]))
		}
		change := math.Exp(float64(old[lane]) - high)
		if got := float64(r.rescale[lane]); float64(r.top[lane]) != high || change != 1 && (a.changed == 0 || !(math.Abs(got-change) <= 1e-6)) {
			r.Fatalf("lane %d: maximum %v, want %v; rescale %v, want %v (changed %d)", lane, r.top[lane], high, got, change, a.changed)
		}
		r.truth[lane] *= change
		for k := range softmaxKeys {
			logit := float64(logits[k*softmaxStride+lane] + count[k])
			got, want := float64(compute.F32FromBF16(out[k/2*softmaxStride*2+lane*2+k%2])), math.Exp(logit-high)
			if math.IsInf(logit, -1) {
				want = 0
			}
			r.truth[lane] += got
			// A logit of a thousand is itself rounded.
			if tol := (7.5e-3+3e-7*math.Abs(high))*want + 1e-38; !(math.Abs(got-want) <= tol) {
				r.Fatalf("lane %d key %d: %v, want %v", lane, k, got, want)
			}
		}
	}
}

func TestSoftmaxOfTilesEqualsFloat64(t *testing.T) {
	eachTiled(t, func(r *rig) {
		for round := range rounds(200) {
			x := softmaxRig{rig: r}
			for i := range x.top {
				x.top[i] = -math.MaxFloat32
			}
			for range 2 {
				x.block([]float64{0.1, 1, 10, 1000}[round%4])
			}
			for lane, sum := range x.sum {
				if lane == lostLane {
					if sum == sum {
						r.Fatalf("a sum with a NaN in it is %v", sum)
					}
				} else if d := math.Abs(float64(sum) - x.truth[lane]); !(d <= 3e-3*x.truth[lane]) {
					r.Fatalf("lane %d: sum %v, its probabilities make %v", lane, sum, x.truth[lane])
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
