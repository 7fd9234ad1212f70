package serve

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"longtake/api"
)

// Options say what a server plays, and who may come.
type Options struct {
	// Models are played; the first is the default.
	Models []*Model
	// Store keeps files; nil keeps none: no logs on disk, no recordings, no videos.
	Store *Store
	// Ledger admits sessions; nil admits all.
	Ledger *Ledger
	Limits Limits
	// Tokens may be used by callers; without one everybody may call. Hosts are further names that the server answers to, Origins
	// further origins whose pages may call it.
	Tokens, Hosts, Origins []string
	// Logger gets no prompts. Nil logs nothing.
	Logger *slog.Logger
	// Realtime answers WebRTC offers; nil knows none.
	Realtime Realtime
}

// Server plays worlds for many callers. It is an http.Handler and safe for concurrent use.
type Server struct {
	Options
	models  map[string]*Model
	limits  Limits
	ledger  *Ledger
	store   *Store
	logger  *slog.Logger
	metrics *metrics
	turns   Turns
	door    *door
	handler http.Handler
	routes  []route
	jobs    *jobs

	pictures   sync.Mutex // held while an image is read
	cacheBytes atomic.Int64
	chunkTime  sync.Map // of a model's name, and of name/policy: time.Duration, as Warm found it and sessions learn it
	ready      atomic.Bool

	mu       sync.Mutex
	sessions map[string]*Session
	draining bool
	ctx      context.Context // of all sessions
	stop     context.CancelCauseFunc
}

// New returns a server that is ready after Warm. Close it.
func New(o Options) (*Server, error) {
	if len(o.Models) == 0 {
		return nil, errors.New("serve: no model")
	}
	s := &Server{Options: o, models: map[string]*Model{}, limits: o.Limits.withDefaults(), ledger: o.Ledger, store: o.Store, logger: o.Logger,
		sessions: map[string]*Session{}}
	if s.ledger == nil {
		s.ledger = NewLedger(0, 0, 0)
	}
	if s.logger == nil {
		s.logger = slog.New(slog.DiscardHandler)
	}
	for _, m := range o.Models {
		if err := m.check(); err != nil {
			return nil, err
		}
		s.models[m.Name] = m
	}
	s.ctx, s.stop = context.WithCancelCause(context.Background())
	s.metrics = newMetrics(s)
	s.door = newDoor(o.Tokens, o.Hosts, o.Origins, s.limits)
	s.jobs = newJobs(s)
	s.routes = s.table()
	s.handler = s.guard(s.mux())
	return s, nil
}

// ServeHTTP implements http.Handler.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) { s.handler.ServeHTTP(w, r) }

// Warm makes a few chunks of every model, so that the first session's first frame does not wait for pages and clocks, and
// returns the time of a chunk of the default model. After it the server says that it is ready.
func (s *Server) Warm(ctx context.Context) (chunk time.Duration, err error) {
	for i, m := range s.Models {
		took, err := s.warm(ctx, m)
		if err != nil {
			return 0, fmt.Errorf("warm up %s: %w", m.Name, err)
		}
		s.chunkTime.Store(m.Name, took)
		if i == 0 {
			chunk = took
		}
	}
	s.ready.Store(true)
	return chunk, nil
}

// warmChunks are enough for the least time to mean something. They are measured over a cache that fillChunks have filled, or as
// many as can be had in fillTime: what a chunk costs while its cache fills says too little.
const (
	warmChunks = 4
	fillChunks = 64
	fillTime   = time.Second
)

// fill makes the cache of a scene as large as it becomes, by the clean pass alone.
func fill(ctx context.Context, s *scene) error {
	v := s.views[0]
	latent, err := v.Latents()
	began := time.Now()
	for i := 0; err == nil && i < fillChunks && time.Since(began) < fillTime; i++ {
		tokens := v.Stats().Tokens
		if err = v.Force(ctx, latent, 0); v.Stats().Tokens <= tokens {
			break
		}
	}
	return err
}

