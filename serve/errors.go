package serve

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/http"
	"strconv"
	"strings"
	"time"

	"longtake/api"
	"longtake/compute"
)

// refusal is an error with its HTTP status.
type refusal struct {
	status int
	what   api.Error
	after  time.Duration
}

// Error returns the message.
func (r *refusal) Error() string { return r.what.Message }

func refuse(status int, kind, format string, args ...any) error {
	return &refusal{status: status, what: api.Error{Type: kind, Message: fmt.Sprintf(format, args...)}}
}

func notFound(what, id string) error {
	return refuse(http.StatusNotFound, api.NotFound, "there is no %s %.40q", what, id)
}

// explain turns an error into what a caller may know of it. Errors that nobody foresaw are logged and called internal: their
// text may hold paths.
func (s *Server) explain(err error) (status int, body api.ErrorBody) {
	var known *refusal
	var full *FullError
	var large *http.MaxBytesError
	var diverged *DivergedError
	answer := func(status int, kind, text string) (int, api.ErrorBody) {
		return status, api.ErrorBody{Error: api.Error{Type: kind, Message: text}}
	}
	switch {
	case errors.As(err, &known):
		return known.status, api.ErrorBody{Error: known.what, RetryAfter: known.after.Seconds()}
	case errors.As(err, &full):
		s.metrics.refusals.WithLabelValues("full").Inc()
		return http.StatusServiceUnavailable, api.ErrorBody{Error: api.Error{Type: api.Overloaded, Message: full.What}, RetryAfter: full.After.Seconds()}
	case errors.As(err, &large):
		return answer(http.StatusRequestEntityTooLarge, api.BadRequest, fmt.Sprintf("body of more than %d bytes", large.Limit))
	case errors.As(err, &diverged):
		return answer(http.StatusConflict, api.Conflict, diverged.Error())
	case errors.Is(err, ErrRequest):
		return answer(http.StatusBadRequest, api.BadRequest, err.Error())
	case errors.Is(err, compute.ErrNoMemory):
		s.metrics.refusals.WithLabelValues("memory").Inc()
		return http.StatusServiceUnavailable, api.ErrorBody{Error: api.Error{Type: api.Overloaded, Message: "not enough memory now"}, RetryAfter: retryFull.Seconds()}
	case errors.Is(err, errEnded):
		return answer(http.StatusNotFound, api.NotFound, "the session has ended")
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return answer(http.StatusRequestTimeout, api.BadRequest, "the request was given up")
	}
	s.logger.Error("internal error", "error", err)
	return answer(http.StatusInternalServerError, api.Internal, "internal error")
}

// fail writes an error.
func (s *Server) fail(w http.ResponseWriter, err error) {
	status, body := s.explain(err)
	if body.RetryAfter > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(int(math.Ceil(body.RetryAfter))))
	}
	s.write(w, status, body)
}

// write writes JSON.
func (s *Server) write(w http.ResponseWriter, status int, v any) {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err) // types of package api
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_, _ = w.Write(append(b, '\n')) // a caller that is gone
}

// reason says why a session ended, for people outside.
func (s *Server) reason(err error) string {
	for _, known := range []error{errDeleted, errIdle, errLife, errDraining, errGone} {
		if errors.Is(err, known) {
			return known.Error()
		}
	}
	_, body := s.explain(err)
	return body.Error.Message
}

// newID returns an id that cannot be guessed.
func newID(kind string) string { return kind + "_" + strings.ToLower(rand.Text()) }
