// Package compute is the narrow waist between models and hardware: a Device holds memory, a Queue runs operations on it.
//
// Models above this package (dit, text, vae, kvcache, sampler) speak only in Tensors and the operations of Queue; they never
// name a device. The devices below it are compute/cpu and compute/cuda; whatever passes compute/computetest is a device.
// The package imports the standard library only.
//
// # Rules every device keeps
//
//   - Operations are destination first. The caller owns all memory; an operation allocates nothing in steady state and
//     never keeps a reference to a Tensor after it has run.
//   - A destination may be the very same view as a source where the operation says "in place"; any other overlap between
//     a destination and a source is a programmer error with undefined numbers.
//   - Calls on one Queue take effect in order. A Queue belongs to one goroutine at a time; different queues of one device
//     may be used at once.
//   - Wrong shapes, types or strides are programmer errors and panic with both shapes (Session in package rollout catches
//     them once). Device failures are sticky: the first one is kept for Err, later calls do nothing.
//   - Results are a function of the inputs and the kernel class alone: not of the number of threads, nor of what else runs.
//   - Arithmetic is float32 or better with float32 accumulation (kernel classes that round operands to bfloat16 say so in
//     Device.Name), softmax and norms are float32 throughout.
package compute
