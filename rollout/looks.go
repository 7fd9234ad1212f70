package rollout

import (
	"context"

	"longtake/attention"
	"longtake/video"
)

// Looks are attention policies that a session may try on its own history.
type Looks struct{ self, cross attention.Policy }

// NewLooks makes attention policies for PeekUnder; nil is dense attention. They belong to the session; close them before it.
func (s *Session) NewLooks(self, cross attention.Maker) (l *Looks, err error) {
	l = &Looks{}
	for _, side := range []struct {
		to    *attention.Policy
		maker attention.Maker
	}{{&l.self, self}, {&l.cross, cross}} {
		if side.maker == nil {
			side.maker = attention.Dense{}
		}
		if *side.to, err = side.maker.New(s.engine.Device, s.dq, s.engine.CacheShape); err != nil {
			l.Close()
			return nil, err
		}
	}
	return l, nil
}

// PeekUnder makes the next chunk as Peek does, under other attention policies, and leaves the session as it was before.
func (s *Session) PeekUnder(ctx context.Context, l *Looks, actions ...int) (frames []video.Frame, err error) {
	if s.closed {
		return nil, ErrClosed
	}
	s.work.Attend(l.self, l.cross)
	defer s.work.Attend(s.self, s.cross)
	return s.Peek(ctx, actions...)
}

// Close gives the policies' memory back.
func (l *Looks) Close() {
	for _, p := range []attention.Policy{l.self, l.cross} {
		if c, ok := p.(interface{ Close() }); ok {
			c.Close()
		}
	}
}
