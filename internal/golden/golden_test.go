package golden

import (
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"longtake/compute"
	"longtake/weights"
)

// fake records failures instead of failing.
type fake struct {
	testing.TB
	lines []string
}

func (f *fake) Errorf(s string, args ...any) { f.lines = append(f.lines, fmt.Sprintf(s, args...)) }

func TestCompareMeasures(t *testing.T) {
	nan, inf := math.NaN(), math.Inf(1)
	for _, c := range []struct {
		name      string
		got, want []float64
		relative  float64
		worst     int
		first     int
	}{
		{"equal", []float64{1, 2}, []float64{1, 2}, 0, -1, -1},
		{"empty", nil, nil, 0, -1, -1},
		{"a triangle", []float64{3, 4, 0}, []float64{3, 4, 5}, 5 / math.Sqrt(50), 2, 2},
		{"small then large", []float64{1.0001, 2, 30}, []float64{1, 2, 20}, 10 / math.Sqrt(405), 2, 2},
		{"against zero", []float64{0, 1e-9}, []float64{0, 0}, inf, 1, 1},
		{"not a number", []float64{1, nan}, []float64{1, 2}, inf, 1, 1},
		{"both not a number", []float64{1, nan}, []float64{1, nan}, 0, -1, -1},
		{"a number for none", []float64{1, 2}, []float64{1, nan}, inf, 1, 1},
		{"equal infinities", []float64{1, inf, -inf}, []float64{1, inf, -inf}, 0, -1, -1},
		{"an infinity", []float64{inf}, []float64{1}, inf, 0, 0},
		{"lengths", []float64{1}, []float64{1, 2}, inf, -1, -1},
	} {
		d := Compare(c.got, c.want, 0.01)
		same := d.Relative == c.relative || math.Abs(d.Relative-c.relative) < 1e-4
		if !same || d.Worst != c.worst || d.First != c.first {
			t.Errorf("%s: %+v, want relative %v, worst %d, first %d", c.name, d, c.relative, c.worst, c.first)
		}
	}
}

func TestFailuresSayWhereAndHowMuch(t *testing.T) {
	f := &fake{TB: t}
	Near(f, "hidden", []float32{1, 2, 3, 5}, []float32{1, 2, 3, 4}, 1e-3)
	Near(f, "fine", []float32{1, 2, 3, 4.0001}, []float32{1, 2, 3, 4}, 1e-3)
	Near(f, "short", []float32{1}, []float32{1, 2}, 1e-3)
	want := []string{
		"hidden: relative error 0.183 (tolerance 0.001); 1 of 4 elements differ; worst is 3: got 5, want 4; first that matters is 3: got 5, want 4",
		"short: 1 elements, want 2",
	}
	if fmt.Sprint(f.lines) != fmt.Sprint(want) {
		t.Errorf("got  %q\nwant %q", f.lines, want)
	}
	if s := Compare([]float32{0, 0, 0, 0, 0, 9}, make([]float32, 6), 0).Describe(2, 3); !strings.Contains(s, "worst is 5 [1 2]: got 9") {
		t.Error(s)
	}
}

func TestACaseIsVerifiedAgainstItsManifest(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "a.safetensors")
	tensors := map[string]compute.Host{
		"x": {DType: compute.F32, Shape: []int{1, 2}, Data: []byte{0, 0, 128, 63, 0, 0, 0, 64}},
		"n": {DType: compute.I32, Shape: []int{1}, Data: []byte{255, 255, 255, 255}},
	}
	if err := weights.WriteFile(path, tensors, nil); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	manifest := func(sha, shape string) {
		text := fmt.Sprintf(`{"seed": 7, "files": {"a.safetensors": {"sha256": %q, "tensors": {"x": ["F32", %s], "n": ["I32", 1]}}}}`, sha, shape)
		if err := os.WriteFile(filepath.Join(dir, "manifest.json"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	manifest("00", "1, 2")
	if _, err := Open(dir); err == nil || !strings.Contains(err.Error(), "were not written together") {
		t.Errorf("wrong sha256: %v", err)
	}
	manifest(Hash(data), "2, 1")
	if _, err := Open(dir); err == nil || !strings.Contains(err.Error(), "tensor x is [F32 1 2], manifest.json says [F32 2 1]") {
		t.Errorf("wrong shape: %v", err)
	}
	manifest(Hash(data), "1, 2")
	c := Load(t, dir)
	if x := c.Floats(t, "a.safetensors", "x"); x[0] != 1 || x[1] != 2 {
		t.Errorf("x = %v", x)
	}
	if n := c.Ints(t, "a.safetensors", "n"); n[0] != -1 {
		t.Errorf("n = %v", n)
	}
	var own struct{ Seed int }
	if c.Manifest(t, &own); own.Seed != 7 {
		t.Errorf("seed %d", own.Seed)
	}
	f := &fake{TB: t}
	c.Near(t, "a.safetensors", "x", []float32{1, 2}, 0)
	c.Near(f, "a.safetensors", "x", []float32{1, 3}, 1e-5)
	if len(f.lines) != 1 || !strings.Contains(f.lines[0], "worst is 1 [0 1]: got 3, want 2") {
		t.Errorf("%q", f.lines)
	}
	if _, err := Open(t.TempDir()); err == nil {
		t.Error("a folder without a manifest was opened")
	}
}
