package computetest

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"longtake/compute"
)

// scene is a sequence of operations whose results must repeat byte for byte.
type scene struct {
	x, bias, query, keys, values, hidden, out compute.Tensor
	w                                         compute.Matrix
}

func (s *suite) scene(a compute.Arena, data map[string]array) *scene {
	put := func(name string) compute.Tensor {
		t := a.Tensor(compute.F32, data[name].shape...)
		s.dq.Upload(t, encode(data[name].data, compute.F32))
		return t
	}
	c := &scene{x: put("x"), bias: put("bias"), query: put("query"), keys: put("keys"), values: put("values"),
		hidden: a.Tensor(compute.F32, 70, 96), out: a.Tensor(compute.F32, 2, 50, 64), w: a.Matrix(s.host(data["w"], compute.BF16))}
	if err := errors.Join(a.Err(), s.dq.Wait()); err != nil {
		s.Fatalf("prepare: %v", err)
	}
	return c
}

// play runs the sequence and returns all results.
func (c *scene) play(dq compute.Queue) []byte {
	dq.Linear(c.hidden, c.x, c.w, c.bias, compute.GELU)
	dq.Norm(c.hidden, c.hidden, compute.Norm{Eps: 1e-6, Weight: c.bias})
	dq.AddGated(c.hidden, c.hidden, c.x.Slice(1, 0, 96), compute.Tensor{})
	dq.Attend(c.out, c.query, c.keys, c.values, compute.Attention{Scale: 0.125})
	all := make([]byte, c.hidden.Bytes()+c.out.Bytes())
	dq.Download(all[:c.hidden.Bytes()], c.hidden)
	dq.Download(all[c.hidden.Bytes():], c.out)
	return all
}

// examRepeat runs one sequence again and again, then in several queues at once.
func examRepeat(s *suite) {
	s.begin("sequence")
	data := map[string]array{"x": s.normal(compute.F32, 1, 70, 200), "w": s.normal(compute.BF16, 0.1, 96, 200), "bias": s.normal(compute.F32, 1, 96),
		"query": s.normal(compute.F32, 1, 2, 50, 64), "keys": s.normal(compute.F32, 1, 2, 333, 64), "values": s.normal(compute.F32, 1, 2, 333, 64)}
	first := s.scene(s.arena, data)
	truth := first.play(s.dq)
	for range 3 {
		if !bytes.Equal(first.play(s.dq), truth) {
			s.fail("the same inputs gave other bytes")
		}
	}
	var wg sync.WaitGroup
	results := make([][]byte, 3)
	for i := range results {
		dq, err := s.dev.NewQueue()
		if err != nil {
			s.Fatalf("new queue: %v", err)
		}
		c := s.scene(s.arena, data)
		wg.Go(func() {
			defer dq.Close()
			for range 3 {
				results[i] = c.play(dq)
			}
			if err := dq.Wait(); err != nil {
				s.Errorf("queue %d: %v", i, err)
			}
		})
	}
	wg.Wait()
	for i, r := range results {
		if !bytes.Equal(r, truth) {
			s.fail("queue %d of 3 at once gave other bytes than one alone", i)
		}
	}
}

// examSticky needs a queue with Fail: the first failure is kept and later calls do nothing.
func examSticky(s *suite) {
	f, ok := s.dq.(interface{ Fail(error) })
	if !ok {
		s.Logf("%s: queues cannot be made to fail, stickiness not examined", s.dev.Name())
		return
	}
	s.begin("failed queue")
	x := s.normal(compute.F32, 1, 4, 8)
	dst, src := s.out(compute.F32, dense, 4, 8), s.in(x, compute.F32, dense)
	if err := s.dq.Wait(); err != nil {
		s.Fatalf("before: %v", err)
	}
	first := errors.New("broken on purpose")
	f.Fail(first)
	f.Fail(errors.New("a later failure"))
	s.dq.Copy(dst.view, src)
	s.dq.Mix(dst.view, 1, src, 1, src)
	if err := s.dq.Err(); !errors.Is(err, first) {
		s.fail("Err is %v, want the first failure", err)
	}
	if err := s.dq.Wait(); !errors.Is(err, first) {
		s.fail("Wait returns %v, want the first failure", err)
	}
	other, err := s.dev.NewQueue()
	if err != nil {
		s.Fatalf("another queue: %v", err)
	}
	defer other.Close()
	now := make([]byte, len(dst.before))
	other.Download(now, dst.outer)
	if err := other.Wait(); err != nil {
		s.fail("a failure of one queue is seen in another: %v", err)
	}
	if !bytes.Equal(now, dst.before) {
		s.fail("a failed queue went on computing")
	}
}

