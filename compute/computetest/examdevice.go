package computetest

import (
	"bytes"
	"errors"
	"math"

	"longtake/compute"
)

func examDevice(s *suite) {
	if s.dev.Name() == "" {
		s.Error("the device has no name")
	}
	for what, dt := range map[string]compute.DType{"activation": s.dev.Types().Activation, "operand": s.dev.Types().Operand, "cache": s.dev.Types().Cache} {
		if dt != compute.F32 && dt != compute.BF16 {
			s.Errorf("preferred %s type is %v, want f32 or bf16", what, dt)
		}
	}
	m := s.dev.Memory()
	if m.Total < 0 || m.Free < 0 || m.Used < 0 || m.Total > 0 && (m.Free > m.Total || m.Used > m.Total) || m.Peak > 0 && m.Peak < m.Used {
		s.Errorf("memory makes no sense: %+v", m)
	}
	if n := s.dev.MatrixBytes(compute.Host{DType: compute.BF16, Shape: []int{64, 128}}); n < 64*128*2 {
		s.Errorf("MatrixBytes(64, 128, bf16) = %d, fewer than the elements", n)
	}
}

// layOut allocates what a small model might.
func layOut(a compute.Arena, w compute.Host) (compute.Tensor, compute.Tensor, compute.Matrix) {
	x := a.Tensor(compute.F32, 3, 5)
	m := a.Matrix(w)
	return x, a.Tensor(compute.BF16, 2, 7, 16), m
}

func examArena(s *suite) {
	s.begin("arena")
	w := s.host(s.normal(compute.F32, 1, 20, 30), compute.F32)
	meter := &compute.Meter{Device: s.dev}
	layOut(meter, compute.Host{DType: w.DType, Shape: w.Shape})
	need := meter.Bytes()

	for _, huge := range []int64{1 << 50, 1 << 62} {
		if a, err := s.dev.NewArena(huge); !errors.Is(err, compute.ErrNoMemory) {
			s.Errorf("an arena of %d bytes: got %v and error %v, want ErrNoMemory", huge, a, err)
		}
	}
	for range 2 { // the second finds the dirty memory of the first
		a, err := s.dev.NewArena(need)
		if err != nil {
			s.Fatalf("an arena of %d bytes after one that was too large: %v", need, err)
		}
		x, y, m := layOut(a, w)
		if a.Err() != nil || x.IsZero() || y.IsZero() || m == nil {
			s.Fatalf("what the meter counted as %d bytes does not fit an arena of as many: %v", need, a.Err())
		}
		if out, in := m.Dims(); out != 20 || in != 30 {
			s.Errorf("matrix of 20 x 30 has Dims %d, %d", out, in)
		}
		if a.Bytes() > need || a.Bytes() < x.Bytes()+y.Bytes() {
			s.Errorf("arena says %d bytes, the meter %d", a.Bytes(), need)
		}
		for _, t := range []compute.Tensor{x, y} {
			if !t.Contiguous() {
				s.Errorf("new tensor %v is not contiguous", t)
			}
			got := bytes.Repeat([]byte{7}, int(t.Bytes()))
			s.dq.Download(got, t)
			if !bytes.Equal(got, make([]byte, t.Bytes())) {
				s.Errorf("new tensor %v is not zero", t)
			}
			s.dq.Upload(t, bytes.Repeat([]byte{0xff}, int(t.Bytes())))
		}
		if err := s.dq.Wait(); err != nil {
			s.Fatalf("wait: %v", err)
		}
		a.Free()
	}
	examFullArena(s)
}

