package serve

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"longtake/api"
	"longtake/compute"
	"longtake/video"
)

// control takes a message of a viewer. It is received at once and obeyed at the next chunk boundary.
func (s *Session) control(v *viewer, c api.Control) {
	var action *int
	switch {
	case c.Type == "ping":
		v.tell(api.Notice{Type: "pong", ID: c.ID, Time: c.Time})
		return
	case c.Type == "map": // the viewer's own matter: nothing of the session changes
		v.want(c.Map)
		v.tell(api.Notice{Type: "applied", ID: c.ID, Control: c.Type})
		return
	case c.Type == "action" && c.Action != "":
		a, err := s.model.action(c.Action)
		if err != nil {
			s.refuse(v, c.ID, err)
			return
		}
		action = &a
	}
	s.server.metrics.controls.Inc()
	if c.ID != 0 {
		v.tell(api.Notice{Type: "received", ID: c.ID, Control: c.Type})
	}
	if old := s.inbox.put(c, action, v); old != nil && old.receipt.id != 0 {
		old.to.tell(api.Notice{Type: "error", ID: old.receipt.id, Control: old.Type,
			Error: &api.Error{Type: api.Conflict, Message: "a newer control of the same kind took its place"}})
	}
	s.nudge()
}

// refuse tells a viewer why a control does not count.
func (s *Session) refuse(v *viewer, id int64, err error) {
	_, body := s.server.explain(err)
	v.tell(api.Notice{Type: "error", ID: id, Error: &body.Error, RetryAfter: body.RetryAfter})
}

// obey carries out the orders that have come since the last chunk. What the orders themselves cause is told to their sender;
// other errors end the session.
func (s *Session) obey(ctx context.Context) error {
	for _, o := range s.inbox.takeOrders() {
		n := api.Notice{Type: "applied", ID: o.receipt.id, Control: o.Type}
		err := s.carryOut(ctx, o, &n)
		var full *FullError
		switch {
		case err == nil:
			n.Chunk = s.scene.chunk
			o.to.tell(n)
			s.refresh()
			s.tellState()
		case len(s.scene.views) > 0 && (errors.Is(err, ErrRequest) || errors.As(err, &full) || o.branches() && errors.Is(err, compute.ErrNoMemory)):
			s.refuse(o.to, o.receipt.id, err)
		default:
			return err
		}
	}
	return nil
}

// branches reports whether an order opens a view beside those there are, which are as before if that fails.
func (o *order) branches() bool { return o.Type == "policy" || o.Type == "compare" }

func (s *Session) carryOut(ctx context.Context, o order, n *api.Notice) (err error) {
	switch o.Type {
	case "prompt":
		return s.turn(ctx, s.live, func() error {
			n.Unknown, err = s.scene.setPrompt(ctx, o.Prompt)
			return err
		})
	case "policy":
		return s.turn(ctx, s.live, func() error { return s.scene.setPolicy(ctx, o.View, o.Policy) })
	case "compare":
		return s.compare(ctx, o.Policy)
	case "reset":
		setup := Setup{Seed: o.Seed, Start: o.Start, Steps: s.scene.setup.Steps}
		var start []video.Frame
		err := s.turn(ctx, s.live, func() (err error) {
			start, err = s.scene.reset(ctx, setup)
			return err
		})
		if err == nil {
			s.pace.stop()
			s.publishStart(start)
		}
		return err
	case "pause":
		s.paused = o.Paused
		s.update(func(a *api.Session) { a.Status = "paused" })
	case "fps":
		if err := s.entry.setLoad(s.load(o.FPS)); err != nil {
			return err
		}
		s.pace.rate(o.FPS)
		s.update(func(a *api.Session) { a.FPS = o.FPS })
	case "record":
		return s.record(o.Record)
	default:
		return badf("unknown control %.20q", o.Type)
	}
	return nil
}

// compare adds, replaces or takes away the second view, and charges what it takes of the engine.
func (s *Session) compare(ctx context.Context, policy string) error {
	a, _ := s.describe()
	if policy != "" {
		if err := s.entry.setLoad(s.server.load(s.model, s.live, a.FPS, s.scene.views[0].name, policy)); err != nil {
			return err
		}
	}
	err := s.turn(ctx, s.live, func() error { return s.scene.compare(ctx, policy) })
	s.entry.charge(s.load(a.FPS))
	return err
}

