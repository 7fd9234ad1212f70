package cuda

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math"

	"longtake/compute"
)

const (
	arenaAlign = 256      // between tensors, as compute.Meter counts
	arenaBlock = 64 << 20 // least growth of an arena without a bound
)

// arena hands out pieces of blocks, in order; only the last block has room.
type arena struct {
	device *Device
	bound  bool // one block, taken at the start
	blocks []*block
	filled int64 // bytes handed out of the last block
	bytes  int64
	err    error
}

// NewArena takes bytes of zeroed GPU memory at once, or blocks as needed when bytes is 0. The error wraps
// compute.ErrNoMemory when it does not fit; the device stays usable.
func (d *Device) NewArena(bytes int64) (compute.Arena, error) {
	a := &arena{device: d, bound: bytes > 0}
	if bytes > 0 {
		if err := a.grow(align(bytes)); err != nil {
			return nil, err
		}
	}
	return a, nil
}

func align(bytes int64) int64 { return (bytes + arenaAlign - 1) / arenaAlign * arenaAlign }

func (a *arena) grow(bytes int64) error {
	b, err := a.device.alloc(bytes)
	if err != nil {
		return err
	}
	if err := a.device.drv.Memset(b.ptr, 0, bytes); err != nil {
		a.device.release(b)
		return err
	}
	a.blocks, a.filled = append(a.blocks, b), 0
	return nil
}

// take reserves bytes and returns the block and the place in it.
func (a *arena) take(bytes int64) (*block, int64, bool) {
	if a.err != nil {
		return nil, 0, false
	}
	bytes = align(bytes)
	if len(a.blocks) == 0 || a.filled+bytes > a.blocks[len(a.blocks)-1].bytes {
		if a.bound {
			a.err = fmt.Errorf("arena of %d bytes, %d in use, is too small for %d more: %w", a.blocks[0].bytes, a.bytes, bytes, compute.ErrNoMemory)
			return nil, 0, false
		}
		err := a.grow(max(bytes, arenaBlock))
		if errors.Is(err, compute.ErrNoMemory) && bytes < arenaBlock {
			err = a.grow(max(bytes, arenaAlign))
		}
		if err != nil {
			a.err = err
			return nil, 0, false
		}
	}
	b, at := a.blocks[len(a.blocks)-1], a.filled
	a.filled += bytes
	a.bytes += bytes
	return b, at, true
}

// Tensor returns a zeroed contiguous tensor, 256-byte aligned; absent after a failure.
func (a *arena) Tensor(dt compute.DType, dims ...int) compute.Tensor {
	t := compute.NewTensor(nil, 0, dt, dims...)
	b, at, ok := a.take(t.Bytes())
	if !ok {
		return compute.Tensor{}
	}
	t.Buffer, t.Offset = b, int(at/int64(dt.Size()))
	return t
}

// Bytes returns what has been handed out, rounded up to the alignment for each tensor.
func (a *arena) Bytes() int64 { return a.bytes }

// Err returns the first failure.
func (a *arena) Err() error { return a.err }

// Free waits for the GPU and gives the memory back.
func (a *arena) Free() {
	for _, b := range a.blocks {
		a.device.release(b)
	}
	a.blocks = nil
	if a.err == nil {
		a.err = errors.New("arena was freed")
	}
}

// matrix is a weight [out, in], row-major, bfloat16 or float32; or e4m3, with the scales of its rows; or bfloat16 with every row three
// times in turn, for the three parts of float32 activations.
type matrix struct {
	compute.Tensor
	half  bool           // multiplied with bfloat16 activations
	parts bool           // multiplied with the parts of float32 activations
	scale compute.Tensor // F32 [out] of e4m3
}

// numParts is how many bfloat16 numbers sum to a float32: 24 bits of mantissa, 8 each.
const numParts = 3

// in is the input width.
func (m *matrix) in() int {
	if m.parts {
		return m.Shape[1] / numParts
	}
	return m.Shape[1]
}

// Dims returns the output and input widths.
func (m *matrix) Dims() (out, in int) { return m.Shape[0], m.in() }

// inParts says whether a matrix is kept for the parts of float32 activations.
func (d *Device) inParts(dt compute.DType) bool { return d.float32 && dt == compute.BF16 }

