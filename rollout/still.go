package rollout

import (
	"math"

	"longtake/compute"
	"longtake/kvcache"
)

// Still tells a step that a wall stopped from one that led somewhere: by how much the picture changed, the mean absolute
// difference of its latent values from the frame before. Actions alone do not say it, and a place that goes on through the wall
// makes every later memory of places false. Enter is below Leave, so that a picture that flickers does not walk: a step fails
// below Enter, and after one that failed also below Leave. The zero value believes the actions.
type Still struct{ Enter, Leave float64 }

// blocked reports whether a step failed that changed the picture by so much; was says whether the one before it did.
func (s Still) blocked(change float64, was bool) bool {
	return change < s.Enter || was && change < s.Leave
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
	at, wished, size, failed := s.place.pose, s.place.pose, len(values)/frames, false
	for i := range frames {
		now := values[i*size : (i+1)*size]
		wish := s.poses[i]
		dx, dy := wish.X-wished.X, wish.Y-wished.Y
		wished = wish
		moves := dx != 0 || dy != 0
		if moves && len(s.seen) == size {
			s.stopped = s.engine.Still.blocked(meanChange(s.seen, now), s.stopped)
		}
		at.Heading, at.Period = wish.Heading, wish.Period
		if !moves || !s.stopped {
			at.X, at.Y = at.X+dx, at.Y+dy
		} else {
			failed = true
		}
		s.seen = append(s.seen[:0], now...)
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

func meanChange(a, b []float32) float64 {
	sum := 0.0
	for i, v := range a {
		sum += math.Abs(float64(b[i] - v))
	}
	return sum / float64(max(len(a), 1))
}
