package cuda

import (
	"fmt"
	"strings"

	"longtake/compute"
)

// Options of New. The zero value is right for the first GPU.
type Options struct {
	// GPU is the index among the GPUs that the driver shows (CUDA_VISIBLE_DEVICES applies).
	GPU int
	// CacheDir holds compiled kernels; empty means os.UserCacheDir()/longtake/cubin. If it cannot be written, kernels are
	// compiled every time.
	CacheDir string
	// Progress, if set, receives a line for each kernel file that has to be compiled. It may be called by several
	// goroutines, one at a time.
	Progress func(line string)
	// Weights is the type in which F32 matrices are stored: F32 (the zero value) keeps them and multiplies in float32;
	// BF16 rounds them, which halves their memory and is about ten times faster.
	Weights compute.DType
	// Float32 computes everything in float32: attention is the float32 kernel, Types() is F32, and matrices are stored as F32, but for those
	// that come in bfloat16: activations are cut into three bfloat16 parts whose sum they are, which the matrix units multiply with them (6
	// bytes an element). For comparisons, and for models that are too small to keep a GPU busy.
	Float32 bool
	// FP8 stores weights that the model lets be coarse in e4m3, a byte an element, and multiplies them so: about half the
	// time and memory of a product, at an error of some percent.
	FP8 FP8
}

// Info is what Probe found.
type Info struct {
	// Driver is the newest CUDA version that the driver supports, "13.0".
	Driver string
	// GPUs in the driver's order.
	GPUs []GPU
	// Libraries are the files in use, by name: cuda, nvrtc, cublasLt.
	Libraries map[string]string
	// Compiler is the version of NVRTC, "13.0".
	Compiler string
	// CacheDir is where compiled kernels are kept by default; empty when the system names no cache folder.
	CacheDir string
}

// GPU describes one device.
type GPU struct {
	Index        int
	Name         string
	Major, Minor int   // compute capability
	Memory       int64 // bytes
}

// minCapability is the oldest compute capability with bfloat16 and asynchronous copies.
const minCapability = 80

// String returns "0: NVIDIA H100 80GB HBM3, compute capability 9.0, 79.1 GiB".
func (g GPU) String() string {
	return fmt.Sprintf("%d: %s, compute capability %d.%d, %.1f GiB", g.Index, g.Name, g.Major, g.Minor, float64(g.Memory)/(1<<30))
}

// Error is a call into a CUDA library that failed. It wraps compute.ErrNoMemory when memory ran out.
type Error struct {
	Call string // the library's function
	Code int
	Text string // the library's own words
}

// Error returns "cuMemAlloc: CUDA_ERROR_OUT_OF_MEMORY: out of memory (2)".
func (e *Error) Error() string { return fmt.Sprintf("%s: %s (%d)", e.Call, e.Text, e.Code) }

// Unwrap gives compute.ErrNoMemory for exhausted memory.
func (e *Error) Unwrap() error {
	if e.Code == codeOutOfMemory && strings.HasPrefix(e.Call, "cu") && e.Call[2] >= 'A' && e.Call[2] <= 'Z' { // of the driver, not of cuBLAS
		return compute.ErrNoMemory
	}
	return nil
}

// codeOutOfMemory is CUDA_ERROR_OUT_OF_MEMORY.
const codeOutOfMemory = 2

// LibraryError says that a CUDA library was not found, and everything that was tried. It wraps compute.ErrUnsupported.
type LibraryError struct {
	Library  string // cuda, nvrtc, cublasLt
	Attempts []Attempt
}

// Attempt is one file or name that was tried.
type Attempt struct{ Path, Reason string }

// Error lists the attempts, one a line.
func (e *LibraryError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "cuda: library %s not found; looked for", e.Library)
	for _, a := range e.Attempts {
		fmt.Fprintf(&b, "\n  %s: %s", a.Path, a.Reason)
	}
	fmt.Fprintf(&b, "\nset %s to the folder that holds it", librariesEnv)
	return b.String()
}

// Unwrap gives compute.ErrUnsupported.
func (e *LibraryError) Unwrap() error { return compute.ErrUnsupported }
