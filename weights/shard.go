package weights

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// indexMax bounds an index file; 100 bytes a tensor for half a million tensors.
const indexMax = 50_000_000

// openSharded opens every file that an index names. The index decides what is visible: tensors in the files that it does
// not list stay hidden.
func openSharded(path string) (*File, error) {
	raw, err := readIndex(path)
	if err != nil {
		return nil, err
	}
	where, metadata, p := parseIndex(raw)
	if p != nil {
		return nil, &FormatError{path, p.tensor, p.what, p.todo}
	}
	f := &File{path: path, metadata: metadata, entries: make(map[string]entry, len(where)), parts: []part{{filepath.Base(path), raw}}}
	shards := make(map[string]*File)
	for _, name := range slices.Compact(slices.Sorted(maps.Values(where))) {
		s, err := Open(filepath.Join(filepath.Dir(path), name))
		if err != nil {
			return nil, errors.Join(err, f.Close())
		}
		shards[name] = s
		f.parts = append(f.parts, part{name, s.parts[0].data})
		f.unmap = append(f.unmap, s.unmap...)
	}
	for _, name := range slices.Sorted(maps.Keys(where)) {
		e, ok := shards[where[name]].entries[name]
		if !ok {
			f.Close()
			return nil, &FormatError{path, name, fmt.Sprintf("the index puts it in %s, which does not hold it", where[name]), "index and files do not belong together: " + todoAgain}
		}
		f.entries[name] = e
	}
	return f, nil
}

func readIndex(path string) ([]byte, error) {
	h, size, err := openFile(path)
	if err != nil {
		return nil, fmt.Errorf("read weights: %w", err)
	}
	defer h.Close()
	if size > indexMax {
		return nil, &FormatError{path, "", fmt.Sprintf("an index of %d bytes (the most is %d)", size, indexMax), todoAgain}
	}
	raw, err := io.ReadAll(io.LimitReader(h, indexMax))
	if err != nil {
		return nil, fmt.Errorf("read weights: %w", err)
	}
	return raw, nil
}

// parseIndex reads {"metadata": {...}, "weight_map": {tensor: file}}.
func parseIndex(raw []byte) (where, metadata map[string]string, p *problem) {
	d := &reader{json.NewDecoder(bytes.NewReader(raw))}
	err := d.object(func(key string) error {
		switch {
		case key == "weight_map" && where == nil:
			where = make(map[string]string)
			return d.object(func(name string) error { return d.place(where, name) })
		case key == "metadata" && metadata == nil:
			metadata = make(map[string]string)
			return d.object(func(name string) error {
				var v any // numbers and text occur; nothing is read from them
				err := d.Decode(&v)
				metadata[name] = fmt.Sprint(v)
				return err
			})
		}
		return damaged("", "unexpected or repeated key %s in the index", clip(key))
	})
	if err == nil {
		if _, end := d.Token(); end != io.EOF {
			err = damaged("", "text follows the index's closing brace")
		}
	}
	if err == nil && len(where) == 0 {
		err = damaged("", "the index has no weight_map")
	}
	if err == nil {
		return where, metadata, nil
	}
	if !errors.As(err, &p) {
		p = damaged("", "the index is not the JSON that the format asks for: %v", err)
	}
	return nil, nil, p
}

// place reads one file name of a weight_map. It must be a plain name: an index cannot reach outside its own folder.
func (d *reader) place(where map[string]string, name string) error {
	file, err := d.str()
	if err != nil {
		return err
	}
	if _, twice := where[name]; twice {
		return damaged(name, "listed twice in the index")
	}
	if !filepath.IsLocal(file) || strings.ContainsAny(file, "/\\") || file == "." || strings.ContainsRune(file, os.PathSeparator) || !strings.HasSuffix(file, ".safetensors") {
		return damaged(name, "the index names the file %s, want a plain *.safetensors name in the same folder", clip(file))
	}
	where[name] = file
	return nil
}
