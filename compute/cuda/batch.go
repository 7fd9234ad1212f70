package cuda

import (
	"bytes"
	"hash/maphash"
	"slices"
	"unsafe"
)

// leastBatch is the number of launches from which a graph pays; mostSteps bounds the launches that kept graphs hold together.
const (
	leastBatch = 8
	mostSteps  = 1 << 16
)

// step is one launch of a batch. All of its bytes are hashed, so there are no gaps between the fields.
type step struct {
	kind          uint64   // stepKernel, stepEarly, stepProduct, stepCopy
	target        uint64   // function, or number of the product's plan
	operands      operands // a product's; a copy's dst, src as x and bytes as w
	grid, block   [3]uint32
	shared, count uint32 // dynamic shared memory; number of arguments
	args          [4]uint32
}

const (
	stepKernel = iota
	stepEarly  // a kernel that waits for the one before by itself
	stepProduct
	stepCopy
)

// sequence is launches written down, the arguments of kernels at multiples of 64 bytes.
type sequence struct {
	steps []step
	args  []byte
}

func (s *sequence) clear() { s.steps, s.args = s.steps[:0], s.args[:0] }

func (s *sequence) equal(o *sequence) bool {
	return bytes.Equal(s.args, o.args) && slices.Equal(s.steps, o.steps)
}

// shape is what two sequences share when one's graph can be given the other's arguments.
func (s *sequence) shape(seed maphash.Seed) uint64 {
	var h maphash.Hash
	h.SetSeed(seed)
	for i := range s.steps {
		h.WriteByte(byte(s.steps[i].kind))
		maphash.WriteComparable(&h, s.steps[i].target)
	}
	return h.Sum64()
}

func (s *sequence) sum(seed maphash.Seed) uint64 {
	var h maphash.Hash
	h.SetSeed(seed)
	if len(s.steps) > 0 {
		h.Write(unsafe.Slice((*byte)(unsafe.Pointer(&s.steps[0])), len(s.steps)*int(unsafe.Sizeof(step{}))))
	}
	h.Write(s.args)
	return h.Sum64()
}

// kept is a graph of a sequence that came twice.
type kept struct {
	sequence
	exec uintptr
	used uint64 // the clock at its last use
}

// batch collects the launches between BeginBatch and EndBatch. A sequence that was seen before is replayed as the graph of
// its launches; a new one becomes a graph too, by giving its arguments to the graph of a sequence of the same shape, because
// a graph runs with smaller gaps between its kernels than single launches do.
type batch struct {
	open   bool
	now    sequence
	seed   maphash.Seed
	clock  uint64
	graphs map[uint64]*kept   // by sum
	steps  int                // of graphs
	loose  map[uint64]uintptr // graphs that take any arguments, by shape
	seen   map[uint64]bool    // sums that came once
	hits   int
	misses int
}

// BeginBatch writes launches down until EndBatch, see compute.Batcher.
func (q *queue) BeginBatch() {
	if q.recording || q.err != nil || q.profile != nil {
		return
	}
	if q.batch.graphs == nil {
		q.batch.seed = maphash.MakeSeed()
		q.batch.graphs, q.batch.loose, q.batch.seen = map[uint64]*kept{}, map[uint64]uintptr{}, map[uint64]bool{}
	}
	q.batch.open = true
}

// EndBatch starts what was called since BeginBatch.
func (q *queue) EndBatch() {
	q.flush()
	q.batch.open = false
}

// flush starts what has been written down, so that something may follow that cannot be.
func (q *queue) flush() {
	b := &q.batch
	if len(b.now.steps) == 0 {
		return
	}
	if q.err == nil {
		q.play(&b.now)
	}
	b.now.clear()
}

// note writes a kernel down.
func (b *batch) note(fn uintptr, early bool, grid, block [3]uint32, shared int, args []argumentAt) {
	s := step{kind: stepKernel, target: uint64(fn), grid: grid, block: block, shared: uint32(shared), count: uint32(len(args))}
	if early {
		s.kind = stepEarly
	}
	for i, a := range args {
		for len(b.now.args)%64 != 0 {
			b.now.args = append(b.now.args, 0)
		}
		s.args[i] = uint32(len(b.now.args))
		b.now.args = append(b.now.args, unsafe.Slice((*byte)(a.at), a.bytes)...)
	}
	b.now.steps = append(b.now.steps, s)
}

