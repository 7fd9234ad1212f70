package world

import "fmt"

const (
	// StepLength is how far forward and back move, in cells.
	StepLength = 0.22

	stepLength   f32 = StepLength
	playerRadius f32 = 0.22
)

// A Pose is where a player stands and faces.
type Pose struct {
	X, Y    float32 // in cells; x grows to the east, y to the south
	Heading int     // 0 to Headings-1; 0 is north, +1 is 12 degrees to the right
}

// An Action is what a player does between two frames.
type Action uint8

// The actions; their values are the model's action ids. The combined ones turn first.
const (
	Noop Action = iota
	Forward
	Back
	TurnLeft
	TurnRight
	ForwardLeft
	ForwardRight
	StrafeLeft // a step to the side; the first weights do not know it
	StrafeRight

	// NumActions is the number of actions.
	NumActions = iota
)

var actionNames = [NumActions]string{"noop", "forward", "back", "turn_left", "turn_right", "forward_left", "forward_right", "strafe_left", "strafe_right"}

// String returns the action's name in the model's configuration, such as "turn_left".
func (a Action) String() string {
	if int(a) < len(actionNames) {
		return actionNames[a]
	}
	return fmt.Sprintf("action(%d)", uint8(a))
}

// Turn returns the change of heading: -1 to the left, 1 to the right, 0 for none.
func (a Action) Turn() int {
	switch a {
	case TurnLeft, ForwardLeft:
		return -1
	case TurnRight, ForwardRight:
		return 1
	}
	return 0
}

// moves reports whether the action takes a step.
func (a Action) moves() bool { return a != Noop && a != TurnLeft && a != TurnRight }

// stride is the way the action goes at a heading, in cells to the east and south.
func (a Action) stride(heading int) (dx, dy f32) {
	sin, cos := headingSin[heading], headingCos[heading]
	switch a {
	case Forward, ForwardLeft, ForwardRight:
		return stepLength * sin, -stepLength * cos
	case Back:
		return -stepLength * sin, stepLength * cos
	case StrafeLeft:
		return -stepLength * cos, -stepLength * sin
	case StrafeRight:
		return stepLength * cos, stepLength * sin
	}
	return 0, 0
}

// opposite undoes a simple action; nothing undoes the combined ones.
func (a Action) opposite() Action {
	switch a {
	case Forward:
		return Back
	case Back:
		return Forward
	case TurnLeft:
		return TurnRight
	case TurnRight:
		return TurnLeft
	case StrafeLeft:
		return StrafeRight
	case StrafeRight:
		return StrafeLeft
	}
	return Noop
}

// Step returns the pose after an action. Walls and landmarks stop the player, one
// axis at a time, so that walking into a wall at an angle slides along it.
func (w *World) Step(p Pose, a Action) Pose {
	to := p.Advance(a)
	next := Pose{X: p.X, Y: p.Y, Heading: to.Heading}
	if !a.moves() {
		return next
	}
	if !w.Blocked(to.X, next.Y) {
		next.X = to.X
	}
	if !w.Blocked(next.X, to.Y) {
		next.Y = to.Y
	}
	return next
}

// hits reports whether anything would be in the way of an action.
func (w *World) hits(p Pose, a Action) bool {
	to := p.Advance(a)
	return a.moves() && (w.Blocked(to.X, p.Y) || w.Blocked(to.X, to.Y))
}

// Blocked reports whether a player centred at a point would touch a wall or landmark.
func (w *World) Blocked(x, y float32) bool {
	west, east := floorInt(x-playerRadius), floorInt(x+playerRadius)
	north, south := floorInt(y-playerRadius), floorInt(y+playerRadius)
	if w.Solid(west, north) || w.Solid(east, north) || w.Solid(west, south) || w.Solid(east, south) {
		return true
	}
	for i := range w.landmarks {
		l := &w.landmarks[i]
		reach := l.Shape.radius() + playerRadius
		dx, dy := x-l.X, y-l.Y
		if f32(dx*dx)+f32(dy*dy) < f32(reach*reach) {
			return true
		}
	}
	return false
}

// Advance returns the pose after an action where nothing is in the way.
func (p Pose) Advance(a Action) Pose {
	p.Heading = turned(p.Heading, a.Turn())
	if a.moves() {
		dx, dy := a.stride(p.Heading)
		p.X, p.Y = p.X+dx, p.Y+dy
	}
	return p
}

// turned adds steps to a heading and brings it into [0, Headings).
func turned(heading, steps int) int {
	h := (heading + steps) % Headings
	if h < 0 {
		h += Headings
	}
	return h
}

// TrackHeadings returns the heading of each frame from the actions alone, as the
// model is told it: the running sum of the turns, from the heading of the first frame.
// actions[t] leads from frame t-1 to frame t, so actions[0] is normally [Noop].
func TrackHeadings(start int, actions []Action) []int {
	headings := make([]int, len(actions))
	h := turned(start, 0)
	for t, a := range actions {
		h = turned(h, a.Turn())
		headings[t] = h
	}
	return headings
}

// DeadReckon returns the pose of each frame from the actions alone, as if nothing were
// ever in the way. Its headings are those of [TrackHeadings]; its positions part from
// the truth where the player touched a wall.
func DeadReckon(start Pose, actions []Action) []Pose {
	poses := make([]Pose, len(actions))
	for t, a := range actions {
		start = start.Advance(a)
		poses[t] = start
	}
	return poses
}
