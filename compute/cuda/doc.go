// Package cuda is a compute.Device on NVIDIA GPUs, without cgo.
//
// What enters: tensors and matrices through an Arena, operations through a Queue. What leaves: the same results as
// compute/cpu within the tolerances of compute/computetest; noise is the same to the bit.
//
// The driver (libcuda), the run-time compiler (NVRTC) and the matrix library (cuBLASLt) are opened when New is called, by
// github.com/ebitengine/purego; nothing is needed to build. Kernels are .cu text under kernels/, embedded in the binary,
// compiled for the GPU that is found and kept as machine code in a cache on disk. With the build tag nocuda, and on systems
// other than Linux on amd64 and arm64, New and Probe report compute.ErrUnsupported and nothing but the standard library is
// linked.
//
// # Element types
//
// Types() is BF16 for activations and caches. Matrices keep the type they are given: BF16 (and F16, rounded to BF16)
// multiply in bfloat16 with float32 sums; F32 multiply in float32 (no tf32), which is for tests and small models, unless
// Options.Weights asks for BF16. Options.Float32 computes everything in float32, where BF16 matrices are multiplied by the matrix units with
// activations in three bfloat16 parts: for comparisons, and for models too small to keep a GPU busy. A residual stream may be F32: every operation takes F32 and BF16 in any mixture.
//
// # Threads, order, errors
//
// A Queue is one CUDA stream. Every call into the driver sets the GPU's context current on the thread it runs on, to which
// the goroutine is locked for that call, so goroutines may migrate between calls. That is .2 us a launch, and nothing where a
// batch comes again as a graph; a thread of its own for each GPU would cost two changes of goroutines instead.
//
// Calls return before the GPU has finished, except Download and Wait: a chunk is made without a wait, whatever the policies of accel
// decide in it (Upload waits where 4 MiB of uploads are not yet on the GPU). The first failure sticks to the queue: a launch that was refused, a fault of the device (seen at the next Wait or Download), or an
// index out of range that a kernel met (it leaves a code in pinned memory, which Err reads without waiting).
//
// # CUDA graphs
//
// A queue also has these methods, which are found by type assertion:
//
//	Capture(run func()) (io.Closer, error) // record what run calls, without executing it
//	Replay(graph io.Closer)                // execute the record
package cuda
