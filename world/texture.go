package world

// A wallStrip is one column of a wall's face, from the floor to the top.
type wallStrip struct {
	distance   f32
	light, fog f32
	sharp      f32 // visible share of fine detail at the distance
	texture    Texture
	colour     rgb
	u          f32 // place across the face, 0 to 1 from left to right
	x, y       int // the wall's cell
	detail     noise
	grain      noiseRow // of this face
	painting   rgb
	frame      f32 // distance of u from the painting's middle; 1 without a painting
}

// faceWall prepares the strip where a column meets a wall.
func (v *view) faceWall(s *wallStrip, dx, dy f32, h hit) {
	room := v.w.rooms[v.w.Region(f32(h.fromX)+0.5, f32(h.fromY)+0.5)]
	var face int
	var mirrored bool
	var light f32
	if h.alongX {
		s.u = frac(v.pose.X + f32(dx*h.distance))
		face, light, mirrored = 2, 0.70, dy > 0
		if dy > 0 {
			face, light = 3, 0.88
		}
	} else {
		s.u = frac(v.pose.Y + f32(dy*h.distance))
		face, light, mirrored = 0, 1.0, dx < 0
		if dx > 0 {
			face, light = 1, 0.80
		}
	}
	if mirrored {
		s.u = 1 - s.u
	}
	s.distance = h.distance
	s.light = f32(light * v.light)
	s.fog = fogAt(h.distance)
	s.sharp = 1 / (1 + f32(h.distance*h.distance)/40)
	s.texture, s.colour = room.Texture, palette[room.Colour]
	s.x, s.y = h.x, h.y
	s.detail = v.detail
	s.grain = v.detail.row(h.x*31 + h.y*17 + face*7)
	s.frame = 1
	if cell := h.x*64 + h.y; v.detail.row(face+77).at(cell) < 0.13 {
		s.frame = abs(s.u - 0.5)
		s.painting = palette[int(f32(v.detail.row(face+99).at(cell)*numColours))]
	}
}

// shade returns the wall's own colour at height z.
func (s *wallStrip) shade(z f32) rgb {
	if s.frame < 0.27 {
		if off := abs(z - 0.68); off < 0.27 {
			return s.paint(off)
		}
	}
	switch s.texture {
	case Brick:
		return s.masonry(z, brickwork)
	case Stone:
		return s.masonry(z, stonework)
	case Wood:
		return s.wood(z)
	case Hedge:
		return s.hedge(z)
	case Tile:
		return s.tile(z)
	case Metal:
		return s.metal(z)
	case Plaster:
		return s.plaster(z)
	default:
		return s.stripes(z)
	}
}

// paint returns the painting's colour, off above or below its middle.
func (s *wallStrip) paint(off f32) rgb {
	switch {
	case s.frame > 0.21 || off > 0.21:
		return rgb{0.22, 0.14, 0.06}
	case off < 0.07:
		return s.painting.mix(white, 0.6)
	}
	return s.painting
}

// masonryStyle is the look of walls laid in rows, every other row shifted by half a stone.
type masonryStyle struct {
	height, perCell      f32 // of a row; stones across a cell
	jointAcross, jointUp f32 // share of a stone that is joint
	tint                 rgb // what stones are mixed with
	tintShare            f32
	darkest, spread      f32 // of stones
	joint                rgb
	jointShare           f32
}

var (
	brickwork = &masonryStyle{0.2, 2.5, 0.09, 0.16, rgb{}, 0, 0.92, 0.2, rgb{0.78, 0.76, 0.72}, 0.75}
	stonework = &masonryStyle{0.4, 2, 0.08, 0.10, rgb{0.55, 0.55, 0.55}, 0.35, 0.85, 0.3, rgb{0.16, 0.16, 0.17}, 0.7}
)

func (s *wallStrip) masonry(z f32, m *masonryStyle) rgb {
	rows := z / m.height
	row := int(rows)
	across := f32(s.u*m.perCell) + f32(f32(row&1)*0.5)
	col := floorInt(across)
	c := s.colour
	if m.tintShare > 0 {
		c = c.mix(m.tint, m.tintShare)
	}
	c = c.scale(m.darkest + f32(m.spread*s.grain.at(row*57+col)))
	if across-f32(col) < m.jointAcross || frac(rows) < m.jointUp {
		c = c.mix(m.joint, f32(m.jointShare*s.sharp))
	}
	return c
}

