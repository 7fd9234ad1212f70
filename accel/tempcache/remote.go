package tempcache

import (
	"encoding/binary"
	"math"

	"longtake/accel/ann"
	"longtake/compute"
)

// remote is the side of a cache whose entries are decided on by the device, a compute.Merger: counts, places and the numbers of
// entries stay there, and the host knows of them what Stats last fetched. Approximate searches by hashes and of quantised vectors are
// the device's; others are host code.
type remote struct {
	on                 bool
	frequencies, turns compute.Tensor // of compute.Merging
	hits, recent       compute.Tensor
	probe, best        compute.Tensor // of all layers, if they go on at once; else the desk's
	codes              codes
	order              compute.Tensor
	entries            compute.Tensor // I32 [layers, groups]
	totals             compute.Tensor // F64 [layers, groups, 3]
	stores             []compute.MergeStore
	host               []byte
	unread             bool    // a merge has changed entries and totals since they were fetched
	known              []int32 // entries
	sums               []float64
}

// remotely reports whether entries are decided on by the device.
func (p Policy) remotely(dev compute.Device) bool {
	_, ok := dev.(compute.MergingDevice)
	if p.Search != Approximate {
		return ok
	}
	switch m := p.Matcher.(type) {
	case ann.Exact, ann.Scalar:
		return ok
	case ann.LSH:
		return ok && m.Signs() <= mostHashed && !m.Centre && !m.Augment
	}
	return false
}

// mostHashed is the most bits of codes that a device merges by.
const mostHashed = 512

// codes are what an approximate search on the device knows of the vectors of a layer in work, see compute.Merging.
type codes struct {
	planes, entries, entryLengths, tokens, tokenLengths, known compute.Tensor
	weak, order, ends                                          compute.Tensor // with tables
}

// codesFor takes the tensors of codes, for so many entries.
func (r *remote) codesFor(c *cache, a compute.Arena, slots int) {
	if c.p.Search != Approximate {
		return
	}
	x := &r.codes
	switch m := c.p.Matcher.(type) {
	case ann.Scalar:
		x.known = a.Tensor(compute.F32, c.groups, slots, c.width())
	case ann.LSH:
		words, n := (m.Signs()+63)/64, c.shape.Tokens()
		x.planes = a.Tensor(compute.F32, m.Signs(), c.width())
		x.entries, x.entryLengths = a.Tensor(compute.I64, c.groups, slots, words), a.Tensor(compute.F32, c.groups, slots)
		x.tokens, x.tokenLengths = a.Tensor(compute.I64, c.groups, n, words), a.Tensor(compute.F32, c.groups, n)
		if m.Tables > 0 {
			x.weak = a.Tensor(compute.I64, c.groups, n, words)
			x.order, x.ends = a.Tensor(compute.I32, c.groups, m.Tables, slots), a.Tensor(compute.I32, c.groups, m.Tables, 1<<m.Bits)
		}
	}
}

// tellCodes uploads the directions of hashes.
func (r *remote) tellCodes(c *cache, dq compute.Queue) {
	m, ok := c.p.Matcher.(ann.LSH)
	if !ok || c.p.Search != Approximate {
		return
	}
	var b []byte
	for _, v := range m.Planes(c.width()) {
		b = binary.LittleEndian.AppendUint32(b, math.Float32bits(v))
	}
	dq.Upload(r.codes.planes, b)
}

// code names how a merge finds entries by codes.
func (r *remote) code(p Policy, m *compute.Merging) {
	x := &r.codes
	switch a := p.Matcher.(type) {
	case ann.Scalar:
		m.Bits, m.Step, m.Known = int(a), a.Step(), x.known
	case ann.LSH:
		m.Planes, m.Codes, m.CodeLengths, m.ProbeCodes, m.ProbeLengths = x.planes, x.entries, x.entryLengths, x.tokens, x.tokenLengths
		m.Tables, m.ProbeWeak, m.BucketOrder, m.BucketEnds = a.Cut(), x.weak, x.order, x.ends
	}
}