// panics calls f, which must panic with a text that names the shape of the wrong operand, and what it does not fit: one of
// against. Afterwards the queue must still work.
func (s *suite) panics(what string, f func(), wrong compute.Tensor, against ...any) {
	s.Helper()
	defer func() {
		s.Helper()
		r := recover()
		if r == nil {
			s.fail("%s: no panic", what)
			return
		}
		text := fmt.Sprint(r)
		if shape := dims(wrong); !strings.Contains(text, shape) {
			s.fail("%s: the panic does not name shape %s: %s", what, shape, text)
		}
		names := func(a any) bool { return strings.Contains(text, dims(a)) }
		if len(against) > 0 && !slices.ContainsFunc(against, names) {
			s.fail("%s: the panic names none of %v: %s", what, against, text)
		}
	}()
	f()
}

// dims prints a tensor's shape, or anything else as it is.
func dims(a any) string {
	if t, ok := a.(compute.Tensor); ok {
		return fmt.Sprint(t.Shape[:t.Rank])
	}
	return fmt.Sprint(a)
}

func examPanics(s *suite) {
	s.begin("wrong shapes")
	f32 := func(shape ...int) compute.Tensor { return s.in(newArray(shape...), compute.F32, dense) }
	i32 := func(shape ...int) compute.Tensor { return s.in(newArray(shape...), compute.I32, dense) }
	none, dq := compute.Tensor{}, s.dq
	w := s.matrix(newArray(7, 9), compute.F32)
	x, x2, y, bad := f32(4, 9), f32(4, 9), f32(4, 7), f32(5, 9)
	cube, cube2, pos := f32(2, 6, 16), f32(2, 7, 16), i32(6, 3)
	rope := compute.Rope{Time: f32(3, 8, 2)}

	s.panics("copy", func() { dq.Copy(x, bad) }, x, bad)
	s.panics("copy of another type", func() { dq.Copy(x, i32(4, 9)) }, x)
	s.panics("copy to nothing", func() { dq.Copy(none, x) }, x)
	s.panics("upload of too few bytes", func() { dq.Upload(x, make([]byte, 4)) }, x, 4)
	s.panics("upload to a strided view", func() { dq.Upload(x.Slice(1, 0, 4), make([]byte, 64)) }, x.Slice(1, 0, 4))
	s.panics("download of too many bytes", func() { dq.Download(make([]byte, 1000), x) }, x, 1000)
	s.panics("linear, input width", func() { dq.Linear(y, f32(4, 8), w, none, compute.None) }, f32(4, 8), []int{7, 9}, "9")
	s.panics("linear, output width", func() { dq.Linear(f32(4, 8), x, w, none, compute.None) }, f32(4, 8), []int{7, 9}, []int{4, 7}, "7")
	s.panics("linear, rows", func() { dq.Linear(f32(3, 7), x, w, none, compute.None) }, f32(3, 7), x, []int{4, 7})
	s.panics("linear, bias", func() { dq.Linear(y, x, w, f32(6), compute.None) }, f32(6), "7")
	s.panics("linear, type", func() { dq.Linear(i32(4, 7), x, w, none, compute.None) }, y)
	s.panics("norm", func() { dq.Norm(x, bad, compute.Norm{}) }, x, bad)
	s.panics("norm, weight", func() { dq.Norm(x, x2, compute.Norm{Weight: f32(8)}) }, f32(8), x, "9")
	s.panics("norm, bias", func() { dq.Norm(x, x2, compute.Norm{Bias: f32(10)}) }, f32(10), x, "9")
	s.panics("norm, scale width", func() { dq.Norm(x, x2, compute.Norm{Scale: f32(2, 8)}) }, f32(2, 8), x, "9")
	s.panics("norm, shift groups", func() { dq.Norm(x, x2, compute.Norm{Shift: f32(3, 9)}) }, f32(3, 9), x, "4")
	s.panics("rope", func() { dq.Rope(cube, cube2, pos, rope) }, cube, cube2)
	s.panics("rope, positions", func() { dq.Rope(cube, cube, i32(5, 3), rope) }, i32(5, 3), cube, []int{6, 3}, "6")
	s.panics("rope, heads of positions", func() { dq.Rope(cube, cube, i32(3, 6, 3), rope) }, i32(3, 6, 3), cube, []int{2, 6, 3}, "2")
	s.panics("rope, type of positions", func() { dq.Rope(cube, cube, f32(6, 3), rope) }, f32(6, 3), cube, "i32")
	s.panics("rope, pairs", func() { dq.Rope(cube, cube, pos, compute.Rope{Time: f32(3, 7, 2)}) }, cube, f32(3, 7, 2), "7")
	s.panics("add gated", func() { dq.AddGated(x, x2, bad, none) }, x, bad)
	s.panics("add gated, gate", func() { dq.AddGated(x, x2, x2, f32(3, 9)) }, f32(3, 9), x, "4")
	s.panics("activate", func() { dq.Activate(x, bad, compute.GELU) }, x, bad)
	s.panics("gather, width", func() { dq.Gather(x, f32(20, 8), i32(4), false) }, f32(20, 8), x, "9")
	s.panics("gather, rows", func() { dq.Gather(x, f32(20, 9), i32(5), false) }, i32(5), x, "4")
	s.panics("time embed", func() { dq.TimeEmbed(f32(4, 8), f32(3), 10) }, f32(3), f32(4, 8), "4")
	s.panics("noise in a strided view", func() { dq.Noise(x.Slice(1, 0, 4), compute.NoiseKey{}) }, x.Slice(1, 0, 4))
	s.panics("mix", func() { dq.Mix(x, 1, bad, 0, none) }, x, bad)
	s.panics("mix, second operand", func() { dq.Mix(x, 1, x2, 1, bad) }, x, bad)
	s.panics("clamp", func() { dq.Clamp(x, bad, 0, 1) }, x, bad)
	s.stillWorks()
}

