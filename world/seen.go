package world

import "fmt"

// Seen says, for each pixel of what a player at p sees, whether any of the earlier poses had the same point in view: dst[y*width+x] is
// true where the end of the pixel's middle ray, a point of a wall, the floor or a landmark, or a direction of the sky, was inside an
// earlier picture of the same shape and nothing hid it there. How large it was there does not matter. It panics if dst has not exactly
// width*height values.
func (w *World) Seen(dst []bool, p Pose, earlier []Pose, width, height int) {
	if width < 1 || height < 1 || len(dst) != width*height {
		panic(fmt.Sprintf("world: %d values of what was seen in %dx%d pixels", len(dst), width, height))
	}
	top := f32(f32(f32(height)/f32(width)) * fovTangent)
	from := make([]sightline, len(earlier))
	for i, q := range earlier {
		from[i] = newSightline(w, q)
	}
	s := newSightline(w, p)
	for i := range dst {
		across := f32((f32(2*(f32(i%width)+0.5))/f32(width) - 1) * fovTangent)
		down := f32((f32(2*(f32(i/width)+0.5))/f32(height) - 1) * top)
		m := s.meet(across, down)
		dst[i] = false
		for j := len(from) - 1; j >= 0 && !dst[i]; j-- { // the newest mostly shows it
			dst[i] = from[j].shows(m, top)
		}
	}
}

// A sightline follows single rays from one pose.
type sightline struct {
	v view
}

func newSightline(w *World, p Pose) sightline {
	heading := turned(p.Heading, 0)
	return sightline{view{w: w, pose: p, sin: headingSin[heading], cos: headingCos[heading]}}
}

// A sight is where a ray ends: a point in cells above the floor, or, in the sky, its direction.
type sight struct {
	sky     bool
	x, y, z f32
}

// reach returns how far, along the axis of the view, the wall is and the nearest landmark before it that a ray hits (0: none).
func (s *sightline) reach(across, down f32) (wall, thing f32, c column) {
	c.dx = s.v.sin + f32(s.v.cos*across)
	c.dy = -s.v.cos + f32(s.v.sin*across)
	wall = s.v.march(c.dx, c.dy).distance
	s.v.findObjects(&c, wall)
	for i := range c.objects[:c.count] {
		if o := &c.objects[i]; o.top <= down && down <= o.bottom {
			return wall, o.distance, c
		}
	}
	return wall, 0, c
}

// meet follows a ray to its end.
func (s *sightline) meet(across, down f32) sight {
	wall, thing, c := s.reach(across, down)
	depth := wall
	switch {
	case thing > 0:
		depth = thing
	case down > eyeHeight/wall:
		depth = eyeHeight / down
	case down < -(wallHeight-eyeHeight)/wall:
		return sight{true, c.dx, c.dy, down}
	}
	return sight{false, s.v.pose.X + f32(c.dx*depth), s.v.pose.Y + f32(c.dy*depth), eyeHeight - f32(down*depth)}
}

// shows reports whether a point or direction is in the picture, whose upper and lower edges have slopes of -top and top.
func (s *sightline) shows(m sight, top f32) bool {
	dx, dy, fall := m.x, m.y, m.z
	if !m.sky {
		dx, dy, fall = m.x-s.v.pose.X, m.y-s.v.pose.Y, eyeHeight-m.z
	}
	ahead := f32(dx*s.v.sin) - f32(dy*s.v.cos)
	if ahead < 0.02 {
		return false
	}
	across, down := (f32(dx*s.v.cos)+f32(dy*s.v.sin))/ahead, fall/ahead
	if abs(across) > fovTangent || abs(down) > top {
		return false
	}
	wall, thing, _ := s.reach(across, down)
	if m.sky {
		return thing == 0 && down < -(wallHeight-eyeHeight)/wall
	}
	if thing > 0 {
		wall = thing
	}
	return ahead <= f32(wall*1.01)+0.02 // rounding, and pixels at grazing angles
}
