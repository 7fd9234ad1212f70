package serve

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"

	"longtake/api"
)

// route is one operation: the table of them makes both the handler and the OpenAPI document, which therefore cannot differ.
type route struct {
	method, path, about string
	in, out             any    // bodies; nil for none
	inType, outType     string // media types that are not JSON
	status              int    // of success
	query               []string
	open                bool // needs no token
	slow                bool // sets its own deadlines
	handle              func(w http.ResponseWriter, r *http.Request, who string) error
}

func (s *Server) table() []route {
	ok, created := http.StatusOK, http.StatusCreated
	const jsonl, webmType = "application/jsonl", "video/webm"
	return []route{
		{method: "GET", path: "/healthz", about: "Whether the server lives.", out: api.Status{}, status: ok, open: true, handle: s.health},
		{method: "GET", path: "/readyz", about: "Whether the server takes sessions: 503 until it is warm, and while it drains.", out: api.Status{}, status: ok, open: true, handle: s.readiness},
		{method: "GET", path: "/metrics", about: "Metrics for Prometheus.", outType: "text/plain", status: ok, handle: s.showMetrics},
		{method: "GET", path: "/openapi.json", about: "This document.", outType: "application/json", status: ok, open: true, handle: s.document},
		{method: "POST", path: "/v1/login", about: "A cookie for the page, against a token or a cookie that still counts.", out: api.Login{}, status: ok, handle: s.login},
		{method: "GET", path: "/v1/models", about: "The models, with their policies, actions and sizes.", out: api.ModelList{}, status: ok, handle: s.listModels},
		{method: "GET", path: "/v1/models/{id}", about: "One model.", out: api.Model{}, status: ok, handle: s.getModel},
		{method: "POST", path: "/v1/sessions", about: "Start a session; 503 with Retry-After if there is no room.", in: api.SessionRequest{}, out: api.Session{}, status: created, handle: s.createSession},
		{method: "GET", path: "/v1/sessions", about: "The caller's sessions.", out: api.SessionList{}, status: ok, handle: s.listSessions},
		{method: "POST", path: "/v1/restore", about: "Start a session from a snapshot; it makes all frames again, so it takes as long as making them did.", in: "", inType: jsonl, query: []string{"mode"}, out: api.Session{}, status: created, handle: s.restoreSession},
		{method: "GET", path: "/v1/sessions/{id}", about: "One session.", out: api.Session{}, status: ok, handle: s.getSession},
		{method: "DELETE", path: "/v1/sessions/{id}", about: "End a session.", out: api.Deleted{}, status: ok, handle: s.deleteSession},
		{method: "POST", path: "/v1/sessions/{id}/step", about: "Make chunks of a session in step mode, one for each action, and return their frames.", in: api.StepRequest{}, out: api.StepResult{}, status: ok, slow: true, handle: s.stepSession},
		{method: "POST", path: "/v1/sessions/{id}/control", about: "A control message, as viewers send them.", in: api.Control{}, out: api.Session{}, status: http.StatusAccepted, handle: s.controlSession},
		{method: "GET", path: "/v1/sessions/{id}/snapshot", about: "All that a session can be made again from: its event log.", outType: jsonl, status: ok, handle: s.snapshotSession},
		{method: "POST", path: "/v1/sessions/{id}/fork", about: "A second session that has come the same way; like restore.", in: api.SessionRequest{}, out: api.Session{}, status: created, handle: s.forkSession},
		{method: "GET", path: "/v1/sessions/{id}/stream", about: "WebSocket: frames out, controls in.", query: []string{"protocol_version", "format", "watch"}, outType: "application/octet-stream", status: http.StatusSwitchingProtocols, slow: true, handle: s.stream},
		{method: "GET", path: "/v1/play", about: "WebSocket: a new session that lives as long as the connection; closed with 1013 if there is no room.", query: []string{"protocol_version", "format", "model", "seed", "start", "policy", "compare", "fps"}, outType: "application/octet-stream", status: http.StatusSwitchingProtocols, slow: true, handle: s.play},
		{method: "GET", path: "/v1/sessions/{id}/mjpeg", about: "Frames as JPEG images, one replacing the other.", outType: "multipart/x-mixed-replace", status: ok, slow: true, handle: s.mjpeg},
		{method: "POST", path: "/v1/sessions/{id}/webrtc", about: "Answer a WebRTC offer; 404 where the server knows no WebRTC.", in: api.Offer{}, out: api.Offer{}, status: ok, slow: true, handle: s.realtime},
		{method: "POST", path: "/v1/sessions/{id}/recording", about: "Begin to record.", out: api.Recording{}, status: created, handle: s.startRecording},
		{method: "DELETE", path: "/v1/sessions/{id}/recording", about: "End the recording.", out: api.Recording{}, status: ok, handle: s.stopRecording},
		{method: "GET", path: "/v1/recordings/{id}", about: "A recording.", out: api.Recording{}, status: ok, handle: s.getRecording},
		{method: "GET", path: "/v1/recordings/{id}/content", about: "Its file.", outType: webmType, status: ok, slow: true, handle: s.recordingContent},
		{method: "GET", path: "/v1/logs/{id}", about: "The event log of a session, also of one that has ended.", outType: jsonl, status: ok, slow: true, handle: s.getLog},
		{method: "POST", path: "/v1/videos", about: "A video to make when the engine has time; 503 if too many wait.", in: api.VideoRequest{}, out: api.Video{}, status: ok, handle: s.createVideo},
		{method: "GET", path: "/v1/videos", about: "The caller's videos, the newest first.", out: api.VideoList{}, status: ok, handle: s.listVideos},
		{method: "GET", path: "/v1/videos/{id}", about: "One video.", out: api.Video{}, status: ok, handle: s.getVideo},
		{method: "DELETE", path: "/v1/videos/{id}", about: "Cancel a video, or delete it.", out: api.Deleted{}, status: ok, handle: s.deleteVideo},
		{method: "POST", path: "/v1/videos/{id}/cancel", about: "Cancel a video.", out: api.Video{}, status: ok, handle: s.cancelVideo},
		{method: "GET", path: "/v1/videos/{id}/content", about: "Its file.", outType: webmType, status: ok, slow: true, handle: s.videoContent},
	}
}

