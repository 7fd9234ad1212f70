package attention

import (
	"encoding/binary"
	"math"
	"time"

	"longtake/compute"
	"longtake/kvcache"
)

// Sparse is a Policy that can say what it left out, for those who measure it.
type Sparse interface {
	Policy
	// Pairs returns how many pairs of query and key the last Attend computed, a merged key counting as one, and the time that
	// it spent on deciding and gathering, not on attention.
	Pairs() (pairs int64, deciding time.Duration)
	// Kept writes to lse F32 [heads, queries] the log of the softmax denominator over those keys of the last Attend's view that
	// it used as they are (merged ones left out). Query must be the same.
	Kept(dq compute.Queue, at Site, lse, query compute.Tensor, kv kvcache.View)
}

// Measured is what a Probe found out about one layer's attention of one kind. Density and Recall belong together: both are
// means over the same sampled calls.
type Measured struct {
	Kind  Kind
	Layer int
	// Calls were made, of which Sampled were measured. Thinned of the sampled ones computed fewer pairs than dense attention;
	// the others count as density and recall 1 in the means over all, and not at all in the Thinned ones.
	Calls, Sampled, Thinned int
	// Density is pairs of query and key over those of dense attention; Recall the share of the mass of dense attention that
	// lies on keys used as they are, mean over heads and queries.
	Density, Recall               float64
	ThinnedDensity, ThinnedRecall float64
	// HeadRecall is ThinnedRecall head by head; nil without thinned calls.
	HeadRecall []float64
	// Deciding is the time spent on deciding in all calls.
	Deciding time.Duration
}

// Probe is a Maker whose policies do what Inner's do and measure it. One Probe may serve several sessions, one after another.
type Probe struct {
	Inner Maker
	// Every is how many chunks lie between two sampled ones; 0 is 1.
	Every int
	found map[place]*sums
}

type place struct {
	kind  Kind
	layer int
}

type sums struct {
	Measured
	heads []float64
}

// New makes Inner's policy, wrapped.
func (p *Probe) New(dev compute.Device, dq compute.Queue, s kvcache.Shape) (Policy, error) {
	inner, err := p.Inner.New(dev, dq, s)
	if err != nil {
		return nil, err
	}
	arena, err := dev.NewArena(p.own(dev, s))
	if err != nil {
		inner.Close()
		return nil, err
	}
	if p.found == nil {
		p.found = map[place]*sums{}
	}
	w := &probing{Policy: inner, probe: p, arena: arena}
	w.allocate(arena, s)
	if err := arena.Err(); err != nil {
		w.Close()
		return nil, err
	}
	return w, nil
}

func (p *Probe) own(dev compute.Device, s kvcache.Shape) int64 {
	m := &compute.Meter{Device: dev}
	new(probing).allocate(m, s)
	return m.Bytes()
}

// Bytes returns Inner's memory and the probe's.
func (p *Probe) Bytes(dev compute.Device, s kvcache.Shape) int64 {
	return p.Inner.Bytes(dev, s) + p.own(dev, s)
}

// String returns Inner's.
func (p *Probe) String() string { return p.Inner.String() }

// Results returns what was measured so far, self attention first, by layer.
func (p *Probe) Results() []Measured {
	var out []Measured
	for _, kind := range [...]Kind{Self, Cross} {
		for layer := 0; ; layer++ {
			s := p.found[place{kind, layer}]
			if s == nil {
				break
			}
			m := s.Measured
			if n := float64(m.Sampled); n > 0 {
				m.Density, m.Recall = m.Density/n, m.Recall/n
			}
			if n := float64(m.Thinned); n > 0 {
				m.ThinnedDensity, m.ThinnedRecall = m.ThinnedDensity/n, m.ThinnedRecall/n
				for _, h := range s.heads {
					m.HeadRecall = append(m.HeadRecall, h/n)
				}
			}
			out = append(out, m)
		}
	}
	return out
}

// probing is a policy under a probe.
type probing struct {
	Policy
	probe      *Probe
	arena      compute.Arena
	out        compute.Tensor // F32 [heads*queries*headDim]
	all, kept  compute.Tensor // F32 [heads*queries]
	host, mine []byte
}

