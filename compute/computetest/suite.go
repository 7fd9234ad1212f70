package computetest

import (
	"bytes"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"longtake/compute"
	"longtake/internal/golden"
)

// mostFailures ends an exam that fails everywhere.
const mostFailures = 6

// suite is one exam in progress.
type suite struct {
	testing.TB
	dev      compute.Device
	dq       compute.Queue
	arena    compute.Arena
	tol      Tolerance
	rng      *rand.Rand
	label    string
	all      []*placed
	failures int
}

// begin starts a case in fresh memory.
func (s *suite) begin(format string, args ...any) {
	s.Helper()
	s.label, s.all = fmt.Sprintf(format, args...), nil
	if s.arena != nil {
		s.arena.Free()
	}
	var err error
	if s.arena, err = s.dev.NewArena(0); err != nil {
		s.Fatalf("new arena: %v", err)
	}
}

// fail reports with the case's label.
func (s *suite) fail(format string, args ...any) {
	s.Helper()
	s.Errorf("%s: %s", s.label, fmt.Sprintf(format, args...))
	if s.failures++; s.failures == mostFailures {
		s.Fatalf("%d failures are enough", mostFailures)
	}
}

// layout is how a tensor lies within the larger one around it.
type layout int

const (
	dense    layout = iota // contiguous
	padded                 // rows with a stride, 16 elements of guard on either side
	odd                    // rows with a stride, starting off any alignment
	heads                  // rank 3: heads side by side in rows of tokens
	capacity               // rank 3: room for more tokens between the heads
)

// placed is a tensor within a larger one whose other elements are guards.
type placed struct {
	view, outer compute.Tensor
	before      []byte // of outer
	dest        bool   // an operation may change the view
}

// guards are quiet NaNs with a pattern, and for indices and positions a number far outside of everything.
var guards = map[compute.DType][]byte{compute.F32: {0xa5, 0xa5, 0xc5, 0x7f}, compute.BF16: {0xc5, 0x7f}, compute.I32: {0x5a, 0x5a, 0x5a, 0x5a}}

// room allocates a tensor of a shape inside a larger one.
func (s *suite) room(dt compute.DType, lay layout, shape ...int) *placed {
	p := &placed{}
	switch {
	case lay == heads && len(shape) == 3:
		width := shape[0] * shape[2]
		p.outer = s.arena.Tensor(dt, shape[1]+2, width+32)
		p.view = p.outer.Slice(0, 1, shape[1]+1).Slice(1, 16, width+16).Heads(shape[0])
	case lay == capacity && len(shape) == 3:
		p.outer = s.arena.Tensor(dt, shape[0], shape[1]+5, shape[2])
		p.view = p.outer.Slice(1, 2, shape[1]+2)
	case (lay == padded || lay == odd) && len(shape) > 1:
		left, right := 16, 16
		if lay == odd {
			left, right = 3, 2
		}
		last := len(shape) - 1
		wide := slices.Clone(shape)
		wide[0], wide[last] = shape[0]+2, shape[last]+left+right
		p.outer = s.arena.Tensor(dt, wide...)
		p.view = p.outer.Slice(0, 1, shape[0]+1).Slice(last, left, shape[last]+left)
	default:
		n := newCount(shape)
		p.outer = s.arena.Tensor(dt, n+128)
		p.view = p.outer.Slice(0, 64, 64+n).Reshape(shape...)
	}
	if err := s.arena.Err(); err != nil {
		s.Fatalf("%s: arena: %v", s.label, err)
	}
	s.all = append(s.all, p)
	return p
}

func newCount(shape []int) int {
	n := 1
	for _, d := range shape {
		n *= d
	}
	return n
}

// in places an input. The zero array gives an absent tensor.
func (s *suite) in(a array, dt compute.DType, lay layout) compute.Tensor {
	if a.absent() {
		return compute.Tensor{}
	}
	return s.place(a, dt, lay).view
}

func (s *suite) place(a array, dt compute.DType, lay layout) *placed {
	p := s.room(dt, lay, a.shape...)
	p.before = bytes.Repeat(guards[dt], p.outer.Elems())
	b, size := encode(a.data, dt), dt.Size()
	for i, at := range places(p.view) {
		copy(p.before[(at-p.outer.Offset)*size:], b[i*size:(i+1)*size])
	}
	s.dq.Upload(p.outer, p.before)
	return p
}

// inout places an operand that an operation may change in place.
func (s *suite) inout(a array, dt compute.DType, lay layout) *placed {
	p := s.place(a, dt, lay)
	p.dest = true
	return p
}

// out places a destination full of NaN.
func (s *suite) out(dt compute.DType, lay layout, shape ...int) *placed {
	p := s.room(dt, lay, shape...)
	p.before, p.dest = bytes.Repeat(guards[dt], p.outer.Elems()), true
	s.dq.Upload(p.outer, p.before)
	return p
}

// matrix places a weight; the host's bytes are spoiled afterwards because a device must not keep them.
func (s *suite) matrix(w array, dt compute.DType) compute.Matrix {
	b := s.host(w, dt)
	m := s.arena.Matrix(b)
	if err := s.arena.Err(); err != nil {
		s.Fatalf("%s: arena: %v", s.label, err)
	}
	for i := range b.Data {
		b.Data[i] = 0xff
	}
	return m
}

