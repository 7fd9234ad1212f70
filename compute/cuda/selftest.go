package cuda

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"

	"longtake/compute"
)

// Check is one part of a self-test.
type Check struct {
	Name   string `json:"name"`
	Detail string `json:"detail"`          // what was measured
	Error  string `json:"error,omitempty"` // "" if the part passed
}

// SelfTest lets the GPU work for some seconds, and compares: noise and transfers by their bits, products and attention on
// the matrix units with kernels that use none. It takes about 600 MiB.
func (d *Device) SelfTest() []Check {
	opened, err := d.NewQueue()
	if err != nil {
		return []Check{{Name: "queue", Error: err.Error()}}
	}
	defer opened.Close()
	a, err := d.NewArena(0)
	if err != nil {
		return []Check{{Name: "memory", Error: err.Error()}}
	}
	defer a.Free()
	t := &selfTest{queue: opened.(*queue), Arena: a}
	var checks []Check
	for _, c := range []struct {
		name string
		run  func(t *selfTest) (string, error)
	}{{"noise", (*selfTest).noise}, {"copy", (*selfTest).copies}, {"product", (*selfTest).product}, {"attention", (*selfTest).attention}} {
		detail, err := c.run(t)
		if err == nil {
			err = t.Wait()
		}
		if err == nil {
			err = t.Arena.Err()
		}
		check := Check{Name: c.name, Detail: detail}
		if err != nil {
			check.Error = err.Error()
		}
		checks = append(checks, check)
	}
	return checks
}

// selfTest is what the parts work with.
type selfTest struct {
	*queue
	compute.Arena
}

// random is a tensor of normal numbers times scale.
func (t *selfTest) random(seed uint64, scale float32, dt compute.DType, dims ...int) compute.Tensor {
	x := t.Tensor(dt, dims...)
	if t.Arena.Err() == nil {
		t.Noise(x, compute.NoiseKey{Seed: seed})
		t.Mix(x, scale, x, 0, compute.Tensor{})
	}
	return x
}

func (t *selfTest) bytes(x compute.Tensor) []byte {
	b := make([]byte, x.Bytes())
	t.Download(b, x)
	return b
}

// seconds times run, which has run before, by events: the best of some.
func (t *selfTest) seconds(run func()) (float64, error) {
	from, err := t.drv.NewEvent(true)
	if err != nil {
		return 0, err
	}
	defer t.drv.FreeEvent(from)
	to, err := t.drv.NewEvent(true)
	if err != nil {
		return 0, err
	}
	defer t.drv.FreeEvent(to)
	best := math.Inf(1)
	for range 5 {
		if err := t.drv.Record(from, t.stream); err != nil {
			return 0, err
		}
		run()
		if err := t.drv.Record(to, t.stream); err != nil {
			return 0, err
		}
		if err := t.Wait(); err != nil {
			return 0, err
		}
		ms, err := t.drv.Elapsed(from, to)
		if err != nil {
			return 0, err
		}
		best = min(best, float64(ms)/1e3)
	}
	return best, nil
}

func (t *selfTest) noise() (string, error) {
	const n = 1 << 20
	key, want := compute.NoiseKey{Seed: 7, Chunk: 3, Step: 1}, make([]float32, n)
	compute.FillNoise(want, key, 0)
	x := t.Tensor(compute.F32, n)
	if t.Arena.Err() != nil {
		return "", nil
	}
	t.Noise(x, key)
	got := t.bytes(x)
	for i, w := range want {
		if v := binary.LittleEndian.Uint32(got[4*i:]); v != math.Float32bits(w) {
			return "", fmt.Errorf("number %d is %v, want %v", i, math.Float32frombits(v), w)
		}
	}
	return fmt.Sprintf("%d numbers equal the CPU's", n), nil
}

func (t *selfTest) copies() (string, error) {
	const n = 64 << 20
	x, y := t.random(1, 1, compute.F32, n), t.Tensor(compute.F32, n)
	if t.Arena.Err() != nil {
		return "", nil
	}
	run := func() { t.Activate(y, x, compute.None) }
	run()
	s, err := t.seconds(run)
	if err != nil {
		return "", err
	}
	lo, hi := n-1<<20, n
	if !bytes.Equal(t.bytes(x.Slice(0, lo, hi)), t.bytes(y.Slice(0, lo, hi))) {
		return "", fmt.Errorf("a copy differs from what was copied")
	}
	return fmt.Sprintf("%.0f GB/s", 8*n/s/1e9), nil
}

// off is the norm of the difference of two tensors over that of the second.
func (t *selfTest) off(got, want compute.Tensor) float64 {
	g, w := t.bytes(got), t.bytes(want)
	var d, n float64
	for i := 0; i < len(w); i += 4 {
		x, y := float64(math.Float32frombits(binary.LittleEndian.Uint32(g[i:]))), float64(math.Float32frombits(binary.LittleEndian.Uint32(w[i:])))
		d += (x - y) * (x - y)
		n += y * y
	}
	return math.Sqrt(d / n)
}

// near says how far two results are apart, and whether that is too far.
func near(off, most, flops, seconds float64) (string, error) {
	if !(off < most) {
		return "", fmt.Errorf("off by %.2g, allowed %.2g", off, most)
	}
	return fmt.Sprintf("%.0f TFLOP/s, off by %.1e", flops/seconds/1e12, off), nil
}

func (t *selfTest) product() (string, error) {
	const rows, in, out = 4096, 2048, 8192
	x, y, want := t.random(2, 1, compute.BF16, rows, in), t.Tensor(compute.F32, 256, out), t.Tensor(compute.F32, 256, out)
	w, full := &matrix{Tensor: t.random(3, 0.02, compute.BF16, out, in), half: true}, t.Tensor(compute.BF16, rows, out)
	if t.Arena.Err() != nil {
		return "", nil
	}
	t.Linear(y, x.Slice(0, 0, 256), w, compute.Tensor{}, compute.GELU)
	t.plainLinear(want, x.Slice(0, 0, 256), w, compute.Tensor{}, compute.GELU)
	off := t.off(y, want)
	run := func() { t.Linear(full, x, w, compute.Tensor{}, compute.None) }
	run()
	s, err := t.seconds(run)
	if err != nil {
		return "", err
	}
	return near(off, 4e-3, 2*rows*in*out, s)
}

func (t *selfTest) attention() (string, error) {
	const heads, queries, keys, dim = 12, 2048, 4096, 128
	query, k, v := t.random(4, 1, compute.BF16, heads, queries, dim), t.random(5, 1, compute.BF16, heads, keys, dim), t.random(6, 1, compute.BF16, heads, keys, dim)
	got, want := t.Tensor(compute.F32, heads, queries, dim), t.Tensor(compute.F32, heads, queries, dim)
	if t.Arena.Err() != nil {
		return "", nil
	}
	a := compute.Attention{Scale: 0.088}
	run := func() { t.Attend(got, query, k, v, a) }
	run()
	s, err := t.seconds(run)
	if err != nil {
		return "", err
	}
	t.attendAny(want, query, k, v, compute.Tensor{}, a, checkAttend(want, query, k, v, a))
	return near(t.off(got, want), 1e-2, 4*heads*queries*keys*dim, s)
}
