package video

import "math"

// maxColours leaves one of GIF's 256 indices for transparency.
const maxColours = 255

// quantizer maps frames to at most maxColours colours.
type quantizer struct {
	dither  bool
	colours []uint32         // 0xRRGGBB
	exact   map[uint32]uint8 // colour to index; nil when colours are approximate
	cells   []uint16         // index+1 of the nearest colour for each 6-bit-a-channel cell, 0 = unknown
	limit   float64          // mean squared error above which the palette no longer fits
	strong  float64          // amplitude of the dither pattern
	wu      wuHistogram
}

func newQuantizer(dither bool) *quantizer {
	return &quantizer{dither: dither, cells: make([]uint16, 1<<18)}
}

func (q *quantizer) rgb(index byte) uint32 { return q.colours[index] }

// table returns the palette as GIF stores it, unused entries black.
func (q *quantizer) table() (t [3 * 256]byte) {
	for i, c := range q.colours {
		t[3*i], t[3*i+1], t[3*i+2] = byte(c>>16), byte(c>>8), byte(c)
	}
	return t
}

// index fills dst with one palette index for each pixel of f. It keeps the current palette if that
// still fits and fresh is not set.
func (q *quantizer) index(dst []byte, f Frame, fresh bool) {
	if !fresh && q.colours != nil && q.apply(dst, f) <= q.limit {
		return
	}
	q.fit(f)
	mse := q.apply(dst, f)
	if q.dither && q.exact == nil {
		q.strong = min(math.Sqrt(mse/3), 12)
		mse = q.apply(dst, f)
	}
	q.limit = max(1.5*mse, mse+4)
}

// fit chooses the palette for f.
func (q *quantizer) fit(f Frame) {
	q.strong = 0
	clear(q.cells)
	q.exact = make(map[uint32]uint8, 256)
	q.colours = q.colours[:0]
	for in := f.Pix; len(in) >= 3; in = in[3:] {
		c := uint32(in[0])<<16 | uint32(in[1])<<8 | uint32(in[2])
		if _, seen := q.exact[c]; seen {
			continue
		}
		if len(q.colours) == maxColours {
			q.exact = nil
			q.colours = q.wu.palette(q.colours[:0], f)
			return
		}
		q.exact[c] = uint8(len(q.colours))
		q.colours = append(q.colours, c)
	}
}

// bayer is the 8x8 ordered dither matrix, 0-63. A fixed pattern, unlike error diffusion, does not
// crawl from frame to frame and leaves still areas still.
var bayer = [64]int8{
	0, 32, 8, 40, 2, 34, 10, 42, 48, 16, 56, 24, 50, 18, 58, 26,
	12, 44, 4, 36, 14, 46, 6, 38, 60, 28, 52, 20, 62, 30, 54, 22,
	3, 35, 11, 43, 1, 33, 9, 41, 51, 19, 59, 27, 49, 17, 57, 25,
	15, 47, 7, 39, 13, 45, 5, 37, 63, 31, 55, 23, 61, 29, 53, 21,
}

// apply maps every pixel and returns the mean over pixels of the squared distance in RGB between
// what was looked for (the pixel plus the dither pattern) and what was found.
func (q *quantizer) apply(dst []byte, f Frame) float64 {
	var offsets [64]int
	for i, b := range bayer {
		offsets[i] = int(math.Round((float64(b)/63 - 0.5) * 2 * q.strong))
	}
	sum, i := 0, 0
	for y := range f.Height {
		row := offsets[8*(y&7):][:8]
		for x := range f.Width {
			o := row[x&7]
			r, g, b := int(f.Pix[3*i])+o, int(f.Pix[3*i+1])+o, int(f.Pix[3*i+2])+o
			if o != 0 {
				r, g, b = int(clamp8(r)), int(clamp8(g)), int(clamp8(b))
			}
			k := q.lookup(r, g, b)
			dst[i] = k
			sum += distance(q.colours[k], r, g, b)
			i++
		}
	}
	return float64(sum) / float64(f.Width*f.Height)
}

func (q *quantizer) lookup(r, g, b int) uint8 {
	if q.exact != nil {
		if k, ok := q.exact[uint32(r)<<16|uint32(g)<<8|uint32(b)]; ok {
			return k
		}
	}
	cell := &q.cells[r>>2<<12|g>>2<<6|b>>2]
	if *cell == 0 {
		// The cell's middle decides for all its colours, at most 2 levels away.
		*cell = uint16(q.nearest(r&^3|2, g&^3|2, b&^3|2)) + 1
	}
	return uint8(*cell - 1)
}

func (q *quantizer) nearest(r, g, b int) uint8 {
	best, at := math.MaxInt, 0
	for k, c := range q.colours {
		if d := distance(c, r, g, b); d < best {
			best, at = d, k
		}
	}
	return uint8(at)
}

func distance(c uint32, r, g, b int) int {
	dr, dg, db := int(c>>16)-r, int(c>>8&255)-g, int(c&255)-b
	return dr*dr + dg*dg + db*db
}
