package world

import (
	"fmt"
	"sync"
)

const (
	eyeHeight  f32 = 0.5
	wallHeight f32 = 1.25
	fovTangent f32 = 0.7265 // of half the horizontal field of view, 36 degrees

	// subsamples is how many rays cross a pixel each way.
	subsamples = 3
)

// Render draws what a player at p sees into dst: width*height pixels of R, G, B bytes,
// row by row from the top left, nine rays a pixel. The field of view is 72 degrees
// wide, whatever the shape. It does not allocate once warm and may be called from
// several goroutines. It panics if dst has not exactly 3*width*height bytes.
func (w *World) Render(dst []byte, p Pose, width, height int) {
	if width < 1 || height < 1 || len(dst) != 3*width*height {
		panic(fmt.Sprintf("world: render %dx%d pixels into %d bytes, want %d", width, height, len(dst), 3*width*height))
	}
	v := views.Get().(*view)
	defer views.Put(v)
	v.aim(w, p, width, height)
	for x := range width {
		v.castColumn(x, width)
		at := 3 * x
		for y := range height {
			c := v.pixel(y)
			dst[at], dst[at+1], dst[at+2] = toByte(c.r), toByte(c.g), toByte(c.b)
			at += 3 * width
		}
	}
}

var views = sync.Pool{New: func() any { return new(view) }}

// A view is the state of one Render: what all rays share, the rows of rays, and the
// columns of rays through the current column of pixels. Rays of one column hit the
// same wall and landmarks, rays of one row hit the floor equally far away.
type view struct {
	w        *World
	pose     Pose
	sin, cos f32 // of the heading
	light    f32
	haze     rgb
	detail   noise // of walls
	ground   [5]noise
	sky      skyView
	rows     []row
	columns  [subsamples]column
}

// A row is what rays of the same slope share. Slope is how far a ray falls in a
// distance of one, so it is negative above the horizon.
type row struct {
	slope    f32
	distance f32 // to the floor, if the ray falls
	sharp    f32 // visible share of fine floor detail at that distance
	fog      f32
}

// A column is what rays in the same compass direction share.
type column struct {
	dx, dy  f32 // ray direction; its length grows away from the middle of the view
	top     f32 // rays with a smaller slope pass over the wall
	bottom  f32 // rays with a greater slope fall short of the wall
	wall    wallStrip
	sky     skyStrip // ready once a ray needs it
	objects [maxLandmarks]object
	count   int // objects in use, the nearest first
}

// An object is a landmark in front of the wall, seen along one column.
type object struct {
	distance    f32
	top, bottom f32 // slopes between which rays hit it
	light, fog  f32
	shape       Shape
	colour      rgb
}

// aim prepares a view from a pose.
func (v *view) aim(w *World, p Pose, width, height int) {
	heading := turned(p.Heading, 0)
	v.w, v.pose = w, p
	v.sin, v.cos = headingSin[heading], headingCos[heading]
	v.haze = skyHorizon[w.sky].scale(0.9)
	switch w.sky {
	case SkyNight:
		v.light = 0.62
	case SkyOvercast:
		v.light = 0.85
	default:
		v.light = 1
	}
	v.sky.aim(w.sky)
	v.detail = newNoise(w.detail)
	for i := range v.ground {
		v.ground[i] = newNoise(w.detail + uint32(i))
	}
	v.rows = v.rows[:0]
	for y := range height {
		for i := range subsamples {
			middle := f32(y) + subsample(i)
			slope := f32((middle - f32(f32(height)*0.5)) / f32(f32(width)*0.5) * fovTangent)
			r := row{slope: slope}
			if slope > 0 {
				r.distance = eyeHeight / slope
				r.sharp = 1 / (1 + f32(r.distance*r.distance)/12)
				r.fog = fogAt(r.distance)
			}
			v.rows = append(v.rows, r)
		}
	}
}

// subsample returns the offset of a ray inside its pixel.
func subsample(i int) f32 { return (f32(i) + 0.5) / subsamples }

// fogAt returns how much of what lies at a distance is lost in haze.
func fogAt(distance f32) f32 { return 1 - exp(f32(-distance*0.055)) }

func (v *view) castColumn(x, width int) {
	for i := range v.columns {
		across := f32(2*(f32(x)+subsample(i)))/f32(width) - 1
		v.cast(&v.columns[i], f32(across*fovTangent))
	}
}

// cast follows the rays of one column, across the middle of the view, to the wall.
func (v *view) cast(c *column, across f32) {
	c.dx = v.sin + f32(v.cos*across)
	c.dy = -v.cos + f32(v.sin*across)
	c.sky.ready = false
	h := v.march(c.dx, c.dy)
	c.bottom = eyeHeight / h.distance
	c.top = -(wallHeight - eyeHeight) / h.distance
	v.faceWall(&c.wall, c.dx, c.dy, h)
	v.findObjects(c, h.distance)
}

// A hit is where a column meets a wall.
type hit struct {
	distance     f32
	x, y         int  // the wall's cell
	fromX, fromY int  // the cell before it
	alongX       bool // the wall runs along x: it faces north or south
}

