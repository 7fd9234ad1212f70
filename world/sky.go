package world

// skyView is what all rays into the sky share.
type skyView struct {
	kind            Sky
	horizon, zenith rgb
	disc            rgb // the sun or the moon
	discAngle       f32 // its compass angle
	mountain, snow  rgb
}

func (s *skyView) aim(kind Sky) {
	*s = skyView{
		kind:      kind,
		horizon:   skyHorizon[kind],
		zenith:    skyZenith[kind],
		disc:      rgb{1, 0.95, 0.70},
		discAngle: 1.5707963,
	}
	if kind == SkyNight {
		s.disc, s.discAngle = rgb{0.92, 0.94, 1}, 4.712389
	}
	s.mountain = s.horizon.scale(0.55).mix(rgb{0.25, 0.30, 0.42}, 0.45)
	s.snow = s.mountain.mix(rgb{0.95, 0.95, 1}, 0.7)
}

// skyStrip is what the rays of one column share.
type skyStrip struct {
	ready  bool
	length f32 // of the ray's direction
	angle  f32 // compass angle, 0 to 2 pi
	ridge  f32 // height of the mountains
	waves  f32 // the part of the cloud cover that does not change with height
}

func (s *skyStrip) aim(dx, dy f32) {
	s.ready = true
	s.length = sqrt(f32(dx*dx) + f32(dy*dy))
	s.angle = atan2(dx, -dy)
	if s.angle < 0 {
		s.angle += tau
	}
	s.ridge = 0.13 + f32(0.055*sin(f32(s.angle*2)+0.6))
	s.ridge += f32(0.045 * sin(f32(s.angle*5)+2))
	s.ridge += f32(0.03 * abs(sin(f32(s.angle*9))))
	north := s.angle
	if north > 3.14159265 {
		north -= tau
	}
	s.ridge += f32(0.22 * exp(f32(-north*north)/0.05)) // the one high peak
	s.waves = 0.5 + f32(0.25*sin(f32(s.angle*3)+1))
}

// shade returns the colour of the sky along a ray, whose slope is negative.
func (s *skyView) shade(strip *skyStrip, slope f32) rgb {
	up := -(slope / strip.length)
	if up < strip.ridge {
		if up > strip.ridge-0.06 && strip.ridge > 0.24 {
			return s.snow
		}
		return s.mountain
	}
	c := s.horizon.mix(s.zenith, sqrt(clamp01(up/0.72)))
	if s.kind != SkyOvercast {
		c = s.addDisc(c, strip.angle, up)
	}
	if s.kind == SkyNight {
		return addStar(c, strip.angle, up)
	}
	return addCloud(c, strip, up)
}

func (s *skyView) addDisc(c rgb, angle, up f32) rgb {
	da, du := angle-s.discAngle, up-0.42
	if da > 3.14159265 {
		da -= tau
	}
	if da < -3.14159265 {
		da += tau
	}
	squared := f32(da*da) + f32(du*du)
	if squared > 0.0133 { // beyond the edge, whose square is 0.0132: the mix would change nothing
		return c
	}
	return c.mix(s.disc, 1-smoothStep(0.085, 0.115, sqrt(squared)))
}

// addStar puts a star into about a third of the cells of a grid on the sky.
func addStar(c rgb, angle, up f32) rgb {
	a, b := f32(f32(angle*14)/tau*3), f32(up*14)
	ia, ib := floorInt(a), floorInt(b)
	if newNoise(9).row(ib).at(ia) >= 0.35 {
		return c
	}
	x := 0.25 + f32(0.5*newNoise(7).row(ib).at(ia))
	y := 0.25 + f32(0.5*newNoise(8).row(ib).at(ia))
	da, db := a-f32(ia)-x, b-f32(ib)-y
	return c.mix(white, 1-smoothStep(0.01, 0.05, f32(da*da)+f32(db*db)))
}

// addCloud lays a band of clouds over the sky.
func addCloud(c rgb, strip *skyStrip, up f32) rgb {
	cover := strip.waves + f32(0.25*sin(f32(strip.angle*5)+f32(up*9)))
	if cover <= 0.45 {
		return c
	}
	du := up - 0.55
	band := exp(f32(-du*du) / 0.02)
	return c.mix(white, f32(f32(0.55*band)*smoothStep(0.45, 0.8, cover)))
}
