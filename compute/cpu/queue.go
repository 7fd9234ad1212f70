package cpu

import (
	"fmt"
	"unsafe"

	"longtake/compute"
)

// Queue runs operations at once: when a call returns, its result is there. It belongs to one goroutine at a time.
type Queue struct {
	dev     *Device
	class   *class
	scratch *scratch
	job     job
	closed  bool

	// One reusable task a kind, so that calls allocate nothing.
	linear   linearTask
	attend   attendTask
	partial  []byte // see split.go
	each     eachTask
	normTask normTask
	addNorm  addNormTask
	normRope normRopeTask
	rope     ropeTask
	noise    noiseTask
	match    matchTask
	share    shareTask
	score    scoreTask
	bias     biasTask
	unfold   unfoldTask
	squash   squashTask
}

// worthIt is how many float32 elements a tile of a memory-bound operation must have before another worker pays.
const worthIt = 8 << 10

// run does t's tiles.
func (q *Queue) run(t task, tiles int) {
	if q.closed {
		panic("cpu: operation on a closed queue")
	}
	q.dev.pool.run(&q.job, q.scratch, t, tiles)
}

// Upload copies src into a contiguous tensor.
func (q *Queue) Upload(dst compute.Tensor, src []byte) {
	copy(q.bytes("upload", dst, len(src)), src)
}

// Download copies a contiguous tensor into dst.
func (q *Queue) Download(dst []byte, src compute.Tensor) {
	copy(dst, q.bytes("download", src, len(dst)))
}

func (q *Queue) bytes(op string, t compute.Tensor, n int) []byte {
	if !t.Contiguous() || t.Bytes() != int64(n) {
		panic(fmt.Sprintf("cpu: %s of %d bytes and %v", op, n, t))
	}
	if n == 0 {
		return nil
	}
	return unsafe.Slice((*byte)(address(t)), n)
}

// Err returns nil: a processor has no failures of its own, and programmer errors panic.
func (q *Queue) Err() error { return nil }

// Wait returns nil at once.
func (q *Queue) Wait() error { return nil }

// Close gives the queue's place among the workers back.
func (q *Queue) Close() {
	if !q.closed {
		q.closed = true
		q.dev.pool.leave(&q.job)
	}
}
