package serve

import (
	"context"
	"errors"
	"io"
	"net/http"
	"os"
	"slices"
	"time"

	"longtake/api"
)

func (s *Server) describeModel(m *Model) (api.Model, error) {
	a := api.Model{ID: m.Name, Object: "model", OwnedBy: "longtake", About: m.About, Licence: m.Licence, Hash: m.Hash, Kernel: m.Kernel,
		Width: m.Width, Height: m.Height, FPS: m.FPS, Actions: m.Actions, Keys: m.Keys, WeightBytes: m.WeightBytes}
	for _, p := range m.Policies {
		bytes, err := need(m, Setup{Policy: p.Name}, "")
		if err != nil {
			return a, err
		}
		a.Policies = append(a.Policies, api.Policy{Name: p.Name, About: p.About, SessionBytes: bytes})
	}
	return a, nil
}

func (s *Server) listModels(w http.ResponseWriter, _ *http.Request, _ string) error {
	list := api.ModelList{Object: "list"}
	for _, m := range s.Models {
		a, err := s.describeModel(m)
		if err != nil {
			return err
		}
		list.Data = append(list.Data, a)
	}
	s.write(w, http.StatusOK, list)
	return nil
}

func (s *Server) getModel(w http.ResponseWriter, r *http.Request, _ string) error {
	m, err := s.model(r.PathValue("id"))
	if err != nil {
		return err
	}
	a, err := s.describeModel(m)
	if err != nil {
		return err
	}
	s.write(w, http.StatusOK, a)
	return nil
}

// opening checks what a caller asks for.
func (s *Server) opening(q *api.SessionRequest) (o opening, err error) {
	if o.model, err = s.model(q.Model); err != nil {
		return o, err
	}
	if q.Mode != "" && q.Mode != api.Live && q.Mode != api.Step {
		return o, badf("mode %.20q: live or step", q.Mode)
	}
	if q.Prompt != nil {
		if err := api.CheckPrompt(*q.Prompt); err != nil {
			return o, badf("%w", err)
		}
	}
	if q.FPS != 0 {
		if err := api.CheckFPS(q.FPS); err != nil {
			return o, badf("%w", err)
		}
	}
	o.mode, o.compare, o.fps = q.Mode, q.Compare, q.FPS
	o.setup = Setup{Seed: q.Seed, Start: q.Start, Prompt: q.Prompt, Steps: q.Steps}
	if o.setup.Policy, err = o.model.policy(q.Policy); err != nil {
		return o, err
	}
	if q.Compare != "" {
		if o.compare, err = o.model.policy(q.Compare); err != nil {
			return o, err
		}
	}
	o.setup.Picture, err = s.picture(o.model, q.Image)
	return o, err
}

// picture makes a start frame from an image file. One at a time: a large one takes a quarter of a GiB while it is read.
func (s *Server) picture(m *Model, image []byte) ([]byte, error) {
	if len(image) == 0 {
		return nil, nil
	}
	if m.Picture == nil {
		return nil, badf("model %s does not start from images", m.Name)
	}
	s.pictures.Lock()
	defer s.pictures.Unlock()
	f, err := m.Picture(image)
	if err != nil {
		return nil, badf("image: %w", err)
	}
	return f.Pix, nil
}

func (s *Server) createSession(w http.ResponseWriter, r *http.Request, who string) error {
	var q api.SessionRequest
	if err := body(r, &q); err != nil {
		return err
	}
	o, err := s.opening(&q)
	if err != nil {
		return err
	}
	return s.created(w, who, o)
}

func (s *Server) created(w http.ResponseWriter, who string, o opening) error {
	x, err := s.open(who, o)
	if err != nil {
		return err
	}
	a, _ := x.describe()
	w.Header().Set("Location", "/v1/sessions/"+x.id)
	s.write(w, http.StatusCreated, a)
	return nil
}

func (s *Server) listSessions(w http.ResponseWriter, _ *http.Request, who string) error {
	list := api.SessionList{Object: "list", Data: []api.Session{}}
	for _, x := range s.all() {
		if x.owner == who {
			a, _ := x.describe()
			list.Data = append(list.Data, a)
		}
	}
	slices.SortFunc(list.Data, func(a, b api.Session) int { return int(a.CreatedAt - b.CreatedAt) })
	s.write(w, http.StatusOK, list)
	return nil
}

func (s *Server) getSession(w http.ResponseWriter, r *http.Request, who string) error {
	x, err := s.find(r.PathValue("id"), who, false)
	if err != nil {
		return err
	}
	a, _ := x.describe()
	s.write(w, http.StatusOK, a)
	return nil
}

func (s *Server) deleteSession(w http.ResponseWriter, r *http.Request, who string) error {
	x, err := s.find(r.PathValue("id"), who, false)
	if err != nil {
		return err
	}
	s.end(x, errDeleted)
	s.write(w, http.StatusOK, api.Deleted{ID: x.id, Object: "session", Deleted: true})
	return nil
}