func (s *wallStrip) wood(z f32) rgb {
	boards := f32(s.u * 4)
	shade := 0.86 + f32(0.24*s.grain.at(int(boards)))
	c := s.colour.mix(rgb{0.45, 0.30, 0.16}, 0.35).scale(shade)
	if frac(boards) < 0.12 {
		c = c.scale(1 - f32(0.6*s.sharp))
	}
	if frac(z/0.62) < 0.09 {
		c = c.scale(1 - f32(0.35*s.sharp))
	}
	return c
}

func (s *wallStrip) hedge(z f32) rgb {
	n := s.detail.smooth(f32(s.u*8)+f32(f32(s.x)*3), f32(z*8)+f32(f32(s.y)*5))
	shade := 0.62 + f32(0.66*(0.5+f32((n-0.5)*s.sharp)))
	return s.colour.mix(rgb{0.12, 0.36, 0.10}, 0.45).scale(shade)
}

func (s *wallStrip) tile(z f32) rgb {
	across, up := f32(s.u*4), f32(z*4)
	var shade f32 = 0.80
	if (int(across)+int(up))&1 == 1 {
		shade = 1.08
	}
	shade = 1 + f32((shade-0.94)*s.sharp) - 0.06
	c := s.colour.scale(shade)
	if frac(across) < 0.1 || frac(up) < 0.1 {
		c = c.mix(rgb{0.95, 0.95, 0.95}, f32(0.55*s.sharp))
	}
	return c
}

func (s *wallStrip) metal(z f32) rgb {
	up := frac(z / 0.42)
	shade := 0.72 + f32(f32(f32(0.5*abs(up-0.5))*2)*0.8)
	c := s.colour.mix(rgb{0.62, 0.65, 0.70}, 0.40).scale(shade)
	if up < 0.10 || frac(f32(s.u*2)) < 0.05 {
		c = c.scale(1 - f32(0.55*s.sharp))
	}
	return c
}

func (s *wallStrip) plaster(z f32) rgb {
	switch {
	case z > 1.08:
		return s.colour.scale(0.65)
	case z < 0.16:
		return s.colour.scale(0.45)
	}
	return s.colour.mix(rgb{0.93, 0.90, 0.84}, 0.30)
}

func (s *wallStrip) stripes(z f32) rgb {
	var shade f32 = 0.72
	if frac(f32(s.u*2)+f32(z*2)) < 0.5 {
		shade = 1.12
	}
	shade = 0.92 + f32((shade-0.92)*s.sharp)
	return s.colour.mix(white, 0.15).scale(shade)
}

// floor returns the floor's own colour at a point.
func (v *view) floor(x, y, sharp f32) rgb {
	// cloudy grounds vary around a middle; the variation fades with distance.
	cloudy := func(c rgb, n noise, scale, darkest, span f32) rgb {
		value := n.smooth(f32(x*scale), f32(y*scale))
		return c.scale(darkest + f32(span*(0.5+f32((value-0.5)*sharp))))
	}
	switch v.w.rooms[v.w.Region(x, y)].Floor {
	case Grass:
		return cloudy(rgb{0.30, 0.58, 0.22}, v.ground[0], 5, 0.82, 0.4)
	case Sand:
		return cloudy(rgb{0.86, 0.76, 0.52}, v.ground[1], 4, 0.88, 0.22)
	case Checkered:
		var grey f32 = 0.18
		if (floorInt(f32(x*2))+floorInt(f32(y*2)))&1 == 1 {
			grey = 0.92
		}
		grey = 0.55 + f32((grey-0.55)*(0.3+f32(0.7*sharp)))
		return rgb{grey, grey, f32(grey * 0.97)}
	case Slate:
		slab := v.ground[2].row(floorInt(y)).at(floorInt(x))
		c := rgb{0.42, 0.45, 0.50}.scale(0.9 + f32(0.2*slab))
		if frac(x) < 0.07 || frac(y) < 0.07 {
			c = c.mix(rgb{0.18, 0.19, 0.21}, f32(0.7*sharp))
		}
		return c
	case Plank:
		boards := f32(x * 3)
		board := v.ground[3].row(floorInt(y)).at(floorInt(boards))
		c := rgb{0.60, 0.40, 0.22}.scale(0.85 + f32(0.25*board))
		if frac(boards) < 0.12 {
			c = c.scale(1 - f32(0.5*sharp))
		}
		return c
	default:
		return cloudy(rgb{0.93, 0.95, 0.98}, v.ground[4], 3, 0.92, 0.1)
	}
}
