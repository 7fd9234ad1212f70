package world

import "strings"

const (
	// Size is the number of cells along each side of a world.
	Size = 16
	// Regions is the number of rooms, three rows of three.
	Regions = 9
	// Headings is the number of directions a player can face, 12 degrees apart.
	Headings = 30

	maxLandmarks = 5
)

// A Region is one of the nine rooms, counted from the north-west by rows.
type Region uint8

// String returns the region's word in prompts, such as "north-west".
func (r Region) String() string { return word(directions[:], int(r)) }

// A Sky is one of six skies; see the Sky constants.
type Sky uint8

// The skies.
const (
	SkyBlue Sky = iota
	SkySunset
	SkyNight
	SkyOvercast
	SkyDawn
	SkyAlien
	numSkies
)

// String returns the sky's first word in prompts, such as "blue-day".
func (s Sky) String() string { return firstWord(skyWords[:], int(s)) }

// A Texture is the pattern of a room's walls.
type Texture uint8

// The wall textures.
const (
	Brick Texture = iota
	Stone
	Wood
	Hedge
	Tile
	Metal
	Plaster
	Striped
	numTextures
)

// String returns the texture's first word in prompts, such as "brick".
func (t Texture) String() string { return firstWord(textureWords[:], int(t)) }

// A Floor is the ground of a room.
type Floor uint8

// The floors.
const (
	Grass Floor = iota
	Sand
	Checkered
	Slate
	Plank
	Snow
	numFloors
)

// String returns the floor's first word in prompts, such as "grass".
func (f Floor) String() string { return firstWord(floorWords[:], int(f)) }

// A Colour is an index into the twelve colours of walls and landmarks.
type Colour uint8

const numColours = 12

// String returns the colour's first word in prompts, such as "red".
func (c Colour) String() string { return firstWord(colourWords[:], int(c)) }

// A Shape is what a landmark looks like.
type Shape uint8

// The landmark shapes.
const (
	Pillar Shape = iota
	Barrel
	StripedPillar
	numShapes
)

// String returns the shape's first word in prompts, such as "barrel".
func (s Shape) String() string { return firstWord(shapeWords[:], int(s)) }

func (s Shape) radius() f32 {
	if s == Barrel {
		return 0.27
	}
	return 0.18
}

func (s Shape) height() f32 {
	if s == Barrel {
		return 0.46
	}
	return 1.05
}

// A Room is the look of one region.
type Room struct {
	Texture Texture // of the walls
	Colour  Colour  // of the walls
	Floor   Floor
}

// A Landmark is a round obstacle in the middle of a cell.
type Landmark struct {
	X, Y   float32 // centre, in cells
	Shape  Shape
	Colour Colour
	Region Region // the room it stands in
}

func (l *Landmark) covers(x, y int) bool { return int(l.X) == x && int(l.Y) == y }

// A World is one maze. It does not change once made and may be shared between
// goroutines.
type World struct {
	cells [Size * Size]bool // true where there is wall, row by row from the north
	lines struct {          // the wall lines that bound the rooms, outer walls included
		x, y [4]int
	}
	rooms     [Regions]Room
	sky       Sky
	landmarks []Landmark
	detail    uint32 // seed of textures and paintings
}

// New makes the world of a seed. It is the world of every [Episode] of that seed.
func New(seed uint32) *World { return build(newSource(seed)) }

// Solid reports whether the cell at column x, row y is wall. Everything outside the
// grid is wall.
func (w *World) Solid(x, y int) bool {
	return x < 0 || y < 0 || x >= Size || y >= Size || w.cells[y*Size+x]
}

// Region returns the room that holds a point, in cells; points in or beyond a wall
// belong to a neighbouring room.
func (w *World) Region(x, y float32) Region {
	return Region(third(y, &w.lines.y)*3 + third(x, &w.lines.x))
}

// third finds which of three strips between wall lines holds v; half of an inner
// wall belongs to either side.
func third(v f32, lines *[4]int) int {
	switch {
	case v < f32(lines[1])+0.5:
		return 0
	case v < f32(lines[2])+0.5:
		return 1
	}
	return 2
}

// Room returns the look of a region.
func (w *World) Room(r Region) Room { return w.rooms[r] }

// Sky returns the world's sky.
func (w *World) Sky() Sky { return w.sky }

// Landmarks returns a copy of the list of landmarks, at most five.
func (w *World) Landmarks() []Landmark { return append([]Landmark(nil), w.landmarks...) }

// free reports whether nothing, neither wall nor landmark, fills the cell.
func (w *World) free(x, y int) bool {
	if w.Solid(x, y) {
		return false
	}
	for i := range w.landmarks {
		if w.landmarks[i].covers(x, y) {
			return false
		}
	}
	return true
}

// String draws the map, north up: '#' is wall, 'o' a landmark.
func (w *World) String() string {
	var b strings.Builder
	for y := range Size {
		for x := range Size {
			switch {
			case w.Solid(x, y):
				b.WriteByte('#')
			case !w.free(x, y):
				b.WriteByte('o')
			default:
				b.WriteByte('.')
			}
		}
		b.WriteByte('\n')
	}
	return b.String()
}
