package cpu

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"strings"
	"sync"
	"testing"

	"longtake/compute"
)

func TestAnImpossibleKernelClassNamesThePossibleOnes(t *testing.T) {
	_, err := New(Options{Kernel: "abacus"})
	if !errors.Is(err, compute.ErrUnsupported) || !strings.Contains(err.Error(), strings.Join(Kernels(), ", ")) {
		t.Errorf("error is %v", err)
	}
	if k := Kernels(); k[len(k)-1] != "generic" {
		t.Errorf("kernels are %v, want generic last", k)
	}
	if _, err := New(Options{Threads: -1}); err == nil {
		t.Error("-1 threads were accepted")
	}
	t.Logf("kernel classes here: %v", Kernels())
}

// program runs every operation once at the shapes of a small model.
type program struct {
	q                              compute.Queue
	x, y, wide, norm, small, noise compute.Tensor
	gate, scale, shift, pos        compute.Tensor
	keys, half                     compute.Tensor
	index, table, steps, embed     compute.Tensor
	w1, w2                         compute.Matrix
	rope                           compute.Rope
	attn                           compute.Attention
}

func newProgram(dev *Device, arena compute.Arena, q compute.Queue) *program {
	rng := rand.New(rand.NewPCG(1, 1))
	fill := func(t compute.Tensor) compute.Tensor {
		for i := range F32(t) {
			F32(t)[i] = float32(rng.NormFloat64())
		}
		return t
	}
	f := func(dims ...int) compute.Tensor { return fill(arena.Tensor(compute.F32, dims...)) }
	host := func(out, in int) compute.Host {
		h := compute.Host{DType: compute.BF16, Shape: []int{out, in}, Data: make([]byte, out*in*2)}
		for i := 0; i < len(h.Data); i += 2 {
			b := compute.BF16FromF32(float32(rng.NormFloat64()) / 16)
			h.Data[i], h.Data[i+1] = byte(b), byte(b>>8)
		}
		return h
	}
	p := &program{q: q, x: f(64, 128), y: f(64, 128), wide: f(64, 300), norm: f(64, 128), small: f(1, 128), noise: f(64, 192),
		gate: f(1, 128), scale: f(1, 128), shift: f(1, 128), keys: f(2, 150, 64), half: arena.Tensor(dev.Types().Cache, 2, 150, 64),
		pos: arena.Tensor(compute.I32, 64, 3), index: arena.Tensor(compute.I32, 64), table: f(9, 128), steps: f(3), embed: f(3, 128),
		w1: arena.Matrix(host(300, 128)), w2: arena.Matrix(host(128, 300))}
	for i := range 64 {
		I32(p.pos)[3*i], I32(p.pos)[3*i+1], I32(p.pos)[3*i+2] = int32(i), int32(i%8), int32(i/8)
		I32(p.index)[i] = int32(i % 9)
	}
	p.rope = compute.Rope{Time: f(7, 12, 2), Row: f(8, 10, 2), Column: f(8, 10, 2)}
	p.attn = compute.Attention{Scale: 0.125, LogCount: f(2, 150)}
	return p
}

func (p *program) run() {
	q, none := p.q, compute.Tensor{}
	q.Noise(p.noise, compute.NoiseKey{Seed: 3})
	q.Gather(p.x, p.table, p.index, true)
	q.TimeEmbed(p.embed, p.steps, 10000)
	q.Norm(p.norm, p.x, compute.Norm{Eps: 1e-6, Scale: p.scale, Shift: p.shift})
	q.Rope(p.norm.Heads(2), p.norm.Heads(2), p.pos, p.rope)
	q.Copy(p.half, p.keys)
	q.Attend(p.y.Heads(2), p.norm.Heads(2), p.half, p.half, p.attn)
	q.AddGated(p.x, p.x, p.y, p.gate)
	q.Norm(p.norm, p.x, compute.Norm{RMS: true, Eps: 1e-6})
	q.Linear(p.wide, p.norm, p.w1, none, compute.GELU)
	q.Linear(p.y, p.wide, p.w2, none, compute.None)
	q.Linear(p.wide.Slice(0, 0, 1), p.small, p.w1, none, compute.SiLU)
	q.Mix(p.x, 0.5, p.x, 0.5, p.y)
	q.Clamp(p.x, p.x, -4, 4)
	q.Activate(p.y, p.x, compute.SiLU)
}

