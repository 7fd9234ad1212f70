package analyze

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"image"
	"image/draw"
	"image/png"
	"math"
	"strconv"
	"strings"

	"longtake/report/plot"
)

// tile is the side of a token in pictures of components, in pixels.
const tile = 12

// encoded returns a PNG file.
func encoded(m image.Image) []byte {
	var b bytes.Buffer
	if err := png.Encode(&b, m); err != nil {
		panic(err) // a buffer takes everything, and the sizes are ours
	}
	return b.Bytes()
}

// frame returns the picture of a latent frame: the first one made from it.
func (c *clip) frame(latent, latents int) image.Image {
	if len(c.frames) == 0 {
		return image.NewRGBA(image.Rect(0, 0, 1, 1))
	}
	return c.frames[min(latent*len(c.frames)/max(latents, 1), len(c.frames)-1)].Image()
}

// componentRow is the pictures of one kind, keys or queries, of a layer.
type componentRow struct {
	name      string
	explained float64
	frames    []int
	pictures  []*image.RGBA
}

// componentRows computes the components of a layer's keys and queries over the drawn frames.
func (s *Study) componentRows(layer int, frames []int) (out []componentRow) {
	c := s.clip
	for _, kind := range []struct {
		name string
		from map[place][]float32
	}{{"keys", c.keys}, {"queries", c.queries}} {
		var rows [][]float32
		var have []int
		for _, f := range frames {
			if x := kind.from[place{layer, f}]; x != nil {
				rows, have = append(rows, c.rows(x)...), append(have, f)
			}
		}
		if len(rows) < 4 {
			continue
		}
		pca := analyse(rows, len(rows[0]))
		row := componentRow{name: fmt.Sprintf("%s, layer %d", kind.name, layer), explained: pca.explained, frames: have}
		for _, f := range have {
			row.pictures = append(row.pictures, pca.pictured(c.geometry, kind.from[place{layer, f}]))
		}
		out = append(out, row)
	}
	return out
}

// sheet puts frames and their components below each other: the video, keys, queries.
func (s *Study) sheet(frames []int, rows []componentRow) image.Image {
	c := s.clip
	w, h, gap := c.Columns*tile, c.Rows*tile, 4
	sheet := image.NewRGBA(image.Rect(0, 0, len(frames)*(w+gap)-gap, (1+len(rows))*(h+gap)-gap))
	for i, f := range frames {
		enlarge(sheet, image.Rect(i*(w+gap), 0, i*(w+gap)+w, h), c.frame(f, s.Setup.Frames))
		for j, row := range rows {
			for k, have := range row.frames {
				if have == f {
					y := (1 + j) * (h + gap)
					enlarge(sheet, image.Rect(i*(w+gap), y, i*(w+gap)+w, y+h), row.pictures[k])
				}
			}
		}
	}
	return sheet
}

// enlarge fills r with the nearest pixels of src.
func enlarge(dst *image.RGBA, r image.Rectangle, src image.Image) {
	b := src.Bounds()
	for y := r.Min.Y; y < r.Max.Y; y++ {
		for x := r.Min.X; x < r.Max.X; x++ {
			dst.Set(x, y, src.At(b.Min.X+(x-r.Min.X)*b.Dx()/r.Dx(), b.Min.Y+(y-r.Min.Y)*b.Dy()/r.Dy()))
		}
	}
}

// heat draws values on the token grid, one pixel a token, dark where least.
func heat(g geometry, values []float64) *image.RGBA {
	lo, hi := math.Inf(1), math.Inf(-1)
	for _, v := range values {
		lo, hi = min(lo, v), max(hi, v)
	}
	m := image.NewRGBA(image.Rect(0, 0, g.Columns, g.Rows))
	for i, v := range values {
		c := plot.Viridis((v - lo) / max(hi-lo, 1e-12))
		at := m.PixOffset(i%g.Columns, i/g.Columns)
		copy(m.Pix[at:], []uint8{c[0], c[1], c[2], 255})
	}
	return m
}

// arrows draws where the tokens of a frame look in the frame before: the earlier frame on the left, and on the later one, on the
// right, an arrow from each token to the place that it looks at (a dot: its own).
func (s *Study) arrows(m Match) string {
	c := s.clip
	const side, gap = 268.0, 24.0
	var b strings.Builder
	title := fmt.Sprintf("layer %d: frame %d looks at frame %d", m.Layer, m.Frame, m.Frame-1)
	fmt.Fprintf(&b, `<svg class="lt" xmlns="http://www.w3.org/2000/svg" role="img" viewBox="0 0 %g %g"><title>%s</title>`, 2*side+gap, side+26, title)
	for i, f := range []int{m.Frame - 1, m.Frame} {
		x := float64(i) * (side + gap)
		fmt.Fprintf(&b, `<text class="t" x="%g" y="16">frame %d</text><image x="%g" y="26" width="%g" height="%g" preserveAspectRatio="none" style="image-rendering:pixelated" href="data:image/png;base64,%s"/>`,
			x, f, x, side, side, base64.StdEncoding.EncodeToString(encoded(copied(c.frame(f, s.Setup.Frames)))))
	}
	place := func(token int) (x, y float64) {
		return side + gap + (float64(token%c.Columns)+0.5)*side/float64(c.Columns), 26 + (float64(token/c.Columns)+0.5)*side/float64(c.Rows)
	}
	short := func(v float64) string { return strconv.FormatFloat(v, 'f', 1, 64) }
	for from, to := range m.To {
		x0, y0 := place(from)
		x1, y1 := place(to)
		fmt.Fprintf(&b, `<circle cx="%s" cy="%s" r="2.6" fill="#fff" stroke="#000"/>`, short(x0), short(y0))
		if from == to {
			continue
		}
		angle := math.Atan2(y1-y0, x1-x0)
		ax, ay := x1-6*math.Cos(angle-0.45), y1-6*math.Sin(angle-0.45)
		bx, by := x1-6*math.Cos(angle+0.45), y1-6*math.Sin(angle+0.45)
		line := fmt.Sprintf("M%s %sL%s %sM%s %sL%s %sL%s %s", short(x0), short(y0), short(x1), short(y1), short(ax), short(ay), short(x1), short(y1), short(bx), short(by))
		for _, pen := range []string{"stroke:#000;stroke-width:3.4", "stroke:#f0e442;stroke-width:1.6"} {
			fmt.Fprintf(&b, `<path style="%s" d="%s"/>`, pen, line)
		}
	}
	b.WriteString("</svg>")
	return b.String()
}

// copied returns a picture as RGBA.
func copied(m image.Image) *image.RGBA {
	out := image.NewRGBA(image.Rect(0, 0, m.Bounds().Dx(), m.Bounds().Dy()))
	draw.Draw(out, out.Rect, m, m.Bounds().Min, draw.Src)
	return out
}
