package annca

import (
	"encoding/binary"
	"math"

	"longtake/accel/ann"
	"longtake/attention"
	"longtake/compute"
	"longtake/kvcache"
)

// mostRemote is the longest prompt that a compute.Selector takes, mostHashed the most bits of codes.
const mostRemote, mostHashed = 1024, 512

// remote is the side of a policy whose tokens are chosen by the device, a compute.Selector: how many were kept the host does not
// learn.
type remote struct {
	on                                bool
	told                              bool           // planes are there
	planes, codes, norms, keep, known compute.Tensor // of compute.Selection
}

// remotely reports whether tokens are chosen by the device: by products, of keys as they are or quantised, or hashes of up to 512 bits, in tables or not.
func (o Options) remotely(dev compute.Device, s kvcache.Shape) bool {
	_, ok := dev.(compute.SelectingDevice)
	able := false
	switch m := o.matcher().(type) {
	case ann.Exact, ann.Scalar:
		able = o.Top > 0
	case ann.LSH:
		able = m.Signs() <= mostHashed && !m.Centre && !m.Augment
	}
	return ok && able && !o.All && o.Queries == nil && s.HeadDim <= 256
}

// allocate takes what is shared by the layers.
func (r *remote) allocate(p *policy, a compute.Arena, room int) {
	s := p.shape
	switch m := p.o.matcher().(type) {
	case ann.LSH:
		words := (m.Signs() + 63) / 64
		r.planes = a.Tensor(compute.F32, m.Signs(), s.HeadDim)
		r.codes = a.Tensor(compute.I64, s.Heads*(2*s.ChunkFrames*s.Tokens()+room)*words)
	case ann.Scalar:
		r.known = a.Tensor(compute.BF16, s.Heads*room*s.HeadDim)
	}
	r.norms, r.keep = a.Tensor(compute.F32, s.Heads, room), a.Tensor(compute.I32, room)
	r.told = false
	for i := range p.layers {
		p.layers[i].lengths = a.Tensor(compute.I32, s.Heads)
	}
}

// attendRemotely attends to what the device keeps.
func (p *policy) attendRemotely(dq compute.Queue, at attention.Site, l *layer, dst, query compute.Tensor, kv kvcache.View, selects bool) {
	r := &p.remote
	hash, hashes := p.o.matcher().(ann.LSH)
	if hashes && !r.told {
		var b []byte
		for _, v := range hash.Planes(p.shape.HeadDim) {
			b = binary.LittleEndian.AppendUint32(b, math.Float32bits(v))
		}
		dq.Upload(r.planes, b)
		r.told = true
	}
	l.kept = kv.Keys.Dim(1)
	if selects {
		s := compute.Selection{Query: query, Keys: kv.Keys, Values: kv.Values, Top: p.o.Top, Last: 2, Planes: r.planes, Tables: hash.Cut(), Codes: r.codes, Norms: r.norms,
			Keep: r.keep, Known: r.known, ToKeys: l.keys, ToValues: l.values, ToCount: l.count, Lengths: l.lengths}
		if m, ok := p.o.matcher().(ann.Scalar); ok {
			s.Bits, s.Step = int(m), m.Step()
		}
		if !kv.LogCount.IsZero() {
			s.LogCount = kv.LogCount.Slice(0, 0, 1)
		}
		dq.(compute.Selector).Select(s)
		l.chunk = at.Chunk
	}
	l.pass = at.Pass
	keys, values, a := p.chosen(l, query, kv)
	dq.Attend(dst, query, keys, values, a)
}
