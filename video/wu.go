package video

// Variance-based colour quantisation after Xiaolin Wu, "Efficient Statistical Computations for
// Optimal Color Quantization", Graphics Gems II, 1991: cut the box with the largest variance where
// the cut lowers it most, with all sums read from cumulative tables.

// wuSide is the histogram's 32 cells a channel plus the zero plane that cumulative sums need.
const wuSide = 33

// wuSums holds, for every prefix box, pixel count, sums of the channels, and the sum of squares.
type wuSums struct{ n, r, g, b, sq int64 }

func (s *wuSums) add(t wuSums, sign int64) {
	s.n += sign * t.n
	s.r += sign * t.r
	s.g += sign * t.g
	s.b += sign * t.b
	s.sq += sign * t.sq
}

// spread is the part of the squared error that the mean explains; larger is better for halves.
func (s wuSums) spread() float64 {
	if s.n == 0 {
		return 0
	}
	r, g, b := float64(s.r), float64(s.g), float64(s.b)
	return (r*r + g*g + b*b) / float64(s.n)
}

func (s wuSums) variance() float64 { return float64(s.sq) - s.spread() }

type wuHistogram struct{ cum []wuSums }

// wuBox is the half-open range lo < i <= hi in each channel.
type wuBox struct {
	lo, hi [3]int
	sums   wuSums
}

func wuAt(r, g, b int) int { return (r*wuSide+g)*wuSide + b }

// palette appends at most maxColours box means to dst.
func (h *wuHistogram) palette(dst []uint32, f Frame) []uint32 {
	h.count(f)
	boxes := []wuBox{{hi: [3]int{wuSide - 1, wuSide - 1, wuSide - 1}}}
	boxes[0].sums = h.sum(boxes[0])
	for len(boxes) < maxColours {
		at, most := -1, 0.0
		for i, b := range boxes {
			if v := b.sums.variance(); v > most && b.cuttable() {
				at, most = i, v
			}
		}
		if at < 0 {
			break
		}
		left, right, ok := h.cut(boxes[at])
		if !ok {
			// All pixels share one cell plane in every direction: mark as final.
			boxes[at].sums.sq = 0
			continue
		}
		boxes[at] = left
		boxes = append(boxes, right)
	}
	for _, b := range boxes {
		n := b.sums.n
		if n == 0 {
			continue
		}
		r, g, bl := (b.sums.r+n/2)/n, (b.sums.g+n/2)/n, (b.sums.b+n/2)/n
		dst = append(dst, uint32(r)<<16|uint32(g)<<8|uint32(bl))
	}
	return dst
}

// count fills the histogram and turns it into cumulative sums.
func (h *wuHistogram) count(f Frame) {
	if h.cum == nil {
		h.cum = make([]wuSums, wuSide*wuSide*wuSide)
	}
	clear(h.cum)
	for in := f.Pix; len(in) >= 3; in = in[3:] {
		r, g, b := int64(in[0]), int64(in[1]), int64(in[2])
		h.cum[wuAt(int(r>>3)+1, int(g>>3)+1, int(b>>3)+1)].add(wuSums{1, r, g, b, r*r + g*g + b*b}, 1)
	}
	for r := 1; r < wuSide; r++ {
		for g := 1; g < wuSide; g++ {
			for b := 1; b < wuSide; b++ {
				c := &h.cum[wuAt(r, g, b)]
				c.add(h.cum[wuAt(r-1, g, b)], 1)
				c.add(h.cum[wuAt(r, g-1, b)], 1)
				c.add(h.cum[wuAt(r, g, b-1)], 1)
				c.add(h.cum[wuAt(r-1, g-1, b)], -1)
				c.add(h.cum[wuAt(r-1, g, b-1)], -1)
				c.add(h.cum[wuAt(r, g-1, b-1)], -1)
				c.add(h.cum[wuAt(r-1, g-1, b-1)], 1)
			}
		}
	}
}

// sum reads a box by inclusion and exclusion of its eight corners.
func (h *wuHistogram) sum(x wuBox) (s wuSums) {
	for corner := range 8 {
		var at [3]int
		sign := int64(1)
		for c := range 3 {
			at[c] = x.hi[c]
			if corner>>c&1 == 1 {
				at[c], sign = x.lo[c], -sign
			}
		}
		s.add(h.cum[wuAt(at[0], at[1], at[2])], sign)
	}
	return s
}

func (x wuBox) cuttable() bool {
	return x.hi[0]-x.lo[0] > 1 || x.hi[1]-x.lo[1] > 1 || x.hi[2]-x.lo[2] > 1
}

// cut divides a box at the plane that leaves the least squared error in both parts together.
func (h *wuHistogram) cut(x wuBox) (left, right wuBox, ok bool) {
	most := 0.0
	for c := range 3 {
		for at := x.lo[c] + 1; at < x.hi[c]; at++ {
			l, r := x, x
			l.hi[c], r.lo[c] = at, at
			l.sums = h.sum(l)
			r.sums = x.sums
			r.sums.add(l.sums, -1)
			if l.sums.n == 0 || r.sums.n == 0 {
				continue
			}
			if v := l.sums.spread() + r.sums.spread(); v > most {
				most, left, right, ok = v, l, r, true
			}
		}
	}
	return left, right, ok
}
