package weights

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"

	"longtake/compute"
)

// ErrMissing says that a file holds no tensor of the asked name.
var ErrMissing = errors.New("no such tensor")

// FormatError is a file that cannot be trusted: truncated, damaged, of another format.
type FormatError struct {
	File   string // path, or "weights in memory"
	Tensor string // name of the tensor, when one is to blame
	What   string // what is wrong
	Todo   string // what to do about it
}

// Error is one line: file, tensor, what is wrong, what to do.
func (e *FormatError) Error() string {
	s := "read weights " + e.File + ": "
	if e.Tensor != "" {
		s += "tensor " + clip(e.Tensor) + ": "
	}
	return s + e.What + "; " + e.Todo
}

// entry is one validated tensor.
type entry struct {
	typ  string
	host compute.Host
	file string
}

// File is an open safetensors file, or the files of a sharded model seen as one. It is immutable, and safe for concurrent
// use until Close.
type File struct {
	path     string
	entries  map[string]entry
	metadata map[string]string
	parts    []part // the bytes themselves, for Hash
	unmap    []func() error
}

type part struct {
	name string
	data []byte
}

// Open opens a .safetensors file, the .index.json of a sharded model whose files lie beside it, or a .pt, .pth or .bin file of
// torch.save (see OpenTorch). Files are mapped into
// memory where the system can (Linux, macOS, BSD) and read elsewhere: opening a large file is quick, and tensors are paged
// in as they are used. The file must not be changed or truncated while it is open. Errors are *FormatError or from package os.
func Open(path string) (*File, error) {
	if strings.HasSuffix(path, ".index.json") {
		return openSharded(path)
	}
	for _, end := range []string{".pt", ".pth", ".bin", ".ckpt"} {
		if strings.HasSuffix(path, end) {
			return OpenTorch(path)
		}
	}
	data, unmap, err := mapFile(path)
	if err != nil {
		return nil, fmt.Errorf("read weights: %w", err)
	}
	f, err := parse(path, data)
	if err != nil {
		unmap()
		return nil, err
	}
	f.unmap = append(f.unmap, unmap)
	return f, nil
}

// Parse reads a safetensors file that is already in memory, embedded in the binary for example. Data is kept, not copied.
// The error is a *FormatError.
func Parse(data []byte) (*File, error) { return parse("weights in memory", data) }

func parse(path string, data []byte) (*File, error) {
	records, metadata, first, p := split(data)
	f := &File{path: path, metadata: metadata, parts: []part{{path, data}}}
	if p == nil {
		f.entries, p = place(records, data[first:], path)
	}
	if p != nil {
		return nil, &FormatError{path, p.tensor, p.what, p.todo}
	}
	return f, nil
}

// split finds the header and where the elements start.
func split(data []byte) (records []record, metadata map[string]string, first int, p *problem) {
	if p := otherFormat(data); p != nil {
		return nil, nil, 0, p
	}
	if len(data) < 8 {
		return nil, nil, 0, damaged("", "%d bytes are too few for a safetensors file", len(data))
	}
	n := binary.LittleEndian.Uint64(data)
	switch {
	case n > headerMax:
		return nil, nil, 0, &problem{"", fmt.Sprintf("a header of %d bytes (the most is %d): not a safetensors file", n, headerMax), todoConvert}
	case n > uint64(len(data)-8):
		return nil, nil, 0, damaged("", "truncated: the header needs %d bytes, the file has %d after its length", n, len(data)-8)
	}
	first = 8 + int(n)
	records, metadata, p = parseHeader(data[8:first])
	return records, metadata, first, p
}

// otherFormat recognises what people open by mistake.
func otherFormat(data []byte) *problem {
	for _, c := range []struct{ magic, what, todo string }{
		{"version https://git-lfs", "a Git LFS pointer, not the weights themselves", "run \"git lfs pull\""},
		{"PK\x03\x04", "a zip archive (PyTorch .pt or .pth), not a safetensors file", todoConvert},
		{"\x80\x02", "a Python pickle (old PyTorch .pt), not a safetensors file", todoConvert},
		{"GGUF", "a GGUF file, not a safetensors file", "use the safetensors weights of this model"},
		{"<!DOCTYPE", "a web page, not a safetensors file", "download the file itself"},
		{"<html", "a web page, not a safetensors file", "download the file itself"},
	} {
		if bytes.HasPrefix(data, []byte(c.magic)) && (len(c.magic) > 2 || len(data) < 8 || binary.LittleEndian.Uint64(data) > headerMax) {
			return &problem{"", c.what, c.todo}
		}
	}
	return nil
}