// actions are the numbers of the actions that a step asks for.
func (m *Model) actionIDs(q *api.StepRequest) ([]int, error) {
	ids := slices.Clone(q.ActionIDs)
	if len(q.Actions) > 0 && len(ids) > 0 {
		return nil, badf("actions and action_ids exclude each other")
	}
	for _, name := range q.Actions {
		a, err := m.action(name)
		if err != nil {
			return nil, err
		}
		ids = append(ids, a)
	}
	if len(m.Actions) == 0 {
		if len(ids) == 0 {
			ids = []int{0} // a chunk
		}
		if slices.Max(ids) != 0 || slices.Min(ids) != 0 {
			return nil, badf("model %s follows no actions: leave them out for one chunk, or give a 0 for each of several", m.Name)
		}
	}
	if len(ids) == 0 || len(ids) > api.MaxStepActions {
		return nil, badf("%d actions: 1 to %d", len(ids), api.MaxStepActions)
	}
	for _, a := range ids {
		if a < 0 || a >= max(1, len(m.Actions)) {
			return nil, badf("action %d: the model knows 0 to %d", a, len(m.Actions)-1)
		}
	}
	return ids, nil
}

func (s *Server) stepSession(w http.ResponseWriter, r *http.Request, who string) error {
	x, err := s.find(r.PathValue("id"), who, false)
	if err != nil {
		return err
	}
	q := api.StepRequest{Format: "jpeg"}
	if err := body(r, &q); err != nil {
		return err
	}
	if q.Format != "none" && !knownFormat(q.Format) {
		return badf("unknown format %.20q: jpeg, png, raw and none are known", q.Format)
	}
	if q.Prompt != nil {
		if err := api.CheckPrompt(*q.Prompt); err != nil {
			return badf("%w", err)
		}
	}
	if x.live {
		return refuse(http.StatusConflict, api.Conflict, "the session is live: start one with mode step")
	}
	actions, err := x.model.actionIDs(&q)
	if err != nil {
		return err
	}
	result := api.StepResult{Object: "step", Observations: []api.Observation{}}
	began := time.Now()
	if err := x.do(r.Context(), func(ctx context.Context) error { return x.stepBy(ctx, actions, &q, &result) }); err != nil {
		return err
	}
	result.Elapsed = millis(time.Since(began))
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(s.limits.SlowBody))
	s.write(w, http.StatusOK, result)
	return nil
}

// stepBy makes a chunk for each action, in the loop.
func (s *Session) stepBy(ctx context.Context, actions []int, q *api.StepRequest, r *api.StepResult) error {
	if q.Prompt != nil {
		if err := s.turn(ctx, false, func() error { _, err := s.scene.setPrompt(ctx, *q.Prompt); return err }); err != nil {
			return err
		}
	}
	for i, action := range actions {
		var m made
		began := time.Now()
		err := s.turn(ctx, false, func() (err error) {
			if err = s.scene.steer(action); err == nil {
				m, err = s.scene.step(ctx)
			}
			return err
		})
		if err != nil {
			return err
		}
		s.server.metrics.chunk(s.scene, m, time.Since(began))
		s.countCache()
		if err := s.observe(m, q, i == len(actions)-1, r); err != nil {
			return err
		}
	}
	s.refresh()
	r.Chunk, r.Digest = s.scene.chunk, s.scene.sum()
	return nil
}

// observe shows the frames of a step to viewers and adds them to its result.
func (s *Session) observe(m made, q *api.StepRequest, last bool, r *api.StepResult) error {
	for v, frames := range m.frames {
		head := s.header(m, v)
		for i, f := range frames {
			head.Frame = s.scene.frame - len(frames) + i
			s.show(&picture{header: head, frame: f}, false)
			s.server.metrics.frame(false, 0)
			if q.Format == "none" || q.Last && !last {
				continue
			}
			e, err := encodeFrame(f, q.Format)
			if err != nil {
				return err
			}
			r.Observations = append(r.Observations, api.Observation{Chunk: m.chunk, Frame: head.Frame, View: v, Format: q.Format,
				Width: e.width, Height: e.height, Data: e.data})
		}
	}
	return nil
}

func (s *Server) controlSession(w http.ResponseWriter, r *http.Request, who string) error {
	x, err := s.find(r.PathValue("id"), who, false)
	if err != nil {
		return err
	}
	b, err := io.ReadAll(http.MaxBytesReader(w, r.Body, s.limits.Control))
	if err != nil {
		return err
	}
	c, err := api.ParseControl(b)
	if err != nil {
		return badf("%w", err)
	}
	if c.Type == "action" && c.Action != "" {
		if _, err := x.model.action(c.Action); err != nil {
			return err
		}
	}
	x.touch()
	x.control(newViewer(), c) // receipts go nowhere
	a, _ := x.describe()
	s.write(w, http.StatusAccepted, a)
	return nil
}