func TestResultsDoNotDependOnThreads(t *testing.T) {
	for _, c := range testClasses() {
		t.Run(c.name, func(t *testing.T) {
			var first []float32
			for _, threads := range []int{1, 2, 3, 8} {
				r := rigOf(t, c, threads)
				p := newProgram(r.dev, r.arena, r.q)
				for i := range 4 {
					r.dev.Use(threads - i%2*threads/2) // half of them in every other round
					p.run()
				}
				got := append(append([]float32{}, F32(p.x)...), F32(p.wide)...)
				if first == nil {
					first = got
				}
				for i := range got {
					if got[i] != first[i] {
						t.Fatalf("%d threads: element %d is %v, 1 thread gave %v", threads, i, got[i], first[i])
					}
				}
			}
		})
	}
}

func TestSteadyStateAllocatesNothing(t *testing.T) {
	eachClass(t, 2, func(r *rig) {
		p := newProgram(r.dev, r.arena, r.q)
		for range 10 { // workers' scratch grows too
			p.run()
		}
		if n := testing.AllocsPerRun(10, p.run); n != 0 {
			r.Errorf("%v allocations a run", n)
		}
	})
}

func TestTwoQueuesWorkAtOnce(t *testing.T) {
	eachClass(t, 3, func(r *rig) {
		want := newProgram(r.dev, r.arena, r.q)
		for range 5 {
			want.run()
		}
		var all sync.WaitGroup
		for g := range 3 {
			q, err := r.dev.NewQueue()
			if err != nil {
				r.Fatal(err)
			}
			arena, err := r.dev.NewArena(0)
			if err != nil {
				r.Fatal(err)
			}
			p := newProgram(r.dev, arena, q)
			all.Go(func() {
				defer arena.Free()
				defer q.Close()
				for range 5 {
					p.run()
					runtime.Gosched()
				}
				for i, v := range F32(p.x) {
					if v != F32(want.x)[i] {
						r.Errorf("queue %d: element %d is %v, want %v", g, i, v, F32(want.x)[i])
						return
					}
				}
			})
		}
		all.Wait()
	})
}

// bomb panics in one of its tiles.
type bomb struct{ at int }

func (b *bomb) tile(_ *scratch, i int) {
	for range 1000 {
		pause()
	}
	if i == b.at {
		panic(fmt.Sprintf("tile %d", i))
	}
}

func TestAPanicInAnyTileReachesTheCaller(t *testing.T) {
	r := newRig(t, "generic", 4)
	q := r.q.(*Queue)
	for at := range 64 {
		func() {
			defer func() {
				if v := recover(); v != fmt.Sprintf("tile %d", at) {
					t.Errorf("tile %d: recovered %v", at, v)
				}
			}()
			q.run(&bomb{at}, 64)
		}()
	}
	q.run(&bomb{-1}, 64)
}

