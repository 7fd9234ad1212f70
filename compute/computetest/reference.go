package computetest

import (
	"fmt"
	"slices"
	"sync"

	"longtake/compute"
)

// referenceLimit is the memory that Reference pretends to have.
const referenceLimit = 4 << 30

// arenaAlign is what every allocation is rounded up to, as compute.Meter does.
const arenaAlign = 256

// Reference returns a device of float64 loops: slow, exact up to the rounding of stored results, and safe for concurrent
// use. It has 4 GiB, and matrices of any floating type.
func Reference() compute.Device { return &device{} }

type device struct {
	mu         sync.Mutex
	used, peak int64
}

func (d *device) Name() string { return "reference, float64" }

func (d *device) Types() compute.Types {
	return compute.Types{Activation: compute.F32, Cache: compute.F32}
}

func (d *device) MatrixBytes(w compute.Host) int64 { return int64(w.Elems()) * 8 }

func (d *device) NewQueue() (compute.Queue, error) { return &queue{}, nil }

func (d *device) Memory() compute.Memory {
	d.mu.Lock()
	defer d.mu.Unlock()
	return compute.Memory{Total: referenceLimit, Free: referenceLimit - d.used, Used: d.used, Peak: d.peak}
}

func (d *device) Close() error { return nil }

// take accounts for memory; negative bytes give it back.
func (d *device) take(bytes int64) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if bytes > referenceLimit-d.used {
		return fmt.Errorf("reference: %d bytes asked, %d free: %w", bytes, referenceLimit-d.used, compute.ErrNoMemory)
	}
	d.used += bytes
	d.peak = max(d.peak, d.used)
	return nil
}

func (d *device) NewArena(bytes int64) (compute.Arena, error) {
	if err := d.take(bytes); err != nil {
		return nil, err
	}
	return &arena{dev: d, limit: bytes, taken: bytes}, nil
}

// arena hands out a slice for every tensor; limit 0 means that it grows.
type arena struct {
	dev                 *device
	limit, bytes, taken int64
	err                 error
}

// storage is the device's buffer.
type storage []byte

func (s storage) Size() int64 { return int64(len(s)) }

func (a *arena) room(bytes int64) bool {
	bytes = (bytes + arenaAlign - 1) / arenaAlign * arenaAlign
	switch {
	case a.err != nil:
		return false
	case a.limit == 0:
		if a.err = a.dev.take(bytes); a.err != nil {
			return false
		}
		a.taken += bytes
	case bytes > a.limit-a.bytes:
		a.err = fmt.Errorf("reference: arena of %d bytes is full, %d more asked: %w", a.limit, bytes, compute.ErrNoMemory)
		return false
	}
	a.bytes += bytes
	return true
}

func (a *arena) Tensor(dt compute.DType, dims ...int) compute.Tensor {
	t := compute.NewTensor(nil, 0, dt, dims...)
	if !a.room(t.Bytes()) {
		return compute.Tensor{}
	}
	t.Buffer = make(storage, t.Bytes())
	return t
}

func (a *arena) Matrix(w compute.Host) compute.Matrix {
	want(len(w.Shape) == 2 && len(w.Data) == w.Elems()*w.DType.Size(), "matrix", w.Shape, len(w.Data))
	if !a.room(a.dev.MatrixBytes(w)) {
		return nil
	}
	return matrix{slices.Clone(w.Shape), decode(w.Data, w.DType)}
}

func (a *arena) Bytes() int64 { return a.bytes }
func (a *arena) Err() error   { return a.err }

func (a *arena) Free() {
	if err := a.dev.take(-a.taken); err != nil {
		panic(err)
	}
	a.taken = 0
}

// matrix is a weight as it was.
type matrix array

func (m matrix) Dims() (out, in int) { return m.shape[0], m.shape[1] }
