package weights

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"longtake/compute"
)

// sharded writes two files and an index, and returns the index's path.
func sharded(t *testing.T, index string) string {
	t.Helper()
	dir := t.TempDir()
	for i, name := range []string{"one", "two"} {
		h := compute.Host{DType: compute.U8, Shape: []int{2}, Data: []byte{byte(i), byte(i + 1)}}
		file := filepath.Join(dir, fmt.Sprintf("m-0000%d-of-00002.safetensors", i+1))
		if err := WriteFile(file, map[string]compute.Host{name: h, "hidden": h}, nil); err != nil {
			t.Fatal(err)
		}
	}
	path := filepath.Join(dir, "m.safetensors.index.json")
	if err := os.WriteFile(path, []byte(index), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestAShardedModelIsSeenAsOne(t *testing.T) {
	path := sharded(t, `{"metadata":{"total_size":4},"weight_map":{"two":"m-00002-of-00002.safetensors","one":"m-00001-of-00002.safetensors"}}`)
	f, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if !slices.Equal(f.Names(), []string{"one", "two"}) || f.Metadata()["total_size"] != "4" {
		t.Errorf("names %v, metadata %v", f.Names(), f.Metadata())
	}
	if h, err := f.Tensor("two"); err != nil || h.Data[0] != 1 {
		t.Errorf("two: %+v, %v", h, err)
	}
	var lines strings.Builder
	for _, name := range []string{filepath.Base(path), "m-00001-of-00002.safetensors", "m-00002-of-00002.safetensors"} {
		b, err := os.ReadFile(filepath.Join(filepath.Dir(path), name))
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&lines, "%x  %s\n", sha256.Sum256(b), name)
	}
	if want := fmt.Sprintf("%x", sha256.Sum256([]byte(lines.String()))); f.Hash() != want {
		t.Errorf("hash %s, want %s", f.Hash(), want)
	}
}

func TestHostileIndexesAreRefused(t *testing.T) {
	for name, c := range map[string]struct{ index, want string }{
		"no map":           {`{"metadata":{}}`, "no weight_map"},
		"no JSON":          {`nonsense`, "not the JSON"},
		"not there":        {`{"weight_map":{"three":"m-00001-of-00002.safetensors"}}`, `tensor "three": the index puts it in m-00001-of-00002.safetensors`},
		"other folder":     {`{"weight_map":{"one":"../m-00001-of-00002.safetensors"}}`, "plain"},
		"absolute":         {`{"weight_map":{"one":"/etc/x.safetensors"}}`, "plain"},
		"backslash":        {`{"weight_map":{"one":"..\\x.safetensors"}}`, "plain"},
		"another index":    {`{"weight_map":{"one":"m.safetensors.index.json"}}`, "plain"},
		"twice":            {`{"weight_map":{"one":"m-00001-of-00002.safetensors","one":"m-00002-of-00002.safetensors"}}`, "listed twice"},
		"two maps":         {`{"weight_map":{"one":"m-00001-of-00002.safetensors"},"weight_map":{}}`, "repeated key"},
		"something behind": {`{"weight_map":{"one":"m-00001-of-00002.safetensors"}} x`, "closing brace"},
		"deep":             {`{"metadata":{"a":` + strings.Repeat("[", 100000) + strings.Repeat("]", 100000) + `}}`, "not the JSON"},
	} {
		_, err := Open(sharded(t, c.index))
		var bad *FormatError
		if !errors.As(err, &bad) || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: got %v, want a FormatError with %q", name, err, c.want)
		}
	}
	_, err := Open(sharded(t, `{"weight_map":{"one":"m-00003-of-00002.safetensors"}}`))
	if !errors.Is(err, os.ErrNotExist) {
		t.Errorf("absent file: %v", err)
	}
}

func TestOpenRefusesWhatIsNoFile(t *testing.T) {
	if _, err := Open(t.TempDir()); err == nil || !strings.Contains(err.Error(), "not a regular file") {
		t.Errorf("folder: %v", err)
	}
	if _, err := Open(filepath.Join(t.TempDir(), "none")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("absent: %v", err)
	}
}
