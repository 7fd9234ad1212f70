package tempcache

import (
	"fmt"
	"time"

	"longtake/compute"
	"longtake/kvcache"
)

// cache implements kvcache.Cache. A head's slots are, in this order: the ring of dense frames, newest first at the start so
// that what is in use always ends where the anchors begin; the anchors, likewise; the entries. A view is then one run of slots,
// cut for each head after its last entry.
type cache struct {
	p      Policy
	shape  kvcache.Shape
	device compute.Device
	tables compute.Arena // rotation tables, the frame that is being merged
	store  compute.Arena // everything that has slots
	pos    *kvcache.Positions
	layers []layer
	turns  turns
	do     compute.Vectors // for rows of the host

	groups int // independent stores of a layer: one a head, or one
	ring   int // dense frames that are not anchors
	slots  int // entries a head has room for, in the mean over layers
	grows  bool

	done   int // frames committed
	merged int // next frame to be merged
	span   kvcache.Span
	guard  kvcache.Guard
	parts  []kvcache.Part // of the chunk in work, entries not counted
	spent  time.Duration
	heads  []kvcache.HeadStats
	dq     compute.Queue // of the last Begin, for Stats
	remote remote

	// The frame that is being merged. Layers have a desk each, so that all can work at the same time, or share one.
	frame  int
	desks  []desk
	tell   func(layer int) // the layers' work on the host
	find   func(layer int)
	settle func(layer int)
}

// desk is what a layer needs while it merges a frame.
type desk struct {
	probe, query, best, score rows
	known                     rows      // what an index knows of one group's entries
	hits                      []hit     // [groups, tokens]
	row, other                []float32 // of a head

	// F32 [heads, samples, headDim] recent queries, [heads, tokens, headDim] what merging would do to keys, and [heads, tokens, samples] their
	// products, if queries have been seen.
	samples, apart, moves rows
	asks                  bool

	olds, pairs ranking  // of the group in work
	waiting     []int32  // its tokens that need room, where there is a rest
	nearest     []ranked // the closest pair of each of its entries then
	turns       turns
}

func newCache(p Policy, dev compute.Device, s kvcache.Shape, do compute.Vectors) *cache {
	c := &cache{p: p, do: do, shape: s, device: dev, groups: s.Heads, ring: p.Recent + s.ChunkFrames, merged: p.Anchor, grows: p.Budget == Budget{}}
	if p.Shared {
		c.groups = 1
	}
	c.remote.on = p.remotely(dev)
	if c.remote.on || p.Shared { // heads of a layer then have equal room
		c.p.Shares = ofLayers(p.Shares, s)
	}
	c.turns = newTurns(s, do)
	c.desks = make([]desk, s.Layers)
	if p.Search == Approximate || c.remote.on { // indexes search by the queue, and devices need no desks
		c.desks = c.desks[:1]
	}
	for i := range c.desks {
		d := &c.desks[i]
		d.hits, d.turns = make([]hit, c.groups*s.Tokens()), c.turns
		d.turns.time = make([]float32, len(c.turns.time))
		d.olds.list, d.pairs.list = make([]ranked, 0, s.Tokens()), make([]ranked, 0, s.Tokens())
		d.waiting = make([]int32, 0, s.Tokens())
		d.row, d.other = make([]float32, s.HeadDim), make([]float32, s.HeadDim)
	}
	c.tell = func(i int) { c.layers[i].describe(c.slot(c.frame)) }
	c.find = func(i int) { c.layers[i].find(c.dq, c.frame) }
	c.settle = func(i int) { c.layers[i].settle(c.frame) }
	c.heads = make([]kvcache.HeadStats, s.Layers*s.Heads)
	return c
}

// width is the length of the vectors that are compared.
func (c *cache) width() int { return c.shape.Heads / c.groups * c.shape.HeadDim }

// dense is the number of slots before the entries.
func (c *cache) dense() int { return (c.ring + c.p.Anchor) * c.shape.Tokens() }

// asks reports whether queries are kept.
func (c *cache) asks() bool { return c.p.ByQuery || c.p.MaxError > 0 || c.p.MaxChange > 0 }

// probes allocates the memory for the frame that is being merged.
func (c *cache) probes(a compute.Arena) {
	n := c.shape.Tokens()
	for i := range c.desks {
		d := &c.desks[i]
		d.probe.tensor = a.Tensor(compute.F32, c.groups, n, c.width())
		if c.p.ByQuery {
			d.query.tensor = a.Tensor(compute.F32, c.groups, n, c.width())
		}
		d.best.tensor = a.Tensor(compute.I32, c.groups, n)
		d.score.tensor = a.Tensor(compute.F32, c.groups, n)
		if c.asks() && !c.remote.on {
			s := c.shape
			d.samples.tensor = a.Tensor(compute.F32, s.Heads, samples, s.HeadDim)
			d.apart.tensor = a.Tensor(compute.F32, s.Heads, n, s.HeadDim)
			d.moves.tensor = a.Tensor(compute.F32, s.Heads, n, samples)
		}
	}
	if c.remote.on {
		c.remote.fixed(c, a)
	}
}