// march walks the grid from cell to cell until it is inside a wall.
func (v *view) march(dx, dy f32) (h hit) {
	px, py := v.pose.X, v.pose.Y
	h.x, h.y = int(px), int(py)
	crossX, crossY := cellCrossing(dx), cellCrossing(dy)
	stepX, nextX := 1, f32(f32(h.x+1)-px)
	if dx < 0 {
		stepX, nextX = -1, px-f32(h.x)
	}
	stepY, nextY := 1, f32(f32(h.y+1)-py)
	if dy < 0 {
		stepY, nextY = -1, py-f32(h.y)
	}
	nextX = f32(nextX * crossX)
	nextY = f32(nextY * crossY)
	for range 40 { // more than any line of sight: a bound for poses outside the grid
		h.fromX, h.fromY = h.x, h.y
		if nextX < nextY {
			h.distance, h.alongX = nextX, false
			nextX += crossX
			h.x += stepX
		} else {
			h.distance, h.alongX = nextY, true
			nextY += crossY
			h.y += stepY
		}
		if v.w.Solid(h.x, h.y) {
			break
		}
	}
	h.distance = max(h.distance, 0.02)
	return h
}

// cellCrossing is the distance along a ray between two grid lines.
func cellCrossing(d f32) f32 {
	if abs(d) < 1e-6 {
		d = 1e-6
	}
	return abs(1 / d)
}

// findObjects lists the landmarks that a column meets before its wall.
func (v *view) findObjects(c *column, wall f32) {
	c.count = 0
	for i := range v.w.landmarks {
		l := &v.w.landmarks[i]
		radius, above := l.Shape.radius(), l.Shape.height()-eyeHeight
		// The circle |o + t*d| = radius as a quadratic in t.
		ox, oy := v.pose.X-l.X, v.pose.Y-l.Y
		a := f32(c.dx*c.dx) + f32(c.dy*c.dy)
		b := f32(ox*c.dx) + f32(oy*c.dy)
		k := f32(ox*ox) + f32(oy*oy) - f32(radius*radius)
		root := f32(b*b) - f32(a*k)
		if root <= 0 {
			continue
		}
		t := (-b - sqrt(root)) / a
		if t <= 0.02 || t >= wall {
			continue
		}
		normalX := (ox + f32(c.dx*t)) / radius
		normalY := (oy + f32(c.dy*t)) / radius
		facing := f32(0.5*(f32(normalX*0.8)-f32(normalY*0.6))) + 0.5
		c.insert(object{
			distance: t,
			top:      -above / t,
			bottom:   eyeHeight / t,
			light:    f32((0.62 + f32(0.38*facing)) * v.light),
			fog:      fogAt(t),
			shape:    l.Shape,
			colour:   palette[l.Colour],
		})
	}
}

// insert keeps the nearest object first; of two equally far the earlier one wins.
func (c *column) insert(o object) {
	i := c.count
	for ; i > 0 && c.objects[i-1].distance > o.distance; i-- {
		c.objects[i] = c.objects[i-1]
	}
	c.objects[i] = o
	c.count++
}

// pixel averages the rays of the pixel at height y of the current column.
func (v *view) pixel(y int) rgb {
	var sum rgb
	rows := v.rows[y*subsamples:][:subsamples]
	for i := range v.columns {
		for j := range rows {
			c := v.shade(&v.columns[i], &rows[j])
			sum.r += c.r
			sum.g += c.g
			sum.b += c.b
		}
	}
	return sum.scale(255.0 / (subsamples * subsamples))
}

// shade returns the colour that one ray brings back.
func (v *view) shade(c *column, r *row) rgb {
	for i := range c.objects[:c.count] {
		if o := &c.objects[i]; o.top <= r.slope && r.slope <= o.bottom {
			return o.shade(r.slope).scale(o.light).mix(v.haze, o.fog)
		}
	}
	if r.slope > c.bottom {
		x := v.pose.X + f32(c.dx*r.distance)
		y := v.pose.Y + f32(c.dy*r.distance)
		return v.floor(x, y, r.sharp).scale(f32(0.92*v.light)).mix(v.haze, r.fog)
	}
	if r.slope < c.top {
		if !c.sky.ready {
			c.sky.aim(c.dx, c.dy)
		}
		return v.sky.shade(&c.sky, r.slope)
	}
	s := &c.wall
	z := eyeHeight - f32(r.slope*s.distance)
	colour := s.shade(z)
	if z < 0.08 {
		colour = colour.scale(0.75) // the wall's foot lies in shadow
	}
	return colour.scale(s.light).mix(v.haze, s.fog)
}

// shade returns a landmark's own colour where a ray of some slope meets it.
func (o *object) shade(slope f32) rgb {
	c := o.colour
	z := eyeHeight - f32(slope*o.distance)
	switch {
	case o.shape == StripedPillar && frac(z/0.3) < 0.5:
		c = c.mix(rgb{0.95, 0.95, 0.92}, 0.85)
	case o.shape == Barrel && frac(z/0.23) < 0.2:
		c = c.scale(0.45) // hoops
	}
	if o.shape != Barrel && z > 0.97 {
		c = c.scale(0.5) // capital
	}
	return c
}

func toByte(v f32) byte {
	switch v += 0.5; {
	case v < 0.5:
		return 0
	case v > 255:
		return 255
	}
	return byte(v)
}