// host encodes an array as it would lie in a checkpoint. For F16 the elements must be exact halves, see exactly.
func (s *suite) host(w array, dt compute.DType) compute.Host {
	h := compute.Host{DType: dt, Shape: w.shape}
	if dt != compute.F16 {
		h.Data = encode(w.data, dt)
		return h
	}
	for _, v := range w.data {
		u := toHalf(v)
		h.Data = append(h.Data, byte(u), byte(u>>8))
	}
	return h
}

// toHalf cuts a number to an IEEE half; too small becomes zero.
func toHalf(v float64) uint16 {
	u := math.Float32bits(float32(v))
	exp := int(u>>23&0xff) - 112
	if exp <= 0 || exp >= 31 {
		return 0
	}
	return uint16(u>>16&0x8000) | uint16(exp)<<10 | uint16(u>>13&0x3ff)
}

// normal returns standard normal numbers times scale, exactly representable in dt.
func (s *suite) normal(dt compute.DType, scale float64, shape ...int) array {
	a := newArray(shape...)
	for i := range a.data {
		a.data[i] = exactly(s.rng.NormFloat64()*scale, dt)
	}
	return a
}

// exactly rounds a number to what dt can hold.
func exactly(v float64, dt compute.DType) float64 {
	switch dt {
	case compute.BF16:
		return float64(compute.F32FromBF16(compute.BF16FromF32(float32(v))))
	case compute.F16:
		return float64(compute.F32FromF16(toHalf(v)))
	}
	return float64(float32(v))
}

// pick returns one of several, at random.
func pick[T any](s *suite, list ...T) T { return list[s.rng.IntN(len(list))] }

// bytes waits for the queue, examines all guards and inputs, and returns what p's outer tensor holds.
func (s *suite) bytes(p *placed) []byte {
	s.Helper()
	var result []byte
	for i, o := range s.all {
		now := make([]byte, len(o.before))
		s.dq.Download(now, o.outer)
		if o == p {
			result = now
		}
		if bytes.Equal(now, o.before) {
			continue
		}
		if !o.dest {
			s.fail("input %d (%v) was changed", i, o.view)
			continue
		}
		inside, size := make([]bool, o.outer.Elems()), o.view.DType.Size()
		for _, at := range places(o.view) {
			inside[at-o.outer.Offset] = true
		}
		for e, in := range inside {
			if !in && !bytes.Equal(now[e*size:(e+1)*size], o.before[e*size:(e+1)*size]) {
				s.fail("wrote outside of the destination %v, at element %d of the %v around it", o.view, e, o.outer)
				break
			}
		}
	}
	if err := s.dq.Wait(); err != nil {
		s.Fatalf("%s: the queue failed: %v", s.label, err)
	}
	return result
}

// values returns what p holds, after examining guards and inputs.
func (s *suite) values(p *placed) array {
	s.Helper()
	raw := decode(s.bytes(p), p.view.DType)
	a := newArray(p.view.Shape[:p.view.Rank]...)
	for i, at := range places(p.view) {
		a.data[i] = raw[at-p.outer.Offset]
	}
	return a
}

// near compares p with the truth.
func (s *suite) near(p *placed, truth array, b Bound) {
	s.Helper()
	s.close(s.values(p), truth, s.stored(b, p.view.DType))
}

// stored widens a bound for results that are stored as BF16.
func (s *suite) stored(b Bound, dt compute.DType) Bound {
	if dt == compute.BF16 {
		return Bound{math.Max(b.Relative, s.tol.BF16.Relative), math.Max(b.MaxAbs, s.tol.BF16.MaxAbs)}
	}
	return b
}

// times loosens a bound, for laws that compare two results.
func (b Bound) times(f float64) Bound { return Bound{b.Relative * f, b.MaxAbs * f} }

func (s *suite) close(got, truth array, b Bound) {
	s.Helper()
	d, largest := golden.Compare(got.data, truth.data, b.Relative), 1.0
	for _, v := range truth.data {
		if a := math.Abs(v); a > largest && !math.IsInf(a, 0) {
			largest = a
		}
	}
	if !d.Within(b.Relative) {
		s.fail("%s", d.Describe(truth.shape...))
	} else if d.MaxAbs > b.MaxAbs*largest {
		s.fail("an element is off by %.3g, allowed %.3g: %s", d.MaxAbs, b.MaxAbs*largest, d.Describe(truth.shape...))
	}
}

// exact compares p with the truth rounded to its type, bit for bit.
func (s *suite) exact(p *placed, truth array) {
	s.Helper()
	got, dt := s.values(p), p.view.DType
	g, w := encode(got.data, dt), encode(truth.data, dt)
	for i, size := 0, dt.Size(); i < len(truth.data); i++ {
		nan := math.IsNaN(got.data[i]) && math.IsNaN(truth.data[i])
		if !nan && !bytes.Equal(g[i*size:(i+1)*size], w[i*size:(i+1)*size]) {
			s.fail("element %d is %v, want exactly %v", i, got.data[i], decode(w[i*size:(i+1)*size], dt)[0])
			return
		}
	}
}

// few shortens a list of sizes for -short.
func few[T any](list []T) []T {
	if testing.Short() {
		return list[:(len(list)+1)/2]
	}
	return list
}
