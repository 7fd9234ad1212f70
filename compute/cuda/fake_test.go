package cuda

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"unsafe"
)

// fakeGPU is a driver without a GPU: memory is Go memory at invented addresses, launches are written down.
type fakeGPU struct {
	mu       sync.Mutex
	capacity int64
	taken    int64
	next     uint64
	blocks   map[uint64][]byte
	pinned   map[*byte]int      // bytes
	modules  map[uintptr]string // handle to image
	names    map[uintptr]string // function to name
	handle   uintptr
	streams  int
	events   int
	launches []string
	last     launch
	args     []byte // of the last launch
	calls    []string
	capture  bool
	graphs   int
	maps     []tensorMap
	products []product
	refuse   func(p product) bool
	failNext map[string]error
}

func newFakeGPU() *fakeGPU {
	return &fakeGPU{capacity: 1 << 30, next: 1 << 40, blocks: map[uint64][]byte{}, pinned: map[*byte]int{}, modules: map[uintptr]string{},
		names: map[uintptr]string{}, failNext: map[string]error{}}
}

// poisoned is how much of new memory is dirty; all of it would take the tests' time.
const poisoned = 64 << 10

// argSizes are the bytes of each kernel's argument, by the first part of its name.
var argSizes = map[string]uintptr{"map": unsafe.Sizeof(mapArgs{}), "norm": unsafe.Sizeof(normArgs{}), "addnorm": unsafe.Sizeof(normArgs{}), "normrope": unsafe.Sizeof(normArgs{}), "rope": unsafe.Sizeof(ropeArgs{}),
	"gather": unsafe.Sizeof(gatherArgs{}), "timeembed": unsafe.Sizeof(timeEmbedArgs{}), "noise": unsafe.Sizeof(noiseArgs{}),
	"quant": unsafe.Sizeof(quantArgs{}), "pixels": unsafe.Sizeof(pixelsArgs{}), "conv": unsafe.Sizeof(convArgs{}), "unfold": unsafe.Sizeof(unfoldArgs{}), "linear": unsafe.Sizeof(linearArgs{}), "attendany": unsafe.Sizeof(attendAnyArgs{}),
	"merge": unsafe.Sizeof(mergeArgs{}), "plan": unsafe.Sizeof(planArgs{}), "select": unsafe.Sizeof(selectArgs{}), "match": unsafe.Sizeof(matchArgs{}), "hash": unsafe.Sizeof(hashArgs{}),
	"buckets": unsafe.Sizeof(bucketsArgs{}), "join": unsafe.Sizeof(joinArgs{}), "split": unsafe.Sizeof(splitArgs{})}

func (f *fakeGPU) fail(call string) error {
	err := f.failNext[call]
	delete(f.failNext, call)
	return err
}

func (f *fakeGPU) new() uintptr { f.handle++; return f.handle }

func (f *fakeGPU) Limits() limits {
	return limits{name: "Fake", major: 9, multiprocessors: 132, sharedBytes: 227 << 10}
}

func (f *fakeGPU) MemInfo() (free, total int64, err error) {
	return f.capacity - f.taken, f.capacity, nil
}

func (f *fakeGPU) Alloc(n int64) (uint64, error) {
	if f.taken+n > f.capacity {
		return 0, &Error{Call: "cuMemAlloc_v2", Code: codeOutOfMemory, Text: "CUDA_ERROR_OUT_OF_MEMORY: out of memory"}
	}
	f.taken += n
	at := f.next
	f.next += uint64(n+511) / 256 * 256
	b := make([]byte, n)
	copy(b, bytes.Repeat([]byte{0xa5}, poisoned))
	f.blocks[at] = b
	return at, nil
}

func (f *fakeGPU) Free(ptr uint64) error {
	b, ok := f.blocks[ptr]
	if !ok {
		return errors.New("free of unknown memory")
	}
	f.taken -= int64(len(b))
	delete(f.blocks, ptr)
	return nil
}

// at returns the bytes behind an address.
func (f *fakeGPU) at(ptr uint64, n int) []byte {
	for start, b := range f.blocks {
		if ptr >= start && ptr+uint64(n) <= start+uint64(len(b)) {
			return b[ptr-start:][:n]
		}
	}
	panic(fmt.Sprintf("fake: no memory at %#x", ptr))
}

func (f *fakeGPU) HostAlloc(n int) ([]byte, uint64, error) {
	b := make([]byte, n)
	f.pinned[&b[0]] = n
	return b, 1 << 50, f.fail("HostAlloc")
}

func (f *fakeGPU) HostFree(b []byte) { delete(f.pinned, &b[0]) }

// isPinned reports whether n bytes lie in pinned memory.
func (f *fakeGPU) isPinned(p unsafe.Pointer, n int) bool {
	for b, size := range f.pinned {
		if from := uintptr(unsafe.Pointer(b)); uintptr(p) >= from && uintptr(p)+uintptr(n) <= from+uintptr(size) {
			return true
		}
	}
	return false
}

func (f *fakeGPU) Memset(ptr uint64, value byte, n int64) error {
	if value != 0 {
		return errors.New("fake: only zeros")
	}
	clear(f.at(ptr, int(min(n, poisoned)))) // only whole new blocks are cleared
	return nil
}

func (f *fakeGPU) Load(image []byte) (uintptr, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !strings.HasPrefix(string(image), "machine code of ") {
		return 0, &Error{Call: "cuModuleLoadData", Code: 200, Text: "CUDA_ERROR_INVALID_IMAGE: device kernel image is invalid"}
	}
	h := f.new()
	f.modules[h] = string(image)
	return h, nil
}

func (f *fakeGPU) Unload(module uintptr) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.modules, module)
}

