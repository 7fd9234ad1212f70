package report

import (
	"bytes"
	"encoding/base64"
	"encoding/xml"
	"errors"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"io"
	"math"
	"os"
	"regexp"
	"strings"
	"testing"

	"longtake/compare"
)

const hostile = `</p><script>alert("x")</script> & <b onclick='y'>`

// still draws a small picture of one colour.
func still(t *testing.T, i int) []byte {
	m := image.NewRGBA(image.Rect(0, 0, 16, 16))
	for j := range 256 {
		m.SetRGBA(j%16, j/16, color.RGBA{uint8(16 * (j % 16)), uint8(j), uint8(40 * i), 255})
	}
	var b bytes.Buffer
	if err := png.Encode(&b, m); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// sample is a report of three policies with everything that a report can have.
func sample(t *testing.T) *compare.Report {
	const n, given = 900, 1
	setup := compare.Setup{Tool: "longtake v0.0.1", Host: "linux/amd64, 2 CPUs", Device: "cpu avx2, 2 threads", Kernel: "avx2", Threads: 2, Model: "tinyworld",
		ModelHash: strings.Repeat("ab", 32), Prompt: hostile, Seed: 7, Start: "sim:7", Actions: "w20 d8", Steps: 4, Frames: n, Given: given, ChunkFrames: 1, FPS: 15}
	r := &compare.Report{Setup: setup, Frontiers: []int{100, 500, n}, DivergedBelow: 30, Span: 50, TruthFrames: 40, CeilingHow: "later keys first"}
	for i, name := range []string{"exact", "tempcache 0.9", hostile, "ceiling"} {
		run := compare.Run{Policy: compare.Policy{Name: name, Cache: "full", Self: "dense", Cross: "dense"}, FirstDiverged: 300 - 400*(i/3), Speedup: float64(1 + 4*i), Total: 400 / float64(1+i),
			Mean: compare.Quality{PSNR: 31.5, SSIM: 0.91, MSSSIM: 0.95, Frames: n - 1}, TruthMean: 20}
		for f := range n {
			psnr, truth := compare.Unmeasured, compare.Unmeasured
			if f >= given {
				psnr = compare.Decibel(20 + 30*math.Exp(-float64(f)/(100*float64(i+1))))
				run.ChunkSeconds = append(run.ChunkSeconds, 0.05+0.002*float64(f)/float64(1+10*i))
				run.CacheBytes = append(run.CacheBytes, int64(400e3*float64(min(f, 900/(i+1)))))
				run.Tokens = append(run.Tokens, float64(64*min(f, 900/(i+1))))
			}
			if f%22 == 5 {
				truth = compare.Decibel(25 - float64(f)/100)
			}
			if i > 0 {
				run.PSNR, run.SSIM = append(run.PSNR, psnr), append(run.SSIM, compare.Fraction(float64(psnr)/50))
			}
			run.Truth = append(run.Truth, truth)
		}
		for j, at := range r.Frontiers {
			f := compare.Frontier{Speed: compare.Speed{Frame: at, FPS: 10 / float64(j+1), P50: 0.1, P95: 0.13, Denoise: 0.08, Commit: 0.01, Decode: 0.001, CacheBytes: 1 << 28, Tokens: 6400, Density: 0.5},
				Quality: compare.Quality{PSNR: 30, Frames: 50}}
			if i > 0 {
				f.OneStep = &compare.Quality{PSNR: compare.Decibel(45 - 3*float64(j+i)), Frames: 1}
			}
			if i == 2 {
				for l := range 6 {
					f.Self = append(f.Self, compare.Share{Layer: l, Density: compare.Fraction(0.05 + 0.03*float64(l)), Recall: compare.Fraction(0.98 - 0.02*float64(l))})
				}
			}
			run.Frontiers = append(run.Frontiers, f)
		}
		for _, f := range []int{1, 300, 600, 899} {
			run.Strip = append(run.Strip, compare.Still{Frame: f, PNG: still(t, i)})
		}
		if name == "ceiling" {
			r.Ceiling = &run
		} else {
			r.Runs = append(r.Runs, run)
		}
	}
	r.TruthStrip = r.Runs[0].Strip[:2]
	return r
}

// elements reads a page as XML to its end, counts elements and fails on anything that is not balanced.
func elements(t *testing.T, page []byte) map[string]int {
	t.Helper()
	count := map[string]int{}
	d := xml.NewDecoder(bytes.NewReader(page))
	for {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			return count
		}
		if err != nil {
			t.Fatalf("page is not well formed: %v", err)
		}
		if e, ok := token.(xml.StartElement); ok {
			count[e.Name.Local]++
		}
	}
}