// most returns the entries of the layer that has room for most.
func (c *cache) most(slots int) (n int) {
	for i := range c.shape.Layers {
		n = max(n, c.room(i, slots))
	}
	return n
}

// room returns the entries of the group of a layer that has room for most, when the mean is slots.
func (c *cache) room(layer, slots int) (most int) {
	for g := range c.groups {
		most = max(most, c.roomOf(layer, g, slots))
	}
	return most
}

// roomOf returns the entries that a group has room for when the mean is slots.
func (c *cache) roomOf(layer, g, slots int) int {
	shares := c.p.Shares
	if c.grows || len(shares) == 0 {
		return slots
	}
	sum := 0.0
	for _, v := range shares {
		sum += v
	}
	at := layer
	if len(shares) > c.shape.Layers {
		at = layer*c.groups + g
	}
	return int(float64(slots) * shares[at] * float64(len(shares)) / sum)
}

// allocate takes the storage of all layers with room for so many entries a head, in the mean over layers.
func (c *cache) allocate(a compute.Arena, slots int) []layer {
	s, mean := c.shape, slots
	layers := make([]layer, s.Layers)
	widest := 0
	for i := range layers {
		slots := c.room(i, mean)
		widest = max(widest, slots)
		all := c.dense() + slots
		l := &layers[i]
		l.cache, l.desk, l.index, l.slots = c, &c.desks[i%len(c.desks)], i, slots
		l.room = make([]int, c.groups)
		for g := range l.room {
			l.room[g] = c.roomOf(i, g, mean)
		}
		l.keys.tensor = a.Tensor(s.DType, s.Heads, all, s.HeadDim)
		l.values.tensor = a.Tensor(s.DType, s.Heads, all, s.HeadDim)
		rawType := s.DType
		if c.p.Keep == Mean {
			rawType = compute.F32
		}
		l.raw.tensor = a.Tensor(rawType, s.Heads, all, s.HeadDim)
		l.logCount.tensor = a.Tensor(compute.F32, s.Heads, all)
		l.lengths.tensor = a.Tensor(compute.I32, s.Heads)
		l.places.tensor = a.Tensor(compute.I32, s.Heads, c.p.Anchor*s.Tokens()+slots, 3)
		l.groupLengths.tensor = a.Tensor(compute.I32, c.groups)
		l.unit.tensor = a.Tensor(compute.F32, c.groups, slots, c.width())
		if s.DType != compute.F32 {
			l.means.tensor = a.Tensor(compute.F32, s.Heads, slots, s.HeadDim)
		}
		if c.p.Retest > 0 {
			l.first.tensor = a.Tensor(compute.F32, c.groups, slots, c.width())
		}
		if c.asks() {
			l.queries.tensor = a.Tensor(s.DType, s.Heads, c.ring*s.Tokens(), s.HeadDim)
		}
		if c.remote.on {
			l.state(a)
		}
	}
	if c.remote.on {
		c.remote.order = a.Tensor(compute.I32, s.Layers, c.groups, 4*widest+5*s.Tokens())
		c.remote.codesFor(c, a, widest)
	}
	return layers
}

// resize moves the store to one with room for so many entries a head.
func (c *cache) resize(dq compute.Queue, slots int) error {
	meter := &compute.Meter{Device: c.device}
	c.allocate(meter, slots)
	c.probeIndex(meter, slots)
	store, err := c.device.NewArena(meter.Bytes())
	if err != nil {
		return fmt.Errorf("%d entries a head, %d MiB: %w", slots, meter.Bytes()>>20, err)
	}
	layers := c.allocate(store, slots)
	c.probeIndex(store, slots)
	if err := store.Err(); err != nil {
		store.Free()
		return fmt.Errorf("%d entries a head: %w", slots, err)
	}
	for i := range layers {
		l := &layers[i]
		l.newGroups()
		if c.store != nil {
			l.take(dq, &c.layers[i])
		}
	}
	if err := dq.Wait(); err != nil {
		store.Free()
		return err
	}
	if c.store != nil {
		c.store.Free()
	}
	c.store, c.layers, c.slots = store, layers, slots
	for i := range layers {
		layers[i].open(dq)
		layers[i].reindex()
	}
	if c.remote.on {
		c.describeStores()
		c.remote.tellCodes(c, dq)
		return dq.Err()
	}
	for i := range c.desks {
		for _, r := range c.desks[i].rows() {
			r.open(dq)
		}
	}
	return nil
}

