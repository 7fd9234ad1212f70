package kvcache

import "math"

// Pose is where a frame was made, as the model's actions tell: dead reckoning, walls are not known. X and Y are in steps of
// any unit the policy's widths are given in; Heading is in steps of which Period make a full turn (0: there is no heading).
type Pose struct {
	X, Y    float64
	Heading float64
	Period  float64
}

// Posed is a Cache that looks at poses. SetPoses gives the pose of every frame of the next chunk; call it before Begin, and
// again before End where the frames turned out to have been made elsewhere.
type Posed interface{ SetPoses(p []Pose) }

// Distances returns the squared distance of two poses and the difference of their headings, at most half a turn.
func (p Pose) Distances(q Pose) (squared, heading float64) {
	dx, dy := p.X-q.X, p.Y-q.Y
	h := math.Abs(p.Heading - q.Heading)
	if p.Period > 0 {
		h = math.Mod(h, p.Period)
		h = min(h, p.Period-h)
	}
	return dx*dx + dy*dy, h
}
