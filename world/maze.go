package world

// build draws a world from r. The order of the draws is part of what a seed means.
func build(r *source) *World {
	w := &World{detail: r.next()}
	w.raiseWalls(r)
	w.openDoors(r)
	w.placeBlocks(r)
	for i := range w.rooms {
		w.rooms[i] = Room{
			Texture: Texture(r.intn(int(numTextures))),
			Colour:  Colour(r.intn(numColours)),
			Floor:   Floor(r.intn(int(numFloors))),
		}
	}
	w.sky = Sky(r.intn(int(numSkies)))
	w.placeLandmarks(r)
	return w
}

// raiseWalls draws four wall lines each way; the inner two are where r says.
func (w *World) raiseWalls(r *source) {
	w.lines.x = [4]int{0, 4 + r.intn(3), 9 + r.intn(3), Size - 1}
	w.lines.y = [4]int{0, 4 + r.intn(3), 9 + r.intn(3), Size - 1}
	for i := range Size {
		for k := range 4 {
			w.cells[w.lines.y[k]*Size+i] = true
			w.cells[i*Size+w.lines.x[k]] = true
		}
	}
}

// openDoors visits the twelve walls between neighbouring rooms in random order and
// opens those that join rooms not yet joined, and 40 % of the others.
func (w *World) openDoors(r *source) {
	var joined [Regions]int // a union-find forest
	for i := range joined {
		joined[i] = i
	}
	root := func(i int) int {
		for joined[i] != i {
			i = joined[i]
		}
		return i
	}
	var walls [12]int
	for i := range walls {
		walls[i] = i
	}
	r.shuffle(walls[:])
	for _, wall := range walls {
		// Walls 0-5 stand between east-west neighbours, 6-11 between north-south ones.
		upright := wall < 6
		var row, col, next int
		if upright {
			row, col, next = wall/2, wall%2, 1
		} else {
			row, col, next = (wall-6)/3, (wall-6)%3, 3
		}
		from, to := root(row*3+col), root(row*3+col+next)
		if from == to && r.float() > 0.4 {
			continue
		}
		joined[from] = to
		if upright {
			first, width := door(r, w.lines.y[row]+1, w.lines.y[row+1]-1)
			for y := first; y < first+width; y++ {
				w.cells[y*Size+w.lines.x[col+1]] = false
			}
		} else {
			first, width := door(r, w.lines.x[col]+1, w.lines.x[col+1]-1)
			for x := first; x < first+width; x++ {
				w.cells[w.lines.y[row+1]*Size+x] = false
			}
		}
	}
}

// door chooses an opening in a wall of cells lo to hi: one cell, two cells, or all but one.
func door(r *source, lo, hi int) (first, width int) {
	n := hi - lo + 1
	switch p := r.float(); {
	case p < 0.45:
		width = 1
	case p < 0.8:
		width = 2
	default:
		width = n - 1
	}
	width = max(1, min(width, n))
	return lo + r.intn(n-width+1), width
}

// placeBlocks puts one block of wall inside some of the larger rooms, away from their walls.
func (w *World) placeBlocks(r *source) {
	for row := range 3 {
		for col := range 3 {
			x0, x1 := w.lines.x[col]+1, w.lines.x[col+1]-1
			y0, y1 := w.lines.y[row]+1, w.lines.y[row+1]-1
			if x1-x0 < 3 || y1-y0 < 3 || r.float() >= 0.45 {
				continue
			}
			y := y0 + 1 + r.intn(y1-y0-1)
			x := x0 + 1 + r.intn(x1-x0-1)
			w.cells[y*Size+x] = true
		}
	}
}

// placeLandmarks tries two to five times to put a landmark into a room without one.
func (w *World) placeLandmarks(r *source) {
	tries := 2 + r.intn(maxLandmarks-1)
	for range tries {
		col, row := r.intn(3), r.intn(3)
		region := Region(row*3 + col)
		if w.hasLandmark(region) {
			continue
		}
		x := w.lines.x[col] + 1 + r.intn(w.lines.x[col+1]-w.lines.x[col]-1)
		y := w.lines.y[row] + 1 + r.intn(w.lines.y[row+1]-w.lines.y[row]-1)
		if w.Solid(x, y) {
			continue
		}
		w.landmarks = append(w.landmarks, Landmark{
			X: f32(x) + 0.5, Y: f32(y) + 0.5, Region: region,
			Shape:  Shape(r.intn(int(numShapes))),
			Colour: Colour(r.intn(numColours)),
		})
	}
}

func (w *World) hasLandmark(region Region) bool {
	for _, l := range w.landmarks {
		if l.Region == region {
			return true
		}
	}
	return false
}