func examAttendPanics(s *suite) {
	s.begin("wrong shapes")
	f32 := func(shape ...int) compute.Tensor { return s.in(newArray(shape...), compute.F32, dense) }
	i32 := func(shape ...int) compute.Tensor { return s.in(newArray(shape...), compute.I32, dense) }
	dst, query, keys, values := f32(2, 6, 16), f32(2, 6, 16), f32(2, 9, 16), f32(2, 9, 16)
	for _, c := range []struct {
		what                     string
		dst, query, keys, values compute.Tensor
		a                        compute.Attention
		wrong                    compute.Tensor
		against                  []any
	}{
		{"dst", f32(2, 5, 16), query, keys, values, compute.Attention{}, f32(2, 5, 16), []any{query}},
		{"heads", dst, query, f32(3, 9, 16), f32(3, 9, 16), compute.Attention{}, f32(3, 9, 16), []any{query}},
		{"head width", dst, query, f32(2, 9, 32), f32(2, 9, 32), compute.Attention{}, f32(2, 9, 32), []any{query}},
		{"values", dst, query, keys, f32(2, 8, 16), compute.Attention{}, f32(2, 8, 16), []any{keys}},
		{"types of keys and values", dst, query, keys, s.in(newArray(2, 9, 16), compute.BF16, dense), compute.Attention{}, keys, []any{"bf16"}},
		{"a head width of 24", f32(2, 6, 24), f32(2, 6, 24), f32(2, 9, 24), f32(2, 9, 24), compute.Attention{}, f32(2, 6, 24), []any{"24"}},
		{"log counts", dst, query, keys, values, compute.Attention{LogCount: f32(2, 8)}, f32(2, 8), []any{keys, []int{2, 9}}},
		{"lengths", dst, query, keys, values, compute.Attention{Lengths: i32(3)}, i32(3), []any{keys, []int{2}}},
		{"logsumexp", dst, query, keys, values, compute.Attention{LogSumExp: f32(2, 9)}, f32(2, 9), []any{query, []int{2, 6}}},
		{"tiles", dst, query, keys, values, compute.Attention{Tiles: compute.Tiles{QueryTile: 4, KeyTile: 4, Keys: i32(8), Ends: i32(3)}}, i32(3), []any{query, []int{4}}},
	} {
		s.panics(c.what, func() { s.dq.Attend(c.dst, c.query, c.keys, c.values, c.a) }, c.wrong, c.against...)
	}
	s.stillWorks()
}

// stillWorks asks for something ordinary after panics: the session that made them ended, the queue did not.
func (s *suite) stillWorks() {
	s.label = "after the panics"
	x := s.normal(compute.F32, 1, 4, 9)
	dst := s.out(compute.F32, dense, 4, 9)
	s.dq.Mix(dst.view, 2, s.in(x, compute.F32, dense), 0, compute.Tensor{})
	s.near(dst, each(x, array{}, func(x, _ float64) float64 { return 2 * x }), s.tol.F32)
	if err := s.dq.Err(); err != nil {
		s.fail("a panic left the queue failed: %v", err)
	}
}
