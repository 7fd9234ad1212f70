//go:build linux && (amd64 || arm64) && !nocuda

package cuda

import (
	"fmt"
	"runtime"
	"sync"
	"unsafe"

	"github.com/ebitengine/purego"

	"longtake/compute"
)

// Numbers of the driver API's header, cuda.h.
const (
	attrMultiprocessors = 16
	attrClockKHz        = 13
	attrL2Bytes         = 38
	attrMajor           = 75
	attrMinor           = 76
	attrSharedOptin     = 97
	funcLocalBytes      = 3
	funcRegisters       = 4
	funcMaxShared       = 8
	streamNonBlocking   = 1
	eventNoTiming       = 2
	hostPortableMapped  = 1 | 2
	captureRelaxed      = 2
	mapBF16             = 9
	mapSwizzle128       = 3
	mapPromote256       = 3
	launchProgrammatic  = 6
)

var cudaNames = []string{"cuInit", "cuDriverGetVersion", "cuGetErrorName", "cuGetErrorString", "cuDeviceGetCount", "cuDeviceGet",
	"cuDeviceGetName", "cuDeviceGetAttribute", "cuDeviceTotalMem_v2", "cuDevicePrimaryCtxRetain", "cuDevicePrimaryCtxRelease_v2",
	"cuCtxSetCurrent", "cuMemGetInfo_v2", "cuMemAlloc_v2", "cuMemFree_v2", "cuMemHostAlloc", "cuMemFreeHost",
	"cuMemHostGetDevicePointer_v2", "cuMemsetD8Async", "cuMemcpyHtoDAsync_v2", "cuMemcpyDtoHAsync_v2", "cuMemcpyDtoDAsync_v2", "cuModuleLoadData",
	"cuModuleUnload", "cuModuleGetFunction", "cuFuncSetAttribute", "cuFuncGetAttribute", "cuLaunchKernel", "cuStreamCreate",
	"cuStreamDestroy_v2", "cuStreamSynchronize", "cuEventCreate", "cuEventDestroy_v2", "cuEventRecord", "cuEventSynchronize",
	"cuEventElapsedTime", "cuStreamWaitEvent", "cuStreamBeginCapture_v2", "cuStreamEndCapture", "cuGraphInstantiateWithFlags", "cuGraphLaunch",
	"cuGraphExecDestroy", "cuGraphDestroy", "cuTensorMapEncodeTiled"}

// cudaLibrary is libcuda, initialised.
type cudaLibrary struct {
	*sharedLibrary
	version int // newest CUDA that the driver serves, 13000
	// updateGraph is cuGraphExecUpdate_v2, which drivers before 12.0 lack.
	updateGraph uintptr
	// launchEx is cuLaunchKernelEx, which drivers before 12.0 lack; graphs take its programmatic launches from 12.3 on.
	launchEx uintptr
}

func openCUDA() (*cudaLibrary, error) {
	lib, err := openLibrary(libCUDA, cudaNames...)
	if err != nil {
		return nil, err
	}
	c := &cudaLibrary{sharedLibrary: lib, updateGraph: lib.optional("cuGraphExecUpdate_v2")}
	if err := c.call("cuInit", 0); err != nil {
		return nil, fmt.Errorf("cuda: %s was found, but no GPU answers: %w: %w", lib.path, err, compute.ErrUnsupported)
	}
	var v int32
	if err := c.call("cuDriverGetVersion", uintptr(unsafe.Pointer(&v))); err != nil {
		return nil, err
	}
	if c.version = int(v); c.version >= 12030 {
		c.launchEx = lib.optional("cuLaunchKernelEx")
	}
	return c, nil
}

// call runs a function that needs no context.
//
//go:uintptrescapes
func (c *cudaLibrary) call(name string, args ...uintptr) error {
	r, _, _ := purego.SyscallN(c.functions[name], args...)
	return c.check(name, r)
}

// check turns a CUresult into an error.
func (c *cudaLibrary) check(name string, result uintptr) error {
	code := int32(result)
	if code == 0 {
		return nil
	}
	var n, t *byte
	purego.SyscallN(c.functions["cuGetErrorName"], uintptr(code), uintptr(unsafe.Pointer(&n)))
	purego.SyscallN(c.functions["cuGetErrorString"], uintptr(code), uintptr(unsafe.Pointer(&t)))
	return &Error{Call: name, Code: int(code), Text: text(n) + ": " + text(t)}
}

