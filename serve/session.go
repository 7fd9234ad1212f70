package serve

import (
	"context"
	"errors"
	"fmt"
	"math"
	"runtime/debug"
	"sync"
	"time"

	"longtake/api"
	"longtake/video"
)

// Session is a scene that runs: one goroutine, some viewers.
type Session struct {
	id     string
	owner  string // whose quota it counts for
	server *Server
	model  *Model
	entry  *entry
	live   bool
	born   time.Time

	inbox inbox
	wake  chan struct{} // has a token when the loop should look around
	calls chan call
	stop  context.CancelCauseFunc
	done  chan struct{} // closed when everything is given back

	mu      sync.Mutex
	state   api.Session
	prompt  string
	viewers map[*viewer]bool
	used    time.Time // last sign of life from outside
	events  []byte    // lines of a log from which the session can be made again, at most maxHistory
	partial bool      // events are missing
	tape    *recording

	// The loop's own.
	scene  *scene
	log    *logFile
	paused bool
	pace   pacer
	cached int64 // bytes of the caches, as the server counts them
}

// call is something to do at the next chunk boundary, in the loop.
type call struct {
	ctx  context.Context
	do   func(context.Context) error
	done chan error
}

// Ends of a session, besides faults.
var (
	errDeleted  = errors.New("deleted")
	errIdle     = errors.New("idle for too long")
	errLife     = errors.New("longest life reached")
	errDraining = errors.New("server is shutting down")
	errGone     = errors.New("viewer is gone")
)

// start runs the loop until the session ends. prior, if not nil, is the log of a session to go on from.
func (s *Session) start(ctx context.Context, setup Setup, compare string, prior []Event) {
	defer close(s.done)
	err := s.guarded(ctx, setup, compare, prior)
	if cause := context.Cause(ctx); cause != nil && errors.Is(err, ctx.Err()) {
		err = cause
	}
	reason := "ended"
	if err != nil {
		reason = s.server.reason(err)
	}
	s.mu.Lock()
	s.state.Status, s.state.Reason = "ended", reason
	viewers, tape := s.viewers, s.tape
	s.viewers, s.tape = nil, nil
	s.mu.Unlock()
	if s.scene != nil {
		s.scene.end()
		s.scene.Close()
		s.countCache()
	}
	s.log.close()
	tape.finish()
	for v := range viewers {
		v.tell(api.Notice{Type: "end", Reason: reason})
		v.close()
	}
	s.entry.close()
	s.server.forget(s, reason, err)
}

// guarded turns a panic into the end of this session.
func (s *Session) guarded(ctx context.Context, setup Setup, compare string, prior []Event) (err error) {
	defer func() {
		if fault := recover(); fault != nil {
			s.server.logger.Error("session fault", "session", s.id, "fault", fmt.Sprint(fault), "trace", string(debug.Stack()))
			s.server.metrics.faults.Inc()
			err = errors.New("internal fault")
		}
	}()
	if err := s.open(ctx, setup, compare, prior); err != nil {
		return err
	}
	return s.loop(ctx)
}

// turn does something on the engine.
func (s *Session) turn(ctx context.Context, live bool, f func() error) error {
	began := time.Now()
	if err := s.server.turns.acquire(ctx, live); err != nil {
		return err
	}
	defer s.server.turns.release()
	s.server.metrics.wait.Observe(time.Since(began).Seconds())
	return f()
}

// open starts the scene and, for a restored session, makes its frames again.
func (s *Session) open(ctx context.Context, setup Setup, compare string, prior []Event) error {
	var start []video.Frame
	err := s.turn(ctx, s.live, func() (err error) {
		s.scene, start, err = openScene(ctx, s.model, s.entry, setup, compare, s.note)
		return err
	})
	if err != nil {
		return err
	}
	if len(prior) > 0 {
		s.update(func(a *api.Session) { a.Status = "restoring" })
		err := rerun(ctx, s.scene, prior, func(f func() error) error { return s.turn(ctx, false, f) }, s.rewatch)
		if err != nil {
			return err
		}
	}
	s.refresh()
	s.update(func(a *api.Session) { a.Status = "waiting" })
	if len(prior) > 0 {
		s.tellState() // to those who came while it was being made again
	}
	s.publishStart(start)
	return nil
}