// record starts or ends a recording.
func (s *Session) record(on bool) error {
	s.mu.Lock()
	tape := s.tape
	s.mu.Unlock()
	if on == (tape != nil) {
		return nil
	}
	if !on {
		s.mu.Lock()
		s.tape, s.state.Recording = nil, ""
		s.mu.Unlock()
		tape.finish()
		return nil
	}
	tape, err := s.server.store.record(s)
	if err != nil {
		return err
	}
	s.mu.Lock()
	s.tape, s.state.Recording = tape, tape.id
	s.mu.Unlock()
	return nil
}

// attach adds a viewer.
func (s *Session) attach() (*viewer, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.viewers == nil:
		return nil, errEnded
	case len(s.viewers) >= s.server.limits.Viewers:
		return nil, &FullError{fmt.Sprintf("the session has %d viewers", len(s.viewers)), retryFull}
	}
	v := newViewer()
	s.viewers[v] = true
	s.state.Viewers = len(s.viewers)
	s.used = time.Now()
	s.nudge()
	return v, nil
}

// detach removes a viewer. Keys do not stay down without anybody at the keyboard.
func (s *Session) detach(v *viewer) {
	s.mu.Lock()
	if s.viewers != nil {
		delete(s.viewers, v)
		s.state.Viewers = len(s.viewers)
	}
	last := len(s.viewers) == 0
	s.used = time.Now()
	s.mu.Unlock()
	if last {
		s.inbox.release()
	}
	s.nudge()
}

func (s *Session) nudge() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// watched reports whether anybody wants frames.
func (s *Session) watched() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.viewers) > 0 || s.tape != nil
}

// touch is a sign of life.
func (s *Session) touch() {
	s.mu.Lock()
	s.used = time.Now()
	s.mu.Unlock()
}

// untilIdle returns how long the session may still do nothing.
func (s *Session) untilIdle() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.viewers) > 0 {
		return s.server.limits.Idle
	}
	return time.Until(s.used.Add(s.server.limits.Idle))
}

// update changes the state that others see.
func (s *Session) update(f func(*api.Session)) {
	s.mu.Lock()
	f(&s.state)
	s.mu.Unlock()
}

// refresh copies the scene into the state that others see; the loop calls it.
func (s *Session) refresh() {
	sum, size := s.scene.sum(), s.entry.size()
	s.mu.Lock()
	defer s.mu.Unlock()
	a := &s.state
	a.Chunk, a.Frames, a.Digest, a.Memory, a.Seed = s.scene.chunk, s.scene.frame, sum, size, s.scene.setup.Seed
	a.Policy, a.Compare = s.scene.views[0].name, ""
	if len(s.scene.views) == 2 {
		a.Compare = s.scene.views[1].name
	}
	if a.Status == "running" || a.Status == "paused" {
		a.Status = "waiting"
		if s.paused {
			a.Status = "paused"
		}
	}
	s.prompt = s.scene.prompt
}

// describe returns the state.
func (s *Session) describe() (a api.Session, prompt string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.state, s.prompt
}

// tellState shows the state to every viewer.
func (s *Session) tellState() {
	a, prompt := s.describe()
	s.mu.Lock()
	defer s.mu.Unlock()
	for v := range s.viewers {
		v.tell(api.Notice{Type: "state", Session: &a, Prompt: prompt})
	}
}

// history returns the log of all that has happened, with a digest at its end, from which a session can be made again. The
// scene must not run meanwhile: call it through do.
func (s *Session) history() ([]Event, error) {
	s.mu.Lock()
	partial, lines := s.partial, s.events // what is there is never changed
	s.mu.Unlock()
	if partial {
		return nil, badf("the session has more than %d MiB of events: its log is on disk only", maxHistory>>20)
	}
	out, err := ReadLog(bytes.NewReader(lines), maxEvents-1)
	if err != nil {
		return nil, err
	}
	return append(out, Event{Type: eventDigest, Chunk: s.scene.chunk, SHA256: s.scene.sum()}), nil
}
