// Package client talks to a longtake server from Go.
//
// What enters: the server's address, a token where it wants one, and requests of package api. What leaves: answers of package
// api, and from a Player frames as they come. Errors of the server are *StatusError, with *api.Error inside.
package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"longtake/api"
)

// Client calls one server. It is safe for concurrent use.
type Client struct {
	// URL is the server's root, such as "http://127.0.0.1:7860".
	URL string
	// Token is sent if it is not empty.
	Token string
	// HTTP makes the requests; nil is http.DefaultClient.
	HTTP *http.Client
}

// StatusError is an answer that is no success.
type StatusError struct {
	Status     int // HTTP
	Err        *api.Error
	RetryAfter time.Duration // when to come again, if the server said so
}

// Error returns what the server said.
func (e *StatusError) Error() string { return fmt.Sprintf("%d: %s", e.Status, e.Err.Message) }

// Unwrap returns the server's error.
func (e *StatusError) Unwrap() error { return e.Err }

// maxAnswer bounds answers that are read whole.
const maxAnswer = 256 << 20

func (c *Client) http() *http.Client {
	if c.HTTP != nil {
		return c.HTTP
	}
	return http.DefaultClient
}

// send makes a request; the caller closes the body of the answer.
func (c *Client) send(ctx context.Context, method, path, kind string, body []byte) (*http.Response, error) {
	r, err := http.NewRequestWithContext(ctx, method, strings.TrimSuffix(c.URL, "/")+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	if body != nil {
		r.Header.Set("Content-Type", kind)
	}
	if c.Token != "" {
		r.Header.Set("Authorization", "Bearer "+c.Token)
	}
	a, err := c.http().Do(r)
	if err != nil {
		return nil, err
	}
	if a.StatusCode >= 400 {
		defer a.Body.Close()
		return nil, failure(a)
	}
	return a, nil
}

// failure reads an answer that is no success.
func failure(a *http.Response) error {
	var body api.ErrorBody
	b, err := io.ReadAll(io.LimitReader(a.Body, 64<<10))
	if err == nil {
		err = json.Unmarshal(b, &body)
	}
	if err != nil || body.Error.Type == "" {
		body.Error = api.Error{Type: api.Internal, Message: a.Status}
	}
	return &StatusError{a.StatusCode, &body.Error, time.Duration(body.RetryAfter * float64(time.Second))}
}

// call sends in as JSON, if it is not nil, and reads a T.
func call[T any](ctx context.Context, c *Client, method, path string, in any) (out T, err error) {
	var body []byte
	if in != nil {
		if body, err = json.Marshal(in); err != nil {
			return out, err
		}
	}
	b, err := c.whole(ctx, method, path, "application/json", body)
	if err != nil {
		return out, err
	}
	if err := json.Unmarshal(b, &out); err != nil {
		return out, fmt.Errorf("answer of %s: %w", path, err)
	}
	return out, nil
}

// whole reads an answer of at most maxAnswer bytes.
func (c *Client) whole(ctx context.Context, method, path, kind string, body []byte) ([]byte, error) {
	a, err := c.send(ctx, method, path, kind, body)
	if err != nil {
		return nil, err
	}
	defer a.Body.Close()
	b, err := io.ReadAll(io.LimitReader(a.Body, maxAnswer+1))
	if err == nil && len(b) > maxAnswer {
		err = errors.New("answer is too large")
	}
	return b, err
}

// Models lists the models.
func (c *Client) Models(ctx context.Context) (api.ModelList, error) {
	return call[api.ModelList](ctx, c, http.MethodGet, "/v1/models", nil)
}

// CreateSession starts a session.
func (c *Client) CreateSession(ctx context.Context, r api.SessionRequest) (api.Session, error) {
	return call[api.Session](ctx, c, http.MethodPost, "/v1/sessions", r)
}

// Session returns the state of a session.
func (c *Client) Session(ctx context.Context, id string) (api.Session, error) {
	return call[api.Session](ctx, c, http.MethodGet, "/v1/sessions/"+url.PathEscape(id), nil)
}

// Sessions lists the caller's sessions.
func (c *Client) Sessions(ctx context.Context) (api.SessionList, error) {
	return call[api.SessionList](ctx, c, http.MethodGet, "/v1/sessions", nil)
}

// DeleteSession ends a session.
func (c *Client) DeleteSession(ctx context.Context, id string) error {
	_, err := call[api.Deleted](ctx, c, http.MethodDelete, "/v1/sessions/"+url.PathEscape(id), nil)
	return err
}

// Step makes chunks of a session in step mode.
func (c *Client) Step(ctx context.Context, id string, r api.StepRequest) (api.StepResult, error) {
	return call[api.StepResult](ctx, c, http.MethodPost, "/v1/sessions/"+url.PathEscape(id)+"/step", r)
}

// Control sends a control to a session.
func (c *Client) Control(ctx context.Context, id string, m api.Control) (api.Session, error) {
	return call[api.Session](ctx, c, http.MethodPost, "/v1/sessions/"+url.PathEscape(id)+"/control", m)
}

// Snapshot returns the event log that a session can be restored from.
func (c *Client) Snapshot(ctx context.Context, id string) ([]byte, error) {
	return c.whole(ctx, http.MethodGet, "/v1/sessions/"+url.PathEscape(id)+"/snapshot", "", nil)
}

// Restore starts a session from a snapshot. Mode is api.Live or api.Step.
func (c *Client) Restore(ctx context.Context, snapshot []byte, mode string) (s api.Session, err error) {
	b, err := c.whole(ctx, http.MethodPost, "/v1/restore?mode="+url.QueryEscape(mode), "application/jsonl", snapshot)
	if err == nil {
		err = json.Unmarshal(b, &s)
	}
	return s, err
}

// Fork starts a second session that has come the same way.
func (c *Client) Fork(ctx context.Context, id string) (api.Session, error) {
	return call[api.Session](ctx, c, http.MethodPost, "/v1/sessions/"+url.PathEscape(id)+"/fork", nil)
}

// CreateVideo asks for a video.
func (c *Client) CreateVideo(ctx context.Context, r api.VideoRequest) (api.Video, error) {
	return call[api.Video](ctx, c, http.MethodPost, "/v1/videos", r)
}

// Video returns the state of a video.
func (c *Client) Video(ctx context.Context, id string) (api.Video, error) {
	return call[api.Video](ctx, c, http.MethodGet, "/v1/videos/"+url.PathEscape(id), nil)
}

// CancelVideo cancels a video.
func (c *Client) CancelVideo(ctx context.Context, id string) (api.Video, error) {
	return call[api.Video](ctx, c, http.MethodPost, "/v1/videos/"+url.PathEscape(id)+"/cancel", nil)
}

// VideoContent writes the file of a completed video to w.
func (c *Client) VideoContent(ctx context.Context, id string, w io.Writer) error {
	a, err := c.send(ctx, http.MethodGet, "/v1/videos/"+url.PathEscape(id)+"/content", "", nil)
	if err != nil {
		return err
	}
	defer a.Body.Close()
	_, err = io.Copy(w, a.Body)
	return err
}