func (w *probing) allocate(a compute.Arena, s kvcache.Shape) {
	n := s.Heads * s.ChunkFrames * s.Tokens()
	w.out, w.all, w.kept = a.Tensor(compute.F32, n*s.HeadDim), a.Tensor(compute.F32, n), a.Tensor(compute.F32, n)
	w.host, w.mine = make([]byte, 4*n), make([]byte, 4*n)
}

// Attend lets the policy attend, then looks at what it used.
func (w *probing) Attend(dq compute.Queue, at Site, dst, query compute.Tensor, kv kvcache.View) {
	w.Policy.Attend(dq, at, dst, query, kv)
	p, key := w.probe, place{at.Kind, at.Layer}
	s := p.found[key]
	if s == nil {
		s = &sums{Measured: Measured{Kind: at.Kind, Layer: at.Layer}, heads: make([]float64, query.Dim(0))}
		p.found[key] = s
	}
	s.Calls++
	sparse, ok := w.Policy.(Sparse)
	dense := int64(0)
	if ok {
		pairs, deciding := sparse.Pairs()
		s.Deciding += deciding
		if at.Chunk%max(p.Every, 1) != 0 {
			return
		}
		dense = Pairs(dq, query, kv)
		if pairs < dense {
			w.measure(dq, at, query, kv, s, sparse, float64(pairs)/float64(dense))
			return
		}
	} else if at.Chunk%max(p.Every, 1) != 0 {
		return
	}
	s.Sampled++
	s.Density++
	s.Recall++
}

// measure compares the mass on the keys in use with all.
func (w *probing) measure(dq compute.Queue, at Site, query compute.Tensor, kv kvcache.View, s *sums, sparse Sparse, density float64) {
	heads, queries := query.Dim(0), query.Dim(1)
	n := heads * queries
	all, kept := w.all.Slice(0, 0, n), w.kept.Slice(0, 0, n)
	Mass(dq, all.Reshape(heads, queries), w.out, query, kv)
	sparse.Kept(dq, at, kept.Reshape(heads, queries), query, kv)
	dq.Download(w.host[:4*n], all)
	dq.Download(w.mine[:4*n], kept)
	total := 0.0
	for h := range heads {
		sum := 0.0
		for i := h * queries; i < (h+1)*queries; i++ {
			sum += math.Exp(float64(float(w.mine, i) - float(w.host, i)))
		}
		s.heads[h] += sum / float64(queries)
		total += sum
	}
	s.Sampled++
	s.Thinned++
	s.Density += density
	s.ThinnedDensity += density
	s.Recall += total / float64(n)
	s.ThinnedRecall += total / float64(n)
}

// Close gives back the policy's memory and the probe's.
func (w *probing) Close() {
	w.Policy.Close()
	w.arena.Free()
}

// Mass writes the log of the softmax denominators of dense attention to lse F32 [heads, queries]. Scratch is F32 and has at
// least as many elements as query.
func Mass(dq compute.Queue, lse, scratch, query compute.Tensor, kv kvcache.View) {
	out := scratch.Slice(0, 0, query.Elems()).Reshape(query.Dim(0), query.Dim(1), query.Dim(2))
	dq.Attend(out, query, kv.Keys, kv.Values, compute.Attention{Scale: Scale(query), LogCount: kv.LogCount, Lengths: kv.Lengths, LogSumExp: lse})
}

// Pairs returns the pairs of query and key that dense attention over a view computes.
func Pairs(dq compute.Queue, query compute.Tensor, kv kvcache.View) int64 {
	queries := int64(query.Dim(1))
	if kv.Lengths.IsZero() {
		return queries * int64(query.Dim(0)) * int64(kv.Keys.Dim(1))
	}
	host := make([]byte, kv.Lengths.Bytes())
	dq.Download(host, kv.Lengths)
	keys := int64(0)
	for i := 0; i < len(host); i += 4 {
		keys += int64(int32(binary.LittleEndian.Uint32(host[i:])))
	}
	return queries * keys
}

func float(b []byte, i int) float32 {
	return math.Float32frombits(binary.LittleEndian.Uint32(b[4*i:]))
}
