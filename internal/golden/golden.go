// Package golden compares results with numbers that a reference wrote down. A folder testdata/golden/<case> enters, with
// .safetensors files and a manifest.json that says who wrote them, from what, and each file's sha256; tensors leave, and for
// results that are off a message with the relative error, the worst element and the first different one.
//
// The package is for tests: it takes a testing.TB and ends the test on files that are missing or changed.
package golden

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"longtake/compute"
	"longtake/weights"
)

// Case is one folder of reference numbers.
type Case struct {
	dir      string
	manifest []byte
	files    map[string]*weights.File
}

// listed is the part of a manifest that is checked: every file with its sha256, and the tensors inside as [dtype, dims...].
type listed struct {
	Files map[string]struct {
		SHA256  string
		Bytes   int64
		Tensors map[string][]any
	}
}

// Load opens a folder and verifies it against its manifest. It ends the test when that fails, and closes the files when the
// test ends.
func Load(t testing.TB, dir string) *Case {
	t.Helper()
	c, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

// Open is Load outside a test. Every file that the manifest lists must be there with its sha256 and tensors.
func Open(dir string) (*Case, error) {
	manifest, err := os.ReadFile(filepath.Join(dir, "manifest.json"))
	if err != nil {
		return nil, fmt.Errorf("read golden: %w", err)
	}
	var l listed
	if err := json.Unmarshal(manifest, &l); err != nil {
		return nil, fmt.Errorf("read golden %s: manifest.json: %w", dir, err)
	}
	if len(l.Files) == 0 {
		return nil, fmt.Errorf("read golden %s: manifest.json lists no files", dir)
	}
	c := &Case{dir, manifest, make(map[string]*weights.File)}
	for _, name := range slices.Sorted(maps.Keys(l.Files)) {
		want := l.Files[name]
		f, err := weights.Open(filepath.Join(dir, name))
		if err != nil {
			return nil, errors.Join(fmt.Errorf("read golden: %w", err), c.Close())
		}
		c.files[name] = f
		if got := f.Hash(); got != want.SHA256 {
			return nil, errors.Join(fmt.Errorf("read golden %s: %s has sha256 %s, manifest.json says %s: files and manifest were not written together", dir, name, got, want.SHA256), c.Close())
		}
		if err := sameTensors(f, want.Tensors); err != nil {
			return nil, errors.Join(fmt.Errorf("read golden %s: %s: %w", dir, name, err), c.Close())
		}
	}
	return c, nil
}

// sameTensors compares a file's tensors with a manifest's list, when there is one.
func sameTensors(f *weights.File, list map[string][]any) error {
	if list == nil {
		return nil
	}
	if len(list) != len(f.Names()) {
		return fmt.Errorf("%d tensors, manifest.json lists %d", len(f.Names()), len(list))
	}
	for _, name := range slices.Sorted(maps.Keys(list)) {
		h, err := f.Tensor(name)
		if err != nil {
			return err
		}
		have := []any{strings.ToUpper(h.DType.String())}
		for _, d := range h.Shape {
			have = append(have, d)
		}
		if fmt.Sprint(have) != fmt.Sprint(list[name]) {
			return fmt.Errorf("tensor %s is %v, manifest.json says %v", name, have, list[name])
		}
	}
	return nil
}

// Close closes the files.
func (c *Case) Close() error {
	var errs []error
	for _, f := range c.files {
		errs = append(errs, f.Close())
	}
	return errors.Join(errs...)
}

// Manifest decodes manifest.json into v, for the numbers and notes that are particular to a case.
func (c *Case) Manifest(t testing.TB, v any) {
	t.Helper()
	if err := json.Unmarshal(c.manifest, v); err != nil {
		t.Fatalf("read golden %s: manifest.json: %v", c.dir, err)
	}
}

// Tensor returns a tensor of a file ("block.safetensors"); its Data points into the file.
func (c *Case) Tensor(t testing.TB, file, name string) compute.Host {
	t.Helper()
	f, ok := c.files[file]
	if !ok {
		t.Fatalf("read golden %s: manifest.json does not list %s", c.dir, file)
	}
	h, err := f.Tensor(name)
	if err != nil {
		t.Fatalf("%v", err)
	}
	return h
}

// Floats returns the elements of an F32, BF16 or F16 tensor.
func (c *Case) Floats(t testing.TB, file, name string) []float32 {
	t.Helper()
	x, err := weights.Floats(c.Tensor(t, file, name))
	if err != nil {
		t.Fatalf("read golden %s: %s of %s: %v", c.dir, name, file, err)
	}
	return x
}

// Ints returns the elements of an I32 tensor.
func (c *Case) Ints(t testing.TB, file, name string) []int32 {
	t.Helper()
	h := c.Tensor(t, file, name)
	if h.DType != compute.I32 {
		t.Fatalf("read golden %s: %s of %s is %v, want i32", c.dir, name, file, h.DType)
	}
	x := make([]int32, h.Elems())
	for i := range x {
		x[i] = int32(binary.LittleEndian.Uint32(h.Data[4*i:]))
	}
	return x
}

// Near compares got with a tensor of the case: the relative error must not exceed tolerance.
func (c *Case) Near(t testing.TB, file, name string, got []float32, tolerance float64) {
	t.Helper()
	want := c.Tensor(t, file, name)
	if d := Compare(got, c.Floats(t, file, name), tolerance); !d.Within(tolerance) {
		t.Errorf("%s of %s: %s", name, filepath.Join(c.dir, file), d.Describe(want.Shape...))
	}
}

// Hash returns the sha256 of bytes in hex: for results that must repeat exactly.
func Hash(data []byte) string { return fmt.Sprintf("%x", sha256.Sum256(data)) }
