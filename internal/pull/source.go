package pull

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// From returns the source that a user names: a folder, or an https URL (http for this machine alone). Models lie in folders of
// their names below it: WHERE/MODEL/FILE.
func From(where string) (Source, error) {
	if !strings.Contains(where, "://") {
		info, err := os.Stat(where)
		if err != nil {
			return nil, fmt.Errorf("%s is no folder, and no https URL: %w", where, errors.Unwrap(err))
		}
		if !info.IsDir() {
			return nil, fmt.Errorf("%s is a file: name the folder above the model's", where)
		}
		return folder(where), nil
	}
	u, err := url.Parse(where)
	if err != nil {
		return nil, errors.New("the source's URL cannot be read") // it may hold a password
	}
	if err := allowed(u); err != nil {
		return nil, err
	}
	u.RawQuery, u.Fragment = "", ""
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.ResponseHeaderTimeout = stall
	return &site{u, &http.Client{Transport: transport, CheckRedirect: func(r *http.Request, via []*http.Request) error {
		if len(via) >= 5 {
			return errors.New("more than 5 redirects")
		}
		return allowed(r.URL)
	}}}, nil
}

// stall is how long a server may say nothing.
const stall = 30 * time.Second

// allowed refuses what others could read or change on the way; the digest would notice a change, but only at the end.
func allowed(u *url.URL) error {
	host := u.Hostname()
	ip := net.ParseIP(host)
	local := host == "localhost" || ip != nil && ip.IsLoopback()
	if u.Host == "" || u.Scheme != "https" && (u.Scheme != "http" || !local) {
		return fmt.Errorf("%s: only https is used (http for this machine alone)", u.Redacted())
	}
	return nil
}

// folder is a source on this machine.
type folder string

// String implements Source.
func (f folder) String() string { return string(f) }

// Open implements Source.
func (f folder) Open(_ context.Context, model, name string, from int64) (*Body, error) {
	file, err := os.Open(filepath.Join(string(f), model, name))
	if err != nil {
		return nil, err
	}
	info, err := file.Stat()
	if err != nil || !info.Mode().IsRegular() {
		file.Close()
		return nil, fmt.Errorf("%s is no file", file.Name())
	}
	if _, err = file.Seek(from, io.SeekStart); err != nil {
		file.Close()
		return nil, err
	}
	return &Body{file, from, info.Size()}, nil
}

// site is a web server.
type site struct {
	top    *url.URL
	client *http.Client
}

// String implements Source.
func (s *site) String() string { return s.top.Redacted() }

// Open implements Source.
func (s *site) Open(ctx context.Context, model, name string, from int64) (*Body, error) {
	whole := ctx
	ctx, cancel := context.WithCancelCause(whole)
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, s.top.JoinPath(model, name).String(), nil)
	if err != nil {
		cancel(nil)
		return nil, err
	}
	r.Header.Set("User-Agent", "longtake")
	r.Header.Set("Accept-Encoding", "identity") // ranges are of the file itself
	if from > 0 {
		r.Header.Set("Range", fmt.Sprintf("bytes=%d-", from))
	}
	a, err := s.client.Do(r)
	if err != nil {
		cancel(nil)
		var wrapped *url.Error
		if errors.As(err, &wrapped) {
			err = wrapped.Err // without the URL, which may hold a password
		}
		return nil, fmt.Errorf("%s: %w", s, err)
	}
	body := &watched{body: a.Body, cancel: cancel, ctx: ctx}
	body.timer = time.AfterFunc(stall, func() { cancel(fmt.Errorf("%s said nothing for %v", s, stall)) })
	var first int64
	switch _, err := fmt.Sscanf(a.Header.Get("Content-Range"), "bytes %d-", &first); {
	case a.StatusCode == http.StatusOK:
		return &Body{body, 0, max(a.ContentLength, 0)}, nil
	case a.StatusCode == http.StatusPartialContent && err == nil && first == from:
		return &Body{body, from, from + max(a.ContentLength, 0)}, nil
	}
	body.Close()
	if from > 0 && (a.StatusCode == http.StatusPartialContent || a.StatusCode == http.StatusRequestedRangeNotSatisfiable) {
		return s.Open(whole, model, name, 0)
	}
	return nil, fmt.Errorf("%s answered %s for %s/%s", s, a.Status, model, name)
}

// watched ends a body that stays silent.
type watched struct {
	body   io.ReadCloser
	ctx    context.Context
	cancel context.CancelCauseFunc
	timer  *time.Timer
}

// Read implements io.Reader.
func (w *watched) Read(b []byte) (int, error) {
	n, err := w.body.Read(b)
	w.timer.Reset(stall)
	if err != nil && err != io.EOF && w.ctx.Err() != nil {
		err = context.Cause(w.ctx)
	}
	return n, err
}

// Close implements io.Closer.
func (w *watched) Close() error {
	w.timer.Stop()
	w.cancel(nil)
	return w.body.Close()
}
