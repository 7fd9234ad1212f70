package video

import (
	"fmt"
	"image"
	"image/color"
)

// Frame is one decoded picture: Height rows of Width pixels, three bytes (red, green, blue) each,
// rows packed without gaps (stride 3*Width). The slice belongs to whoever made the frame; a Writer
// must be done with it when WriteFrame returns.
type Frame struct {
	Width, Height int
	Pix           []byte // [Height][Width][3], full-range sRGB
	Index         int    // frame number on its timeline, from 0
}

// NewFrame returns a black frame of the given size. It panics if a side is not positive.
func NewFrame(width, height int) Frame {
	if width <= 0 || height <= 0 {
		panic(fmt.Sprintf("video: new frame of %dx%d", width, height))
	}
	return Frame{Width: width, Height: height, Pix: make([]byte, 3*width*height)}
}

// Check returns an error if the size is not positive or Pix does not hold exactly Width x Height
// pixels.
func (f Frame) Check() error {
	if f.Width <= 0 || f.Height <= 0 {
		return fmt.Errorf("frame %d is %dx%d", f.Index, f.Width, f.Height)
	}
	if len(f.Pix) != 3*f.Width*f.Height {
		return fmt.Errorf("frame %d is %dx%d but holds %d bytes, not %d",
			f.Index, f.Width, f.Height, len(f.Pix), 3*f.Width*f.Height)
	}
	return nil
}

// Clone returns a frame with its own copy of the pixels.
func (f Frame) Clone() Frame {
	f.Pix = append([]byte(nil), f.Pix...)
	return f
}

// Image returns the frame as an image.Image without copying: later changes of Pix show through.
func (f Frame) Image() image.Image { return rgbImage{f} }

// RGBA copies the frame into dst, which is made anew if it is nil or has another size, and returns
// it. Alpha is 255 everywhere.
func (f Frame) RGBA(dst *image.RGBA) *image.RGBA {
	if dst == nil || dst.Rect != image.Rect(0, 0, f.Width, f.Height) {
		dst = image.NewRGBA(image.Rect(0, 0, f.Width, f.Height))
	}
	for y := range f.Height {
		in := f.Pix[3*f.Width*y : 3*f.Width*(y+1)]
		out := dst.Pix[dst.Stride*y : dst.Stride*y+4*f.Width]
		for len(in) >= 3 && len(out) >= 4 {
			out[0], out[1], out[2], out[3] = in[0], in[1], in[2], 255
			in, out = in[3:], out[4:]
		}
	}
	return dst
}

// FromImage copies any image into a new frame; transparency is dropped after premultiplication,
// that is, the picture is laid on black.
func FromImage(m image.Image) Frame {
	b := m.Bounds()
	f := NewFrame(b.Dx(), b.Dy())
	i := 0
	for y := b.Min.Y; y < b.Max.Y; y++ {
		for x := b.Min.X; x < b.Max.X; x++ {
			r, g, bl, _ := m.At(x, y).RGBA()
			f.Pix[i], f.Pix[i+1], f.Pix[i+2] = byte(r>>8), byte(g>>8), byte(bl>>8)
			i += 3
		}
	}
	return f
}

// Upscale returns the frame with every pixel repeated n times in both directions (nearest
// neighbour). It reuses dst when that has the capacity; dst may be nil and must not overlap f.Pix.
// For n = 1 the frame itself comes back, sharing its pixels.
func (f Frame) Upscale(n int, dst []byte) Frame {
	if n < 1 {
		panic(fmt.Sprintf("video: upscale by %d", n))
	}
	if n == 1 {
		return f
	}
	out := Frame{Width: f.Width * n, Height: f.Height * n, Index: f.Index}
	size, stride := 3*out.Width*out.Height, 3*out.Width
	if cap(dst) < size {
		dst = make([]byte, size)
	}
	out.Pix = dst[:size]
	for y := range f.Height {
		in := f.Pix[3*f.Width*y : 3*f.Width*(y+1)]
		rows := out.Pix[stride*n*y : stride*n*(y+1)]
		first := rows[:stride]
		for o := 0; len(in) >= 3; in = in[3:] {
			for range n {
				first[o], first[o+1], first[o+2] = in[0], in[1], in[2]
				o += 3
			}
		}
		for k := 1; k < n; k++ {
			copy(rows[k*stride:], first)
		}
	}
	return out
}

// rgbImage lets packed RGB pass where an image.Image is wanted.
type rgbImage struct{ f Frame }

func (m rgbImage) ColorModel() color.Model { return color.RGBAModel }
func (m rgbImage) Bounds() image.Rectangle { return image.Rect(0, 0, m.f.Width, m.f.Height) }
func (m rgbImage) Opaque() bool            { return true }
func (m rgbImage) At(x, y int) color.Color { return m.RGBAAt(x, y) }

// RGBAAt is At without the interface value; outside the picture it is transparent black.
func (m rgbImage) RGBAAt(x, y int) color.RGBA {
	if !(image.Point{X: x, Y: y}).In(m.Bounds()) {
		return color.RGBA{}
	}
	i := 3 * (y*m.f.Width + x)
	return color.RGBA{R: m.f.Pix[i], G: m.f.Pix[i+1], B: m.f.Pix[i+2], A: 255}
}

// RGBA64At makes the standard library's image/draw and encoders avoid one allocation a pixel.
func (m rgbImage) RGBA64At(x, y int) color.RGBA64 {
	r, g, b, a := m.RGBAAt(x, y).RGBA()
	return color.RGBA64{R: uint16(r), G: uint16(g), B: uint16(b), A: uint16(a)}
}