// rewatch shows the frames of a session that is being restored, as fast as they come.
func (s *Session) rewatch(m made) error {
	for i, frames := range m.frames {
		h := s.header(m, i)
		for f := range frames {
			h.Frame = s.scene.frame - len(frames) + f
			s.show(&picture{header: h, frame: frames[f]}, false)
		}
	}
	return nil
}

// note is the scene's log: to the file, and to memory for forks.
func (s *Session) note(e *Event) {
	if e.Type == eventEnd && s.partial {
		return
	}
	line := e.line()
	s.log.write(line)
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case e.Type == eventDigest || e.Type == eventEnd:
	case len(s.events)+len(line) <= maxHistory:
		s.events = append(s.events, line...)
	default:
		s.partial = true
	}
}

// loop is the life of a session.
func (s *Session) loop(ctx context.Context) error {
	limits := s.server.limits
	life := time.NewTimer(time.Until(s.born.Add(limits.Life)))
	defer life.Stop()
	for {
		if s.live && !s.paused && s.watched() {
			if err := s.pace.rest(ctx); err != nil {
				return err
			}
		}
		if err := s.obey(ctx); err != nil {
			return err
		}
		if s.live && !s.paused && s.watched() {
			s.update(func(a *api.Session) { a.Status = "running" })
			if err := s.advance(ctx); err != nil {
				return err
			}
			select {
			case c := <-s.calls:
				s.serve(ctx, c)
			case <-life.C:
				return errLife
			default:
			}
			continue
		}
		s.pace.stop()
		s.refresh()
		idle := time.NewTimer(s.untilIdle())
		select {
		case <-s.wake:
		case c := <-s.calls:
			s.serve(ctx, c)
		case <-idle.C:
			if s.untilIdle() <= 0 {
				return errIdle
			}
		case <-life.C:
			return errLife
		case <-ctx.Done():
			return ctx.Err()
		}
		idle.Stop()
	}
}

// serve answers a call; a fault in it ends the session after the caller was told.
func (s *Session) serve(ctx context.Context, c call) {
	ctx, cancel := context.WithCancelCause(ctx)
	stop := context.AfterFunc(c.ctx, func() { cancel(c.ctx.Err()) })
	defer cancel(nil)
	defer stop()
	err := errors.New("internal fault")
	defer func() { c.done <- err }()
	err = c.do(ctx)
}

// do runs f in the loop at the next chunk boundary.
func (s *Session) do(ctx context.Context, f func(context.Context) error) error {
	s.touch()
	c := call{ctx, f, make(chan error, 1)}
	select {
	case s.calls <- c:
	case <-s.done:
		return errEnded
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case err := <-c.done:
		s.touch()
		return err
	case <-s.done:
		return errEnded
	}
}

// errEnded says that the session has ended.
var errEnded = errors.New("session has ended")

// advance makes a chunk and publishes its frames when they are due.
func (s *Session) advance(ctx context.Context) error {
	var m made
	in := s.inbox.sample()
	action, err := s.action(in)
	if err != nil {
		return err
	}
	began := time.Now()
	if err := s.turn(ctx, true, func() error {
		if err := s.scene.steer(action); err != nil {
			return err
		}
		m, err = s.scene.step(ctx)
		return err
	}); err != nil {
		return err
	}
	all := time.Since(began)
	s.pace.took(all)
	s.server.metrics.chunk(s.scene, m, all)
	s.countCache()
	for i, v := range s.scene.views {
		s.server.learn(s.model, v.name, m.took[i])
	}
	if m.chunk%chargeEvery == 0 {
		a, _ := s.describe()
		s.entry.charge(s.load(a.FPS))
	}
	for _, r := range in.receipts {
		r.to.tell(api.Notice{Type: "applied", ID: r.id, Control: r.control, Chunk: m.chunk})
	}
	s.chart(m.chunk)
	return s.publish(ctx, m, in.receipts)
}

// mapEvery is how many chunks lie between two maps.
const mapEvery = 4

// chart gives a map of every view to the viewers that want one.
func (s *Session) chart(chunk int) {
	s.mu.Lock()
	var wanting []*viewer
	for v := range s.viewers {
		if v.mapped() {
			wanting = append(wanting, v)
		}
	}
	s.mu.Unlock()
	for i, v := range s.scene.views {
		v.Look(len(wanting) > 0)
		if len(wanting) == 0 || chunk%mapEvery != 0 {
			continue
		}
		m := v.Map()
		if m == nil {
			continue
		}
		m.View, m.Chunk, m.Policy = i, chunk, v.name
		for _, to := range wanting {
			to.chart(m)
		}
	}
}