func TestArenasCountAndFail(t *testing.T) {
	dev, err := New(Options{Threads: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer dev.Close()
	meter := &compute.Meter{Device: dev}
	host := compute.Host{DType: compute.F32, Shape: []int{33, 20}, Data: make([]byte, 33*20*4)}
	fill := func(a compute.Arena) compute.Tensor {
		a.Tensor(compute.BF16, 3, 5)
		a.Matrix(host)
		return a.Tensor(compute.F32, 100)
	}
	fill(meter)
	a, err := dev.NewArena(meter.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	x := fill(a)
	if a.Err() != nil || a.Bytes() != meter.Bytes() || dev.Memory().Used < a.Bytes() {
		t.Errorf("arena holds %d bytes, meter says %d, device %+v, error %v", a.Bytes(), meter.Bytes(), dev.Memory(), a.Err())
	}
	if extra := a.Tensor(compute.F32, 1); !extra.IsZero() || !errors.Is(a.Err(), compute.ErrNoMemory) {
		t.Errorf("a full arena gave %v and error %v", extra, a.Err())
	}
	if a.Matrix(host) != nil {
		t.Error("a full arena gave a matrix")
	}
	a.Free()
	if m := dev.Memory(); m.Used != 0 || m.Peak < meter.Bytes() {
		t.Errorf("after Free the device says %+v", m)
	}
	mustPanic(t, "a tensor of a freed arena", func() { F32(x) })
	if _, err := dev.NewArena(1 << 60); !errors.Is(err, compute.ErrNoMemory) {
		t.Errorf("an enormous arena: %v", err)
	}
	b, _ := dev.NewArena(0)
	if b.Matrix(compute.Host{DType: compute.F32, Shape: []int{3, 3}}); b.Err() == nil {
		t.Error("a matrix without data was accepted")
	}
	b.Free()
	c, _ := dev.NewArena(0)
	defer c.Free()
	if c.Matrix(compute.Host{DType: compute.I64, Shape: []int{1, 1}, Data: make([]byte, 8)}); !errors.Is(c.Err(), compute.ErrUnsupported) {
		t.Errorf("an i64 matrix: %v", c.Err())
	}
}

func mustPanic(t *testing.T, what string, f func()) {
	t.Helper()
	defer func() {
		if recover() == nil {
			t.Errorf("%s did not panic", what)
		}
	}()
	f()
}

func TestWrongShapesPanic(t *testing.T) {
	r := newRig(t, "", 1)
	f := func(dims ...int) compute.Tensor { return r.arena.Tensor(compute.F32, dims...) }
	h, _ := r.host(compute.F32, 8, 8)
	w := r.arena.Matrix(h)
	none := compute.Tensor{}
	for what, call := range map[string]func(){
		"linear":         func() { r.q.Linear(f(2, 7), f(2, 8), w, none, compute.None) },
		"linear bias":    func() { r.q.Linear(f(2, 8), f(2, 8), w, f(7), compute.None) },
		"norm":           func() { r.q.Norm(f(2, 8), f(2, 9), compute.Norm{}) },
		"norm groups":    func() { r.q.Norm(f(3, 8), f(3, 8), compute.Norm{Scale: f(2, 8)}) },
		"mix":            func() { r.q.Mix(f(4), 1, f(5), 0, none) },
		"mix of ints":    func() { r.q.Mix(r.arena.Tensor(compute.I32, 4), 1, r.arena.Tensor(compute.I32, 4), 0, none) },
		"copy":           func() { r.q.Copy(f(4), r.arena.Tensor(compute.I32, 4)) },
		"upload":         func() { r.q.Upload(f(4), make([]byte, 15)) },
		"attend":         func() { r.q.Attend(f(1, 4, 24), f(1, 4, 24), f(1, 4, 24), f(1, 4, 24), compute.Attention{}) },
		"gather":         func() { r.q.Gather(f(1, 8), f(3, 8), r.dense(compute.I32, []float64{3}, 1), false) },
		"absent tensor":  func() { r.q.Clamp(none, none, 0, 1) },
		"foreign tensor": func() { r.q.Clamp(compute.NewTensor(nil, 0, compute.F32, 3), f(3), 0, 1) },
	} {
		mustPanic(t, what, call)
	}
}

func TestUploadAndDownloadAreInverse(t *testing.T) {
	r := newRig(t, "", 1)
	x, data, back := r.arena.Tensor(compute.F32, 3, 5), make([]byte, 60), make([]byte, 60)
	for i := range data {
		data[i] = byte(i * 7)
	}
	r.q.Upload(x, data)
	r.q.Download(back, x)
	if string(back) != string(data) {
		t.Errorf("got %v", back)
	}
	r.q.Upload(x.Slice(0, 0, 0), nil)
}
