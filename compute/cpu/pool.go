package cpu

import (
	"runtime"
	"sync"
	"sync/atomic"
	"time"
)

// task is an operation cut into tiles. A tile writes elements that no other tile touches, in an order that does not depend on
// who runs it; this makes results independent of the number of threads.
type task interface {
	tile(s *scratch, i int)
}

// job is a queue's place in the pool, reused for every operation of that queue.
type job struct {
	task task
	// shares are the tiles not yet taken, one share a thread, the first parts of them in use. Only who took a tile may read task.
	shares []share
	_      [24]byte
	parts  atomic.Int32
	inside atomic.Int32 // workers that may hold a tile
	failed atomic.Pointer[failure]
	_      [48]byte
}

// share is a run of tiles, the first in the lower half, the end in the upper. Its thread takes them from the front, so that it
// gets the same rows, columns or heads in operation after operation and finds them in its own cache; threads without work take
// from the end.
type share struct {
	run atomic.Uint64
	_   [56]byte
}

func (s *share) set(first, end int) { s.run.Store(uint64(end)<<32 | uint64(first)) }

// take removes a tile from the front or the end, and returns -1 when there is none.
func (s *share) take(front bool) int {
	for {
		v := s.run.Load()
		first, end := uint32(v), uint32(v>>32)
		if first >= end {
			return -1
		}
		if front && s.run.CompareAndSwap(v, v+1) {
			return int(first)
		}
		if !front && s.run.CompareAndSwap(v, v-1<<32) {
			return int(end - 1)
		}
	}
}

// failure carries a panic from a worker to the caller.
type failure struct{ value any }

// pool is the device's worker goroutines. They take tiles from any queue's job, spin for spinTime when there is none, then park.
type pool struct {
	threads int
	use     atomic.Int32  // of them, at most; see Device.Use
	callers atomic.Int32  // queues that compute now
	posted  atomic.Uint32 // changes whenever a job is posted
	asleep  atomic.Int32
	jobs    atomic.Pointer[[]*job]

	mu     sync.Mutex
	wake   sync.Cond
	called sync.Cond // for those that stand by
	closed atomic.Bool
	done   sync.WaitGroup
}

// spinTime bridges the gaps between the operations of a model; a parked worker takes tens of microseconds to wake.
const spinTime = 60 * time.Microsecond

func newPool(threads int) *pool {
	p := &pool{threads: threads}
	p.use.Store(int32(threads))
	p.wake.L, p.called.L = &p.mu, &p.mu
	p.jobs.Store(&[]*job{})
	for i := range threads - 1 {
		p.done.Add(1)
		go p.work(int32(i) + 1)
	}
	return p
}

// inUse returns how many threads compute now.
func (p *pool) inUse() int { return int(p.use.Load()) }

// join adds a queue's job to those the workers look at.
func (p *pool) join(j *job) {
	p.mu.Lock()
	defer p.mu.Unlock()
	next := append(append([]*job{}, *p.jobs.Load()...), j)
	p.jobs.Store(&next)
}

// leave removes a job.
func (p *pool) leave(j *job) {
	p.mu.Lock()
	defer p.mu.Unlock()
	var next []*job
	for _, o := range *p.jobs.Load() {
		if o != j {
			next = append(next, o)
		}
	}
	p.jobs.Store(&next)
}

// run does all tiles of t with the caller and whichever workers are free, and returns when they are done.
func (p *pool) run(j *job, s *scratch, t task, tiles int) {
	threads := p.inUse()
	others := int(p.callers.Add(1)) - 1
	defer p.callers.Add(-1)
	// Where the others' callers keep the threads busy, help for small operations only makes all wait for each other.
	if tiles <= 1 || threads == 1 || others >= max(threads/2, 1) && !large(t) {
		for i := range tiles {
			t.tile(s, i)
		}
		return
	}
	j.task = t
	parts := min(tiles, threads)
	j.parts.Store(int32(parts))
	for i := range parts {
		j.shares[i].set(i*tiles/parts, (i+1)*tiles/parts)
	}
	p.posted.Add(1)
	if p.asleep.Load() > 0 {
		p.mu.Lock()
		for range min(tiles-1, threads-1) {
			p.wake.Signal()
		}
		p.mu.Unlock()
	}
	j.take(s, 0)
	j.await()
	if f := j.failed.Load(); f != nil {
		j.failed.Store(nil)
		panic(f.value)
	}
}

