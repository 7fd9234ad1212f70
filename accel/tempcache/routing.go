package tempcache

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math"

	"longtake/attention"
	"longtake/compute"
	"longtake/kvcache"
)

// mostLocal is up to how many heads of a layer may be routed: devices take a bit of a word for each.
const mostLocal = 64

// local reports whether a group, here a head, keeps no entries.
func (p Policy) local(layer, g int) bool { return p.Local != nil && p.Local[layer][g] }

// localBits is a layer's local heads as compute.MergeStore has them.
func (p Policy) localBits(layer int) (bits uint64) {
	if p.Local == nil {
		return 0
	}
	for h, is := range p.Local[layer] {
		if is {
			bits |= 1 << h
		}
	}
	return bits
}

func (p Policy) locals() (n int) {
	for _, layer := range p.Local {
		for _, is := range layer {
			if is {
				n++
			}
		}
	}
	return n
}

// Routing says which heads of a model's self attention ignore history. It belongs to the weights whose hash it names.
//
// The criterion: of the attention of a call, a share falls on keys that are older than the Recent frames before the chunk, in the
// mean over the head's queries. A head is local if in no call that was measured, of any pass, chunk or clip, that share exceeded Least.
// What such a head loses without those keys is at most 2 Least of the largest value that it can show.
type Routing struct {
	Format  string `json:"format"` // "longtake-routing-v1"
	Model   string `json:"model"`
	Hash    string `json:"hash"`
	Recent  int    `json:"recent"`  // latent frames
	Samples int    `json:"samples"` // calls of each layer
	// Mean and Most are the share of the mass on older keys by layer and head: the mean of all calls, and the largest of one.
	Mean  [][]float64 `json:"mean"`
	Most  [][]float64 `json:"most"`
	Least float64     `json:"least"`
}

const routingFormat = "longtake-routing-v1"

// ParseRouting reads a routing as json.Marshal writes it. It must be that of the model with this name and hash.
func ParseRouting(raw []byte, model, hash string) (*Routing, error) {
	var r Routing
	if err := json.Unmarshal(raw, &r); err != nil {
		return nil, fmt.Errorf("routing of heads: %w", err)
	}
	if r.Format != routingFormat {
		return nil, fmt.Errorf("routing of heads has format %q, this version reads %q", r.Format, routingFormat)
	}
	if r.Hash != hash {
		return nil, fmt.Errorf("routing of heads is of model %s (%.12s), not of %s (%.12s)", r.Model, r.Hash, model, hash)
	}
	for _, layer := range r.Most {
		if len(layer) == 0 || len(layer) != len(r.Most[0]) {
			return nil, fmt.Errorf("routing of heads of model %s: layers of %d and of %d heads", r.Model, len(r.Most[0]), len(layer))
		}
	}
	if len(r.Most) == 0 {
		return nil, fmt.Errorf("routing of heads of model %s names no layer", r.Model)
	}
	return &r, nil
}

// Local is what Policy.Local wants; it fails for a cache that keeps fewer frames as they are than were kept when heads were measured.
func (r *Routing) Local(recent int) ([][]bool, error) {
	if recent < r.Recent {
		return nil, fmt.Errorf("routing of heads was measured with the %d newest frames kept as they are, here %d are: use a window of at least %d", r.Recent, recent, r.Recent)
	}
	var out [][]bool
	for _, layer := range r.Most {
		var row []bool
		for _, most := range layer {
			row = append(row, most <= r.Least)
		}
		out = append(out, row)
	}
	return out, nil
}

// Router measures heads for a Routing: it is a maker of dense attention over a cache of everything. One may serve several sessions, one
// after another.
type Router struct {
	Recent int
	// From is the least number of latent frames older than the Recent ones from which on a call counts.
	From    int
	samples []int
	mean    [][]float64
	most    [][]float64
}

// New makes a policy that attends densely and looks.
func (r *Router) New(dev compute.Device, dq compute.Queue, s kvcache.Shape) (attention.Policy, error) {
	arena, err := dev.NewArena(r.Bytes(dev, s))
	if err != nil {
		return nil, fmt.Errorf("routing of heads: %w", err)
	}
	if r.samples == nil {
		r.samples = make([]int, s.Layers)
		for range s.Layers {
			r.mean, r.most = append(r.mean, make([]float64, s.Heads)), append(r.most, make([]float64, s.Heads))
		}
	}
	p := &routing{router: r, arena: arena}
	p.allocate(arena, s)
	return p, arena.Err()
}

// Bytes returns the memory that New takes.
func (r *Router) Bytes(dev compute.Device, s kvcache.Shape) int64 {
	m := &compute.Meter{Device: dev}
	new(routing).allocate(m, s)
	return m.Bytes()
}