func (c *cudaLibrary) gpus() ([]GPU, error) {
	var n int32
	if err := c.call("cuDeviceGetCount", uintptr(unsafe.Pointer(&n))); err != nil {
		return nil, err
	}
	gpus := make([]GPU, n)
	for i := range gpus {
		l, total, err := c.limits(i)
		if err != nil {
			return nil, err
		}
		gpus[i] = GPU{Index: i, Name: l.name, Major: l.major, Minor: l.minor, Memory: total}
	}
	return gpus, nil
}

func (c *cudaLibrary) limits(index int) (limits, int64, error) {
	var device int32
	if err := c.call("cuDeviceGet", uintptr(unsafe.Pointer(&device)), uintptr(index)); err != nil {
		return limits{}, 0, err
	}
	name := make([]byte, 256)
	if err := c.call("cuDeviceGetName", uintptr(unsafe.Pointer(&name[0])), 255, uintptr(device)); err != nil {
		return limits{}, 0, err
	}
	l := limits{name: text(&name[0])}
	for attr, to := range map[uintptr]*int{attrMajor: &l.major, attrMinor: &l.minor, attrMultiprocessors: &l.multiprocessors,
		attrSharedOptin: &l.sharedBytes, attrL2Bytes: &l.l2Bytes, attrClockKHz: &l.clockKHz} {
		var v int32
		if err := c.call("cuDeviceGetAttribute", uintptr(unsafe.Pointer(&v)), attr, uintptr(device)); err != nil {
			return limits{}, 0, err
		}
		*to = int(v)
	}
	var total uint64
	err := c.call("cuDeviceTotalMem_v2", uintptr(unsafe.Pointer(&total)), uintptr(device))
	return l, int64(total), err
}

// gpu is the driver interface over libcuda and cuBLASLt.
type gpu struct {
	cuda             *cudaLibrary
	lt               *sharedLibrary
	device           int32
	context          uintptr
	handle           uintptr // of cuBLASLt
	limit            limits
	setCurrent       uintptr // addresses of the functions on the hot path
	launchKernel     uintptr
	ltMatmul, ltAttr uintptr
	warming          sync.WaitGroup
}

func newGPU(c *cudaLibrary, lt *sharedLibrary, index int) (*gpu, error) {
	d := &gpu{cuda: c, lt: lt, setCurrent: c.functions["cuCtxSetCurrent"], launchKernel: c.functions["cuLaunchKernel"],
		ltMatmul: lt.functions["cublasLtMatmul"], ltAttr: lt.functions["cublasLtMatmulDescSetAttribute"]}
	var err error
	if d.limit, _, err = c.limits(index); err != nil {
		return nil, err
	}
	if err := c.call("cuDeviceGet", uintptr(unsafe.Pointer(&d.device)), uintptr(index)); err != nil {
		return nil, err
	}
	if err := c.call("cuDevicePrimaryCtxRetain", uintptr(unsafe.Pointer(&d.context)), uintptr(d.device)); err != nil {
		return nil, err
	}
	if err := d.ltCall("cublasLtCreate", uintptr(unsafe.Pointer(&d.handle))); err != nil {
		c.call("cuDevicePrimaryCtxRelease_v2", uintptr(d.device))
		return nil, err
	}
	d.warming.Go(d.warm)
	return d, nil
}

// warm asks cuBLASLt for plans of two kinds. The first of each takes it 60 and 130 ms, which the first session would wait for; weights are
// loaded meanwhile.
func (d *gpu) warm() {
	for _, p := range []product{
		{rows: 15, in: 256, out: 1536, bias: true, biasHalf: true, dstHalf: true},
		{rows: 15, in: 256, out: 1536, bias: true},
		{rows: 17, in: 4096, out: 12288, dstHalf: true},
	} {
		p.xStride, p.dstStride, p.half, p.workspaceBytes = p.in, p.out, true, workspaceBytes
		p.xAlign, p.dstAlign, p.wAlign = 256, 256, 256
		if plan, err := d.NewProduct(p); err == nil && plan != nil {
			d.FreeProduct(plan)
		}
	}
}

// current makes the context current on this thread, to which the goroutine stays locked until the caller unlocks it. It
// costs about as much as looking up whether it is needed.
func (d *gpu) current() uintptr {
	runtime.LockOSThread()
	r, _, _ := purego.SyscallN(d.setCurrent, d.context)
	return r
}

// call runs a driver function in the GPU's context.
//
//go:uintptrescapes
func (d *gpu) call(name string, args ...uintptr) error {
	defer runtime.UnlockOSThread()
	if r := d.current(); r != 0 {
		return d.cuda.check("cuCtxSetCurrent", r)
	}
	return d.cuda.call(name, args...)
}

func (d *gpu) Limits() limits { return d.limit }

