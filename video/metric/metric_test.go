package metric

import (
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"testing"

	"longtake/video"
)

func load(t testing.TB, name string) video.Frame {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("testdata", name+".ppm"))
	if err != nil {
		t.Fatal(err)
	}
	var f video.Frame
	if _, err := fmt.Sscanf(string(data[:20]), "P6\n%d %d\n255\n", &f.Width, &f.Height); err != nil {
		t.Fatal(err)
	}
	f.Pix = data[len(data)-3*f.Width*f.Height:]
	return f
}

func near(t *testing.T, what string, got, want, tolerance float64) {
	t.Helper()
	if !(math.Abs(got-want) <= tolerance) {
		t.Errorf("%s = %.15g, want %.15g", what, got, want)
	}
}

func TestGoldenValuesOfTheReferenceScript(t *testing.T) {
	data, err := os.ReadFile("testdata/golden.json")
	if err != nil {
		t.Fatal(err)
	}
	var cases []struct {
		A, B   string
		PSNR   float64
		Float  float64 `json:"psnr_float"`
		SSIM   float64
		Scales int
		MS     float64 `json:"ms_ssim"`
	}
	if err := json.Unmarshal(data, &cases); err != nil {
		t.Fatal(err)
	}
	if len(cases) != 4 {
		t.Fatalf("%d golden cases, want 4", len(cases))
	}
	for _, c := range cases {
		a, b := load(t, c.A), load(t, c.B)
		psnr, err1 := PSNR(a, b)
		ssim, err2 := SSIM(a, b)
		ms, err3 := MSSSIMScales(a, b, c.Scales)
		unit, err4 := PSNRFloat(floats(a), floats(b))
		if err1 != nil || err2 != nil || err3 != nil || err4 != nil {
			t.Fatal(err1, err2, err3, err4)
		}
		near(t, c.B+" psnr", psnr, c.PSNR, 1e-9)
		near(t, c.B+" ssim", ssim, c.SSIM, 1e-10)
		near(t, c.B+" ms-ssim", ms, c.MS, 1e-10)
		near(t, c.B+" psnr of floats", unit, c.Float, 1e-5) // inputs are rounded to float32
	}
}

func floats(f video.Frame) []float32 {
	v := make([]float32, len(f.Pix))
	for i, p := range f.Pix {
		v[i] = float32(p)/127.5 - 1
	}
	return v
}

func TestPSNRAgreesWithTheFilterOfFFmpeg(t *testing.T) {
	// Printed by ffmpeg 5.1.9: see testdata/README.md.
	for b, want := range map[string]float64{
		"scene-noise": 26.660992, "scene-shift": 19.960639, "scene-blur": 24.346836,
	} {
		got, err := PSNR(load(t, "scene"), load(t, b))
		if err != nil {
			t.Fatal(err)
		}
		near(t, b, got, want, 1e-6)
	}
}

func TestEqualFrames(t *testing.T) {
	a := load(t, "wide")
	psnr, _ := PSNR(a, a)
	if !math.IsInf(psnr, 1) {
		t.Errorf("psnr of equal frames = %v", psnr)
	}
	for name, measure := range map[string]func(a, b video.Frame) (float64, error){"ssim": SSIM, "ms-ssim": MSSSIM} {
		got, err := measure(a, a)
		if err != nil {
			t.Fatal(err)
		}
		near(t, name, got, 1, 1e-12)
	}
}

func TestKnownValues(t *testing.T) {
	a, b := video.NewFrame(16, 16), video.NewFrame(16, 16)
	for i := range b.Pix {
		b.Pix[i] = 255
	}
	psnr, _ := PSNR(a, b)
	near(t, "psnr of black and white", psnr, 0, 0)
	// Constant pictures have no variance: only the luminance term C1/(255²+C1) is left.
	ssim, _ := SSIM(a, b)
	near(t, "ssim of black and white", ssim, c1/(255*255+c1), 1e-15)
	unit, _ := PSNRFloat([]float32{-1, 1}, []float32{1, -1})
	near(t, "psnr of opposite signs", unit, 0, 0)
}

func TestMetricsAreSymmetric(t *testing.T) {
	a, b := load(t, "wide"), load(t, "wide-noise")
	ab, _ := MSSSIM(a, b)
	ba, _ := MSSSIM(b, a)
	near(t, "ms-ssim swapped", ba, ab, 1e-12)
}

func TestNegativeStructureCountsAsZero(t *testing.T) {
	a, b := video.NewFrame(32, 32), video.NewFrame(32, 32)
	for i := range a.Pix {
		v := byte(i * 2654435761 >> 3)
		a.Pix[i], b.Pix[i] = v, 255-v
	}
	got, err := MSSSIMScales(a, b, 2)
	if err != nil || got != 0 {
		t.Errorf("ms-ssim of a negative = %v, %v, want 0", got, err)
	}
}

func TestBadPicturesAreErrors(t *testing.T) {
	small, frame := video.NewFrame(10, 40), video.NewFrame(64, 64)
	if _, err := SSIM(small, small); err == nil {
		t.Error("ssim of 10x40: no error")
	}
	if _, err := MSSSIM(frame, frame); err == nil {
		t.Error("five scales of 64x64: no error")
	}
	if _, err := MSSSIMScales(frame, frame, 3); err != nil {
		t.Error(err)
	}
	if _, err := MSSSIMScales(frame, frame, 6); err == nil {
		t.Error("six scales: no error")
	}
	if _, err := PSNR(frame, small); err == nil {
		t.Error("psnr of two sizes: no error")
	}
	if _, err := PSNR(video.Frame{Width: 2, Height: 2}, frame); err == nil {
		t.Error("psnr of a frame without pixels: no error")
	}
	if _, err := PSNRFloat(nil, nil); err == nil {
		t.Error("psnr of nothing: no error")
	}
}

func BenchmarkSSIM(b *testing.B) {
	f := video.NewFrame(832, 480)
	for b.Loop() {
		if _, err := SSIM(f, f); err != nil {
			b.Fatal(err)
		}
	}
}

func ExamplePSNR() {
	a, b := video.NewFrame(64, 64), video.NewFrame(64, 64)
	for i := range b.Pix {
		b.Pix[i] = 1
	}
	db, err := PSNR(a, b)
	fmt.Printf("%.2f dB %v\n", db, err)
	// Output: 48.13 dB <nil>
}

func TestPSNROfSomePixelsIsThatOfAPictureOfThem(t *testing.T) {
	a, b := video.NewFrame(3, 2), video.NewFrame(3, 2)
	for i := range a.Pix {
		a.Pix[i], b.Pix[i] = byte(7*i), byte(5*i+3)
	}
	where := []bool{true, false, true, false, false, true}
	c, d := video.NewFrame(3, 1), video.NewFrame(3, 1)
	at := 0
	for i, in := range where {
		if in {
			copy(c.Pix[3*at:], a.Pix[3*i:3*i+3])
			copy(d.Pix[3*at:], b.Pix[3*i:3*i+3])
			at++
		}
	}
	want, err := PSNR(c, d)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := PSNRWhere(a, b, where); err != nil || got != want {
		t.Errorf("%g dB, %v; want %g", got, err, want)
	}
	if got, err := PSNRWhere(a, b, make([]bool, 6)); err != nil || !math.IsNaN(got) {
		t.Errorf("no pixels: %g dB, %v; want NaN", got, err)
	}
	if _, err := PSNRWhere(a, b, where[:5]); err == nil {
		t.Error("a choice among too few pixels was taken")
	}
}
