package computetest

import (
	"fmt"
	"math"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"

	"longtake/compute"
)

// recorder is a test that may fail without anybody minding.
type recorder struct {
	testing.TB
	mu    sync.Mutex
	lines []string
}

func (r *recorder) Errorf(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.lines = append(r.lines, fmt.Sprintf(format, args...))
}
func (r *recorder) Error(args ...any)                 { r.Errorf("%s", fmt.Sprint(args...)) }
func (r *recorder) Logf(string, ...any)               {}
func (r *recorder) Failed() bool                      { return len(r.lines) > 0 }
func (r *recorder) Fatalf(format string, args ...any) { r.Errorf(format, args...); runtime.Goexit() }

// flawed is the reference with something wrong: before or instead of an operation.
type flawed struct {
	compute.Device
	flaw string
}

func (f flawed) NewQueue() (compute.Queue, error) {
	q, err := f.Device.NewQueue()
	return &flawedQueue{q.(*queue), f.flaw, 0}, err
}

func (f flawed) NewArena(bytes int64) (compute.Arena, error) {
	if f.flaw == "promises any memory" {
		bytes = 0
	}
	return f.Device.NewArena(bytes)
}

// flawedQueue finds its flaw by name, so that the table of the test reads as a list of sins.
type flawedQueue struct {
	*queue
	flaw  string
	calls int
}

func (q *flawedQueue) has(flaw string) bool { return q.flaw == flaw }

func (q *flawedQueue) Copy(dst, src compute.Tensor) {
	switch {
	case q.has("goes on after a failure"):
		store(dst, load(src))
	case q.has("copies without looking at shapes"):
		if dst.Elems() == src.Elems() {
			q.queue.Copy(dst, src)
		}
	case q.has("cuts instead of rounding") && dst.DType == compute.BF16:
		q.queue.Copy(dst, src)
		store(dst, each(load(src), array{}, func(x, _ float64) float64 {
			return float64(math.Float32frombits(math.Float32bits(float32(x)) &^ 0xffff))
		}))
	default:
		q.queue.Copy(dst, src)
	}
}

func (q *flawedQueue) Linear(dst, x compute.Tensor, w compute.Matrix, bias compute.Tensor, act compute.Activation) {
	q.calls++
	switch {
	case q.has("forgets the bias"):
		bias = compute.Tensor{}
	case q.has("takes GELU for SiLU") && act == compute.GELU:
		act = compute.SiLU
	}
	q.queue.Linear(dst, x, w, bias, act)
	switch {
	case q.has("never gives the same twice"):
		store(dst, each(load(dst), array{}, func(x, _ float64) float64 { return x * (1 + float64(q.calls)*2e-7) }))
	case q.has("writes past the end of a row"):
		s := dst.Buffer.(storage)
		copy(s[(dst.Offset+dst.Shape[1])*dst.DType.Size():], []byte{0, 0})
	case q.has("spoils its input"):
		s := x.Buffer.(storage)
		s[x.Offset*x.DType.Size()] ^= 1
	case q.has("rounds to half a percent"):
		store(dst, each(load(dst), array{}, func(x, _ float64) float64 { return exactly(x, compute.BF16) }))
	case q.has("leaves the last row"):
		store(dst.Slice(0, dst.Shape[0]-1, dst.Shape[0]), of([]int{1, dst.Shape[1]}, slices.Repeat([]float64{math.NaN()}, dst.Shape[1])...))
	}
}

func (q *flawedQueue) Norm(dst, x compute.Tensor, n compute.Norm) {
	switch {
	case q.has("forgets the shift"):
		n.Shift = compute.Tensor{}
	case q.has("takes one group for all") && !n.Scale.IsZero():
		n.Scale = n.Scale.Slice(0, 0, 1)
	case q.has("forgets eps"):
		n.Eps = 1e-6
	case q.has("has the variance of a hurry") && !n.RMS && n.Weight.IsZero():
		q.queue.Norm(dst, x, n)
		a := load(x)
		for i := range a.shape[0] {
			var sum, squares float32
			for _, v := range a.row(i) {
				sum, squares = sum+float32(v), squares+float32(v)*float32(v)
			}
			mean := sum / float32(a.shape[1])
			for j := range a.row(i) {
				a.row(i)[j] = (a.row(i)[j] - float64(mean)) / math.Sqrt(float64(squares/float32(a.shape[1])-mean*mean+n.Eps))
			}
		}
		store(dst, a)
		return
	}
	q.queue.Norm(dst, x, n)
}

func (q *flawedQueue) Rope(dst, x, pos compute.Tensor, r compute.Rope) {
	switch {
	case q.has("forgets the oldest time"):
		r.MinTime = math.MinInt32
		defer func() { _ = recover() }()
	case q.has("turns one way only"):
		r.Inverse = false
	case q.has("takes the first head's positions") && pos.Rank == 3:
		pos = pos.Index(0)
	}
	q.queue.Rope(dst, x, pos, r)
}

func (q *flawedQueue) AddGated(dst, x, y, gate compute.Tensor) {
	if q.has("takes one gate for all") && !gate.IsZero() {
		gate = gate.Slice(0, 0, 1)
	}
	q.queue.AddGated(dst, x, y, gate)
}

func (q *flawedQueue) Gather(dst, table, index compute.Tensor, accumulate bool) {
	q.queue.Gather(dst, table, index, accumulate && !q.has("never accumulates"))
}