func (d *desk) rows() [8]*rows {
	return [8]*rows{&d.probe, &d.query, &d.best, &d.score, &d.known, &d.samples, &d.apart, &d.moves}
}

// probeIndex takes room for what an index knows of a group's entries.
func (c *cache) probeIndex(a compute.Arena, slots int) {
	if c.p.Search == Approximate && !c.remote.on {
		c.desks[0].known.tensor = a.Tensor(compute.F32, 1, c.most(slots), c.width())
	}
}

// slot returns the first slot of a dense frame.
func (c *cache) slot(frame int) int {
	at := c.ring + c.p.Anchor - 1 - frame
	if frame >= c.p.Anchor {
		at = c.ring - 1 - (frame-c.p.Anchor)%c.ring
	}
	return at * c.shape.Tokens()
}

// Begin makes room for span: frames that leave the ring are merged, keys beyond the clamp rotated again.
func (c *cache) Begin(dq compute.Queue, span kvcache.Span) error {
	if err := c.guard.Take(); err != nil {
		return err
	}
	if span.Start != c.done || span.Frames <= 0 || span.Frames > c.shape.ChunkFrames {
		return fmt.Errorf("chunk of %d latent frames at %d: the cache holds %d and takes up to %d", span.Frames, span.Start, c.done, c.shape.ChunkFrames)
	}
	began := time.Now()
	c.span, c.dq = kvcache.Span{}, dq
	for end := span.Start + span.Frames - c.ring; c.merged < end; c.merged++ {
		if err := c.merge(dq, c.merged); err != nil {
			return err
		}
	}
	c.span = span
	c.pos.Begin(dq, span)
	for i := range c.layers {
		c.layers[i].turn(dq)
	}
	c.partition(dq)
	c.spent += time.Since(began)
	return dq.Err()
}

// merge moves a frame from the ring into the entries of every layer.
func (c *cache) merge(dq compute.Queue, frame int) error {
	if c.grows && c.full(dq) {
		if err := c.resize(dq, 2*c.slots); err != nil {
			return err
		}
	}
	if c.remote.on {
		c.mergeRemotely(dq, frame)
		return nil
	}
	c.frame = frame
	if len(c.desks) < len(c.layers) {
		for i := range c.layers {
			c.layers[i].fetch(dq)
			c.tell(i)
			c.layers[i].match(dq, frame)
			c.find(i)
			c.layers[i].weigh(dq)
			c.settle(i)
			c.layers[i].flush(dq)
		}
		return nil
	}
	for i := range c.layers {
		c.layers[i].fetch(dq)
	}
	compute.Share(dq, len(c.layers), c.tell)
	for i := range c.layers {
		c.layers[i].match(dq, frame)
	}
	compute.Share(dq, len(c.layers), c.find)
	for i := range c.layers {
		c.layers[i].weigh(dq)
	}
	compute.Share(dq, len(c.layers), c.settle)
	for i := range c.layers {
		c.layers[i].flush(dq)
	}
	return nil
}

// partition lists the dense frames in view, and hides slots of the ring whose frame has been merged already: a chunk that is
// begun again with fewer frames leaves such slots.
func (c *cache) partition(dq compute.Queue) {
	c.parts = c.parts[:0]
	n, end := c.shape.Tokens(), c.span.Start+c.span.Frames
	lo := c.low()
	for at := lo; at < c.dense(); at += n {
		f := c.frameAt(at/n, end)
		kind := kvcache.Recent
		switch {
		case f >= c.span.Start:
			kind = kvcache.Current
		case f < c.p.Anchor:
			kind = kvcache.Anchor
		}
		for i := range c.layers {
			c.layers[i].hide(dq, at, f >= c.p.Anchor && f < c.merged)
		}
		c.parts = append(c.parts, kvcache.Part{Kind: kind, Lo: at - lo, Hi: at - lo + n, Frame: f})
	}
	if c.remote.on {
		c.mergeRemotely(dq, -1)
	}
	for i := range c.layers {
		c.layers[i].publish(dq)
	}
}

// low returns the first slot in use.
func (c *cache) low() int {
	return max(0, c.ring+c.p.Anchor-c.span.Start-c.span.Frames) * c.shape.Tokens()
}

// frameAt returns the frame that lies in dense place i when frames up to end have been written.
func (c *cache) frameAt(i, end int) int {
	if i >= c.ring {
		return c.ring + c.p.Anchor - 1 - i
	}
	last := end - 1 - c.p.Anchor
	back := ((last-(c.ring-1-i))%c.ring + c.ring) % c.ring
	return c.p.Anchor + last - back
}