// String returns "dense, routing".
func (r *Router) String() string { return "dense, routing" }

// Routing returns what was found.
func (r *Router) Routing(model, hash string, least float64) (*Routing, error) {
	out := &Routing{Format: routingFormat, Model: model, Hash: hash, Recent: r.Recent, Samples: math.MaxInt, Least: least}
	round := func(v float64) float64 { return math.Ceil(1e6*v) / 1e6 }
	for i, n := range r.samples {
		if n == 0 {
			return nil, fmt.Errorf("routing of heads: layer %d was never seen with %d latent frames older than the %d newest: use more frames", i, r.From, r.Recent)
		}
		out.Samples = min(out.Samples, n)
		var mean, most []float64
		for h := range r.mean[i] {
			mean, most = append(mean, round(r.mean[i][h]/float64(n))), append(most, round(r.most[i][h]))
		}
		out.Mean, out.Most = append(out.Mean, mean), append(out.Most, most)
	}
	if len(out.Most) == 0 {
		return nil, fmt.Errorf("routing of heads: nothing was measured")
	}
	return out, nil
}

// routing is the policy of one session.
type routing struct {
	router    *Router
	arena     compute.Arena
	all, near compute.Tensor // F32 [heads*queries], ln of the mass
	out       compute.Tensor // F32 [heads*queries*headDim]
	host      []byte
	// By query: ln of all mass and of that of some near keys, and the share of all near ones.
	whole, some []float32
	total       []float64
}

func (p *routing) allocate(a compute.Arena, s kvcache.Shape) {
	n := s.Heads * s.ChunkFrames * s.Tokens()
	p.all, p.near, p.out = a.Tensor(compute.F32, n), a.Tensor(compute.F32, n), a.Tensor(compute.F32, n*s.HeadDim)
	p.host, p.whole, p.some, p.total = make([]byte, 4*n), make([]float32, n), make([]float32, n), make([]float64, n)
}

// Attend attends densely, and adds up what falls on old keys.
func (p *routing) Attend(dq compute.Queue, at attention.Site, dst, query compute.Tensor, kv kvcache.View) {
	attention.Dense{}.Attend(dq, at, dst, query, kv)
	if at.Kind != attention.Self {
		return
	}
	first := math.MaxInt // frame of the chunk
	for _, part := range kv.Parts {
		if part.Kind == kvcache.Current {
			first = min(first, part.Frame)
		}
	}
	if first == math.MaxInt || first < p.router.Recent+p.router.From {
		return
	}
	heads, queries := query.Dim(0), query.Dim(1)
	all, near := p.all.Slice(0, 0, heads*queries).Reshape(heads, queries), p.near.Slice(0, 0, heads*queries).Reshape(heads, queries)
	attention.Mass(dq, all, p.out, query, kv)
	whole, some, total := p.whole[:heads*queries], p.some[:heads*queries], p.total[:heads*queries]
	clear(total)
	p.read(dq, whole, all)
	for lo := 0; lo < len(kv.Parts); lo++ {
		if part := kv.Parts[lo]; part.Frame >= 0 && part.Frame < first-p.router.Recent {
			continue
		}
		hi := lo
		for hi+1 < len(kv.Parts) && kv.Parts[hi+1].Frame >= first-p.router.Recent && kv.Parts[hi+1].Lo == kv.Parts[hi].Hi {
			hi++
		}
		from, to := kv.Parts[lo].Lo, kv.Parts[hi].Hi
		attention.Mass(dq, near, p.out, query, kvcache.View{Keys: kv.Keys.Slice(1, from, to), Values: kv.Values.Slice(1, from, to)})
		p.read(dq, some, near)
		for i := range total {
			total[i] += math.Exp(float64(some[i] - whole[i]))
		}
		lo = hi
	}
	r := p.router
	r.samples[at.Layer]++
	for h := range heads {
		sum := 0.0
		for _, near := range total[h*queries:][:queries] {
			sum += max(0, 1-near)
		}
		sum /= float64(queries)
		r.mean[at.Layer][h] += sum
		r.most[at.Layer][h] = max(r.most[at.Layer][h], sum)
	}
}

// read downloads an F32 tensor.
func (p *routing) read(dq compute.Queue, dst []float32, t compute.Tensor) {
	b := p.host[:4*len(dst)]
	dq.Download(b, t)
	for i := range dst {
		dst[i] = math.Float32frombits(binary.LittleEndian.Uint32(b[4*i:]))
	}
}

// Close gives the memory back.
func (p *routing) Close() { p.arena.Free() }
