package cuda

import "unsafe"

// driver is one GPU through the CUDA driver API, with its context. All methods may be called from any goroutine. Handles
// and device addresses are plain numbers. Tests put a fake in its place.
type driver interface {
	Limits() limits
	MemInfo() (free, total int64, err error)
	// Alloc gives device memory aligned to 256 bytes at least.
	Alloc(bytes int64) (uint64, error)
	Free(ptr uint64) error
	// HostAlloc gives pinned host memory, which the GPU reaches at the returned address.
	HostAlloc(bytes int) ([]byte, uint64, error)
	HostFree(b []byte)
	// Memset fills device memory and waits.
	Memset(ptr uint64, value byte, bytes int64) error

	Load(image []byte) (module uintptr, err error)
	Unload(module uintptr)
	Function(module uintptr, name string) (uintptr, error)
	// SetShared raises a function's limit of dynamic shared memory.
	SetShared(fn uintptr, bytes int) error
	// Registers returns a function's registers and local memory (spills) a thread.
	Registers(fn uintptr) (registers, local int)

	NewStream() (uintptr, error)
	FreeStream(stream uintptr)
	Sync(stream uintptr) error
	Launch(l *launch) error
	// CopyIn and CopyOut are asynchronous for pinned memory.
	CopyIn(dst uint64, src unsafe.Pointer, bytes int, stream uintptr) error
	CopyOut(dst unsafe.Pointer, src uint64, bytes int, stream uintptr) error
	// CopyOn copies within the GPU.
	CopyOn(dst, src uint64, bytes int64, stream uintptr) error

	// EncodeMap writes the 128 bytes of a CUtensorMap to a place aligned to 64.
	EncodeMap(to unsafe.Pointer, m tensorMap) error

	NewEvent(timing bool) (uintptr, error)
	FreeEvent(event uintptr)
	Record(event, stream uintptr) error
	SyncEvent(event uintptr) error
	// WaitEvent lets what comes on a stream wait for a recorded event.
	WaitEvent(stream, event uintptr) error
	// Elapsed returns milliseconds between two recorded events that took place.
	Elapsed(from, to uintptr) (float32, error)

	BeginCapture(stream uintptr) error
	// EndCapture makes what was captured a graph. If from is not 0 it is a graph that is given up: if it can, it takes the
	// captured launches and is returned.
	EndCapture(stream, from uintptr) (graph uintptr, err error)
	LaunchGraph(graph, stream uintptr) error
	FreeGraph(graph uintptr)

	// NewProduct looks up an algorithm of cuBLASLt. It returns nil without an error when there is none for this case.
	NewProduct(p product) (*productPlan, error)
	FreeProduct(p *productPlan)
	// Multiply runs a plan; the plan must not be in use elsewhere at the same time.
	Multiply(p *productPlan, o operands, workspace uint64, stream uintptr) error

	Close() error
}

// limits are facts about a GPU.
type limits struct {
	name            string
	major, minor    int
	multiprocessors int
	sharedBytes     int // a thread block may ask for
	l2Bytes         int
	clockKHz        int
}

// launch is one kernel start. A queue keeps one and reuses it, so that starting a kernel allocates nothing: params point to
// the kernel's arguments, most often one struct.
type launch struct {
	fn, stream  uintptr
	grid, block [3]uint32
	sharedBytes uint32
	early       bool // the kernel waits for the one before by itself, see begin in types.cuh
	params      [4]unsafe.Pointer
	raw         [11]uintptr
	config      [7]uint64 // CUlaunchConfig
	attribute   [9]uint64 // CUlaunchAttribute
}

// product is a case of dst = act(x Wᵀ + bias), the key under which plans are kept.
type product struct {
	rows, in, out      int
	xStride, dstStride int
	half               bool // x and W are bfloat16, else float32
	fp8                FP8  // x and W are e4m3 with scales
	dstHalf            bool
	bias               bool
	biasHalf           bool  // bias is bfloat16, else float32
	choice             int   // 0 for cuBLASLt's best guess, 1 for the next
	act                uint8 // compute.None, GELU or ReLU
	xAlign, dstAlign   int   // bytes, a power of two up to 256
	wAlign             int
	workspaceBytes     int64
}

// operands are the addresses of a product's; the scales are those of e4m3.
type operands struct{ dst, x, w, bias, xScale, wScale uint64 }

// productPlan is cuBLASLt's answer to a product.
type productPlan struct {
	product
	number              uint64 // among its queue's plans
	descriptor, a, b, c uintptr
	algorithm           [12]uint64 // cublasLtMatmulHeuristicResult_t
	one, zero           float32
	given               operands // what the descriptor holds of bias and scales
	raw                 [16]uintptr
}

// compiler is NVRTC.
type compiler interface {
	// Version returns "13.0".
	Version() string
	// Architectures lists the compute capabilities that it compiles for, ascending: 80, 90.
	Architectures() []int
	// Compile returns machine code for an option list with sm_, PTX for one with compute_. The log is part of the error.
	Compile(name string, source []byte, options []string, ptx bool) ([]byte, error)
}
