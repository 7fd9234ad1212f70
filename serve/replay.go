package serve

import (
	"context"
	"fmt"

	"longtake/video"
)

// Replayed says what a replay did.
type Replayed struct {
	Chunks, Frames int
	// Digests is how many of the log's digests were met; Complete says that the log has its last line.
	Digests  int
	Complete bool
	SHA256   string
}

// Replay makes the frames of an event log again and compares every digest of the log. show, if not nil, gets every frame. The
// error is a *DivergedError for other frames, and wraps ErrRequest for a log of another model or kernel class.
func Replay(ctx context.Context, m *Model, events []Event, show func(view int, f video.Frame) error) (r Replayed, err error) {
	s, start, err := recall(ctx, m, events, NewLedger(0, 0, 0))
	if err != nil {
		return r, err
	}
	defer s.Close()
	if show == nil {
		show = func(int, video.Frame) error { return nil }
	}
	for _, f := range start {
		if err := show(0, f); err != nil {
			return r, err
		}
	}
	err = rerun(ctx, s, events, nil, func(made made) error {
		for i, frames := range made.frames {
			for _, f := range frames {
				if err := show(i, f); err != nil {
					return err
				}
			}
		}
		return nil
	})
	for _, e := range events {
		if e.Chunk <= s.chunk && (e.Type == eventDigest || e.Type == eventEnd) && err == nil {
			r.Digests++
			r.Complete = r.Complete || e.Type == eventEnd
		}
	}
	r.Chunks, r.Frames, r.SHA256 = s.chunk, s.frame, s.sum()
	return r, err
}

// recall opens the scene of a log with a reservation of its own.
func recall(ctx context.Context, m *Model, events []Event, l *Ledger) (*scene, []video.Frame, error) {
	first := events[0]
	if err := matches(m, events); err != nil {
		return nil, nil, err
	}
	bytes, err := need(m, *first.Setup, first.Compare)
	if err != nil {
		return nil, nil, err
	}
	e, err := l.admit(bytes, 0)
	if err != nil {
		return nil, nil, err
	}
	return openScene(ctx, m, e, *first.Setup, first.Compare, nil)
}

// matches refuses the log of another model or kernel class, or of policies that have changed, whose frames would be others.
func matches(m *Model, events []Event) error {
	first := &events[0]
	if first.Model != m.Name || first.Hash != m.Hash {
		return badf("the log is of model %.40q (sha256 %.12s), this is %q (%.12s)", first.Model, first.Hash, m.Name, m.Hash)
	}
	if first.Kernel != m.Kernel {
		return badf("the log was made by kernel class %.40q, this is %q, which rounds otherwise", first.Kernel, m.Kernel)
	}
	now := m.meanings()
	for i := range events {
		e := &events[i]
		names := []string{e.Policy, e.Compare}
		if e.Setup != nil {
			names = append(names, e.Setup.Policy)
		}
		for _, name := range names {
			was, said := first.Policies[name]
			if is, ok := now[name]; said && ok && is != was { // a name that is unknown now is refused where it is used
				return badf("policy %.40q of the log was %.80q, here it is %q: give --policies as they were", name, was, is)
			}
		}
	}
	return nil
}

// rerun makes all that follows the first event. turn, if not nil, surrounds every use of the engine.
func rerun(ctx context.Context, s *scene, events []Event, turn func(func() error) error, made func(made) error) error {
	if turn == nil {
		turn = func(f func() error) error { return f() }
	}
	for i := range events[1:] {
		e := &events[1+i]
		for s.chunk < e.Chunk {
			if err := ctx.Err(); err != nil {
				return err
			}
			if err := turn(func() error {
				m, err := s.step(ctx)
				if err == nil {
					err = made(m)
				}
				return err
			}); err != nil {
				return err
			}
		}
		if err := turn(func() error { return s.apply(ctx, e) }); err != nil {
			return fmt.Errorf("event %d of the log, %s at chunk %d: %w", i+2, e.Type, e.Chunk, err)
		}
	}
	return nil
}
