package weights

import (
	"encoding/binary"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"unsafe"

	"longtake/compute"
)

// lanes tells NaN and infinity apart from numbers in 8 bytes at once: (word & exp) + one reaches a lane's top bit exactly
// where all exponent bits are set, and never carries into the next lane.
type lanes struct{ exp, one, top uint64 }

var floats = map[compute.DType]lanes{
	compute.F64:    {0x7ff0000000000000, 0x0010000000000000, 0x8000000000000000},
	compute.F32:    {0x7f8000007f800000, 0x0080000000800000, 0x8000000080000000},
	compute.F16:    {0x7c007c007c007c00, 0x0400040004000400, 0x8000800080008000},
	compute.BF16:   {0x7f807f807f807f80, 0x0080008000800080, 0x8000800080008000},
	compute.F8E5M2: {0x7c7c7c7c7c7c7c7c, 0x0404040404040404, 0x8080808080808080},
	compute.F8E4M3: {0x7f7f7f7f7f7f7f7f, 0x0101010101010101, 0x8080808080808080}, // no infinity: only all ones is NaN
}

// Check scans the named tensors (all, if none is named) for NaN and infinity and reports the first found as a *FormatError.
// Integer tensors pass. It reads every byte, on all cores, about as fast as memory allows.
func (f *File) Check(names ...string) error {
	if len(names) == 0 {
		names = f.Names()
	}
	for _, name := range names {
		if _, ok := f.entries[name]; !ok {
			return fmt.Errorf("read weights %s: tensor %s: %w", f.path, clip(name), ErrMissing)
		}
	}
	found := make([]int, len(names)) // element + 1, by name
	var next atomic.Int64
	var all sync.WaitGroup
	for range min(runtime.GOMAXPROCS(0), len(names)) {
		all.Go(func() {
			for i := next.Add(1) - 1; int(i) < len(names); i = next.Add(1) - 1 {
				if e := f.entries[names[i]]; elements[e.typ].known {
					found[i] = firstNotFinite(e.host) + 1
				}
			}
		})
	}
	all.Wait()
	for i, at := range found {
		if at > 0 {
			return f.notFinite(names[i], at-1)
		}
	}
	return nil
}

func (f *File) notFinite(name string, i int) error {
	e := f.entries[name]
	what := fmt.Sprintf("element %d of %s%v is not a finite number", i, e.typ, e.host.Shape)
	if at := f.Offset(name); at >= 0 {
		what += fmt.Sprintf(" (byte %d of the file)", at+int64(i*e.host.DType.Size()))
	}
	return &FormatError{e.file, name, what, "the file is damaged or its training diverged: " + todoAgain}
}

// Offset returns where a tensor's bytes begin in the file that holds them; -1 for none, and for tensors that had to be copied.
func (f *File) Offset(name string) int64 {
	e, ok := f.entries[name]
	if !ok || len(e.host.Data) == 0 {
		return -1
	}
	first := uintptr(unsafe.Pointer(unsafe.SliceData(e.host.Data)))
	for _, p := range f.parts {
		if from := uintptr(unsafe.Pointer(unsafe.SliceData(p.data))); first >= from && first < from+uintptr(len(p.data)) {
			return int64(first - from)
		}
	}
	return -1
}

// firstNotFinite returns the index of the first NaN or infinity, -1 when there is none.
func firstNotFinite(h compute.Host) int {
	l, ok := floats[h.DType]
	if !ok {
		return -1
	}
	size, i := h.DType.Size(), 0
	for ; i+8 <= len(h.Data); i += 8 {
		if (binary.LittleEndian.Uint64(h.Data[i:])&l.exp+l.one)&l.top != 0 {
			break
		}
	}
	for ; i < len(h.Data); i += size {
		var word [8]byte
		copy(word[:], h.Data[i:i+size])
		if (binary.LittleEndian.Uint64(word[:])&l.exp+l.one)&l.top != 0 {
			return i / size
		}
	}
	return -1
}