// outside are references to anything that is not in the page.
var outside = regexp.MustCompile(`(?:src|href)="(?:[^d]|d[^a])|url\(|@import|https?://`)

func checkPage(t *testing.T, page []byte) map[string]int {
	t.Helper()
	count := elements(t, page)
	if count["script"] > 0 || count["b"] > 0 {
		t.Error("text became elements")
	}
	text := strings.ReplaceAll(string(page), `xmlns="http://www.w3.org/2000/svg"`, "")
	if found := outside.FindString(text); found != "" {
		t.Errorf("the page needs something from outside: %s", found)
	}
	return count
}

func TestAComparisonIsOneWellFormedPage(t *testing.T) {
	r := sample(t)
	var b bytes.Buffer
	if err := Comparison(&b, r); err != nil {
		t.Fatal(err)
	}
	count := checkPage(t, b.Bytes())
	if count["svg"] != 8 || count["img"] != 18 || count["table"] != 13 {
		t.Errorf("elements %v", count)
	}
	for _, want := range []string{"longtake v0.0.1", strings.Repeat("ab", 32), "linux/amd64", "&lt;script&gt;", "tempcache 0.9", "ceiling", "later keys first", "31.5"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("the page lacks %q", want)
		}
	}
	if !strings.Contains(b.String(), base64.StdEncoding.EncodeToString(r.Runs[0].Strip[0].PNG)) {
		t.Error("the page lacks a frame")
	}
	if path := os.Getenv("LONGTAKE_REPORT"); path != "" { // to look at it
		if err := os.WriteFile(path, b.Bytes(), 0o666); err != nil {
			t.Fatal(err)
		}
	}
}

func TestReportsWithLittleInThemArePagesToo(t *testing.T) {
	for i, r := range []*compare.Report{{}, {Runs: []compare.Run{{}}}, {Frontiers: []int{5}, Runs: []compare.Run{{Frontiers: []compare.Frontier{{}}}, {}}}} {
		var b bytes.Buffer
		if err := Comparison(&b, r); err != nil {
			t.Fatal(err)
		}
		checkPage(t, b.Bytes())
		if strings.Contains(b.String(), "NaN") {
			t.Errorf("report %d shows NaN", i)
		}
	}
}

func TestMemoryIsOneWellFormedPage(t *testing.T) {
	row := compare.MemoryRow{Policy: compare.Policy{Name: hostile}, PSNR: 33, Thirds: [3]compare.Decibel{36, 35, compare.Unmeasured}, Frames: []compare.Decibel{36, 35, 34}, ToFirst: compare.Unmeasured,
		Strip: compare.Strip{{Frame: 31, PNG: still(t, 1)}}}
	r := &compare.MemoryReport{Setup: sample(t).Setup, Tests: []compare.MemoryTest{{Kind: "look-around", Span: 30, Given: 31, Made: 30, Seeds: []uint32{5}, Rows: []compare.MemoryRow{row, row}}}}
	var b bytes.Buffer
	if err := Memory(&b, r); err != nil {
		t.Fatal(err)
	}
	if count := checkPage(t, b.Bytes()); count["svg"] != 1 || count["img"] != 2 || count["table"] != 3 {
		t.Errorf("elements %v", count)
	}
}

type broken struct{}

func (broken) Write([]byte) (int, error) { return 0, errors.New("disk is full") }

func TestAWriterThatFailsIsAnError(t *testing.T) {
	if err := Comparison(broken{}, sample(t)); err == nil || !strings.Contains(fmt.Sprint(err), "disk is full") {
		t.Errorf("error %v", err)
	}
}