func (s *Server) warm(ctx context.Context, m *Model) (best time.Duration, err error) {
	setup := Setup{}
	bytes, err := need(m, setup, "")
	if err != nil {
		return 0, err
	}
	e, err := s.ledger.admit(bytes, 0)
	if err != nil {
		return 0, err
	}
	defer e.close()
	scene, _, err := openScene(ctx, m, e, setup, "", nil)
	if err != nil {
		return 0, err
	}
	defer scene.Close()
	if _, err := scene.step(ctx); err != nil {
		return 0, err
	}
	if err := fill(ctx, scene); err != nil {
		return 0, err
	}
	for i := range warmChunks {
		began := time.Now()
		if _, err := scene.step(ctx); err != nil {
			return 0, err
		}
		if took := time.Since(began); i == 0 || took < best {
			best = took
		}
	}
	return best, nil
}

// model returns the model of a name; "" is the default.
func (s *Server) model(name string) (*Model, error) {
	if name == "" {
		return s.Models[0], nil
	}
	if m, ok := s.models[name]; ok {
		return m, nil
	}
	return nil, notFound("model", name)
}

// opening is a session that was asked for.
type opening struct {
	model   *Model
	setup   Setup
	compare string
	mode    string
	fps     float64
	prior   []Event
}

// open admits and starts a session. It returns before the first frame.
func (s *Server) open(owner string, o opening) (*Session, error) {
	bytes, err := need(o.model, o.setup, o.compare)
	if err != nil {
		return nil, err
	}
	if o.fps == 0 {
		o.fps = o.model.FPS
	}
	live := o.mode != api.Step
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.draining {
		return nil, &FullError{errDraining.Error(), retryFull}
	}
	owned := 0
	for _, other := range s.sessions {
		if other.owner == owner {
			owned++
		}
	}
	if owned >= s.limits.Owned {
		return nil, &FullError{fmt.Sprintf("there are %d sessions of this caller already", owned), retryFull}
	}
	policies := []string{o.setup.Policy}
	if o.compare != "" {
		policies = append(policies, o.compare)
	}
	e, err := s.ledger.admit(bytes, s.load(o.model, live, o.fps, policies...))
	if err != nil {
		return nil, err
	}
	x := &Session{id: newID("ses"), owner: owner, server: s, model: o.model, entry: e, live: live, born: time.Now(), used: time.Now(),
		wake: make(chan struct{}, 1), calls: make(chan call), done: make(chan struct{}), viewers: map[*viewer]bool{}}
	out, err := s.store.log(x.id)
	if err != nil {
		s.logger.Error("no event log", "session", x.id, "error", err)
		s.metrics.lostLogs.Inc()
		out = nil
	}
	x.log = newLogFile(out, func() {
		s.metrics.lostLogs.Inc()
		s.logger.Error("event log lost: the disk fails or is full", "session", x.id)
	})
	x.pace.rate(o.fps)
	mode := api.Live
	if !live {
		mode = api.Step
	}
	x.state = api.Session{ID: x.id, Object: "session", Model: o.model.Name, Mode: mode, Status: "starting", CreatedAt: x.born.Unix(),
		Seed: o.setup.Seed, Policy: o.setup.Policy, Compare: o.compare, FPS: o.fps, Width: o.model.Width, Height: o.model.Height,
		Actions: o.model.Actions, Memory: bytes}
	var ctx context.Context
	ctx, x.stop = context.WithCancelCause(s.ctx)
	s.sessions[x.id] = x
	s.metrics.started.Inc()
	s.logger.Info("session starts", "session", x.id, "model", o.model.Name, "mode", mode, "policy", o.setup.Policy, "bytes", bytes)
	go x.start(ctx, o.setup, o.compare, o.prior)
	return x, nil
}

// load is the share of the engine that a session takes with a view of each policy, from what chunks of these took lately.
func (s *Server) load(m *Model, live bool, fps float64, policies ...string) (sum float64) {
	for _, policy := range policies {
		if took, ok := s.chunkTimeOf(m, policy); ok && live {
			sum += fps * took.Seconds() / float64(max(1, m.ChunkFrames))
		}
	}
	return sum
}