// chargeEvery is how many chunks lie between two looks at what the session takes of the engine.
const chargeEvery = 16

// load is the share of the engine that the session takes at a frame rate.
func (s *Session) load(fps float64) float64 {
	var policies []string
	for _, v := range s.scene.views {
		policies = append(policies, v.name)
	}
	return s.server.load(s.model, s.live, fps, policies...)
}

// countCache tells the server how large the caches are.
func (s *Session) countCache() {
	var sum int64
	if s.scene != nil {
		for _, v := range s.scene.views {
			sum += v.Stats().Bytes
		}
	}
	s.server.cacheBytes.Add(sum - s.cached)
	s.cached = sum
}

// action is what the keys mean, unless one was asked for by name.
func (s *Session) action(in input) (int, error) {
	if in.named != nil {
		return *in.named, nil
	}
	a := s.model.Steer(in.keys)
	if a < 0 || a >= max(1, len(s.model.Actions)) {
		return 0, fmt.Errorf("keys mean action %d of %d", a, len(s.model.Actions))
	}
	return a, nil
}

// publish shows the frames of a chunk, each when it is due.
func (s *Session) publish(ctx context.Context, m made, obeyed []receipt) error {
	heads := make([]api.FrameHeader, len(m.frames))
	for i := range heads {
		heads[i] = s.header(m, i)
	}
	for f := range m.frames[0] {
		late, err := s.pace.await(ctx)
		if err != nil {
			return err
		}
		now := time.Now()
		s.server.metrics.frame(late, s.pace.fps())
		for i := range m.frames {
			h := heads[i]
			h.Frame, h.FPS = s.scene.frame-len(m.frames[0])+f, round(s.pace.fps())
			p := &picture{header: h, frame: m.frames[i][f]}
			if i > 0 {
				p.header.PSNR = round(psnr(m.frames[0][f].Pix, m.frames[i][f].Pix))
			}
			if f == 0 && len(obeyed) > 0 {
				last := obeyed[len(obeyed)-1]
				p.from, p.echo = last.to, last.time
			}
			s.show(p, late)
		}
		if f == 0 {
			for _, r := range obeyed {
				s.server.metrics.latency.Observe(now.Sub(r.arrived).Seconds())
			}
		}
	}
	return nil
}

// publishStart shows the last of the start frames at once.
func (s *Session) publishStart(start []video.Frame) {
	if len(start) == 0 {
		return
	}
	f := start[len(start)-1]
	for i, v := range s.scene.views {
		s.show(&picture{header: api.FrameHeader{Chunk: s.scene.chunk, Frame: s.scene.frame, View: i, Policy: v.name}, frame: f}, false)
	}
}

// header describes the frames of a view.
func (s *Session) header(m made, i int) api.FrameHeader {
	v := s.scene.views[i]
	stats, times := v.Stats(), v.Times()
	h := api.FrameHeader{Chunk: m.chunk, View: i, Policy: v.name, Action: s.model.actionName(m.action),
		GenMS: millis(v.took), DenoiseMS: millis(times.Denoise), CommitMS: millis(times.Commit), DecodeMS: millis(times.Decode),
		CacheBytes: stats.Bytes, CacheTokens: round(stats.Tokens), HeadsPerLayer: s.model.HeadsPerLayer}
	for _, head := range stats.Heads {
		h.Heads = append(h.Heads, head.Kept)
		h.Merged += head.Merged
		h.Evicted += head.Evicted
	}
	return h
}

// show gives a frame to everybody.
func (s *Session) show(p *picture, late bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if late && p.header.View == 0 {
		s.state.Late++
	}
	p.header.Late = s.state.Late
	s.state.Chunk, s.state.Frames = s.scene.chunk, s.scene.frame
	for v := range s.viewers {
		v.offer(p)
	}
	if p.header.View == 0 {
		s.tape.offer(p.frame)
	}
}

func millis(d time.Duration) float64 { return round(float64(d) / 1e6) }

func round(v float64) float64 { return math.Round(v*100) / 100 }

// psnr compares frames of one size; equal ones give 99.
func psnr(a, b []byte) float64 {
	var sum int64
	for i := range a {
		d := int64(a[i]) - int64(b[i])
		sum += d * d
	}
	if sum == 0 {
		return 99
	}
	return 10 * math.Log10(255*255*float64(len(a))/float64(sum))
}