// snapshot returns the events of a session at a chunk boundary.
func (x *Session) snapshot(ctx context.Context) (events []Event, err error) {
	err = x.do(ctx, func(context.Context) error {
		events, err = x.history()
		return err
	})
	return events, err
}

func (s *Server) snapshotSession(w http.ResponseWriter, r *http.Request, who string) error {
	x, err := s.find(r.PathValue("id"), who, false)
	if err != nil {
		return err
	}
	events, err := x.snapshot(r.Context())
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/jsonl")
	for _, e := range events {
		if _, err := w.Write(e.line()); err != nil {
			return nil // the caller is gone
		}
	}
	return nil
}

// revive is the opening of a session that goes on from events.
func (s *Server) revive(events []Event, mode string, fps float64) (o opening, err error) {
	first := events[0]
	if o.model, err = s.model(first.Model); err != nil {
		return o, err
	}
	if err := matches(o.model, events); err != nil {
		return o, err
	}
	if mode != "" && mode != api.Live && mode != api.Step {
		return o, badf("mode %.20q: live or step", mode)
	}
	// A log that was closed goes on all the same.
	events = slices.DeleteFunc(events, func(e Event) bool { return e.Type == eventEnd })
	o.setup, o.compare, o.mode, o.fps, o.prior = *first.Setup, first.Compare, mode, fps, events
	if n := len(o.setup.Picture); n != 0 && n != 3*o.model.Width*o.model.Height {
		return o, badf("picture of %d bytes in the log", n)
	}
	return o, nil
}

func (s *Server) restoreSession(w http.ResponseWriter, r *http.Request, who string) error {
	events, err := ReadLog(r.Body, maxEvents)
	if err != nil {
		return err
	}
	o, err := s.revive(events, r.URL.Query().Get("mode"), 0)
	if err != nil {
		return err
	}
	return s.created(w, who, o)
}

func (s *Server) forkSession(w http.ResponseWriter, r *http.Request, who string) error {
	x, err := s.find(r.PathValue("id"), who, false)
	if err != nil {
		return err
	}
	var q api.SessionRequest // only the mode and the frame rate of a fork may be chosen
	if err := body(r, &q); err != nil {
		return err
	}
	if q.FPS != 0 {
		if err := api.CheckFPS(q.FPS); err != nil {
			return badf("%w", err)
		}
	}
	a, _ := x.describe()
	if q.Mode == "" {
		q.Mode = a.Mode
	}
	events, err := x.snapshot(r.Context())
	if err != nil {
		return err
	}
	o, err := s.revive(events, q.Mode, q.FPS)
	if err != nil {
		return err
	}
	return s.created(w, who, o)
}

func (s *Server) startRecording(w http.ResponseWriter, r *http.Request, who string) error {
	return s.setRecording(w, r, who, true)
}

func (s *Server) stopRecording(w http.ResponseWriter, r *http.Request, who string) error {
	return s.setRecording(w, r, who, false)
}

func (s *Server) setRecording(w http.ResponseWriter, r *http.Request, who string, on bool) error {
	x, err := s.find(r.PathValue("id"), who, false)
	if err != nil {
		return err
	}
	var tape *recording
	current := func() *recording {
		x.mu.Lock()
		defer x.mu.Unlock()
		return x.tape
	}
	err = x.do(r.Context(), func(context.Context) error {
		tape = current()
		if err := x.record(on); err != nil {
			return err
		}
		if on {
			tape = current()
		}
		return nil
	})
	if err != nil {
		return err
	}
	if tape == nil {
		return refuse(http.StatusConflict, api.Conflict, "the session does not record")
	}
	status := http.StatusOK
	if on {
		status = http.StatusCreated
	}
	s.write(w, status, tape.describe())
	return nil
}

func (s *Server) getRecording(w http.ResponseWriter, r *http.Request, _ string) error {
	tape, ok := s.store.recording(r.PathValue("id"))
	if !ok {
		return notFound("recording", r.PathValue("id"))
	}
	s.write(w, http.StatusOK, tape.describe())
	return nil
}

func (s *Server) recordingContent(w http.ResponseWriter, r *http.Request, _ string) error {
	return s.send(w, r, "recordings", r.PathValue("id"), ".webm", "video/webm")
}

func (s *Server) getLog(w http.ResponseWriter, r *http.Request, _ string) error {
	return s.send(w, r, "logs", r.PathValue("id"), ".jsonl", "application/jsonl")
}

// send sends a file of the store.
func (s *Server) send(w http.ResponseWriter, r *http.Request, folder, id, ext, kind string) error {
	if s.store == nil {
		return notFound("file", id)
	}
	f, err := s.store.open(folder, id, ext)
	if err != nil {
		if !errors.Is(err, os.ErrNotExist) && validID(id) {
			return err
		}
		return notFound("file", id)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(time.Hour)) // the largest file over a slow line
	w.Header().Set("Content-Type", kind)
	w.Header().Set("Content-Disposition", `attachment; filename="`+id+ext+`"`)
	http.ServeContent(w, r, "", info.ModTime(), f)
	return nil
}