// chunkTimeOf is the time of a chunk with a policy; of one that never ran, the default's.
func (s *Server) chunkTimeOf(m *Model, policy string) (time.Duration, bool) {
	took, ok := s.chunkTime.Load(m.Name + "/" + policy)
	if !ok {
		took, ok = s.chunkTime.Load(m.Name)
	}
	if !ok {
		return 0, false
	}
	return took.(time.Duration), true
}

// learn keeps the time of a chunk up to date while sessions run: the machine may be busier or idler than at warm-up, and policies differ.
func (s *Server) learn(m *Model, policy string, took time.Duration) {
	if old, ok := s.chunkTimeOf(m, policy); ok {
		s.chunkTime.Store(m.Name+"/"+policy, old+(took-old)/16)
	}
}

// forget takes an ended session off the list.
func (s *Server) forget(x *Session, reason string, err error) {
	s.mu.Lock()
	delete(s.sessions, x.id)
	s.mu.Unlock()
	s.metrics.ended.Inc()
	x.stop(nil)
	level := slog.LevelInfo
	if reason == "internal error" {
		level = slog.LevelError
	}
	s.logger.Log(context.Background(), level, "session ends", "session", x.id, "reason", reason, "lived", time.Since(x.born).Round(time.Millisecond))
	_ = err // explained already
}

// find returns a session by its id. Sessions of others are not there, unless they are only to be watched.
func (s *Server) find(id, owner string, watch bool) (*Session, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	x, ok := s.sessions[id]
	if !ok || x.owner != owner && !watch {
		return nil, notFound("session", id)
	}
	return x, nil
}

// end stops a session and waits until everything is given back.
func (s *Server) end(x *Session, why error) {
	x.stop(why)
	<-x.done
}

func (s *Server) all() (out []*Session) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, x := range s.sessions {
		out = append(out, x)
	}
	return out
}

func (s *Server) viewerCount() (n int) {
	for _, x := range s.all() {
		a, _ := x.describe()
		n += a.Viewers
	}
	return n
}

func (s *Server) weightBytes() (n int64) {
	for _, m := range s.Models {
		n += m.WeightBytes
	}
	return n
}

// Drain stops taking new sessions and jobs, waits up to grace for the sessions to end by themselves, and ends them: each
// finishes the chunk in work, closes its files and tells its viewers.
func (s *Server) Drain(grace time.Duration) {
	s.mu.Lock()
	s.draining = true
	s.mu.Unlock()
	s.ready.Store(false)
	s.jobs.close()
	for deadline := time.Now().Add(grace); time.Now().Before(deadline) && len(s.all()) > 0; {
		time.Sleep(50 * time.Millisecond)
	}
	s.stop(errDraining)
	for _, x := range s.all() {
		<-x.done
	}
}

// Close is Drain without patience.
func (s *Server) Close() { s.Drain(0) }

// Listen serves on l until ctx ends, then drains. It closes l.
func (s *Server) Listen(ctx context.Context, l net.Listener, grace time.Duration) error {
	web := &http.Server{Handler: s, ReadHeaderTimeout: s.limits.SlowHead, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: s.limits.Header,
		ErrorLog: slog.NewLogLogger(s.logger.Handler(), slog.LevelDebug)}
	failed := make(chan error, 1)
	go func() { failed <- web.Serve(LimitListener(l, s.limits.Conns)) }()
	select {
	case err := <-failed:
		s.Close()
		return err
	case <-ctx.Done():
	}
	s.logger.Info("draining", "sessions", len(s.all()), "grace", grace)
	s.Drain(grace)
	late, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if err := web.Shutdown(late); err != nil {
		return errors.Join(err, web.Close())
	}
	return nil
}

// randomKey returns bytes that nobody else knows.
func randomKey() []byte {
	b := make([]byte, 32)
	_, _ = io.ReadFull(rand.Reader, b) // crypto/rand does not fail
	return b
}
