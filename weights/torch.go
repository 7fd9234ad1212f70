package weights

import (
	"archive/zip"
	"bytes"
	"fmt"
	"math"
	"path"
	"slices"
	"strings"

	"longtake/compute"
)

// torchGlobals are the only names that a checkpoint may use: what torch.save writes for dictionaries of tensors.
var torchGlobals = func() map[pickleGlobal]bool {
	known := map[pickleGlobal]bool{
		{"collections", "OrderedDict"}:         true,
		{"torch._utils", "_rebuild_tensor_v2"}: true,
		{"torch._utils", "_rebuild_parameter"}: true,
		{"torch", "Size"}:                      true,
		{"torch.storage", "UntypedStorage"}:    true,
		{"torch.nn.parameter", "Parameter"}:    true,
	}
	for name := range torchStorages {
		known[pickleGlobal{"torch", name}] = true
	}
	return known
}()

// torchStorages gives the element type of every storage class.
var torchStorages = map[string]string{
	"FloatStorage": "F32", "HalfStorage": "F16", "BFloat16Storage": "BF16", "DoubleStorage": "F64",
	"LongStorage": "I64", "IntStorage": "I32", "ShortStorage": "I16", "CharStorage": "I8", "ByteStorage": "U8", "BoolStorage": "BOOL",
	"Float8_e4m3fnStorage": "F8_E4M3", "Float8_e5m2Storage": "F8_E5M2",
}

// OpenTorch opens what torch.save writes since version 1.6 (.pt, .pth, .bin: a zip archive of a pickle and raw storages). No
// code of the file is ever run: the pickle may only build dictionaries, lists and tensors. Names of nested dictionaries are
// joined by dots ("generator_ema.model.patch_embedding.weight"); what is not a tensor is left out. Contiguous tensors point into
// the mapped file; others are copied.
func OpenTorch(path string) (*File, error) {
	data, unmap, err := mapFile(path)
	if err != nil {
		return nil, fmt.Errorf("read weights: %w", err)
	}
	f, err := parseTorch(path, data)
	if err != nil {
		unmap()
		return nil, err
	}
	f.unmap = append(f.unmap, unmap)
	return f, nil
}

// parseTorch reads an archive that is in memory.
func parseTorch(name string, data []byte) (*File, error) {
	fail := func(todo, format string, args ...any) (*File, error) {
		return nil, &FormatError{File: name, What: fmt.Sprintf(format, args...), Todo: todo}
	}
	archive, err := zip.NewReader(bytes.NewReader(data), int64(len(data)))
	if err != nil {
		return fail("save it again with torch.save of PyTorch 1.6 or newer, or as safetensors", "not a zip archive of torch.save (%v)", err)
	}
	t := &torchFile{data: data, files: map[string]*zip.File{}, entries: map[string]entry{}, path: name}
	var program []byte
	for _, f := range archive.File {
		t.files[f.Name] = f
		if path.Base(f.Name) == "data.pkl" && program == nil {
			t.root = strings.TrimSuffix(f.Name, "data.pkl")
			if program, err = t.read(f, maxPickle); err != nil {
				return fail(todoAgain, "%v", err)
			}
		}
	}
	if program == nil {
		return fail("it may be a TorchScript or other archive: save the state dictionary with torch.save", "the archive holds no data.pkl")
	}
	machine := &unpickler{in: program, reduce: t.reduce, persistent: t.persistent}
	root, err := machine.run()
	if err == nil {
		err = t.collect("", root, 0)
	}
	if err != nil {
		return fail("if the file can be trusted, convert it to safetensors with PyTorch", "%v", err)
	}
	return &File{path: name, entries: t.entries, parts: []part{{name, data}}}, nil
}

// torchFile is an archive while it is read.
type torchFile struct {
	path    string
	data    []byte
	root    string // folder inside the archive, with its slash
	files   map[string]*zip.File
	entries map[string]entry
	copied  int64 // bytes of tensors that had to be copied
}

// read returns the bytes of a member, which torch.save stores uncompressed.
func (t *torchFile) read(f *zip.File, most uint64) ([]byte, error) {
	if f.Method != zip.Store || f.CompressedSize64 != f.UncompressedSize64 {
		return nil, fmt.Errorf("member %s is compressed, torch.save does not do that", clip(f.Name))
	}
	if f.UncompressedSize64 > most {
		return nil, fmt.Errorf("member %s has %d bytes, the most is %d", clip(f.Name), f.UncompressedSize64, most)
	}
	at, err := f.DataOffset()
	if err != nil {
		return nil, fmt.Errorf("member %s: %w", clip(f.Name), err)
	}
	size := int64(f.UncompressedSize64)
	if at < 0 || at > int64(len(t.data)) || size > int64(len(t.data))-at {
		return nil, fmt.Errorf("member %s lies outside the file", clip(f.Name))
	}
	return t.data[at : at+size : at+size], nil
}