func (d *gpu) MemInfo() (free, total int64, err error) {
	err = d.call("cuMemGetInfo_v2", uintptr(unsafe.Pointer(&free)), uintptr(unsafe.Pointer(&total)))
	return free, total, err
}

func (d *gpu) Alloc(bytes int64) (ptr uint64, err error) {
	err = d.call("cuMemAlloc_v2", uintptr(unsafe.Pointer(&ptr)), uintptr(bytes))
	return ptr, err
}

func (d *gpu) Free(ptr uint64) error { return d.call("cuMemFree_v2", uintptr(ptr)) }

func (d *gpu) HostAlloc(bytes int) ([]byte, uint64, error) {
	var p *byte
	var at uint64
	if err := d.call("cuMemHostAlloc", uintptr(unsafe.Pointer(&p)), uintptr(bytes), hostPortableMapped); err != nil {
		return nil, 0, err
	}
	err := d.call("cuMemHostGetDevicePointer_v2", uintptr(unsafe.Pointer(&at)), uintptr(unsafe.Pointer(p)), 0)
	return unsafe.Slice(p, bytes), at, err
}

func (d *gpu) HostFree(b []byte) { d.call("cuMemFreeHost", uintptr(unsafe.Pointer(&b[0]))) }

func (d *gpu) Memset(ptr uint64, value byte, bytes int64) error {
	if err := d.call("cuMemsetD8Async", uintptr(ptr), uintptr(value), uintptr(bytes), 0); err != nil {
		return err
	}
	return d.call("cuStreamSynchronize", 0)
}

func (d *gpu) Load(image []byte) (module uintptr, err error) {
	err = d.call("cuModuleLoadData", uintptr(unsafe.Pointer(&module)), uintptr(unsafe.Pointer(&image[0])))
	return module, err
}

func (d *gpu) Unload(module uintptr) { d.call("cuModuleUnload", module) }

func (d *gpu) Function(module uintptr, name string) (fn uintptr, err error) {
	if err = d.call("cuModuleGetFunction", uintptr(unsafe.Pointer(&fn)), module, uintptr(unsafe.Pointer(terminated(name)))); err != nil {
		err = fmt.Errorf("kernel %s: %w", name, err)
	}
	return fn, err
}

func (d *gpu) SetShared(fn uintptr, bytes int) error {
	return d.call("cuFuncSetAttribute", fn, funcMaxShared, uintptr(bytes))
}

func (d *gpu) Registers(fn uintptr) (registers, local int) {
	var r, l int32
	d.call("cuFuncGetAttribute", uintptr(unsafe.Pointer(&r)), funcRegisters, fn)
	d.call("cuFuncGetAttribute", uintptr(unsafe.Pointer(&l)), funcLocalBytes, fn)
	return int(r), int(l)
}

func (d *gpu) NewStream() (stream uintptr, err error) {
	err = d.call("cuStreamCreate", uintptr(unsafe.Pointer(&stream)), streamNonBlocking)
	return stream, err
}

func (d *gpu) FreeStream(stream uintptr) { d.call("cuStreamDestroy_v2", stream) }

func (d *gpu) Sync(stream uintptr) error { return d.call("cuStreamSynchronize", stream) }

func (d *gpu) Launch(l *launch) error {
	if l.early && d.cuda.launchEx != 0 && d.limit.major >= 9 {
		return d.launchEarly(l)
	}
	l.raw = [11]uintptr{l.fn, uintptr(l.grid[0]), uintptr(l.grid[1]), uintptr(l.grid[2]), uintptr(l.block[0]), uintptr(l.block[1]),
		uintptr(l.block[2]), uintptr(l.sharedBytes), l.stream, uintptr(unsafe.Pointer(&l.params[0])), 0}
	r := d.current()
	if r == 0 {
		r, _, _ = purego.SyscallN(d.launchKernel, l.raw[:]...)
	}
	runtime.UnlockOSThread()
	runtime.KeepAlive(l)
	if r == 0 {
		return nil
	}
	return d.cuda.check("cuLaunchKernel", r)
}

// launchEarly starts a kernel whose blocks may be put in place before the kernel before has ended.
func (d *gpu) launchEarly(l *launch) error {
	l.attribute = [9]uint64{launchProgrammatic, 1}
	l.config = [7]uint64{uint64(l.grid[0]) | uint64(l.grid[1])<<32, uint64(l.grid[2]) | uint64(l.block[0])<<32, uint64(l.block[1]) | uint64(l.block[2])<<32,
		uint64(l.sharedBytes), uint64(l.stream), uint64(uintptr(unsafe.Pointer(&l.attribute))), 1}
	l.raw = [11]uintptr{uintptr(unsafe.Pointer(&l.config)), l.fn, uintptr(unsafe.Pointer(&l.params[0])), 0}
	r := d.current()
	if r == 0 {
		r, _, _ = purego.SyscallN(d.cuda.launchEx, l.raw[:4]...)
	}
	runtime.UnlockOSThread()
	runtime.KeepAlive(l)
	if r == 0 {
		return nil
	}
	return d.cuda.check("cuLaunchKernelEx", r)
}

