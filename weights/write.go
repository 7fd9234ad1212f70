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
	"maps"
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
	names := slices.SortedFunc(maps.Keys(tensors), func(a, b string) int {
		return cmp.Or(cmp.Compare(tensors[b].DType.Size(), tensors[a].DType.Size()), strings.Compare(a, b))
	})
	head, err := header(names, tensors, metadata)
	if err != nil {
		return fmt.Errorf("write weights: %w", err)
	}
	if _, err := w.Write(binary.LittleEndian.AppendUint64(nil, uint64(len(head)))); err != nil {
		return fmt.Errorf("write weights: %w", err)
	}
	if _, err := w.Write(head); err != nil {
		return fmt.Errorf("write weights: %w", err)
	}
	for _, name := range names {
		if _, err := w.Write(tensors[name].Data); err != nil {
			return fmt.Errorf("write weights: tensor %s: %w", clip(name), err)
		}
	}
	return nil
}

func header(names []string, tensors map[string]compute.Host, metadata map[string]string) ([]byte, error) {
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
	for _, name := range names {
		h := tensors[name]
		typ, ok := typeNames[h.DType]
		if want := h.Elems() * h.DType.Size(); !ok || want != len(h.Data) || name == metadataKey {
			return nil, fmt.Errorf("tensor %s: %v%v with %d bytes cannot be written", clip(name), h.DType, h.Shape, len(h.Data))
		}
		shape := h.Shape
		if shape == nil {
			shape = []int{}
		}
		line, err := json.Marshal(map[string]any{"dtype": typ, "shape": shape, "data_offsets": [2]int{at, at + len(h.Data)}})
		if err != nil {
			return nil, err
		}
		key, err := json.Marshal(name)
		if err != nil {
			return nil, err
		}
		if b.Len() > 1 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, "%s:%s", key, line)
		at += len(h.Data)
	}
	b.WriteByte('}')
	for b.Len()%8 != 0 {
		b.WriteByte(' ')
	}
	return b.Bytes(), nil
}

// WriteFile writes a safetensors file under a temporary name and renames it, so that no half-written file is ever seen.
func WriteFile(path string, tensors map[string]compute.Host, metadata map[string]string) error {
	h, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return fmt.Errorf("write weights: %w", err)
	}
	if err = fill(h, tensors, metadata); err == nil {
		err = os.Rename(h.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(h.Name()))
	}
	return nil
}

// fill writes and closes h.
func fill(h *os.File, tensors map[string]compute.Host, metadata map[string]string) error {
	buffered := bufio.NewWriterSize(h, 1<<20)
	err := Write(buffered, tensors, metadata)
	if err == nil {
		err = buffered.Flush()
	}
	if err == nil {
		err = h.Chmod(0o644) // CreateTemp makes files that only their owner can read
	}
	return errors.Join(err, h.Close())
}
