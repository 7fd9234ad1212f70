package video

import (
	"bytes"
	"image"
	"image/color"
	"image/draw"
	"math"
	"testing"
)

// scene is a moving test picture with smooth and flat parts.
func scene(width, height, index int) Frame {
	f := NewFrame(width, height)
	f.Index = index
	for y := range height {
		for x := range width {
			p := f.Pix[3*(y*width+x):]
			p[0] = byte(255 * (x + index) / (width + index + 1))
			p[1] = byte(255 * y / height)
			p[2] = byte(90 + 60*math.Sin(float64(x+y+3*index)/9))
			if x/8 == index%(width/8) && y/8 == 1 {
				p[0], p[1], p[2] = 250, 240, 20
			}
		}
	}
	return f
}

func psnr(a, b Frame) float64 {
	sum := 0.0
	for i := range a.Pix {
		d := float64(a.Pix[i]) - float64(b.Pix[i])
		sum += d * d
	}
	return 10 * math.Log10(255*255*float64(len(a.Pix))/sum)
}

func TestImageSharesPixels(t *testing.T) {
	f := scene(20, 10, 0)
	m := f.Image()
	f.Pix[3*(4*20+7)] = 77
	if got := m.At(7, 4).(color.RGBA); got != (color.RGBA{77, f.Pix[262], f.Pix[263], 255}) {
		t.Errorf("pixel (7,4) = %v", got)
	}
	if back := FromImage(m); !bytes.Equal(back.Pix, f.Pix) {
		t.Error("FromImage(Image()) differs")
	}
	drawn := image.NewRGBA(m.Bounds())
	draw.Draw(drawn, drawn.Rect, m, image.Point{}, draw.Src)
	if !bytes.Equal(drawn.Pix, f.RGBA(nil).Pix) {
		t.Error("drawing the view and RGBA differ")
	}
	if (m.At(-1, 0) != color.RGBA{}) {
		t.Error("outside is not transparent")
	}
}

func TestUpscaleRepeatsPixels(t *testing.T) {
	f := scene(17, 9, 2)
	big := f.Upscale(3, nil)
	if big.Width != 51 || big.Height != 27 || big.Index != 2 || big.Check() != nil {
		t.Fatalf("upscaled frame is %dx%d, index %d", big.Width, big.Height, big.Index)
	}
	for y := range big.Height {
		for x := range big.Width {
			if big.Image().At(x, y) != f.Image().At(x/3, y/3) {
				t.Fatalf("pixel (%d,%d) differs", x, y)
			}
		}
	}
	again := f.Upscale(3, big.Pix)
	if &again.Pix[0] != &big.Pix[0] {
		t.Error("the buffer was not reused")
	}
}

func TestCheckFindsBrokenFrames(t *testing.T) {
	for _, f := range []Frame{{}, {Width: -1, Height: 4}, {Width: 2, Height: 2, Pix: make([]byte, 11)}} {
		if f.Check() == nil {
			t.Errorf("frame %dx%d with %d bytes passed", f.Width, f.Height, len(f.Pix))
		}
	}
}

func TestKnownColoursInYCbCr(t *testing.T) {
	// BT.601 limited range, 75 % and 100 % bars as tabulated in textbooks and ITU-R BT.801.
	for _, c := range []struct{ rgb, ycc [3]byte }{
		{[3]byte{0, 0, 0}, [3]byte{16, 128, 128}},
		{[3]byte{255, 255, 255}, [3]byte{235, 128, 128}},
		{[3]byte{255, 0, 0}, [3]byte{81, 90, 240}},
		{[3]byte{0, 255, 0}, [3]byte{145, 54, 34}},
		{[3]byte{0, 0, 255}, [3]byte{41, 240, 110}},
		{[3]byte{128, 128, 128}, [3]byte{126, 128, 128}},
	} {
		for _, chroma := range []Chroma{Chroma420, Chroma444} {
			f := NewFrame(3, 3) // odd: the last chroma sample covers one pixel
			for i := range f.Pix {
				f.Pix[i] = c.rgb[i%3]
			}
			var p Planes
			p.Convert(f, chroma)
			last := len(p.Cb) - 1
			if got := [3]byte{p.Y[8], p.Cb[last], p.Cr[last]}; got != c.ycc {
				t.Errorf("%v in %v = %v, want %v", c.rgb, chroma, got, c.ycc)
			}
		}
	}
}

func TestConversionMatchesFloatFormula(t *testing.T) {
	f := scene(33, 21, 5)
	var p Planes
	p.Convert(f, Chroma444)
	for i := range p.Y {
		r, g, b := float64(f.Pix[3*i])/255, float64(f.Pix[3*i+1])/255, float64(f.Pix[3*i+2])/255
		for _, c := range []struct {
			got  byte
			want float64
		}{
			{p.Y[i], 16 + 65.481*r + 128.553*g + 24.966*b},
			{p.Cb[i], 128 - 37.797*r - 74.203*g + 112*b},
			{p.Cr[i], 128 + 112*r - 93.786*g - 18.214*b},
		} {
			if math.Abs(float64(c.got)-c.want) > 0.51 {
				t.Fatalf("pixel %d: %d, formula gives %.3f", i, c.got, c.want)
			}
		}
	}
	if got := psnr(p.RGB(), f); got < 48 {
		t.Errorf("4:4:4 there and back: %.1f dB", got)
	}
}

func TestChromaIsMeanOfSquare(t *testing.T) {
	f := scene(32, 16, 1)
	var full, quarter Planes
	full.Convert(f, Chroma444)
	quarter.Convert(f, Chroma420)
	cw, ch := quarter.ChromaSize()
	for y := range ch {
		for x := range cw {
			i := 2*y*32 + 2*x
			mean := float64(int(full.Cb[i])+int(full.Cb[i+1])+int(full.Cb[i+32])+int(full.Cb[i+33])) / 4
			if got := float64(quarter.Cb[y*cw+x]); math.Abs(got-mean) > 1 {
				t.Fatalf("chroma (%d,%d) = %v, mean of four is %v", x, y, got, mean)
			}
		}
	}
}

func TestRates(t *testing.T) {
	for in, want := range map[string]Rate{
		"16": {16, 1}, "23.976": {24000, 1001}, "29.97": {30000, 1001}, "59.94": {60000, 1001},
		"30000/1001": {30000, 1001}, "12.5": {25, 2}, "0.5": {1, 2}, "24.0": {24, 1}, "1/3": {1, 3},
	} {
		got, err := ParseRate(in)
		if err != nil || got != want {
			t.Errorf("%q = %v, %v, want %v", in, got, err, want)
		}
		if back, err := ParseRate(got.String()); err != nil || back != got {
			t.Errorf("%v read back = %v, %v", got, back, err)
		}
	}
	for _, in := range []string{"", "fast", "0", "-3", "NaN", "1/0", "0/1", "3/x", "1e9", "Inf"} {
		if r, err := ParseRate(in); err == nil {
			t.Errorf("%q = %v, want an error", in, r)
		}
	}
}

func TestTicksDoNotDrift(t *testing.T) {
	r := Rate{30000, 1001}
	if got := r.Ticks(30000*3600, 1000); got != 1001*3600*1000 {
		t.Errorf("after %d frames: %d ms", 30000*3600, got)
	}
	for i := range int64(100) {
		exact := float64(i) * 1000 * 1001 / 30000
		if got := r.Ticks(i, 1000); math.Abs(float64(got)-exact) > 0.5 {
			t.Errorf("frame %d at %d ms, exactly %.3f", i, got, exact)
		}
	}
}