// mux makes the handler of all routes and of the page.
func (s *Server) mux() http.Handler {
	mux := http.NewServeMux()
	paths := map[string]bool{}
	for _, rt := range s.routes {
		mux.HandleFunc(rt.method+" "+rt.path, func(w http.ResponseWriter, r *http.Request) {
			tracked := &tracked{ResponseWriter: w}
			defer func() { s.metrics.requests.WithLabelValues(fmt.Sprintf("%dxx", max(tracked.status, 200)/100)).Inc() }()
			if err := s.enter(&rt, tracked, r); err != nil && !tracked.taken {
				s.fail(tracked, err)
			}
		})
		paths[rt.path] = true
	}
	for path := range paths {
		mux.HandleFunc(path, func(w http.ResponseWriter, r *http.Request) {
			s.fail(w, refuse(http.StatusMethodNotAllowed, api.BadRequest, "%.10s is not for this path", r.Method))
		})
	}
	s.page(mux)
	return mux
}

// tracked remembers the status of an answer, and whether the connection was taken over.
type tracked struct {
	http.ResponseWriter
	status int
	taken  bool
}

// WriteHeader implements http.ResponseWriter.
func (t *tracked) WriteHeader(status int) {
	t.status = status
	t.taken = true
	t.ResponseWriter.WriteHeader(status)
}

// Write implements http.ResponseWriter.
func (t *tracked) Write(b []byte) (int, error) {
	t.taken = true
	return t.ResponseWriter.Write(b)
}

// Unwrap lets http.ResponseController through.
func (t *tracked) Unwrap() http.ResponseWriter { return t.ResponseWriter }

// enter checks what is the same for all routes, and calls the handler.
func (s *Server) enter(rt *route, w http.ResponseWriter, r *http.Request) error {
	who := ""
	if !rt.open {
		var ok bool
		if who, ok = s.door.admit(r); !ok {
			s.metrics.refusals.WithLabelValues("token").Inc()
			w.Header().Set("WWW-Authenticate", "Bearer")
			return refuse(http.StatusUnauthorized, api.Unauthorized, "a token is needed: Authorization: Bearer TOKEN")
		}
		if wait := s.door.pace(who); wait > 0 {
			s.metrics.refusals.WithLabelValues("rate").Inc()
			return &refusal{http.StatusTooManyRequests, api.Error{Type: api.RateLimited, Message: "too many requests"}, max(wait, time.Second)}
		}
	}
	deadlines := http.NewResponseController(w)
	if rt.in != nil {
		r.Body = http.MaxBytesReader(w, r.Body, s.limits.Body)
		_ = deadlines.SetReadDeadline(time.Now().Add(s.limits.SlowBody)) // a test's recorder has none
	}
	if !rt.slow {
		_ = deadlines.SetWriteDeadline(time.Now().Add(s.limits.SlowBody + s.limits.SlowWrite))
	}
	return rt.handle(w, r, who)
}

// body reads a JSON body; an empty one leaves v as it is.
func body(r *http.Request, v any) error {
	kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if r.ContentLength != 0 && (err != nil || kind != "application/json") {
		return refuse(http.StatusUnsupportedMediaType, api.BadRequest, "the body must be application/json")
	}
	b, err := io.ReadAll(r.Body)
	if err != nil {
		var large *http.MaxBytesError
		if errors.As(err, &large) {
			return err
		}
		return refuse(http.StatusRequestTimeout, api.BadRequest, "the body did not come")
	}
	if len(b) == 0 {
		return nil
	}
	if err := api.Strict(b, v); err != nil {
		return badf("body: %w", err)
	}
	return nil
}

func (s *Server) health(w http.ResponseWriter, _ *http.Request, _ string) error {
	_, n := s.ledger.Used()
	s.write(w, http.StatusOK, api.Status{Status: "ok", Sessions: n})
	return nil
}

func (s *Server) readiness(w http.ResponseWriter, _ *http.Request, _ string) error {
	_, n := s.ledger.Used()
	s.mu.Lock()
	draining := s.draining
	s.mu.Unlock()
	switch {
	case draining:
		s.write(w, http.StatusServiceUnavailable, api.Status{Status: "draining", Sessions: n})
	case !s.ready.Load():
		s.write(w, http.StatusServiceUnavailable, api.Status{Status: "warming", Sessions: n})
	default:
		s.write(w, http.StatusOK, api.Status{Status: "ok", Sessions: n})
	}
	return nil
}

func (s *Server) showMetrics(w http.ResponseWriter, r *http.Request, _ string) error {
	promhttp.HandlerFor(s.metrics.registry, promhttp.HandlerOpts{MaxRequestsInFlight: 4, Timeout: 5 * time.Second}).ServeHTTP(w, r)
	return nil
}

func (s *Server) document(w http.ResponseWriter, _ *http.Request, _ string) error {
	b, err := json.MarshalIndent(openAPI(s.routes), "", "  ")
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/json")
	_, err = w.Write(append(b, '\n'))
	return err
}