// fixed takes the tensors that have no slots.
func (r *remote) fixed(c *cache, a compute.Arena) {
	n, s := c.shape.Tokens(), c.shape
	spatial := (s.HeadDim - 2*s.Pairs[0]) / 2
	r.frequencies, r.turns = a.Tensor(compute.F64, s.Pairs[0]), a.Tensor(compute.F32, n, spatial, 2)
	r.hits = a.Tensor(compute.I32, s.Layers, 4, c.groups, n)
	r.entries, r.totals = a.Tensor(compute.I32, s.Layers, c.groups), a.Tensor(compute.F64, s.Layers, c.groups, 3)
	switch {
	case r.atOnce(c):
		r.recent, r.best = a.Tensor(compute.I32, s.Layers, c.groups, n, c.p.Depth), a.Tensor(compute.I32, s.Layers, c.groups, n)
		r.probe = a.Tensor(compute.F32, s.Layers, c.groups, n, c.width())
	case c.p.Search == Neighbours:
		r.recent = a.Tensor(compute.I32, c.groups, n, c.p.Depth)
	}
	r.known, r.sums = make([]int32, s.Layers*c.groups), make([]float64, 3*s.Layers*c.groups)
	r.host = make([]byte, r.totals.Bytes())
}

// atOnce reports whether all layers are merged at once. That takes the vectors of a frame for every layer (288 MB of Wan 1.3B) and keeps a
// GPU busy; a search of all entries does so by itself.
func (r *remote) atOnce(c *cache) bool { return c.p.Search == Neighbours && !c.p.ByQuery }

// tell uploads the tables of rotations.
func (r *remote) tell(c *cache, dq compute.Queue) {
	var b []byte
	for _, f := range c.turns.freq {
		b = binary.LittleEndian.AppendUint64(b, math.Float64bits(f))
	}
	dq.Upload(r.frequencies, b)
	b = b[:0]
	for _, x := range c.turns.places {
		b = binary.LittleEndian.AppendUint32(b, math.Float32bits(x))
	}
	if len(b) > 0 {
		dq.Upload(r.turns, b)
	}
}

// clear forgets all entries.
func (r *remote) clear(dq compute.Queue) {
	dq.Upload(r.totals, make([]byte, r.totals.Bytes()))
	dq.Upload(r.entries, make([]byte, r.entries.Bytes()))
	clear(r.known)
	clear(r.sums)
	r.unread = false
}

// state takes what the device keeps of a layer's entries.
func (l *layer) state(a compute.Arena) {
	c := l.cache
	l.weight, l.marks = a.Tensor(compute.F64, c.groups, l.slots), a.Tensor(compute.I32, 7, c.groups, l.slots)
}

// describeStores lists the layers' storage for the device.
func (c *cache) describeStores() {
	c.remote.stores = c.remote.stores[:0]
	for i := range c.layers {
		l := &c.layers[i]
		c.remote.stores = append(c.remote.stores, compute.MergeStore{Keys: l.keys.tensor, Values: l.values.tensor, Raw: l.raw.tensor, Means: l.means.tensor,
			LogCount: l.logCount.tensor, Places: l.places.tensor, Unit: l.unit.tensor, First: l.first.tensor, Queries: l.queries.tensor,
			Lengths: l.lengths.tensor, Entries: c.remote.entries.Index(i), Weight: l.weight, State: l.marks, Totals: c.remote.totals.Index(i), Local: c.p.localBits(i)})
	}
}

// takeState copies what the device keeps of old's entries.
func (l *layer) takeState(dq compute.Queue, old *layer) {
	n := old.slots
	for g := range l.cache.groups {
		if n > 0 {
			dq.Copy(l.weight.Index(g).Slice(0, 0, n), old.weight.Index(g))
		}
	}
	dq.Copy(l.marks.Slice(2, 0, n), old.marks)
}

// mergeRemotely has the device take a frame into the entries of all layers; a negative frame only tells the lengths.
func (c *cache) mergeRemotely(dq compute.Queue, frame int) {
	p, n, d := c.p, c.shape.Tokens(), &c.desks[0]
	m := compute.Merging{Frame: frame, Tokens: n, Columns: c.shape.Columns, Dense: c.dense(), Anchors: p.Anchor * n, HeadDim: c.shape.HeadDim,
		Frequencies: c.remote.frequencies, Turns: c.remote.turns, Threshold: float32(p.Threshold), Floor: float32(p.Floor), Lossless: p.Threshold >= 1,
		Space: int(p.Space), Mean: p.Keep == Mean, OnePerFrame: p.OnePerFrame, NoCount: p.NoLogCount, ByMembers: p.Forget == Rarest, Rest: p.Rest, CountCap: p.CountCap, Decay: p.Decay, Spread: p.Spread,
		Retest: p.Retest, Neighbours: p.Search == Neighbours, Radius: p.Radius, Depth: p.Depth, MaxError: p.MaxError, MaxChange: p.MaxChange, Asks: c.asks(),
		Probe: d.probe.tensor, Query: d.query.tensor, Best: d.best.tensor, Score: d.score.tensor,
		Hits: c.remote.hits, Order: c.remote.order, Recent: c.remote.recent, Approximate: p.Search == Approximate}
	if c.remote.atOnce(c) {
		m.Probe, m.Best = c.remote.probe, c.remote.best
	}
	if m.Approximate {
		c.remote.code(p, &m)
	}
	if m.Lossless {
		m.Threshold = 1 - 1e-5 // the cosine of equal vectors, rounded
	}
	if frame >= 0 {
		m.At = c.slot(frame)
		c.remote.unread = true
		if asked := c.askedByAll(); asked >= 0 {
			m.Asked = p.ByQuery && asked >= frame
			m.QueryLow, m.QueryHigh = max(0, c.ring-(asked+1-p.Anchor))*n, c.ring*n
		}
	} else {
		m.Ahead = c.dense() - c.low()
	}
	dq.(compute.Merger).Merge(m, c.remote.stores)
}