// End counts the chunk as history.
func (c *cache) End() {
	if !c.guard.Bad() {
		c.done += c.span.Frames
	}
	c.span = kvcache.Span{}
}

// Layer returns block i's side.
func (c *cache) Layer(i int) kvcache.Layer { return &c.layers[i] }

// Rope returns the tables and the positions of the chunk in work.
func (c *cache) Rope() (compute.Rope, compute.Tensor) {
	return c.pos.Rope(), c.pos.Chunk(c.span.Frames * c.shape.Tokens())
}

// Frames returns the latent frames committed so far, see kvcache.Counter.
func (c *cache) Frames() int { return c.done }

// Stats returns the sizes now.
func (c *cache) Stats() kvcache.Stats {
	s := kvcache.Stats{Frames: c.done, Heads: c.heads, Compacting: c.spent}
	s.Bytes = c.tables.Bytes() + c.store.Bytes() + c.hostBytes(c.slots)
	c.read(c.dq)
	entries := 0
	for i := range c.layers {
		for h := range c.shape.Heads {
			n, entered, evicted := c.layers[i].counts(h)
			entries += n
			at := &c.heads[i*c.shape.Heads+h]
			at.Kept, at.Merged, at.Evicted = n, entered-evicted-int64(n), evicted
		}
	}
	dense := (min(c.done, c.p.Anchor) + max(0, c.done-c.merged)) * c.shape.Tokens()
	s.Tokens = float64(dense) + float64(entries)/float64(c.shape.Layers*c.shape.Heads)
	return s
}

// Reset forgets everything.
func (c *cache) Reset() {
	c.guard.Take()
	c.done, c.merged, c.span, c.spent = 0, c.p.Anchor, kvcache.Span{}, 0
	c.pos.Reset()
	clear(c.heads)
	if c.remote.on && c.dq != nil {
		c.remote.clear(c.dq)
	}
	for i := range c.layers {
		l := &c.layers[i]
		for g := range l.groups {
			l.groups[g].reset()
		}
		l.asked = -1
		for at := 0; at < c.dense(); at += c.shape.Tokens() {
			l.hide(c.dq, at, false)
		}
	}
}

// Close gives the memory back.
func (c *cache) Close() {
	c.store.Free()
	c.tables.Free()
}

// rows gives the host access to a dense tensor [groups, rows, width] or [groups, rows]: to its own memory where the queue is a
// compute.Mapper; else to a copy, which costs a transfer of the whole tensor each way and serves as the oracle.
type rows struct {
	tensor compute.Tensor
	mem    []byte
	mapped bool
	do     compute.Vectors
}

// open maps the tensor or makes room for its copy.
func (r *rows) open(dq compute.Queue) {
	if r.tensor.Elems() == 0 {
		return
	}
	r.do = compute.VectorsOf(dq)
	if m, ok := dq.(compute.Mapper); ok {
		r.mem, r.mapped = m.Map(r.tensor), true
		return
	}
	r.mem = make([]byte, r.tensor.Bytes())
}

// fetch brings the copy up to date.
func (r *rows) fetch(dq compute.Queue) {
	if !r.mapped && len(r.mem) > 0 {
		dq.Download(r.mem, r.tensor)
	}
}

// flush writes the copy back.
func (r *rows) flush(dq compute.Queue) {
	if !r.mapped && len(r.mem) > 0 {
		dq.Upload(r.tensor, r.mem)
	}
}

// at returns the index of element 0 of row i of group g.
func (r *rows) at(g, i int) int { return g*r.tensor.Stride[0] + i*r.tensor.Stride[1] }

// f32 returns a row of an F32 tensor in place.
func (r *rows) f32(g, i int) []float32 {
	return floats(r.mem)[r.at(g, i):][:r.tensor.Dim(-1)]
}

// load copies a row to dst as float32.
func (r *rows) load(dst []float32, g, i int) {
	if r.tensor.DType == compute.F32 {
		copy(dst, floats(r.mem)[r.at(g, i):])
		return
	}
	r.do.Widen(dst, words(r.mem)[r.at(g, i):][:len(dst)])
}

// save rounds src to the row.
func (r *rows) save(g, i int, src []float32) {
	if r.tensor.DType == compute.F32 {
		copy(floats(r.mem)[r.at(g, i):], src)
		return
	}
	r.do.Narrow(words(r.mem)[r.at(g, i):][:len(src)], src)
}

// move copies row from to row to.
func (r *rows) move(g, to, from int) {
	n := r.tensor.Dim(-1) * r.tensor.DType.Size()
	size := r.tensor.DType.Size()
	copy(r.mem[r.at(g, to)*size:][:n], r.mem[r.at(g, from)*size:][:n])
}
