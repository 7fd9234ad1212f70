package cpu

import (
	"fmt"
	"sync/atomic"
	"unsafe"

	"longtake/compute"
)

// arenaAlign is what compute.Meter counts with.
const arenaAlign = 256

// minGrow is the smallest piece a growing arena takes from the system. Untouched pages cost nothing.
const minGrow = 4 << 20

// arena hands out memory from pieces; a bounded one has a single piece.
type arena struct {
	dev     *Device
	pieces  [][]byte
	free    []byte // rest of the last piece
	bounded bool
	limit   int64
	bytes   int64
	taken   int64 // bytes of all pieces
	buffers []*buffer
	mats    []*matrix
	err     error
}

// NewArena reserves memory, outside the Go heap where the system allows. With a bound the pages are reserved at once and touched
// when used.
func (d *Device) NewArena(bytes int64) (compute.Arena, error) {
	a := &arena{dev: d}
	if bytes > 0 {
		a.bounded, a.limit = true, bytes
		if free := d.Memory().Free; free > 0 && bytes > free {
			return nil, fmt.Errorf("arena of %d bytes with %d available: %w", bytes, free, compute.ErrNoMemory)
		}
		if err := a.grow(bytes); err != nil {
			return nil, err
		}
	}
	return a, nil
}

func (a *arena) grow(n int64) error {
	piece, err := mapMemory(n)
	if err != nil {
		return fmt.Errorf("arena of %d bytes: %v: %w", n, err, compute.ErrNoMemory)
	}
	a.pieces = append(a.pieces, piece)
	a.free = piece
	a.taken += int64(len(piece))
	a.dev.account(int64(len(piece)))
	return nil
}

// take returns n zeroed bytes, or nil after an error.
func (a *arena) take(n int64) []byte {
	if a.err != nil {
		return nil
	}
	need := (n + arenaAlign - 1) / arenaAlign * arenaAlign
	if a.bounded {
		if n > int64(len(a.free)) {
			a.err = fmt.Errorf("arena of %d bytes holds %d, cannot add %d: %w", a.limit, a.bytes, n, compute.ErrNoMemory)
			return nil
		}
		need = min(need, int64(len(a.free)))
	} else if int64(len(a.free)) < need {
		if a.err = a.grow(max(need, minGrow)); a.err != nil {
			return nil
		}
	}
	mem := a.free[:n:n]
	a.free = a.free[need:]
	a.bytes += need
	return mem
}

// Tensor returns a zeroed contiguous tensor, 256-byte aligned.
func (a *arena) Tensor(dt compute.DType, dims ...int) compute.Tensor {
	t := compute.NewTensor(nil, 0, dt, dims...)
	mem := a.take(t.Bytes())
	if a.err != nil {
		return compute.Tensor{}
	}
	b := &buffer{mem: mem, size: t.Bytes()}
	a.buffers = append(a.buffers, b)
	t.Buffer = b
	return t
}

// Bytes returns what has been handed out, padding included.
func (a *arena) Bytes() int64 { return a.bytes }

// Err returns the first failure, or nil.
func (a *arena) Err() error { return a.err }

// Free gives the memory back to the system at once. Tensors used later panic.
func (a *arena) Free() {
	for _, b := range a.buffers {
		b.mem = nil
	}
	for _, m := range a.mats {
		m.mem, m.p = nil, nil
	}
	for _, p := range a.pieces {
		unmapMemory(p)
	}
	a.dev.account(-a.taken)
	a.pieces, a.free, a.buffers, a.mats = nil, nil, nil, nil
	a.taken, a.bytes = 0, 0
	if a.err == nil {
		a.err = fmt.Errorf("arena was freed")
	}
}

// usage counts a device's arenas.
type usage struct{ used, peak atomic.Int64 }

func (u *usage) account(n int64) {
	now := u.used.Add(n)
	for {
		peak := u.peak.Load()
		if now <= peak || u.peak.CompareAndSwap(peak, now) {
			return
		}
	}
}

// start returns the address of a byte slice, nil for an empty one.
func start(b []byte) unsafe.Pointer {
	if len(b) == 0 {
		return nil
	}
	return unsafe.Pointer(unsafe.SliceData(b))
}
