package video

import "fmt"

// Chroma says at which resolution the two colour planes are kept.
type Chroma int

// The two layouts that writers offer.
const (
	Chroma420 Chroma = iota // one colour sample for each 2x2 square of pixels
	Chroma444               // one colour sample for each pixel
)

// Planes is a picture as BT.601 limited-range Y'CbCr: Y in 16-235, Cb and Cr in 16-240. Rows are
// packed without gaps. For Chroma420 the colour planes measure (Width+1)/2 x (Height+1)/2.
// (image.YCbCr is not used because the standard library reads it as full range.)
type Planes struct {
	Width, Height int
	Chroma        Chroma
	Y, Cb, Cr     []byte
}

// ChromaSize returns width and height of the two colour planes.
func (p *Planes) ChromaSize() (width, height int) {
	if p.Chroma == Chroma444 {
		return p.Width, p.Height
	}
	return (p.Width + 1) / 2, (p.Height + 1) / 2
}

// Coefficients of BT.601 limited range, times 65536 and rounded: Y = 16 + (65.481 R + 128.553 G +
// 24.966 B)/255 and so on (ITU-R BT.601-7 section 2.5). Each chroma row sums to zero so that grey
// stays exactly grey.
const (
	yR, yG, yB    = 16829, 33039, 6416
	cbR, cbG, cbB = -9714, -19070, 28784
	crR, crG, crB = 28784, -24103, -4681
	half          = 1 << 15
)

// Convert fills p from f in the given layout, reusing p's slices when they are large enough. It
// panics if f fails Check: a wrong size here is a programming error.
func (p *Planes) Convert(f Frame, c Chroma) {
	if err := f.Check(); err != nil {
		panic("video: convert: " + err.Error())
	}
	p.Width, p.Height, p.Chroma = f.Width, f.Height, c
	cw, ch := p.ChromaSize()
	p.Y = resized(p.Y, f.Width*f.Height)
	p.Cb, p.Cr = resized(p.Cb, cw*ch), resized(p.Cr, cw*ch)
	in := f.Pix
	for i := range p.Y {
		r, g, b := int(in[0]), int(in[1]), int(in[2])
		p.Y[i] = byte(16 + (yR*r+yG*g+yB*b+half)>>16)
		if c == Chroma444 {
			p.Cb[i] = byte(128 + (cbR*r+cbG*g+cbB*b+half)>>16)
			p.Cr[i] = byte(128 + (crR*r+crG*g+crB*b+half)>>16)
		}
		in = in[3:]
	}
	if c == Chroma420 {
		p.averageChroma(f, cw, ch)
	}
}

// averageChroma sums the RGB of each 2x2 square before the one conversion, which is both faster
// than and, the conversion being linear, equal to averaging converted chroma, with one rounding.
// Squares that overhang the edge repeat the last row or column.
func (p *Planes) averageChroma(f Frame, cw, ch int) {
	stride := 3 * f.Width
	for y := range ch {
		top := f.Pix[2*y*stride:][:stride]
		low := top
		if 2*y+1 < f.Height {
			low = f.Pix[(2*y+1)*stride:][:stride]
		}
		for x := range cw {
			i, j := 6*x, 6*x+3
			if 2*x+1 >= f.Width {
				j = i
			}
			r := int(top[i]) + int(top[j]) + int(low[i]) + int(low[j])
			g := int(top[i+1]) + int(top[j+1]) + int(low[i+1]) + int(low[j+1])
			b := int(top[i+2]) + int(top[j+2]) + int(low[i+2]) + int(low[j+2])
			p.Cb[y*cw+x] = byte(128 + (cbR*r+cbG*g+cbB*b+4*half)>>18)
			p.Cr[y*cw+x] = byte(128 + (crR*r+crG*g+crB*b+4*half)>>18)
		}
	}
}

// RGB converts back; 4:2:0 colour samples are repeated for their square.
func (p *Planes) RGB() Frame {
	f := NewFrame(p.Width, p.Height)
	cw, _ := p.ChromaSize()
	shift := 1
	if p.Chroma == Chroma444 {
		shift = 0
	}
	for y := range p.Height {
		for x := range p.Width {
			c := (y>>shift)*cw + x>>shift
			luma := 76309 * (int(p.Y[y*p.Width+x]) - 16) // 255/219 * 65536
			cb, cr := int(p.Cb[c])-128, int(p.Cr[c])-128
			i := 3 * (y*p.Width + x)
			f.Pix[i] = clamp8((luma + 104597*cr + half) >> 16)
			f.Pix[i+1] = clamp8((luma - 25675*cb - 53279*cr + half) >> 16)
			f.Pix[i+2] = clamp8((luma + 132201*cb + half) >> 16)
		}
	}
	return f
}

// String returns "4:2:0" or "4:4:4".
func (c Chroma) String() string {
	switch c {
	case Chroma420:
		return "4:2:0"
	case Chroma444:
		return "4:4:4"
	}
	return fmt.Sprintf("Chroma(%d)", int(c))
}

func clamp8(v int) byte { return byte(min(max(v, 0), 255)) }

func resized(b []byte, n int) []byte {
	if cap(b) < n {
		return make([]byte, n)
	}
	return b[:n]
}
