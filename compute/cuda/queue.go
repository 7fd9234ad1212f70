package cuda

import (
	"errors"
	"fmt"
	"sync/atomic"
	"unsafe"

	"longtake/compute"
)

// workspaceBytes is what cuBLASLt may use on one queue; NVIDIA advises 32 MiB for Hopper.
const workspaceBytes = 32 << 20

// errFreed is the state of a closed queue.
var errFreed = errors.New("cuda: queue is closed")

// faults are what kernels leave in a queue's fault word; types.cuh has the same numbers.
var faults = map[uint32]string{
	1: "gather: an index lies outside the table",
	2: "rope: a row or column position lies outside its table",
	3: "attend: a tile list leaves its tensor",
}

// queue is one CUDA stream with what its calls need: reusable argument structs, pinned memory, work space. It implements
// compute.Queue; one goroutine uses it at a time.
type queue struct {
	device    *Device
	drv       driver
	stream    uintptr
	err       error
	recording bool

	start     launch
	staging   *staging
	fault     *uint32 // pinned, written by kernels
	faultPage []byte
	faultAt   uint64
	work      *block
	counter   *block // two zeros for kernels/attend
	scratches [scratchKinds]*block
	outgrown  []*block // scratch that graphs may still use
	products  map[product]*productPlan
	plans     []*productPlan // of products, by number
	batch     batch
	profile   *profile
	ops       uint64 // operations so far
	rounded   rounded
	mark      uintptr // event, up to which a queue that follows waits; made when the first one does

	// The kernels' arguments. They live here because a launch needs them at a fixed place for the time of the call.
	elementArgs    mapArgs
	normArgs       normArgs
	addArgs        addArgs
	turnArgs       turnArgs
	ropeArgs       ropeArgs
	gatherArgs     gatherArgs
	timeEmbedArgs  timeEmbedArgs
	noiseArgs      noiseArgs
	linearArgs     linearArgs
	partsArgs      partsArgs
	attendJoinArgs attendJoinArgs
	unfoldArgs     unfoldArgs
	convArgs       convArgs
	pixelsArgs     pixelsArgs
	quantArgs      quantArgs
	attendAnyArgs  attendAnyArgs
	attendArgs     attendArgs
	joinArgs       joinArgs
	splitArgs      splitArgs
	matchArgs      matchArgs
	hashArgs       hashArgs
	bucketsArgs    bucketsArgs
	selectArgs     selectArgs
	planArgs       planArgs
	mergeArgs      mergeArgs
	mergeStores    []mergeStore
	operands       attendOperands
	maps           [3]encodedMap
}

var _ compute.Queue = (*queue)(nil)

// NewQueue returns a stream with 32 MiB of work space and 8 MiB of pinned host memory.
func (d *Device) NewQueue() (compute.Queue, error) {
	q := &queue{device: d, drv: d.drv, products: map[product]*productPlan{}}
	if err := q.open(); err != nil {
		q.Close()
		return nil, fmt.Errorf("open queue: %w", err)
	}
	return q, nil
}

func (q *queue) open() error {
	var err error
	if q.stream, err = q.drv.NewStream(); err != nil {
		return err
	}
	if q.staging, err = newStaging(q.drv); err != nil {
		return err
	}
	if q.work, err = q.device.alloc(workspaceBytes); err != nil {
		return err
	}
	if q.counter, err = q.device.alloc(arenaAlign); err != nil {
		return err
	}
	if err = q.drv.Memset(q.counter.ptr, 0, arenaAlign); err != nil {
		return err
	}
	if q.faultPage, q.faultAt, err = q.drv.HostAlloc(64); err != nil {
		return err
	}
	clear(q.faultPage)
	q.fault = (*uint32)(unsafe.Pointer(&q.faultPage[0]))
	return nil
}

// Err returns the first failure that is known without waiting.
func (q *queue) Err() error {
	if q.err == nil && q.fault != nil {
		if code := atomic.LoadUint32(q.fault); code != 0 {
			q.err = fmt.Errorf("cuda: %s", faults[code])
		}
	}
	return q.err
}

// Wait blocks until the GPU has done everything called so far.
func (q *queue) Wait() error {
	if q.err == nil && q.recording {
		q.fail("wait", errRecording)
	}
	q.flush()
	if q.err == nil {
		q.fail("wait", q.drv.Sync(q.stream))
	}
	return q.Err()
}

// Close waits and gives everything back.
func (q *queue) Close() {
	if q.stream == 0 {
		return
	}
	q.drv.Sync(q.stream)
	q.batch.free(q.drv)
	if q.Err() == nil { // before the fault word goes
		q.err = errFreed
	}
	for _, p := range q.products {
		if p != nil {
			q.drv.FreeProduct(p)
		}
	}
	if q.staging != nil {
		q.staging.free()
	}
	if q.faultPage != nil {
		q.drv.HostFree(q.faultPage)
	}
	for _, b := range append(append(q.outgrown, q.scratches[:]...), q.work, q.counter) {
		q.device.release(b)
	}
	if q.mark != 0 {
		q.drv.FreeEvent(q.mark)
	}
	q.drv.FreeStream(q.stream)
	q.stream, q.fault, q.faultPage = 0, nil, nil
}

