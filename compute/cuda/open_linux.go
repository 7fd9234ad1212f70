//go:build linux && (amd64 || arm64) && !nocuda

package cuda

import (
	"fmt"
	"os"
	"sync"
	"unsafe"

	"github.com/ebitengine/purego"

	"longtake/compute"
)

// sharedLibrary is an opened library with the addresses of its functions.
type sharedLibrary struct {
	handle    uintptr
	path      string
	functions map[string]uintptr
}

// openLibrary finds a library and resolves the names.
func openLibrary(l library, names ...string) (*sharedLibrary, error) {
	s := search{getenv: os.Getenv, open: func(path string) (uintptr, error) {
		return purego.Dlopen(path, purego.RTLD_NOW|purego.RTLD_GLOBAL)
	}}
	h, path, err := s.find(l)
	if err != nil {
		return nil, err
	}
	lib := &sharedLibrary{handle: h, path: path, functions: map[string]uintptr{}}
	for _, n := range names {
		p, err := purego.Dlsym(h, n)
		if err != nil {
			return nil, fmt.Errorf("cuda: %s has no %s (%w): %w", path, n, err, compute.ErrUnsupported)
		}
		lib.functions[n] = p
	}
	return lib, nil
}

// optional returns the address of a function, or 0.
func (l *sharedLibrary) optional(name string) uintptr {
	p, err := purego.Dlsym(l.handle, name)
	if err != nil {
		return 0
	}
	return p
}

// libraries are opened once a process and never closed: the CUDA libraries do not support being unloaded.
var libraries = struct {
	once  sync.Once
	cuda  *cudaLibrary
	nvrtc *nvrtc
	lt    *sharedLibrary
	err   error
}{}

func openLibraries() error {
	l := &libraries
	l.once.Do(func() {
		if l.cuda, l.err = openCUDA(); l.err != nil {
			return
		}
		if l.nvrtc, l.err = openNVRTC(libNVRTC.newest(l.cuda.version)); l.err != nil {
			return
		}
		l.lt, l.err = openCUBLASLt(libCUBLASLt.newest(l.cuda.version))
	})
	return l.err
}

func probe() (Info, error) {
	if err := openLibraries(); err != nil {
		return Info{}, err
	}
	c := libraries.cuda
	info := Info{
		Driver:    fmt.Sprintf("%d.%d", c.version/1000, c.version%1000/10),
		Libraries: map[string]string{"cuda": c.path, "nvrtc": libraries.nvrtc.path, "cublasLt": libraries.lt.path},
		Compiler:  libraries.nvrtc.Version(),
		CacheDir:  defaultCacheDir(),
	}
	var err error
	info.GPUs, err = c.gpus()
	return info, err
}

func openGPU(index int) (driver, compiler, error) {
	info, err := probe()
	if err != nil {
		return nil, nil, err
	}
	if index < 0 || index >= len(info.GPUs) {
		return nil, nil, fmt.Errorf("cuda: there is no GPU %d, the driver shows %d: %w", index, len(info.GPUs), compute.ErrUnsupported)
	}
	if g := info.GPUs[index]; g.Major*10+g.Minor < minCapability {
		return nil, nil, fmt.Errorf("cuda: GPU %v is older than compute capability 8.0: %w", g, compute.ErrUnsupported)
	}
	d, err := newGPU(libraries.cuda, libraries.lt, index)
	if err != nil {
		return nil, nil, err
	}
	return d, libraries.nvrtc, nil
}

// text copies a NUL-terminated string of C.
func text(p *byte) string {
	if p == nil {
		return ""
	}
	n := 0
	for *(*byte)(unsafe.Add(unsafe.Pointer(p), n)) != 0 {
		n++
	}
	return string(unsafe.Slice(p, n))
}

// terminated is s as a NUL-terminated string for C.
func terminated(s string) *byte {
	b := append([]byte(s), 0)
	return &b[0]
}