func (q *flawedQueue) TimeEmbed(dst, t compute.Tensor, period float64) {
	q.queue.TimeEmbed(dst, t, period)
	if q.has("puts sines first") {
		a := load(dst)
		for i := range a.shape[0] {
			half := a.shape[1] / 2
			copy(a.row(i), slices.Concat(a.row(i)[half:], a.row(i)[:half]))
		}
		store(dst, a)
	}
}

func (q *flawedQueue) Noise(dst compute.Tensor, key compute.NoiseKey) {
	if q.has("has noise of its own for every row") && dst.Rank > 1 && dst.Shape[0] > 0 {
		for i := range dst.Shape[0] {
			key.Step += uint32(i)
			q.queue.Noise(dst.Index(i), key)
		}
		return
	}
	q.queue.Noise(dst, key)
}

func (q *flawedQueue) Mix(dst compute.Tensor, a float32, x compute.Tensor, b float32, y compute.Tensor) {
	q.queue.Mix(dst, a, x, b, y)
	if q.has("multiplies what is absent") && y.IsZero() {
		store(dst, each(load(dst), array{}, func(x, _ float64) float64 { return x + float64(b)*0 }))
	}
}

func (q *flawedQueue) Clamp(dst, x compute.Tensor, lo, hi float32) {
	q.queue.Clamp(dst, x, lo, hi)
	if q.has("clamps NaN") {
		store(dst, each(load(dst), array{}, func(x, _ float64) float64 {
			if math.IsNaN(x) {
				return float64(lo)
			}
			return x
		}))
	}
}

func (q *flawedQueue) Attend(dst, query, keys, values compute.Tensor, a compute.Attention) {
	switch {
	case q.has("forgets the log counts"):
		a.LogCount = compute.Tensor{}
	case q.has("forgets the lengths"):
		a.Lengths = compute.Tensor{}
	case q.has("forgets the tiles"):
		a.Tiles = compute.Tiles{}
	case q.has("forgets the logsumexp"):
		a.LogSumExp = compute.Tensor{}
	}
	q.queue.Attend(dst, query, keys, values, a)
	switch {
	case q.has("has a logsumexp of base 2") && !a.LogSumExp.IsZero():
		store(a.LogSumExp, each(load(a.LogSumExp), array{}, func(x, _ float64) float64 { return x * math.Log2E }))
	case q.has("gives NaN for no keys") && keys.Shape[1] == 0:
		store(dst, each(load(dst), array{}, func(_, _ float64) float64 { return math.NaN() }))
	case q.has("overflows") && a.Scale > 1:
		store(dst, each(load(dst), array{}, func(_, _ float64) float64 { return math.Inf(1) }))
	case q.has("depends on the order of keys") && !a.LogCount.IsZero():
		first := load(keys.Slice(1, 0, 1)).data[0]
		store(dst, each(load(dst), array{}, func(x, _ float64) float64 { return x * (1 + 1e-4*first) }))
	}
}

// TestEveryFlawIsFound examines devices that do one thing wrong with the exam that is there to find it.
func TestEveryFlawIsFound(t *testing.T) {
	for _, c := range []struct{ flaw, exam string }{
		{"promises any memory", "arena"},
		{"goes on after a failure", stickyName},
		{"copies without looking at shapes", "wrong shapes panic"},
		{"cuts instead of rounding", "copy"},
		{"forgets the bias", "linear"},
		{"takes GELU for SiLU", "linear"},
		{"never gives the same twice", "same bytes again"},
		{"writes past the end of a row", "linear"},
		{"spoils its input", "linear"},
		{"rounds to half a percent", "linear"},
		{"leaves the last row", "linear"},
		{"forgets the shift", "norm"},
		{"takes one group for all", "norm"},
		{"forgets eps", "norm"},
		{"has the variance of a hurry", "norm laws"},
		{"forgets the oldest time", "rope"},
		{"turns one way only", "rope"},
		{"turns one way only", "rope laws"},
		{"takes the first head's positions", "rope"},
		{"takes one gate for all", "add gated"},
		{"never accumulates", "gather"},
		{"puts sines first", "time embed"},
		{"has noise of its own for every row", "noise"},
		{"multiplies what is absent", "mix"},
		{"clamps NaN", "clamp"},
		{"forgets the log counts", "attend chosen at random"},
		{"forgets the log counts", "attend merged counts"},
		{"forgets the lengths", "attend chosen at random"},
		{"forgets the tiles", "attend chosen at random"},
		{"forgets the logsumexp", "attend"},
		{"has a logsumexp of base 2", "attend laws"},
		{"gives NaN for no keys", "attend extremes"},
		{"overflows", "attend extremes"},
		{"depends on the order of keys", "attend laws"},
	} {
		t.Run(c.flaw+", "+c.exam, func(t *testing.T) {
			r := &recorder{TB: t}
			done := make(chan struct{})
			go func() {
				defer close(done)
				for _, e := range exams {
					if e.name == c.exam {
						examine(r, flawed{Reference(), c.flaw}, F32, newSeed(t), e.name, e.run)
					}
				}
			}()
			<-done
			if len(r.lines) == 0 {
				t.Fatal("the device passed")
			}
			for _, line := range r.lines {
				if strings.Contains(line, "\n") {
					t.Errorf("a failure of several lines: %q", line)
				}
			}
			t.Log(r.lines[0])
		})
	}
}