// Fail makes the queue behave as if the device had failed with err; for tests of what comes after a failure.
func (q *queue) Fail(err error) { q.fail("failed on request", err) }

// fail keeps the first error.
func (q *queue) fail(op string, err error) {
	if err != nil && q.err == nil {
		q.err = fmt.Errorf("cuda: %s: %w", op, err)
	}
}

// argumentAt is where a kernel's argument lies, and its size.
type argumentAt struct {
	at    unsafe.Pointer
	bytes uintptr
}

// argument is a pointer as launch takes it.
func argument[T any](p *T) argumentAt { return argumentAt{unsafe.Pointer(p), unsafe.Sizeof(*p)} }

// launch starts a kernel, or writes it down in a batch; a grid with a 0 does nothing. args point into the queue: they must
// stay where they are.
func (q *queue) launch(op string, fn uintptr, grid, threads [3]uint32, sharedBytes int, args ...argumentAt) {
	if q.err != nil || grid[0] == 0 || grid[1] == 0 || grid[2] == 0 {
		return
	}
	q.ops++
	early := q.device.early[fn]
	if q.batch.open {
		q.batch.note(fn, early, grid, threads, sharedBytes, args)
		return
	}
	if q.profile != nil {
		q.profiled(q.profile, opKey{op, uint64(fn), grid})
		early = false
	}
	l := &q.start
	l.fn, l.stream, l.grid, l.block, l.sharedBytes, l.early = fn, q.stream, grid, threads, uint32(sharedBytes), early
	for i, a := range args {
		l.params[i] = a.at
	}
	q.fail(op, q.drv.Launch(l))
}

// Work space that operations use for themselves. Each purpose has its own, because one operation may need several.
const (
	scratchInput      = iota // Linear: x in the type of the weights
	scratchOutput            // Linear: dst before it is rounded
	scratchBias              // Linear: bias in bfloat16
	scratchQuant             // Linear: x in e4m3
	scratchScales            // likewise: its scales
	scratchPatches           // Convolve: patches where the kernel does not fit
	scratchParts             // Attend: outputs of the pieces of a tile
	scratchPartSums          // Attend: their log-sums
	scratchFound             // Match: the best so far
	scratchStores            // Merge: the table of stores
	scratchSelectKeys        // Select: keys without gaps
	scratchProducts          // Select: products of queries and keys
	scratchMore              // AttendMore: the attention over more keys
	scratchMoreSums          // likewise: its log-sums
	scratchKinds
)

// scratch returns a tensor [rows, width] that lasts until the next operation. It grows on first use; what it outgrows is
// kept until Close, because recorded graphs may hold its address.
func (q *queue) scratch(purpose int, dt compute.DType, rows, width int) compute.Tensor {
	t := compute.NewTensor(nil, 0, dt, rows, width)
	b := q.scratches[purpose]
	if b == nil || b.bytes < t.Bytes() {
		if q.recording {
			q.fail("work space", fmt.Errorf("it would have to grow while a graph is recorded; run the same calls once before"))
			return compute.Tensor{}
		}
		grown, err := q.device.alloc(align(t.Bytes() + t.Bytes()/4))
		if err != nil {
			q.fail("work space", err)
			return compute.Tensor{}
		}
		if b != nil {
			q.outgrown = append(q.outgrown, b)
		}
		q.scratches[purpose], b = grown, grown
	}
	t.Buffer = b
	return t
}

// half is 1 for BF16 and 0 for F32; other types are programmer errors.
func half(op string, t compute.Tensor) uint32 {
	switch t.DType {
	case compute.F32:
		return 0
	case compute.BF16:
		return 1
	}
	panic(fmt.Sprintf("cuda: %s: %v is neither f32 nor bf16", op, t))
}

// mismatch panics with the operation and what was given.
func mismatch(op string, given ...any) {
	panic(fmt.Sprintf("cuda: %s: shapes or types do not fit: %v", op, given))
}

// aligned reports whether 16-byte accesses work: the start of the tensor and every stride but the last.
func aligned(t compute.Tensor) bool {
	if t.IsZero() {
		return true
	}
	size := t.DType.Size()
	if address(t)%16 != 0 {
		return false
	}
	for i := range t.Rank - 1 {
		if t.Shape[i] > 1 && t.Stride[i]*size%16 != 0 {
			return false
		}
	}
	return true
}

// groups returns how many rows of x [rows, width] share a row of modulation [groups, width], after checking the two.
func groups(op string, modulation, x compute.Tensor) int {
	m := modulation
	if !(m.Rank == 2 && m.DType == compute.F32 && m.Shape[1] == x.Shape[1] && m.Shape[0] > 0 && x.Shape[0]%m.Shape[0] == 0) {
		mismatch(op, m, x)
	}
	return max(x.Shape[0]/m.Shape[0], 1)
}

// geometry lays threads over rows of chunks: x along a row, y over rows.
func geometry(rows, chunks int) (grid, threads [3]uint32) {
	x := min(256, (chunks+31)/32*32)
	y := max(1, 256/x)
	return [3]uint32{uint32((rows + y - 1) / y), 1, 1}, [3]uint32{uint32(x), uint32(y), 1}
}