func (d *gpu) CopyIn(dst uint64, src unsafe.Pointer, bytes int, stream uintptr) error {
	return d.call("cuMemcpyHtoDAsync_v2", uintptr(dst), uintptr(src), uintptr(bytes), stream)
}

func (d *gpu) CopyOut(dst unsafe.Pointer, src uint64, bytes int, stream uintptr) error {
	return d.call("cuMemcpyDtoHAsync_v2", uintptr(dst), uintptr(src), uintptr(bytes), stream)
}

func (d *gpu) CopyOn(dst, src uint64, bytes int64, stream uintptr) error {
	return d.call("cuMemcpyDtoDAsync_v2", uintptr(dst), uintptr(src), uintptr(bytes), stream)
}

func (d *gpu) EncodeMap(to unsafe.Pointer, m tensorMap) error {
	sizes := [3]uint64{uint64(m.headDim), uint64(m.tokens), uint64(m.heads)}
	strides := [2]uint64{uint64(m.tokenBytes), uint64(m.headBytes)}
	box, ones := [3]uint32{64, uint32(m.rows), 1}, [3]uint32{1, 1, 1}
	return d.call("cuTensorMapEncodeTiled", uintptr(to), mapBF16, 3, uintptr(m.address), uintptr(unsafe.Pointer(&sizes)),
		uintptr(unsafe.Pointer(&strides)), uintptr(unsafe.Pointer(&box)), uintptr(unsafe.Pointer(&ones)), 0, mapSwizzle128, mapPromote256, 0)
}

func (d *gpu) NewEvent(timing bool) (event uintptr, err error) {
	flags := uintptr(eventNoTiming)
	if timing {
		flags = 0
	}
	err = d.call("cuEventCreate", uintptr(unsafe.Pointer(&event)), flags)
	return event, err
}

func (d *gpu) FreeEvent(event uintptr) { d.call("cuEventDestroy_v2", event) }

func (d *gpu) Record(event, stream uintptr) error { return d.call("cuEventRecord", event, stream) }

func (d *gpu) SyncEvent(event uintptr) error { return d.call("cuEventSynchronize", event) }

func (d *gpu) WaitEvent(stream, event uintptr) error {
	return d.call("cuStreamWaitEvent", stream, event, 0)
}

func (d *gpu) Elapsed(from, to uintptr) (ms float32, err error) {
	err = d.call("cuEventElapsedTime", uintptr(unsafe.Pointer(&ms)), from, to)
	return ms, err
}

func (d *gpu) BeginCapture(stream uintptr) error {
	return d.call("cuStreamBeginCapture_v2", stream, captureRelaxed)
}

func (d *gpu) EndCapture(stream, from uintptr) (exec uintptr, err error) {
	var graph uintptr
	if err := d.call("cuStreamEndCapture", stream, uintptr(unsafe.Pointer(&graph))); err != nil {
		if from != 0 {
			d.FreeGraph(from)
		}
		return 0, err
	}
	defer d.call("cuGraphDestroy", graph)
	if from != 0 {
		if d.updateGraph(from, graph) {
			return from, nil
		}
		d.FreeGraph(from)
	}
	err = d.call("cuGraphInstantiateWithFlags", uintptr(unsafe.Pointer(&exec)), graph, 0)
	return exec, err
}

// updateGraph gives exec the launches of graph; it reports false when they are too different.
func (d *gpu) updateGraph(exec, graph uintptr) bool {
	if d.cuda.updateGraph == 0 {
		return false
	}
	defer runtime.UnlockOSThread()
	if d.current() != 0 {
		return false
	}
	var info [4]uint64 // CUgraphExecUpdateResultInfo
	r, _, _ := purego.SyscallN(d.cuda.updateGraph, exec, graph, uintptr(unsafe.Pointer(&info)))
	return int32(r) == 0
}

func (d *gpu) LaunchGraph(exec, stream uintptr) error { return d.call("cuGraphLaunch", exec, stream) }

func (d *gpu) FreeGraph(exec uintptr) { d.call("cuGraphExecDestroy", exec) }

func (d *gpu) Close() error {
	d.warming.Wait()
	d.ltCall("cublasLtDestroy", d.handle)
	return d.cuda.call("cuDevicePrimaryCtxRelease_v2", uintptr(d.device))
}