// persistent resolves ("storage", class, key, device, elements).
func (t *torchFile) persistent(id any) (any, error) {
	v, ok := id.(pickleTuple)
	if !ok || len(v) != 5 || v[0] != "storage" {
		return nil, fmt.Errorf("an outside reference that is no storage")
	}
	class, ok1 := v[1].(pickleGlobal)
	key, ok2 := v[2].(string)
	elems, ok3 := v[4].(int64)
	typ := torchStorages[class.name]
	if class == (pickleGlobal{"torch.storage", "UntypedStorage"}) {
		typ = "U8"
	}
	if !ok1 || !ok2 || !ok3 || typ == "" || elems < 0 {
		return nil, fmt.Errorf("a storage of an unknown kind")
	}
	return pickleStorage{typ, key, elems}, nil
}

// reduce makes the objects that state dictionaries contain.
func (t *torchFile) reduce(f pickleGlobal, args pickleTuple) (any, error) {
	switch f.name {
	case "OrderedDict":
		return &pickleDict{}, nil
	case "Size":
		return args, nil
	case "_rebuild_parameter", "Parameter": // (tensor, requires_grad, hooks)
		if len(args) > 0 {
			if tensor, ok := args[0].(pickleTensor); ok {
				return tensor, nil
			}
		}
	case "_rebuild_tensor_v2": // (storage, offset, size, stride, requires_grad, hooks)
		if len(args) >= 4 {
			storage, ok1 := args[0].(pickleStorage)
			offset, ok2 := args[1].(int64)
			shape, ok3 := integers(args[2])
			stride, ok4 := integers(args[3])
			if ok1 && ok2 && ok3 && ok4 && offset >= 0 && len(shape) == len(stride) {
				return pickleTensor{storage, offset, shape, stride}, nil
			}
		}
	}
	return nil, fmt.Errorf("%s.%s with arguments that torch.save does not write", f.module, f.name)
}

func integers(v any) ([]int64, bool) {
	items, ok := v.(pickleTuple)
	if !ok || len(items) > rankMax {
		return nil, false
	}
	out := make([]int64, len(items))
	for i, item := range items {
		n, ok := item.(int64)
		if !ok || n < 0 {
			return nil, false
		}
		out[i] = n
	}
	return out, true
}

// maxNesting bounds dictionaries inside dictionaries.
const maxNesting = 16

// collect names the tensors of nested dictionaries.
func (t *torchFile) collect(prefix string, v any, depth int) error {
	switch v := v.(type) {
	case pickleTensor:
		name := strings.TrimSuffix(prefix, ".")
		if _, twice := t.entries[name]; twice {
			return fmt.Errorf("tensor %s occurs twice", clip(name))
		}
		e, err := t.entry(v)
		if err != nil {
			return fmt.Errorf("tensor %s: %w", clip(name), err)
		}
		t.entries[name] = e
	case *pickleDict:
		if depth > maxNesting {
			return fmt.Errorf("dictionaries are nested more than %d deep", maxNesting)
		}
		for i, key := range v.keys {
			if name, ok := key.(string); ok {
				if err := t.collect(prefix+name+".", v.values[i], depth+1); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// entry finds a tensor's bytes and checks that all of them lie in its storage.
func (t *torchFile) entry(v pickleTensor) (entry, error) {
	member, ok := t.files[t.root+"data/"+v.storage.key]
	if !ok {
		return entry{}, fmt.Errorf("storage %s is missing from the archive", clip(v.storage.key))
	}
	b, err := t.read(member, math.MaxInt64)
	if err != nil {
		return entry{}, err
	}
	kind := elements[v.storage.typ]
	size := int64(kind.bits / 8)
	stored, elems, last, dense := int64(len(b))/size, int64(1), v.offset, true
	shape := make([]int, len(v.shape))
	for i := len(shape) - 1; i >= 0; i-- {
		n := v.shape[i]
		shape[i] = int(n)
		if slices.Contains(v.shape, 0) {
			elems = 0
			continue
		}
		dense = dense && (n == 1 || v.stride[i] == elems)
		if n > stored || elems > stored/n || n > 1 && v.stride[i] > stored/(n-1) {
			return entry{}, fmt.Errorf("shape %v does not fit its storage of %d elements", v.shape, stored)
		}
		last += (n - 1) * v.stride[i]
		elems *= n
	}
	if elems > 0 && (v.offset > stored || last >= stored) {
		return entry{}, fmt.Errorf("shape %v at element %d does not fit its storage of %d elements", v.shape, v.offset, stored)
	}
	e := entry{typ: v.storage.typ, host: compute.Host{DType: kind.dtype, Shape: shape}, file: t.path}
	switch {
	case elems == 0:
	case dense:
		e.host.Data = b[v.offset*size : (v.offset+elems)*size]
	default:
		if t.copied += elems * size; t.copied > int64(len(t.data)) {
			return entry{}, fmt.Errorf("strided tensors need more memory than the file has")
		}
		e.host.Data = gather(b, v, elems, size)
	}
	return e, nil
}

// gather copies a strided tensor in row-major order.
func gather(b []byte, v pickleTensor, elems, size int64) []byte {
	out := make([]byte, 0, elems*size)
	index := make([]int64, len(v.shape))
	for range elems {
		at := v.offset
		for i, n := range index {
			at += n * v.stride[i]
		}
		out = append(out, b[at*size:(at+1)*size]...)
		for i, n := range slices.Backward(v.shape) {
			if index[i]++; index[i] < n {
				break
			}
			index[i] = 0
		}
	}
	return out
}