// askedByAll returns the newest frame whose queries were seen in all layers, -1 for none.
func (c *cache) askedByAll() int {
	asked := math.MaxInt
	for i := range c.layers {
		asked = min(asked, c.layers[i].asked)
	}
	return asked
}

// read fetches what the device knows: twice a few bytes for each head, once after a merge.
func (c *cache) read(dq compute.Queue) {
	r := &c.remote
	if !r.unread || dq == nil {
		return
	}
	r.unread = false
	b := r.host[:r.entries.Bytes()]
	dq.Download(b, r.entries)
	for i := range r.known {
		r.known[i] = int32(binary.LittleEndian.Uint32(b[4*i:]))
	}
	b = r.host[:r.totals.Bytes()]
	dq.Download(b, r.totals)
	for i := range r.sums {
		r.sums[i] = math.Float64frombits(binary.LittleEndian.Uint64(b[8*i:]))
	}
}

// full reports whether another frame might not fit into some head.
func (c *cache) full(dq compute.Queue) bool {
	slots := c.slots
	if c.p.Rest {
		slots-- // the rest's
	}
	if !c.remote.on {
		most := 0
		for i := range c.layers {
			for g := range c.layers[i].groups {
				most = max(most, c.layers[i].groups[g].n)
			}
		}
		return most+c.shape.Tokens() > slots
	}
	// Every frame adds at most its tokens, so that nothing has to be asked while even that fits.
	if (c.merged-c.p.Anchor+1)*c.shape.Tokens() <= slots {
		return false
	}
	c.read(dq)
	most := int32(0)
	for _, n := range c.remote.known {
		most = max(most, n)
	}
	return int(most)+c.shape.Tokens() > slots
}

// fillRemotely writes count to the log counts of n slots of every head.
func (l *layer) fillRemotely(dq compute.Queue, at, n int, count float32) {
	b := make([]byte, 0, 4*n)
	for range n {
		b = binary.LittleEndian.AppendUint32(b, math.Float32bits(count))
	}
	for h := range l.cache.shape.Heads {
		dq.Upload(l.logCount.tensor.Index(h).Slice(0, at, at+n), b)
	}
}

// openRemotely writes what never changes: the places of the anchors.
func (l *layer) openRemotely(dq compute.Queue) {
	s, n := l.cache.shape, l.cache.p.Anchor*l.cache.shape.Tokens()
	if n == 0 {
		return
	}
	b := make([]byte, 0, 12*n)
	for i := range n {
		for _, v := range [3]int{l.cache.p.Anchor - 1 - i/s.Tokens(), i % s.Tokens() / s.Columns, i % s.Columns} {
			b = binary.LittleEndian.AppendUint32(b, uint32(int32(v)))
		}
	}
	for h := range s.Heads {
		dq.Upload(l.places.tensor.Index(h).Slice(0, 0, n), b)
	}
}

// counts returns a head's entries, the rest not among them, and the tokens that entered and were evicted.
func (l *layer) counts(head int) (n int, entered, evicted int64) {
	c := l.cache
	if !c.remote.on {
		g := l.group(head)
		return min(g.n, l.ordinary(head*c.groups/c.shape.Heads)), g.entered, g.evicted
	}
	at := l.index*c.groups + head*c.groups/c.shape.Heads
	sums := c.remote.sums[3*at:]
	c.heads[l.index*c.shape.Heads+head].LogitError = sums[2]
	return min(int(c.remote.known[at]), l.ordinary(head*c.groups/c.shape.Heads)), int64(sums[0]), int64(sums[1])
}

// mostRemotely bounds the entries of a head by what was merged so far; how many are in use the device knows.
func (l *layer) mostRemotely() int {
	c := l.cache
	return min(l.slots, (c.merged-c.p.Anchor)*c.shape.Tokens())
}
