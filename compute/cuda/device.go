package cuda

import (
	"errors"
	"fmt"
	"sync"

	"longtake/compute"
)

// Probe looks for a driver, GPUs and libraries without touching a GPU. The error wraps compute.ErrUnsupported and says what
// was looked for where; the first line alone is fit for a log.
func Probe() (Info, error) { return probe() }

// Device is one GPU. It implements compute.Device.
type Device struct {
	drv     driver
	limit   limits
	modules *modules
	kernels kernels
	early   map[uintptr]bool // kernels that wait for the one before by themselves
	weights compute.DType
	float32 bool // see Options.Float32
	fp8     FP8  // see Options.FP8, settled
	name    string

	// How kernels are cut, as compiled; benchmarks try other ways.
	unroll1, unroll2, normHeld, normThreads int
	normPairs, normAlike                    bool

	mu         sync.Mutex
	used, peak int64
	feed       *staging // brings matrices in; guarded by mu
	feedStream uintptr
	feedLaunch launch

	attendMu sync.Mutex
	attends  map[attendAnyVariant][2]uintptr // of kernels/attendany
	variants map[attendVariant]attendModule
	convs    map[convVariant]uintptr // of kernels/conv; guarded by attendMu
}

var _ compute.Device = (*Device)(nil)

// New opens a GPU and compiles the kernels for it, or loads them from the cache. Without a driver, a GPU of compute
// capability 8.0 or the libraries, the error wraps compute.ErrUnsupported and lists what was looked for.
func New(o Options) (*Device, error) {
	drv, comp, err := openGPU(o.GPU)
	if err != nil {
		return nil, err
	}
	d, err := newDevice(drv, comp, o)
	if err != nil {
		drv.Close()
		return nil, err
	}
	return d, nil
}

func newDevice(drv driver, comp compiler, o Options) (*Device, error) {
	if o.Weights != compute.F32 && o.Weights != compute.BF16 {
		return nil, fmt.Errorf("cuda: weights of type %v: %w", o.Weights, compute.ErrUnsupported)
	}
	if o.Float32 && o.Weights != compute.F32 {
		return nil, fmt.Errorf("cuda: weights of type %v in float32 mode: %w", o.Weights, compute.ErrUnsupported)
	}
	d := &Device{drv: drv, limit: drv.Limits(), weights: o.Weights, float32: o.Float32, attends: map[attendAnyVariant][2]uintptr{}, variants: map[attendVariant]attendModule{}, convs: map[convVariant]uintptr{},
		unroll1: mapUnroll1, unroll2: mapUnroll2, normHeld: normHeld, normThreads: normThreads, normPairs: true, normAlike: true}
	if o.Float32 && o.FP8 != NoFP8 {
		return nil, fmt.Errorf("cuda: fp8 in float32 mode: %w", compute.ErrUnsupported)
	}
	var err error
	if d.fp8, err = d.chooseFP8(o.FP8); err != nil {
		return nil, err
	}
	if d.modules, err = newModules(drv, comp, o); err != nil {
		return nil, err
	}
	class := "bf16 products with f32 sums"
	if o.Float32 {
		class = "f32"
	}
	if d.fp8 != NoFP8 {
		class = d.fp8.String() + " and " + class
	}
	d.name = fmt.Sprintf("cuda %s, %s, %s", d.modules.arch, d.limit.name, class)
	if err := d.modules.loadAll(&d.kernels); err != nil {
		return nil, err
	}
	d.early = d.kernels.early()
	if err := errors.Join(drv.SetShared(d.kernels.plan[1], planShared), drv.SetShared(d.kernels.plan[3], planScoresShared), drv.SetShared(d.kernels.merge[5], mergeShared),
		drv.SetShared(d.kernels.split[0], splitShared)); err != nil {
		return nil, err
	}
	if d.feedStream, err = drv.NewStream(); err != nil {
		return nil, err
	}
	if d.feed, err = newStaging(drv); err != nil {
		return nil, err
	}
	return d, nil
}

// Name returns "cuda sm_90a, NVIDIA H100 80GB HBM3, bf16 products with f32 sums".
func (d *Device) Name() string { return d.name }

// Types returns BF16 for all, what the matrix units take; F32 with Options.Float32.
func (d *Device) Types() compute.Types {
	if d.float32 {
		return compute.Types{Activation: compute.F32, Cache: compute.F32}
	}
	t := compute.Types{Activation: compute.BF16, Operand: compute.BF16, Cache: compute.BF16, Bias: compute.BF16}
	if d.fp8 != NoFP8 { // rounding a sum to bfloat16 loses 0.2 %, a product of e4m3 3.6 %, and the sums are a third of the memory traffic
		t.Residual = compute.BF16
	}
	return t
}

// Memory reports the GPU's memory; Used and Peak count what this Device has taken.
func (d *Device) Memory() compute.Memory {
	free, total, _ := d.drv.MemInfo()
	d.mu.Lock()
	defer d.mu.Unlock()
	return compute.Memory{Total: total, Free: free, Used: d.used, Peak: d.peak}
}

// alloc takes device memory and accounts for it. The error wraps compute.ErrNoMemory when there is too little.
func (d *Device) alloc(bytes int64) (*block, error) {
	free, total, err := d.drv.MemInfo()
	var ptr uint64
	if err == nil && bytes > total { // the driver calls absurd sizes invalid rather than too large
		err = compute.ErrNoMemory
	}
	if err == nil {
		ptr, err = d.drv.Alloc(bytes)
	}
	if err != nil {
		return nil, fmt.Errorf("take %d MiB of GPU memory (%d of %d MiB free): %w", bytes>>20, free>>20, total>>20, err)
	}
	d.mu.Lock()
	d.used += bytes
	d.peak = max(d.peak, d.used)
	d.mu.Unlock()
	return &block{device: d, ptr: ptr, bytes: bytes}, nil
}

// release gives a block back; its tensors become unusable.
func (d *Device) release(b *block) {
	if b == nil || b.ptr == 0 {
		return
	}
	d.drv.Free(b.ptr)
	b.ptr = 0
	d.mu.Lock()
	d.used -= b.bytes
	d.mu.Unlock()
}

// Close gives the GPU back. Queues and arenas must have been closed and freed.
func (d *Device) Close() error {
	d.feed.free()
	d.drv.FreeStream(d.feedStream)
	d.modules.unload()
	return d.drv.Close()
}

// block is storage on the GPU, the compute.Buffer of this device.
type block struct {
	device *Device
	ptr    uint64 // 0 once given back
	bytes  int64
}

// Size returns the bytes of the block.
func (b *block) Size() int64 { return b.bytes }

// address returns where a tensor's first element lies. It panics for tensors of other devices, of freed arenas, and for
// views that leave their block.
func address(t compute.Tensor) uint64 {
	b, ok := t.Buffer.(*block)
	if !ok {
		panic(fmt.Sprintf("cuda: %v is not on this device", t))
	}
	if b.ptr == 0 {
		panic(fmt.Sprintf("cuda: %v belongs to an arena that was freed", t))
	}
	size := int64(t.DType.Size())
	last := int64(t.Offset)
	for i := range t.Rank {
		if t.Shape[i] == 0 {
			return b.ptr + uint64(int64(t.Offset)*size)
		}
		last += int64(t.Shape[i]-1) * int64(t.Stride[i])
	}
	if t.Offset < 0 || (last+1)*size > b.bytes {
		panic(fmt.Sprintf("cuda: %v at %d leaves its block of %d bytes", t, t.Offset, b.bytes))
	}
	return b.ptr + uint64(int64(t.Offset)*size)
}