// stored is the type in which a matrix given as dt is kept.
func (d *Device) stored(dt compute.DType) compute.DType {
	switch {
	case dt != compute.F32 && dt != compute.BF16 && dt != compute.F16:
		panic(fmt.Sprintf("cuda: matrix of type %v", dt))
	case d.float32 && dt != compute.BF16:
		return compute.F32
	case dt == compute.F32:
		return d.weights
	}
	return compute.BF16
}

// MatrixBytes returns the bytes of a weight: 2 an element for BF16 and F16, 4 for F32 unless Options.Weights is BF16, and
// with Options.Float32 4 for all but BF16, which takes 6; 1 for those that Options.FP8 makes coarse.
func (d *Device) MatrixBytes(w compute.Host) int64 {
	if d.coarse(w) {
		return d.quantBytes(w.Shape[0], w.Shape[1])
	}
	bytes := int64(w.Elems()) * int64(d.stored(w.DType).Size())
	if d.inParts(w.DType) {
		bytes *= numParts
	}
	return bytes
}

// Matrix copies a weight to the GPU; nil after a failure. F16 values are rounded to BF16.
func (a *arena) Matrix(w compute.Host) compute.Matrix {
	if len(w.Shape) != 2 || len(w.Data) != w.Elems()*w.DType.Size() {
		panic(fmt.Sprintf("cuda: matrix %v%v with %d bytes", w.DType, w.Shape, len(w.Data)))
	}
	if a.device.coarse(w) {
		m, err := a.coarseMatrix(w)
		if err != nil && a.err == nil {
			a.err = fmt.Errorf("bring in matrix %v: %w", w.Shape, err)
		}
		if m == nil || a.err != nil {
			return nil
		}
		return m
	}
	to := a.device.stored(w.DType)
	m := &matrix{half: to == compute.BF16, parts: a.device.inParts(w.DType)}
	if m.parts {
		row := len(w.Data) / max(w.Shape[0], 1)
		data := make([]byte, 0, numParts*len(w.Data))
		for i := range w.Shape[0] {
			data = append(data, bytes.Repeat(w.Data[i*row:(i+1)*row], numParts)...)
		}
		w.Data, w.Shape = data, []int{w.Shape[0], numParts * w.Shape[1]}
	}
	if m.Tensor = a.Tensor(to, w.Shape...); m.IsZero() {
		return nil
	}
	a.device.mu.Lock()
	defer a.device.mu.Unlock()
	err := a.device.feed.in(address(m.Tensor), w.Data, w.DType.Size(), to.Size(), converter(w.DType, to), a.device.feedStream)
	if err == nil {
		err = a.device.drv.Sync(a.device.feedStream)
	}
	if err != nil {
		a.err = fmt.Errorf("bring in matrix %v: %w", w.Shape, err)
		return nil
	}
	return m
}

// converter returns the function that turns elements of one type into another while they are copied to pinned memory; nil
// when they stay as they are.
func converter(from, to compute.DType) func(dst, src []byte) {
	if from == to {
		return nil
	}
	le, size := binary.LittleEndian, from.Size()
	var widen func(b []byte) float32
	switch from {
	case compute.F16:
		widen = func(b []byte) float32 { return compute.F32FromF16(le.Uint16(b)) }
	case compute.BF16:
		widen = func(b []byte) float32 { return compute.F32FromBF16(le.Uint16(b)) }
	default:
		widen = func(b []byte) float32 { return math.Float32frombits(le.Uint32(b)) }
	}
	if to == compute.F32 {
		return func(dst, src []byte) {
			for i := 0; i*size < len(src); i++ {
				le.PutUint32(dst[4*i:], math.Float32bits(widen(src[i*size:])))
			}
		}
	}
	if from == compute.F32 { // the published checkpoints: a gigabyte and more
		return narrow
	}
	return func(dst, src []byte) {
		for i := 0; i*size < len(src); i++ {
			le.PutUint16(dst[2*i:], compute.BF16FromF32(widen(src[i*size:])))
		}
	}
}

// narrow rounds float32 to bfloat16.
func narrow(dst, src []byte) {
	for len(src) >= 4 && len(dst) >= 2 {
		bits := binary.LittleEndian.Uint32(src)
		if bits&0x7fffffff > 0x7f800000 {
			binary.LittleEndian.PutUint16(dst, compute.BF16FromF32(math.Float32frombits(bits)))
		} else {
			binary.LittleEndian.PutUint16(dst, uint16((bits+0x7fff+bits>>16&1)>>16))
		}
		src, dst = src[4:], dst[2:]
	}
}
