package rollout

import (
	"fmt"

	"longtake/compute"
	"longtake/kvcache"
)

// place is where the actions so far have led.
type place struct {
	heading int
	pose    kvcache.Pose
}

func startPlace(e *Engine, heading int) place {
	p := place{heading: heading}
	if len(e.Turns) > 0 {
		p.pose = kvcache.Pose{Heading: float64(heading), Period: float64(e.Network.Headings)}
	}
	return p
}

// begin makes room in the cache for span and sets the controls of its frames; it returns where they lead.
func (s *Session) begin(span kvcache.Span, actions []int) (end place, err error) {
	return s.beginBy(s.cache.Begin, span, actions)
}

// beginBy is begin with another way to make room.
func (s *Session) beginBy(room func(compute.Queue, kvcache.Span) error, span kvcache.Span, actions []int) (end place, err error) {
	end, err = s.follow(span, actions)
	if err != nil {
		return end, err
	}
	if posed, ok := s.cache.(kvcache.Posed); ok && s.engine.Advance != nil {
		posed.SetPoses(s.poses[:span.Frames])
	}
	if err := s.recall(span); err != nil {
		return end, err
	}
	if err := room(s.dq, span); err != nil {
		return end, err
	}
	if err := s.see(span); err != nil {
		return end, err
	}
	if len(s.engine.Turns) > 0 {
		s.work.Control(s.dq, s.actions[:span.Frames], s.headings[:span.Frames], s.spots(span.Frames))
	}
	return end, s.dq.Err()
}

// spots returns the places of the chunk's frames, in a slice that is kept.
func (s *Session) spots(frames int) [][2]float64 {
	s.where = s.where[:0]
	for _, p := range s.poses[:frames] {
		s.where = append(s.where, [2]float64{p.X, p.Y})
	}
	return s.where
}

// follow fills in action, heading and pose of every frame of span.
func (s *Session) follow(span kvcache.Span, actions []int) (end place, err error) {
	e, at := s.engine, s.place
	if len(e.Turns) == 0 {
		return at, nil
	}
	for i := range span.Frames {
		action := 0
		if i < len(actions) && span.Start+i > 0 {
			if action = actions[i]; action < 0 || action >= len(e.Turns) {
				return at, fmt.Errorf("%w: action %d, the model knows 0 to %d", ErrRequest, action, len(e.Turns)-1)
			}
		}
		n := e.Network.Headings
		at.heading = ((at.heading+e.Turns[action])%n + n) % n
		if e.Advance != nil {
			at.pose = e.Advance(at.pose, action)
		}
		s.actions[i], s.headings[i], s.poses[i] = action, at.heading, at.pose
	}
	return at, nil
}
