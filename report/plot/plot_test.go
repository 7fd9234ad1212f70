package plot

import (
	"bytes"
	"encoding/xml"
	"errors"
	"flag"
	"io"
	"math"
	"os"
	"slices"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "rewrite testdata")

var samples = map[string]interface{ SVG() string }{
	"chart": Chart{Title: "PSNR <to> \"dense\"", X: "frame", Y: "dB", Rules: []Rule{{"ceiling", 42}}, Series: []Series{
		{Name: "a & b", X: []float64{0, 1, 2, 3, 4}, Y: []float64{30, 32, math.NaN(), 35, 36}, Line: true},
		{Name: "points", X: []float64{1, 3}, Y: []float64{31, math.Inf(1)}, Marks: true}}},
	"log": Chart{Title: "log", X: "density", Y: "recall", LogX: true, LogY: true, Series: []Series{
		{Name: "s", X: []float64{0, 0.01, 0.1, 1}, Y: []float64{1, 3, 10, 3000}, Line: true, Marks: true}}},
	"bars":  Bars{Title: "speed", Y: "fps", Labels: []string{"100", "500"}, Series: []Series{{Name: "dense", Y: []float64{3, 1}}, {Name: "fast", Y: []float64{9, -1}}}},
	"heat":  Heat{Title: "recall", X: "layer", Y: "policy", Rows: []string{"a", "b"}, Columns: []string{"0", "1"}, Values: [][]float64{{0, 0.5}, {1, math.NaN()}}, Numbers: true},
	"empty": Chart{Title: "nothing"},
}

func TestDrawingsAreGolden(t *testing.T) {
	for name, s := range samples {
		got, path := File(s.SVG()), "testdata/golden/"+name+".svg"
		wellFormed(t, name, got)
		if *update {
			if err := os.WriteFile(path, got, 0o666); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(path)
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s differs from %s (%v); look at it, then run with -update", name, path, err)
		}
	}
}

// wellFormed reads XML to its end.
func wellFormed(t *testing.T, name string, b []byte) {
	t.Helper()
	for d := xml.NewDecoder(bytes.NewReader(b)); ; {
		if _, err := d.Token(); errors.Is(err, io.EOF) {
			return
		} else if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
	}
}

func TestNamesCannotBecomeElements(t *testing.T) {
	bad := "<script>alert(1)</script>\x00\"'&"
	for _, s := range []interface{ SVG() string }{
		Chart{Title: bad, X: bad, Y: bad, Series: []Series{{Name: bad}}, Rules: []Rule{{bad, 1}}},
		Bars{Title: bad, Y: bad, Labels: []string{bad}, Series: []Series{{Name: bad, Y: []float64{1}}}},
		Heat{Title: bad, X: bad, Y: bad, Rows: []string{bad}, Columns: []string{bad}, Values: [][]float64{{1}}},
	} {
		svg := s.SVG()
		wellFormed(t, "escaped", []byte(svg))
		if strings.Contains(svg, "<script") || strings.ContainsRune(svg, 0) {
			t.Errorf("text is not escaped: %s", svg)
		}
	}
}

func TestTicksAreRound(t *testing.T) {
	for _, c := range []struct {
		values []float64
		log    bool
		want   []float64
	}{
		{[]float64{0, 3000}, false, []float64{0, 500, 1000, 1500, 2000, 2500, 3000}},
		{[]float64{31.2, 33.9}, false, []float64{31, 31.5, 32, 32.5, 33, 33.5, 34}},
		{[]float64{0.01, 1}, true, []float64{0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1}},
		{[]float64{61, 89}, true, []float64{70, 80}},
		{[]float64{-1, 0, math.NaN(), 1, 1e5}, true, []float64{1, 10, 100, 1000, 1e4, 1e5}},
	} {
		got := newAxis(c.values, c.log, [2]float64{}, 0, 100, 6).ticks
		near := func(a, b float64) bool { return math.Abs(a-b) < 1e-9*max(1, math.Abs(a)) }
		if !slices.EqualFunc(got, c.want, near) {
			t.Errorf("ticks of %v: %v, want %v", c.values, got, c.want)
		}
	}
}

func TestThinKeepsMeansAndGaps(t *testing.T) {
	x, y := []float64{0, 1, 2, 3, 4}, []float64{1, 3, math.NaN(), 5, 7}
	tx, ty := Thin(x, y, 3)
	if !slices.Equal(tx, []float64{0.5, 2.5, 4}) || !slices.Equal(ty, []float64{2, 5, 7}) {
		t.Errorf("%v %v", tx, ty)
	}
	if tx, _ := Thin(x, y, 5); len(tx) != 5 {
		t.Errorf("short runs change: %v", tx)
	}
}

func TestNumbersAreShort(t *testing.T) {
	for v, want := range map[float64]string{0: "0", 0.25: "0.250", 3.14159: "3.14", 41.26: "41.3", 1234.5: "1234", 2.5e9: "2.5e+09", math.Inf(1): "∞"} {
		if got := Number(v); got != want {
			t.Errorf("%v is written %q, want %q", v, got, want)
		}
	}
}