// play starts a sequence, by a graph where that pays.
func (q *queue) play(s *sequence) {
	b := &q.batch
	if len(s.steps) < leastBatch {
		q.direct(s, true)
		return
	}
	b.clock++
	sum := s.sum(b.seed)
	if k := b.graphs[sum]; k != nil && k.equal(s) {
		k.used = b.clock
		b.hits++
		q.fail("batch", q.drv.LaunchGraph(k.exec, q.stream))
		return
	}
	b.misses++
	shape := s.shape(b.seed)
	again := b.seen[sum] && b.graphs[sum] == nil && len(s.steps) <= mostSteps
	var from uintptr
	if !again {
		from = b.loose[shape]
		delete(b.loose, shape)
	}
	exec, ok := q.graphOf(s, from, again)
	if !ok {
		return
	}
	if again {
		delete(b.seen, sum)
		b.keep(q.drv, sum, s, exec)
	} else {
		if len(b.seen) >= 4096 {
			clear(b.seen)
		}
		b.seen[sum] = true
		if len(b.loose) >= 64 && from == 0 {
			for at, old := range b.loose {
				q.drv.FreeGraph(old)
				delete(b.loose, at)
			}
		}
		b.loose[shape] = exec
	}
	q.fail("batch", q.drv.LaunchGraph(exec, q.stream))
}

// graphOf records a sequence. From, if it is not 0, is a graph that is used up: it gets the sequence's arguments. It reports
// false when the sequence was started one by one, or the queue failed.
// Kernels of a graph that stays start early; a graph that is given other arguments cannot have that (cuGraphExecUpdate).
func (q *queue) graphOf(s *sequence, from uintptr, stays bool) (exec uintptr, ok bool) {
	if err := q.drv.BeginCapture(q.stream); err != nil {
		if from != 0 {
			q.drv.FreeGraph(from)
		}
		q.direct(s, true)
		return 0, false
	}
	q.direct(s, stays)
	exec, err := q.drv.EndCapture(q.stream, from)
	if err != nil {
		q.fail("batch", err)
		return 0, false
	}
	if q.err != nil {
		q.drv.FreeGraph(exec)
	}
	return exec, q.err == nil
}

// direct starts the launches one by one, those that can before the one before has ended if early says so.
func (q *queue) direct(s *sequence, early bool) {
	for i := range s.steps {
		t := &s.steps[i]
		var err error
		switch t.kind {
		case stepKernel, stepEarly:
			l := &q.start
			l.fn, l.stream, l.grid, l.block, l.sharedBytes, l.early = uintptr(t.target), q.stream, t.grid, t.block, t.shared, early && t.kind == stepEarly
			for k := range t.count {
				l.params[k] = unsafe.Pointer(&s.args[t.args[k]])
			}
			err = q.drv.Launch(l)
		case stepProduct:
			err = q.drv.Multiply(q.plans[t.target], t.operands, q.work.ptr, q.stream)
		case stepCopy:
			err = q.drv.CopyOn(t.operands.dst, t.operands.x, int64(t.operands.w), q.stream)
		}
		if err != nil {
			q.fail("batch", err)
			return
		}
	}
}

// keep stores the graph of a sequence, in place of those that were not used for longest.
func (b *batch) keep(drv driver, sum uint64, s *sequence, exec uintptr) {
	for len(b.graphs) > 0 && b.steps+len(s.steps) > mostSteps {
		var oldest uint64
		least := b.clock + 1
		for at, k := range b.graphs {
			if k.used < least {
				oldest, least = at, k.used
			}
		}
		drv.FreeGraph(b.graphs[oldest].exec)
		b.steps -= len(b.graphs[oldest].steps)
		delete(b.graphs, oldest)
	}
	b.steps += len(s.steps)
	b.graphs[sum] = &kept{sequence: sequence{slices.Clone(s.steps), slices.Clone(s.args)}, exec: exec, used: b.clock}
}

// free gives all graphs back.
func (b *batch) free(drv driver) {
	for _, k := range b.graphs {
		drv.FreeGraph(k.exec)
	}
	for _, exec := range b.loose {
		drv.FreeGraph(exec)
	}
	*b = batch{}
}