func (f *fakeGPU) Function(module uintptr, name string) (uintptr, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !strings.Contains(f.modules[module], name+"(") {
		return 0, fmt.Errorf("no function %s", name)
	}
	h := f.new()
	f.names[h] = name
	return h, nil
}

func (f *fakeGPU) SetShared(uintptr, int) error   { return nil }
func (f *fakeGPU) Registers(uintptr) (int, int)   { return 0, 0 }
func (f *fakeGPU) NewStream() (uintptr, error)    { f.streams++; return f.new(), nil }
func (f *fakeGPU) FreeStream(uintptr)             { f.streams-- }
func (f *fakeGPU) Sync(uintptr) error             { return f.fail("Sync") }
func (f *fakeGPU) NewEvent(bool) (uintptr, error) { f.events++; return f.new(), nil }
func (f *fakeGPU) FreeEvent(uintptr)              { f.events-- }
func (f *fakeGPU) Record(uintptr, uintptr) error  { return nil }
func (f *fakeGPU) SyncEvent(uintptr) error        { f.calls = append(f.calls, "SyncEvent"); return nil }
func (f *fakeGPU) WaitEvent(stream, event uintptr) error {
	f.calls = append(f.calls, "WaitEvent")
	return nil
}
func (f *fakeGPU) Close() error { return nil }
func (f *fakeGPU) LaunchGraph(uintptr, uintptr) error {
	f.calls = append(f.calls, "LaunchGraph")
	return nil
}
func (f *fakeGPU) FreeGraph(uintptr) { f.graphs-- }

func (f *fakeGPU) Elapsed(uintptr, uintptr) (float32, error) { return 0, nil }

func (f *fakeGPU) Launch(l *launch) error {
	if err := f.fail("Launch"); err != nil {
		return err
	}
	name := f.names[l.fn]
	f.launches = append(f.launches, name)
	f.last = *l
	size, ok := argSizes[strings.SplitN(name, "_", 2)[0]]
	if name == "attend" || name == "attend_merge" {
		size, ok = 0, true // its arguments are in the queue
	}
	if !ok {
		panic("fake: unknown kernel " + name)
	}
	f.args = append([]byte(nil), unsafe.Slice((*byte)(l.params[0]), size)...)
	return nil
}

func (f *fakeGPU) CopyIn(dst uint64, src unsafe.Pointer, n int, _ uintptr) error {
	if !f.isPinned(src, n) {
		return errors.New("copy from memory that is not pinned")
	}
	copy(f.at(dst, n), unsafe.Slice((*byte)(src), n))
	return f.fail("CopyIn")
}

func (f *fakeGPU) CopyOut(dst unsafe.Pointer, src uint64, n int, _ uintptr) error {
	if !f.isPinned(dst, n) {
		return errors.New("copy to memory that is not pinned")
	}
	copy(unsafe.Slice((*byte)(dst), n), f.at(src, n))
	return nil
}

func (f *fakeGPU) CopyOn(dst, src uint64, n int64, _ uintptr) error {
	copy(f.at(dst, int(n)), f.at(src, int(n)))
	f.calls = append(f.calls, "CopyOn")
	return nil
}

func (f *fakeGPU) EncodeMap(to unsafe.Pointer, m tensorMap) error {
	if uintptr(to)%64 != 0 {
		return errors.New("tensor map is not aligned")
	}
	f.maps = append(f.maps, m)
	return nil
}

func (f *fakeGPU) BeginCapture(uintptr) error { f.capture = true; return nil }

func (f *fakeGPU) EndCapture(_, from uintptr) (uintptr, error) {
	if !f.capture {
		return 0, errors.New("no capture")
	}
	f.capture = false
	if from != 0 {
		f.calls = append(f.calls, "UpdateGraph")
		return from, f.fail("EndCapture")
	}
	f.graphs++
	return f.new(), f.fail("EndCapture")
}

func (f *fakeGPU) NewProduct(p product) (*productPlan, error) {
	f.products = append(f.products, p)
	if f.refuse != nil && f.refuse(p) {
		return nil, nil
	}
	return &productPlan{product: p, descriptor: 1}, nil
}

func (f *fakeGPU) FreeProduct(*productPlan) {}

func (f *fakeGPU) Multiply(p *productPlan, o operands, _ uint64, _ uintptr) error {
	if p.bias != (o.bias != 0) {
		return errors.New("bias does not match its plan")
	}
	f.launches = append(f.launches, "cublasLt")
	return f.fail("Multiply")
}

// fakeCompiler turns source into its own text.
type fakeCompiler struct {
	mu       sync.Mutex
	compiled []string
	options  [][]string
	archs    []int
	fail     error
}

func (c *fakeCompiler) Version() string      { return "13.0" }
func (c *fakeCompiler) Architectures() []int { return c.archs }

func (c *fakeCompiler) Compile(name string, source []byte, options []string, _ bool) ([]byte, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.compiled = append(c.compiled, name)
	c.options = append(c.options, options)
	text := "machine code of " + string(source)
	for _, n := range new(kernels).files() { // macros name the functions of map, norm and rope
		for _, fn := range n.functions {
			if n.name+".cu" == name && strings.Contains(string(source), fn) {
				text += fn + "("
			}
		}
	}
	if name == "conv.cu" {
		text += "conv("
	}
	if strings.HasPrefix(name, "attend") {
		text += "attend(attend_merge("
	}
	return []byte(text), c.fail
}

// fakeDevice opens a Device over the fakes, with a cache of its own.
func fakeDevice(t *testing.T) (*Device, *fakeGPU) {
	t.Helper()
	f := newFakeGPU()
	d, err := newDevice(f, &fakeCompiler{archs: []int{80, 90}}, Options{CacheDir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	return d, f
}