// place checks that the tensors fill the element bytes exactly, each with the bytes that its type and shape ask for.
func place(records []record, data []byte, path string) (map[string]entry, *problem) {
	slices.SortFunc(records, func(a, b record) int {
		return cmp.Or(cmp.Compare(a.begin, b.begin), cmp.Compare(a.end, b.end), strings.Compare(a.name, b.name))
	})
	size := int64(len(data))
	for _, r := range records {
		want, p := r.span()
		switch {
		case p != nil:
			return nil, p
		case r.end < r.begin:
			return nil, damaged(r.name, "data offsets [%d %d] run backwards", r.begin, r.end)
		case r.end-r.begin != want:
			return nil, damaged(r.name, "data offsets [%d %d] span %d bytes, %s%v needs %d", r.begin, r.end, r.end-r.begin, r.typ, r.shape, want)
		case r.end > size:
			return nil, damaged(r.name, "truncated: its data ends at byte %d, the file has %d", r.end, size)
		}
	}
	entries := make(map[string]entry, len(records))
	var at int64
	for i, r := range records {
		switch {
		case r.begin < at:
			return nil, damaged(r.name, "data offsets [%d %d] overlap those of %s", r.begin, r.end, clip(records[i-1].name))
		case r.begin > at:
			return nil, damaged(r.name, "bytes %d to %d before it belong to no tensor", at, r.begin)
		}
		at = r.end
		entries[r.name] = entry{r.typ, compute.Host{DType: elements[r.typ].dtype, Shape: r.shape, Data: data[r.begin:r.end:r.end]}, path}
	}
	if at != size {
		return nil, damaged("", "%d bytes after the last tensor belong to no tensor", size-at)
	}
	return entries, nil
}

// Names returns the names of all tensors, sorted.
func (f *File) Names() []string { return slices.Sorted(maps.Keys(f.entries)) }

// Metadata returns the free text pairs of the header (of the index, for a sharded model). It must not be changed.
func (f *File) Metadata() map[string]string { return f.metadata }

// Path returns what Open was given, for messages.
func (f *File) Path() string { return f.path }

// Tensor returns a tensor whose Data points into the file: read-only, valid until Close, aligned to nothing. BOOL comes as
// U8. The error wraps ErrMissing, or compute.ErrUnsupported for element types that compute does not have.
func (f *File) Tensor(name string) (compute.Host, error) {
	e, ok := f.entries[name]
	if !ok {
		return compute.Host{}, fmt.Errorf("read weights %s: tensor %s: %w", f.path, clip(name), ErrMissing)
	}
	if !elements[e.typ].known {
		return compute.Host{}, fmt.Errorf("read weights %s: tensor %s: element type %s: %w; convert it to F32 or BF16", e.file, clip(name), e.typ, compute.ErrUnsupported)
	}
	return compute.Host{DType: e.host.DType, Shape: slices.Clone(e.host.Shape), Data: e.host.Data}, nil
}

// Hash returns the SHA-256 of the file's bytes in hex, as sha256sum prints it. For a sharded model it is the SHA-256 of
// the lines "<sha256>  <file name>\n" of the index and then of the files in sorted order.
func (f *File) Hash() string {
	sum, err := f.HashUntil(context.Background())
	if err != nil {
		panic(err) // a background never ends
	}
	return sum
}

// HashUntil is Hash that stops when ctx ends, with its error.
func (f *File) HashUntil(ctx context.Context) (string, error) {
	if len(f.parts) == 1 {
		return hashOf(ctx, f.parts[0].data)
	}
	all := sha256.New()
	for _, p := range f.parts {
		sum, err := hashOf(ctx, p.data)
		if err != nil {
			return "", err
		}
		fmt.Fprintf(all, "%s  %s\n", sum, p.name)
	}
	return hex.EncodeToString(all.Sum(nil)), nil
}

// hashOf hashes in pieces, between which it looks at ctx.
func hashOf(ctx context.Context, data []byte) (string, error) {
	sum := sha256.New()
	for piece := range slices.Chunk(data, 16<<20) {
		if err := ctx.Err(); err != nil {
			return "", err
		}
		sum.Write(piece)
	}
	return hex.EncodeToString(sum.Sum(nil)), nil
}

// Close unmaps the file. Tensors that were read from it must not be touched afterwards.
func (f *File) Close() error {
	var errs []error
	for _, unmap := range f.unmap {
		errs = append(errs, unmap())
	}
	f.unmap, f.entries, f.parts = nil, nil, nil
	return errors.Join(errs...)
}

// readFile is mapFile where memory maps are not available.
func readFile(h *os.File, size int64) ([]byte, func() error, error) {
	data := make([]byte, size)
	if _, err := io.ReadFull(h, data); err != nil {
		return nil, nil, fmt.Errorf("%s: %w", h.Name(), err)
	}
	return data, func() error { return nil }, nil
}

// openFile opens a regular file that fits the address space.
func openFile(path string) (*os.File, int64, error) {
	h, err := os.Open(path)
	if err != nil {
		return nil, 0, err
	}
	info, err := h.Stat()
	switch {
	case err != nil:
	case !info.Mode().IsRegular():
		err = fmt.Errorf("%s: not a regular file", path)
	case info.Size() != int64(int(info.Size())):
		err = fmt.Errorf("%s: %d bytes do not fit this machine's address space", path, info.Size())
	}
	if err != nil {
		h.Close()
		return nil, 0, err
	}
	return h, info.Size(), nil
}
