// Package cpu is the reference and portable compute.Device: plain Go everywhere, assembly kernels on amd64, no cgo.
//
// Enters: operations of compute.Queue on tensors that live in ordinary memory. Leaves: their results, when the call
// returns: queues run synchronously on the calling goroutine and the device's worker goroutines.
//
// # Kernel classes
//
// A class is a set of kernels that round alike. Best first:
//
//	amx      linux/amd64 with AMX-BF16 (and AVX-512 BF16, VBMI): Linear and Attend round their operands, probabilities too,
//	         to bfloat16 and accumulate in float32
//	avx512   amd64 with AVX-512 F, BW, DQ, VL: float32
//	avx2     amd64 with AVX2 and FMA: float32
//	generic  plain Go, float32
//
// Results depend on inputs and class alone. Work is cut into tiles, each computed by one goroutine in a fixed order, so the
// number of threads never changes a bit; classes differ from each other in the last bits. A thread takes the same share of the
// tiles in operation after operation, so that it finds in its cache what it wrote, and then helps the others.
//
// # Memory
//
// Arenas lie outside the Go heap where the system has mmap; a tensor used after its arena was freed panics instead of faulting.
// Operations allocate nothing in steady state: scratch belongs to the worker or to the queue and only grows.
//
// # Kernels in assembly
//
// Files *_amd64.s are written by the programs in internal/asmgen (a module of its own); go generate renews them. One matrix
// kernel serves Linear and both products of attention: C = init + A B with A read in place by two strides and B packed in
// panels, so neither activations nor cached keys and values are ever repacked.
package cpu