// examFullArena overfills an arena: the first failure stays, and the device goes on.
func examFullArena(s *suite) {
	a, err := s.dev.NewArena(4096)
	if err != nil {
		s.Fatalf("an arena of 4096 bytes: %v", err)
	}
	if t := a.Tensor(compute.F32, 1<<20); !t.IsZero() {
		s.Errorf("an arena of 4096 bytes gave away %v", t)
	}
	first := a.Err()
	if !errors.Is(first, compute.ErrNoMemory) {
		s.Errorf("a full arena says %v, want ErrNoMemory", first)
	}
	if t := a.Tensor(compute.F32, 1); !t.IsZero() {
		s.Errorf("after a failure the arena gave away %v", t)
	}
	m := a.Matrix(s.host(s.normal(compute.F32, 1, 2, 2), compute.F32))
	if m != nil || !errors.Is(a.Err(), compute.ErrNoMemory) {
		s.Errorf("after a failure the arena gave away matrix %v, error %v", m, a.Err())
	}
	a.Free()
	x := s.normal(compute.F32, 1, 4, 8)
	dst := s.out(compute.F32, dense, 4, 8)
	s.dq.Copy(dst.view, s.in(x, compute.F32, dense))
	s.exact(dst, x)
}

func examTransfer(s *suite) {
	for _, dt := range []compute.DType{compute.F32, compute.BF16, compute.I32} {
		for _, n := range few([]int{1, 1000, 3, 64, 65537}) {
			s.begin("%v[%d]", dt, n)
			p := s.out(dt, dense, n)
			src := make([]byte, n*dt.Size())
			for i := range src {
				src[i] = byte(s.rng.Uint32())
			}
			keep := bytes.Clone(src)
			s.dq.Upload(p.view, src)
			clear(src) // the caller may use it again
			got := make([]byte, len(keep))
			s.dq.Download(got, p.view)
			if !bytes.Equal(got, keep) {
				s.fail("downloaded other bytes than were uploaded")
			}
			s.bytes(p)
			part := make([]byte, dt.Size())
			s.dq.Download(part, p.view.Slice(0, n-1, n))
			if !bytes.Equal(part, keep[len(keep)-dt.Size():]) {
				s.fail("downloading the last element alone gave %x, want %x", part, keep[len(keep)-dt.Size():])
			}
		}
	}
}

// pairs are the combinations of destination and source types.
var pairs = [][2]compute.DType{{compute.F32, compute.F32}, {compute.BF16, compute.BF16}, {compute.F32, compute.BF16}, {compute.BF16, compute.F32}}

func examCopy(s *suite) {
	// 1 + 2^-8 and 1 + 3*2^-8 lie halfway between two bfloat16: ties to even.
	special := []float64{math.Inf(1), math.Inf(-1), math.NaN(), 1.00390625, 1.01171875, -1.00390625, 3.4e38, 0, math.Copysign(0, -1), 1.5}
	for _, types := range pairs {
		for _, lays := range [][2]layout{{dense, dense}, {padded, dense}, {dense, odd}, {odd, padded}, {heads, dense}, {dense, heads}, {heads, capacity}} {
			for _, shape := range few([][]int{{9, 33}, {3, 5, 16}, {130}, {2, 3, 4, 7}, {1, 1}}) {
				if lays[0] >= heads || lays[1] >= heads {
					shape = []int{3, 5, 16}
				}
				s.begin("%v to %v, %v, layouts %d to %d", types[1], types[0], shape, lays[1], lays[0])
				x := s.normal(types[1], 1, shape...)
				for i := 0; i < len(x.data) && i < len(special); i++ {
					x.data[i] = exactly(special[i], types[1])
				}
				dst := s.out(types[0], lays[0], shape...)
				s.dq.Copy(dst.view, s.in(x, types[1], lays[1]))
				s.exact(dst, x)
			}
		}
	}
}

// examEmpty calls operations on no rows at all: nothing may happen.
func examEmpty(s *suite) {
	s.begin("no rows")
	x, y := s.in(newArray(0, 16), compute.F32, dense), s.out(compute.F32, dense, 0, 16)
	w := s.matrix(s.normal(compute.F32, 1, 16, 16), compute.F32)
	s.dq.Copy(y.view, x)
	s.dq.Linear(y.view, x, w, compute.Tensor{}, compute.GELU)
	s.dq.Norm(y.view, x, compute.Norm{Eps: 1})
	s.dq.AddGated(y.view, x, x, compute.Tensor{})
	s.dq.Activate(y.view, x, compute.SiLU)
	s.dq.Mix(y.view, 1, x, 1, x)
	s.dq.Clamp(y.view, x, 0, 1)
	s.dq.Noise(y.view, compute.NoiseKey{})
	s.bytes(y)
}
