package weights

import (
	"bufio"
	"bytes"
	"cmp"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"longtake/compute"
)

var typeNames = map[compute.DType]string{
	compute.F32: "F32", compute.BF16: "BF16", compute.F16: "F16", compute.F64: "F64", compute.I64: "I64", compute.I32: "I32",
	compute.U8: "U8", compute.F8E4M3: "F8_E4M3", compute.F8E5M2: "F8_E5M2",
}

// Write writes a safetensors file. The same tensors and metadata (may be nil) give the same bytes: larger elements come
// first, so that all are aligned, then names in order; the header is padded to 8 bytes.
func Write(w io.Writer, tensors map[string]compute.Host, metadata map[string]string) error {
	slots := make([]slot, 0, len(tensors))
	for name, h := range tensors {
		if want := h.Elems() * h.DType.Size(); want != len(h.Data) {
			return fmt.Errorf("write weights: tensor %s: %v%v with %d bytes cannot be written", clip(name), h.DType, h.Shape, len(h.Data))
		}
		slots = append(slots, slot{name, h.DType, h.Shape})
	}
	return writeSlots(w, slots, metadata, func(name string) ([]byte, error) { return tensors[name].Data, nil })
}

// slot is the place of a tensor in a file to be written.
type slot struct {
	name  string
	dtype compute.DType
	shape []int
}

func (s slot) bytes() int { return compute.Host{Shape: s.shape}.Elems() * s.dtype.Size() }

// write writes the header and then what data returns for each name.
func writeSlots(w io.Writer, slots []slot, metadata map[string]string, data func(name string) ([]byte, error)) error {
	slices.SortFunc(slots, func(a, b slot) int {
		return cmp.Or(cmp.Compare(b.dtype.Size(), a.dtype.Size()), strings.Compare(a.name, b.name))
	})
	head, err := header(slots, metadata)
	if err != nil {
		return fmt.Errorf("write weights: %w", err)
	}
	if _, err := w.Write(binary.LittleEndian.AppendUint64(nil, uint64(len(head)))); err != nil {
		return fmt.Errorf("write weights: %w", err)
	}
	if _, err := w.Write(head); err != nil {
		return fmt.Errorf("write weights: %w", err)
	}
	for _, s := range slots {
		b, err := data(s.name)
		if err == nil && len(b) != s.bytes() {
			err = fmt.Errorf("%d bytes instead of %d", len(b), s.bytes())
		}
		if err == nil {
			_, err = w.Write(b)
		}
		if err != nil {
			return fmt.Errorf("write weights: tensor %s: %w", clip(s.name), err)
		}
	}
	return nil
}

func header(slots []slot, metadata map[string]string) ([]byte, error) {
	var b bytes.Buffer
	b.WriteByte('{')
	if len(metadata) > 0 {
		m, err := json.Marshal(metadata)
		if err != nil {
			return nil, err
		}
		fmt.Fprintf(&b, "%q:%s", metadataKey, m)
	}
	at := 0
	for _, s := range slots {
		typ, ok := typeNames[s.dtype]
		if !ok || s.name == metadataKey {
			return nil, fmt.Errorf("tensor %s: %v%v cannot be written", clip(s.name), s.dtype, s.shape)
		}
		shape := s.shape
		if shape == nil {
			shape = []int{}
		}
		line, err := json.Marshal(map[string]any{"dtype": typ, "shape": shape, "data_offsets": [2]int{at, at + s.bytes()}})
		if err != nil {
			return nil, err
		}
		key, err := json.Marshal(s.name)
		if err != nil {
			return nil, err
		}
		if b.Len() > 1 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, "%s:%s", key, line)
		at += s.bytes()
	}
	b.WriteByte('}')
	for b.Len()%8 != 0 {
		b.WriteByte(' ')
	}
	return b.Bytes(), nil
}

// Convert writes the named tensors of a source as a safetensors file, one after the other, so that only one needs memory.
// Floating tensors become dt unless keep is set; the others stay as they are. The file appears under its name when it is whole.
func Convert(path string, src Source, names []string, dt compute.DType, keep bool, metadata map[string]string) error {
	floating := func(d compute.DType) bool { return d == compute.F32 || d == compute.BF16 || d == compute.F16 }
	slots := make([]slot, 0, len(names))
	for _, name := range names {
		h, err := src.Tensor(name)
		if err != nil {
			return err
		}
		if !keep && floating(h.DType) {
			h.DType = dt
		}
		slots = append(slots, slot{name, h.DType, h.Shape})
	}
	kinds := make(map[string]compute.DType, len(slots))
	for _, s := range slots {
		kinds[s.name] = s.dtype
	}
	data := func(name string) ([]byte, error) {
		h, err := src.Tensor(name)
		if err != nil || h.DType == kinds[name] {
			return h.Data, err
		}
		return recast(h, kinds[name])
	}
	return writeFile(path, func(w io.Writer) error { return writeSlots(w, slots, metadata, data) })
}

// recast turns floating numbers into another floating type.
func recast(h compute.Host, dt compute.DType) ([]byte, error) {
	f, err := Floats(h)
	if err != nil {
		return nil, err
	}
	b := make([]byte, 0, len(f)*dt.Size())
	for _, v := range f {
		switch dt {
		case compute.BF16:
			b = binary.LittleEndian.AppendUint16(b, compute.BF16FromF32(v))
		case compute.F32:
			b = binary.LittleEndian.AppendUint32(b, math.Float32bits(v))
		default:
			return nil, fmt.Errorf("convert to %v: %w", dt, compute.ErrUnsupported)
		}
	}
	return b, nil
}

// WriteFile writes a safetensors file under a temporary name and renames it, so that no half-written file is ever seen.
func WriteFile(path string, tensors map[string]compute.Host, metadata map[string]string) error {
	return writeFile(path, func(w io.Writer) error { return Write(w, tensors, metadata) })
}

func writeFile(path string, write func(io.Writer) error) error {
	h, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return fmt.Errorf("write weights: %w", err)
	}
	if err = fill(h, write); err == nil {
		err = os.Rename(h.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(h.Name()))
	}
	return nil
}

// fill writes and closes h.
func fill(h *os.File, write func(io.Writer) error) error {
	buffered := bufio.NewWriterSize(h, 1<<20)
	err := write(buffered)
	if err == nil {
		err = buffered.Flush()
	}
	if err == nil {
		err = h.Chmod(0o644) // CreateTemp makes files that only their owner can read
	}
	return errors.Join(err, h.Close())
}
