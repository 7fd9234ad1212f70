package world

const (
	revisitDistance f32 = 0.3 // cells
	revisitTurn     int = 1   // heading steps
)

// Near reports whether two poses show nearly the same view: closer than 0.3 cells and
// at most 12 degrees apart.
func (p Pose) Near(q Pose) bool {
	_, near := p.distance(q)
	return near
}

func (p Pose) distance(q Pose) (cells f32, near bool) {
	dx, dy := p.X-q.X, p.Y-q.Y
	cells = sqrt(f32(dx*dx) + f32(dy*dy))
	turn := turned(p.Heading-q.Heading, 0)
	return cells, cells < revisitDistance && min(turn, Headings-turn) <= revisitTurn
}

// Revisits finds, for each frame, which of the first history frames it comes back to:
// the one whose pose is [Pose.Near] and closest in position, the earliest among equals.
// It is -1 where there is none, and for the first history frames themselves. Poses
// must be true ones; where a dream has no truth, use those of [DeadReckon].
func Revisits(poses []Pose, history int) []int {
	history = max(0, min(history, len(poses)))
	matches := make([]int, len(poses))
	for t := range poses {
		matches[t] = -1
		if t < history {
			continue
		}
		closest := revisitDistance
		for i, earlier := range poses[:history] {
			if cells, near := poses[t].distance(earlier); near && cells < closest {
				matches[t], closest = i, cells
			}
		}
	}
	return matches
}
