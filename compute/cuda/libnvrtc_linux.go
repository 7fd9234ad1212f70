//go:build linux && (amd64 || arm64) && !nocuda

package cuda

import (
	"fmt"
	"runtime"
	"strings"
	"unsafe"

	"github.com/ebitengine/purego"
)

// nvrtc is the compiler interface over libnvrtc.
type nvrtc struct{ *sharedLibrary }

func openNVRTC(l library) (*nvrtc, error) {
	lib, err := openLibrary(l, "nvrtcVersion", "nvrtcGetErrorString", "nvrtcGetNumSupportedArchs", "nvrtcGetSupportedArchs",
		"nvrtcCreateProgram", "nvrtcDestroyProgram", "nvrtcCompileProgram", "nvrtcGetProgramLogSize", "nvrtcGetProgramLog",
		"nvrtcGetCUBINSize", "nvrtcGetCUBIN", "nvrtcGetPTXSize", "nvrtcGetPTX")
	if err != nil {
		return nil, err
	}
	return &nvrtc{lib}, nil
}

//go:uintptrescapes
func (n *nvrtc) call(name string, args ...uintptr) error {
	r, _, _ := purego.SyscallN(n.functions[name], args...)
	code := int32(r)
	if code == 0 {
		return nil
	}
	return &Error{Call: name, Code: int(code), Text: fmt.Sprintf("nvrtcResult of %s", n.path)}
}

func (n *nvrtc) Version() string {
	var major, minor int32
	if err := n.call("nvrtcVersion", uintptr(unsafe.Pointer(&major)), uintptr(unsafe.Pointer(&minor))); err != nil {
		return "unknown"
	}
	return fmt.Sprintf("%d.%d", major, minor)
}

func (n *nvrtc) Architectures() []int {
	var count int32
	if n.call("nvrtcGetNumSupportedArchs", uintptr(unsafe.Pointer(&count))) != nil || count <= 0 {
		return nil
	}
	archs := make([]int32, count)
	if n.call("nvrtcGetSupportedArchs", uintptr(unsafe.Pointer(&archs[0]))) != nil {
		return nil
	}
	list := make([]int, count)
	for i, a := range archs {
		list[i] = int(a)
	}
	return list
}

func (n *nvrtc) Compile(name string, source []byte, options []string, ptx bool) ([]byte, error) {
	src := append(append([]byte(nil), source...), 0)
	var program uintptr
	err := n.call("nvrtcCreateProgram", uintptr(unsafe.Pointer(&program)), uintptr(unsafe.Pointer(&src[0])),
		uintptr(unsafe.Pointer(terminated(name))), 0, 0, 0)
	if err != nil {
		return nil, fmt.Errorf("compile %s: %w", name, err)
	}
	defer n.call("nvrtcDestroyProgram", uintptr(unsafe.Pointer(&program)))
	list := make([]*byte, len(options)+1)
	for i, o := range options {
		list[i] = terminated(o)
	}
	err = n.call("nvrtcCompileProgram", program, uintptr(len(options)), uintptr(unsafe.Pointer(&list[0])))
	runtime.KeepAlive(list)
	if err != nil {
		log, _ := n.fetch(program, "nvrtcGetProgramLog")
		return nil, fmt.Errorf("compile %s (%s): %w\n%s", name, strings.Join(options, " "), err, strings.TrimRight(string(log), "\x00\n"))
	}
	if ptx {
		return n.fetch(program, "nvrtcGetPTX")
	}
	return n.fetch(program, "nvrtcGetCUBIN")
}

// fetch gets a result whose size has a function of its own.
func (n *nvrtc) fetch(program uintptr, name string) ([]byte, error) {
	var size uintptr
	if err := n.call(name+"Size", program, uintptr(unsafe.Pointer(&size))); err != nil {
		return nil, err
	}
	if size == 0 {
		return nil, fmt.Errorf("%s: empty result", name)
	}
	b := make([]byte, size)
	return b, n.call(name, program, uintptr(unsafe.Pointer(&b[0])))
}
