package compute

import "errors"

// Errors that callers test for. Devices wrap them with numbers and names.
var (
	// ErrNoMemory says that an arena does not fit. A smaller one may fit afterwards in the same process.
	ErrNoMemory = errors.New("not enough memory")
	// ErrUnsupported says that a device lacks an optional ability (an element type, a kernel class).
	ErrUnsupported = errors.New("not supported by this device")
)

// Device is one processor with its memory. It is safe for concurrent use.
type Device interface {
	// Name describes device and kernel class for logs and reports: "cpu avx2, 2 threads".
	Name() string
	// Types returns the element types that the device's kernels like best; models allocate by it.
	Types() Types
	// NewArena reserves memory for tensors and matrices. Bytes is an upper bound known beforehand (run the same code
	// with a Meter); 0 lets the arena grow as needed. The error wraps ErrNoMemory when it does not fit.
	NewArena(bytes int64) (Arena, error)
	// MatrixBytes returns what Arena.Matrix would take for a weight; its data may be nil.
	MatrixBytes(w Host) int64
	// NewQueue returns a queue of its own.
	NewQueue() (Queue, error)
	// Memory reports the device's memory as it is now.
	Memory() Memory
	// Close gives everything back. Queues and arenas must not be used afterwards.
	Close() error
}

// Types are the element types a device prefers: Activation for hidden states between operations, Operand for those that only
// a Linear reads (a device that rounds them anyway gets them rounded), Cache for cached keys and values, Bias for that of a
// Linear with a result of type Activation (a Linear takes an F32 bias too), Residual for the sum that runs through a network.
type Types struct{ Activation, Operand, Cache, Bias, Residual DType }

// Memory is a device's memory in bytes; zero means unknown.
type Memory struct{ Total, Free, Used, Peak int64 }

// Arena is memory taken and given back as a whole. Like a Queue it keeps its first error: after a failure Tensor and Matrix
// return absent values, and Err tells why. Not safe for concurrent use.
type Arena interface {
	// Tensor returns a zeroed contiguous tensor whose rows start 64-byte aligned at least at the tensor's start.
	Tensor(dt DType, dims ...int) Tensor
	// Matrix prepares a weight [out, in] for Linear in the device's own layout. Data may be F32, BF16 or F16; it is not
	// kept. Matrices are read-only and may be shared by queues.
	Matrix(w Host) Matrix
	// Bytes returns what has been handed out.
	Bytes() int64
	// Err returns the first failure, or nil.
	Err() error
	// Free gives the memory back. The arena's tensors must not be used afterwards.
	Free()
}

// Matrix is a weight prepared by Arena.Matrix.
type Matrix interface {
	// Dims returns the output and input widths.
	Dims() (out, in int)
}

// Meter is an Arena that only counts: run the code that allocates with it, and Bytes is the memory it will need. This is
// how memory is known before anything is loaded.
type Meter struct {
	// Device answers MatrixBytes.
	Device Device
	bytes  int64
}

// meterAlign is the alignment that arenas keep between tensors.
const meterAlign = 256

type metered struct{ out, in int }

func (m metered) Dims() (int, int) { return m.out, m.in }

// Tensor counts and returns a tensor without storage.
func (m *Meter) Tensor(dt DType, dims ...int) Tensor {
	t := NewTensor(nil, 0, dt, dims...)
	m.bytes += (t.Bytes() + meterAlign - 1) / meterAlign * meterAlign
	return t
}

// Matrix counts; w.Data may be nil.
func (m *Meter) Matrix(w Host) Matrix {
	m.bytes += (m.Device.MatrixBytes(w) + meterAlign - 1) / meterAlign * meterAlign
	return metered{w.Shape[0], w.Shape[1]}
}

// Bytes returns the sum so far.
func (m *Meter) Bytes() int64 { return m.bytes }

// Err returns nil.
func (m *Meter) Err() error { return nil }

// Free does nothing.
func (m *Meter) Free() {}
