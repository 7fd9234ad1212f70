package attention

import (
	"encoding/binary"
	"math"

	"longtake/compute"
	"longtake/kvcache"
)

// Gaze is a Maker whose policies do what Inner's do and, while On, look at what queries of self attention look at: in the clean
// pass of every chunk one head of one layer, in turn, and a few queries spread over the frame. What it finds is dense attention
// over the view, also where Inner leaves keys out. One Gaze serves one session, whose goroutine alone may touch it.
type Gaze struct {
	Inner Maker
	On    bool
	// Last is the newest finding.
	Last Glance

	shape kvcache.Shape
	turn  int
	chunk int // looked at last, plus 1
}

// Glance is where the queries of a head looked: Mass is the share of attention of every key of the view, mean over queries.
// Nil before the first.
type Glance struct {
	Layer, Head int
	Mass        []float32
}

const (
	gazeQueries = 8   // looked at, of a chunk
	gazeKeys    = 256 // read at a time
)

// New makes Inner's policy, wrapped.
func (g *Gaze) New(dev compute.Device, dq compute.Queue, s kvcache.Shape) (Policy, error) {
	inner, err := g.Inner.New(dev, dq, s)
	if err != nil {
		return nil, err
	}
	arena, err := dev.NewArena(g.own(dev, s))
	if err != nil {
		inner.Close()
		return nil, err
	}
	g.shape = s
	w := &gazing{Policy: inner, gaze: g, arena: arena}
	w.allocate(arena, s)
	if err := arena.Err(); err != nil {
		w.Close()
		return nil, err
	}
	return w, nil
}

func (g *Gaze) own(dev compute.Device, s kvcache.Shape) int64 {
	m := &compute.Meter{Device: dev}
	new(gazing).allocate(m, s)
	return m.Bytes()
}

// Bytes returns Inner's memory and the gaze's.
func (g *Gaze) Bytes(dev compute.Device, s kvcache.Shape) int64 {
	return g.Inner.Bytes(dev, s) + g.own(dev, s)
}

// String returns Inner's.
func (g *Gaze) String() string { return g.Inner.String() }

// gazing is a policy under a gaze.
type gazing struct {
	Policy
	gaze    *Gaze
	arena   compute.Arena
	stage   compute.Tensor // F32 [gazeKeys, headDim]
	bytes   []byte
	queries []float32 // [gazeQueries, headDim]
	row     []float32
	logits  [gazeQueries][]float32
}

func (w *gazing) allocate(a compute.Arena, s kvcache.Shape) {
	w.stage = a.Tensor(compute.F32, gazeKeys, s.HeadDim)
	w.bytes = make([]byte, 4*gazeKeys*s.HeadDim)
	w.queries, w.row = make([]float32, gazeQueries*s.HeadDim), make([]float32, gazeKeys*s.HeadDim)
}

// Attend lets the policy attend, then looks.
func (w *gazing) Attend(dq compute.Queue, at Site, dst, query compute.Tensor, kv kvcache.View) {
	w.Policy.Attend(dq, at, dst, query, kv)
	g := w.gaze
	if !g.On || g.chunk == at.Chunk+1 || at.Kind != Self || at.Pass != at.Passes-1 || at.Layer != g.turn/g.shape.Heads%g.shape.Layers {
		return
	}
	w.look(dq, at.Layer, g.turn%g.shape.Heads, query, kv)
	g.turn, g.chunk = g.turn+1, at.Chunk+1
}

// look fills in the gaze's finding.
func (w *gazing) look(dq compute.Queue, layer, head int, query compute.Tensor, kv kvcache.View) {
	d, n, keys := w.gaze.shape.HeadDim, query.Dim(1), kv.Keys.Dim(1)
	if !kv.Lengths.IsZero() {
		lengths := make([]byte, 4*kv.Lengths.Elems())
		dq.Download(lengths, kv.Lengths)
		keys = min(keys, int(int32(binary.LittleEndian.Uint32(lengths[4*head:]))))
	}
	for q := range gazeQueries {
		i := q * n / gazeQueries
		copy(w.queries[q*d:], w.read(dq, query.Slice(0, head, head+1).Slice(1, i, i+1)))
		w.logits[q] = w.logits[q][:0]
	}
	scale := Scale(query)
	for lo := 0; lo < keys; lo += gazeKeys {
		hi := min(lo+gazeKeys, keys)
		rows := w.read(dq, kv.Keys.Slice(0, head, head+1).Slice(1, lo, hi))
		for k := range hi - lo {
			for q := range gazeQueries {
				w.logits[q] = append(w.logits[q], scale*dot(w.queries[q*d:(q+1)*d], rows[k*d:(k+1)*d]))
			}
		}
	}
	mass := append(w.gaze.Last.Mass[:0], make([]float32, keys)...)
	counts := w.counts(dq, kv, head, keys)
	for q := range gazeQueries {
		weigh(mass, w.logits[q], counts)
	}
	w.gaze.Last = Glance{layer, head, mass}
}

// read returns a [1, rows, headDim] tensor as float32, valid until the next call.
func (w *gazing) read(dq compute.Queue, t compute.Tensor) []float32 {
	rows := t.Dim(1)
	stage := w.stage.Slice(0, 0, rows)
	dq.Copy(stage.Reshape(1, rows, t.Dim(2)), t)
	dq.Download(w.bytes[:stage.Bytes()], stage)
	out := w.row[:stage.Elems()]
	for i := range out {
		out[i] = math.Float32frombits(binary.LittleEndian.Uint32(w.bytes[4*i:]))
	}
	return out
}

// counts are the log counts of a head's keys, nil where there are none.
func (w *gazing) counts(dq compute.Queue, kv kvcache.View, head, keys int) []float32 {
	if kv.LogCount.IsZero() {
		return nil
	}
	out := make([]float32, 0, keys)
	each := w.stage.Elems()
	if kv.LogCount.Dim(0) == 1 {
		head = 0
	}
	for lo := 0; lo < keys; lo += each {
		hi := min(lo+each, keys)
		flat := w.stage
		flat.Rank, flat.Shape, flat.Stride = 2, [4]int{1, hi - lo}, [4]int{hi - lo, 1}
		dq.Copy(flat, kv.LogCount.Slice(0, head, head+1).Slice(1, lo, hi))
		dq.Download(w.bytes[:flat.Bytes()], flat)
		for i := range hi - lo {
			out = append(out, math.Float32frombits(binary.LittleEndian.Uint32(w.bytes[4*i:])))
		}
	}
	return out
}

// weigh adds a query's share of attention of each key, divided by the queries, to mass.
func weigh(mass, logits, counts []float32) {
	most := float32(math.Inf(-1))
	for i := range logits {
		if counts != nil {
			logits[i] += counts[i]
		}
		most = max(most, logits[i])
	}
	sum := 0.0
	for i, v := range logits {
		e := math.Exp(float64(v - most))
		logits[i] = float32(e)
		sum += e
	}
	for i, v := range logits {
		mass[i] += v / float32(sum*gazeQueries)
	}
}

func dot(a, b []float32) (sum float32) {
	for i, v := range a {
		sum += v * b[i]
	}
	return sum
}

// Close gives both memories back.
func (w *gazing) Close() {
	w.Policy.Close()
	w.arena.Free()
}

// Whole reports whether policies of m compute dense attention.
func Whole(m Maker) bool {
	if g, ok := m.(*Gaze); ok {
		m = g.Inner
	}
	return m == Dense{}
}