// large reports whether a task is worth the help of others even on a busy machine: attention over a long history, and turning its keys.
func large(t task) bool {
	switch t := t.(type) {
	case *attendTask:
		return t.keys.rows >= 8192
	case *ropeTask:
		return t.tokens*t.heads*t.headDim >= 1<<18
	}
	return false
}

// take runs thread n's tiles, then those of others, until none is left. A panic stops the job and is kept for the caller.
func (j *job) take(s *scratch, n int) {
	defer func() {
		if v := recover(); v != nil {
			for i := range j.shares {
				j.shares[i].set(0, 0)
			}
			j.failed.CompareAndSwap(nil, &failure{v})
		}
	}()
	parts := int(j.parts.Load())
	for d := range parts {
		for {
			i := j.shares[(n+d)%parts].take(d == 0)
			if i < 0 {
				break
			}
			j.task.tile(s, i)
		}
	}
}

// idle reports that no tile is left to take.
func (j *job) idle() bool {
	for i := range j.parts.Load() {
		if v := j.shares[i].run.Load(); uint32(v) < uint32(v>>32) {
			return false
		}
	}
	return true
}

// await waits for the workers that still hold a tile: spinning first, politely later, since on a busy machine the system
// may have taken a worker's core away. Sleeping at once would cost more than most tiles take.
func (j *job) await() {
	for n := 0; j.inside.Load() != 0; n++ {
		switch {
		case n < 400:
			pause()
		case n < 4000:
			runtime.Gosched()
		default:
			time.Sleep(20 * time.Microsecond)
		}
	}
}

// help lets worker n take tiles from every job that has some, and reports whether it found any.
func (p *pool) help(s *scratch, n int) bool {
	found := false
	for _, j := range *p.jobs.Load() {
		if j.idle() {
			continue
		}
		// Entering before taking: the caller, who sees no tile left, then sees this worker inside.
		j.inside.Add(1)
		j.take(s, n)
		j.inside.Add(-1)
		found = true
	}
	return found
}

// work is the life of worker number n; the callers are number 0.
func (p *pool) work(n int32) {
	defer p.done.Done()
	s := newScratch()
	for !p.closed.Load() {
		seen := p.posted.Load()
		if n >= p.use.Load() {
			p.stand(n)
			continue
		}
		if p.help(s, int(n)) {
			continue
		}
		if !p.spin(seen) {
			p.park(seen)
		}
	}
}

// spin waits a little for a new job.
func (p *pool) spin(seen uint32) bool {
	start := time.Now()
	for {
		for range 16 {
			if p.posted.Load() != seen {
				return true
			}
			pause()
		}
		if time.Since(start) > spinTime {
			return false
		}
	}
}

// park sleeps until a job is posted or the pool closes.
func (p *pool) park(seen uint32) {
	p.mu.Lock()
	p.asleep.Add(1)
	for p.posted.Load() == seen && !p.closed.Load() {
		p.wake.Wait()
	}
	p.asleep.Add(-1)
	p.mu.Unlock()
}

// stand waits until worker n is in use or the pool closes.
func (p *pool) stand(n int32) {
	p.mu.Lock()
	for n >= p.use.Load() && !p.closed.Load() {
		p.called.Wait()
	}
	p.mu.Unlock()
}

// limit sets how many threads are in use. Sleeping workers look at it first when they wake.
func (p *pool) limit(threads int) {
	p.mu.Lock()
	p.use.Store(int32(threads))
	p.posted.Add(1)
	p.wake.Broadcast()
	p.called.Broadcast()
	p.mu.Unlock()
}

// close ends the workers and waits for them.
func (p *pool) close() {
	p.mu.Lock()
	p.closed.Store(true)
	p.wake.Broadcast()
	p.called.Broadcast()
	p.mu.Unlock()
	p.done.Wait()
}
