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
	task  task
	tiles int64
	_     [48]byte
	// left counts the tiles not yet taken; zero or less means there is nothing to take. Only who took a positive count may
	// read task and tiles.
	left   atomic.Int64
	_      [56]byte
	inside atomic.Int32 // workers that may hold a tile
	failed atomic.Pointer[failure]
	_      [48]byte
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
	j.task, j.tiles = t, int64(tiles)
	j.left.Store(int64(tiles))
	p.posted.Add(1)
	if p.asleep.Load() > 0 {
		p.mu.Lock()
		for range min(tiles-1, threads-1) {
			p.wake.Signal()
		}
		p.mu.Unlock()
	}
	j.take(s)
	j.await()
	if f := j.failed.Load(); f != nil {
		j.failed.Store(nil)
		panic(f.value)
	}
}

// large reports whether a task is worth the help of others even on a busy machine: attention over a long history.
func large(t task) bool {
	a, ok := t.(*attendTask)
	return ok && a.keys.rows >= 8192
}

// take runs tiles until none is left. A panic stops the job and is kept for the caller.
func (j *job) take(s *scratch) {
	defer func() {
		if v := recover(); v != nil {
			j.left.Store(0)
			j.failed.CompareAndSwap(nil, &failure{v})
		}
	}()
	for {
		left := j.left.Add(-1)
		if left < 0 {
			return
		}
		j.task.tile(s, int(j.tiles-1-left))
	}
}

// await waits for the workers that still hold a tile: spinning first, politely later, since on a busy machine the system
// may have taken a worker's core away.
func (j *job) await() {
	for n := 0; j.inside.Load() != 0; n++ {
		switch {
		case n < 400:
			pause()
		case n < 600:
			runtime.Gosched()
		default:
			time.Sleep(20 * time.Microsecond)
		}
	}
}

// help takes tiles from every job that has some, and reports whether it found any.
func (p *pool) help(s *scratch) bool {
	found := false
	for _, j := range *p.jobs.Load() {
		if j.left.Load() <= 0 {
			continue
		}
		// Entering before taking: the caller, who sees no tile left, then sees this worker inside.
		j.inside.Add(1)
		j.take(s)
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
		if p.help(s) {
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
