package rollout

import (
	"math"

	"longtake/compute"
	"longtake/kvcache"
)

// Still tells a step that a wall stopped from one that led somewhere, since actions alone do not say it, and a place that goes on through
// the wall makes every later memory of places false. It looks at how much the picture changed, the mean absolute difference of its
// latent values. The zero value believes the actions.
type Still struct {
	// A step fails that changes the picture by less than Enter, and after one that failed also below Leave: a picture that flickers
	// does not walk.
	Enter, Leave float64
	// A step fails, too, that ends `slow` equal ones which together changed the picture by less than Slow: flicker does not add up.
	Slow float64
	// A step to within Known of a place where a frame was made never fails: whoever stood there can stand there again. It is how a
	// player leaves a wall whose picture fills the view and stays. 0: no place is known.
	Known float64
}

const (
	slow    = 4    // steps that are looked at together
	manyWas = 1024 // places that are known at most; the oldest are forgotten
)

// trail is what a session keeps of its way to judge the next step.
type trail struct {
	seen    [][]float32 // latent values of the last frames, oldest first: after equal steps `slow` of them, else the last one
	step    [2]float64  // the step that led to the last one
	turned  float64     // and by how much the view turned
	stopped bool        // it failed
	was     [][2]float64
	oldest  int
}

// judge reports whether the step that wanted to lead from p to q and made the picture now failed.
func (t *trail) judge(s Still, p, q kvcache.Pose, now []float32) bool {
	step, turned := [2]float64{q.X - p.X, q.Y - p.Y}, q.Heading-p.Heading
	same := near(step, t.step, 1e-6) && turned == t.turned
	t.step, t.turned = step, turned
	if !same || len(t.seen) > 0 && len(t.seen[0]) != len(now) {
		t.seen = t.seen[max(0, len(t.seen)-1):]
	}
	if step == ([2]float64{}) || len(t.seen) == 0 || len(t.seen[len(t.seen)-1]) != len(now) {
		return false
	}
	if t.knows([2]float64{q.X, q.Y}, s.Known) {
		t.stopped = false
		return false
	}
	t.stopped = s.blocked(meanChange(t.seen[len(t.seen)-1], now), t.stopped) ||
		len(t.seen) == slow && meanChange(t.seen[0], now) < s.Slow
	return t.stopped
}

// blocked reports whether a step failed that changed the picture by so much; was says whether the one before it did.
func (s Still) blocked(change float64, was bool) bool {
	return change < s.Enter || was && change < s.Leave
}

// add keeps the picture of a frame and the place where it was made. The array of the oldest picture is used again.
func (t *trail) add(s Still, p kvcache.Pose, now []float32) {
	var free []float32
	if len(t.seen) == slow {
		free = t.seen[0]
		t.seen = append(t.seen[:0], t.seen[1:]...)
	}
	t.seen = append(t.seen, append(free[:0], now...))
	at := [2]float64{p.X, p.Y}
	switch {
	case s.Known <= 0 || t.knows(at, s.Known):
	case len(t.was) < manyWas:
		t.was = append(t.was, at)
	default:
		t.was[t.oldest], t.oldest = at, (t.oldest+1)%manyWas
	}
}

// knows reports whether a frame was made within a distance of p.
func (t *trail) knows(p [2]float64, within float64) bool {
	for _, q := range t.was {
		if near(p, q, within) {
			return true
		}
	}
	return false
}

func near(p, q [2]float64, within float64) bool {
	dx, dy := p[0]-q[0], p[1]-q[1]
	return dx*dx+dy*dy < within*within
}

func meanChange(a, b []float32) float64 {
	sum := 0.0
	for i, v := range a {
		sum += math.Abs(float64(b[i] - v))
	}
	return sum / float64(max(len(a), 1))
}

// settle returns where the chunk was made that its actions wanted to lead to end, and tells cache and network: frames whose step a wall
// stopped are where the frame before them was, turned as they are. latent is the clean chunk.
func (s *Session) settle(latent compute.Tensor, end place, frames int) (place, error) {
	posed, ok := s.cache.(kvcache.Posed)
	told := len(s.engine.Network.Waves) > 0
	if !ok && !told || s.engine.Advance == nil || s.engine.Still == (Still{}) {
		return end, nil
	}
	values, err := Download(s.dq, latent)
	if err != nil {
		return end, err
	}
	still := s.engine.Still
	if s.starting { // they do not flicker: a step that a wall stopped leaves the picture as it was
		still.Enter, still.Leave, still.Slow = still.Enter/10, 0, 0
	}
	at, wished, size, failed := s.place.pose, s.place.pose, len(values)/frames, false
	for i := range frames {
		now, wish := values[i*size:(i+1)*size], s.poses[i]
		goal := at
		goal.X, goal.Y, goal.Heading, goal.Period = at.X+(wish.X-wished.X), at.Y+(wish.Y-wished.Y), wish.Heading, wish.Period
		wished = wish
		if s.trail.judge(still, at, goal, now) {
			goal.X, goal.Y, failed = at.X, at.Y, true
		}
		at = goal
		s.trail.add(still, at, now)
		s.poses[i] = at
	}
	if ok {
		posed.SetPoses(s.poses[:frames])
	}
	if failed && told {
		s.work.Place(s.dq, s.spots(frames))
	}
	end.pose = at
	return end, nil
}
