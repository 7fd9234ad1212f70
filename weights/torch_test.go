package weights

import (
	"encoding/binary"
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"longtake/compute"
)

func TestTorchFilesAreReadAsPyTorchWroteThem(t *testing.T) {
	f, err := Open("testdata/torch/nested.pt")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	raw, err := os.ReadFile("testdata/torch/expected.json")
	if err != nil {
		t.Fatal(err)
	}
	var want map[string]struct {
		Shape  []int
		Values []float64
	}
	if err := json.Unmarshal(raw, &want); err != nil {
		t.Fatal(err)
	}
	if len(f.Names()) != len(want) {
		t.Errorf("tensors %v, want %d of them", f.Names(), len(want))
	}
	for name, w := range want {
		h, err := f.Tensor(name)
		if err != nil {
			t.Error(err)
			continue
		}
		if !slices.Equal(h.Shape, w.Shape) {
			t.Errorf("%s has shape %v, want %v", name, h.Shape, w.Shape)
		}
		if got := numbers(t, h); !slices.Equal(got, w.Values) {
			t.Errorf("%s is %v, want %v", name, got, w.Values)
		}
	}
}

// numbers widens any type of the golden file.
func numbers(t *testing.T, h compute.Host) []float64 {
	t.Helper()
	var out []float64
	for i := 0; i < len(h.Data); i += h.DType.Size() {
		b := h.Data[i:]
		switch h.DType {
		case compute.F64:
			out = append(out, math.Float64frombits(binary.LittleEndian.Uint64(b)))
		case compute.I64:
			out = append(out, float64(int64(binary.LittleEndian.Uint64(b))))
		case compute.U8:
			out = append(out, float64(b[0]))
		default:
			f, err := Floats(compute.Host{DType: h.DType, Shape: []int{1}, Data: b[:h.DType.Size()]})
			if err != nil {
				t.Fatal(err)
			}
			out = append(out, float64(f[0]))
		}
	}
	if out == nil {
		out = []float64{}
	}
	return out
}

func TestNoCodeOfACheckpointIsRun(t *testing.T) {
	os.Remove("/tmp/longtake-was-here")
	for _, name := range []string{"evil.pt", "evil4.pt"} {
		_, err := Open(filepath.Join("testdata/torch", name))
		if err == nil || !strings.Contains(err.Error(), "system") || !strings.Contains(err.Error(), "refused") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := os.Stat("/tmp/longtake-was-here"); err == nil {
		t.Fatal("the checkpoint's code was run")
	}
}

func TestDamagedTorchFilesAreRefused(t *testing.T) {
	whole, err := os.ReadFile("testdata/torch/nested.pt")
	if err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string][]byte{
		"empty": nil, "text": []byte("hello"), "half": whole[:len(whole)/2], "old pickle": []byte("\x80\x02\x8a\x0a"),
	} {
		if _, err := parseTorch(name, data); err == nil || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzTorch(f *testing.F) {
	for _, name := range []string{"nested.pt", "evil.pt", "evil4.pt"} {
		b, err := os.ReadFile(filepath.Join("testdata/torch", name))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		file, err := parseTorch("fuzz", data)
		if err != nil {
			return
		}
		for _, name := range file.Names() {
			if h, err := file.Tensor(name); err == nil && len(h.Data) != h.Elems()*h.DType.Size() {
				t.Errorf("%s: %d bytes for shape %v of %v", name, len(h.Data), h.Shape, h.DType)
			}
		}
	})
}

// FuzzPickle runs the machine alone, past the archive's checksums.
func FuzzPickle(f *testing.F) {
	f.Add([]byte("\x80\x02}q\x00(X\x01\x00\x00\x00aK\x01u."))
	f.Add([]byte("\x80\x02ccollections\nOrderedDict\nq\x00)R."))
	f.Add([]byte("(((lp0\n."))
	f.Fuzz(func(_ *testing.T, program []byte) {
		file := &torchFile{entries: map[string]entry{}}
		machine := &unpickler{in: program, reduce: file.reduce, persistent: file.persistent}
		if root, err := machine.run(); err == nil {
			file.collect("", root, 0)
		}
	})
}
