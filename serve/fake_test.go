package serve

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"longtake/api"
	"longtake/kvcache"
	"longtake/rollout"
	"longtake/text"
	"longtake/video"
)

// toy is a model without a network: its frames are a hash of everything that may decide them. It counts what it holds.
type toy struct {
	delay   time.Duration            // of a chunk
	slow    map[string]time.Duration // of a policy, besides
	fail    func(chunk int) error
	opened  atomic.Int64 // timelines open now
	allowed atomic.Int64 // timelines that may still be opened; 0 for any number
	busy    atomic.Int32 // chunks in work now
}

const toySize = 8

func (t *toy) model() *Model {
	m := &Model{Name: "toy", Hash: "cafe", Kernel: "none", FPS: 50, Width: toySize, Height: toySize,
		Actions: []string{"noop", "forward", "left"}, Keys: map[string]string{"KeyW": "forward"},
		Policies: []Policy{{"window", "the last frames"}, {"fast", "fewer"}}}
	m.Steer = func(held []string) int {
		for _, k := range held {
			if k == "KeyW" {
				return 1
			}
		}
		return 0
	}
	m.Plan = t.plan
	m.Picture = func(b []byte) (video.Frame, error) {
		if len(b) > 1<<20 {
			return video.Frame{}, errors.New("too large")
		}
		f := video.NewFrame(toySize, toySize)
		copy(f.Pix, b)
		return f, nil
	}
	m.Script = func(script string, _ Setup, n int) ([]int, error) {
		if script == "?" {
			return nil, badf("script %q", script)
		}
		return make([]int, n), nil
	}
	return m
}

const toyBytes = 1 << 20

func (t *toy) plan(s Setup) (Plan, error) {
	if s.Start == "/etc/passwd" {
		return Plan{}, badf("start %q is not known", s.Start)
	}
	prompt := "the default"
	if s.Prompt != nil {
		prompt = *s.Prompt
	}
	start := video.NewFrame(toySize, toySize)
	copy(start.Pix, s.Picture)
	open := func(context.Context) (Timeline, error) {
		if t.allowed.Load() != 0 && t.allowed.Add(-1) <= 0 {
			t.allowed.Store(1)
			return nil, errors.New("allocation failed")
		}
		t.opened.Add(1)
		l := &toyLine{toy: t, policy: s.Policy}
		l.mix(fmt.Sprint(s.Seed, s.Start, prompt, s.Steps), s.Picture)
		return l, nil
	}
	return Plan{Prompt: prompt, Policy: s.Policy, Bytes: toyBytes, Start: []video.Frame{start}, Open: open,
		Resume: func(ctx context.Context, heading int) (Timeline, error) {
			l, err := open(ctx)
			if err == nil {
				l.(*toyLine).mix(fmt.Sprint("resume", heading), nil)
			}
			return l, err
		}}, nil
}

type toyLine struct {
	toy    *toy
	policy string
	state  [32]byte
	chunk  int
	latent []float32
	closed bool
	looks  bool

	unknown []text.Unknown
}

func (l *toyLine) mix(text string, b []byte) {
	l.state = sha256.Sum256(append(append(l.state[:], text...), b...))
}

func (l *toyLine) Next(ctx context.Context, actions ...int) ([]video.Frame, error) {
	if l.toy.busy.Add(1) > 1 {
		return nil, errors.New("two chunks at a time")
	}
	defer l.toy.busy.Add(-1)
	if l.closed {
		return nil, rollout.ErrClosed
	}
	if l.toy.fail != nil {
		if err := l.toy.fail(l.chunk); err != nil {
			return nil, err
		}
	}
	if l.toy.delay > 0 {
		time.Sleep(l.toy.delay)
	}
	time.Sleep(l.toy.slow[l.policy])
	l.mix(fmt.Sprint(l.policy, actions), nil)
	f := video.NewFrame(toySize, toySize)
	for i := range f.Pix {
		f.Pix[i] = l.state[i%len(l.state)]
	}
	l.latent = []float32{float32(binary.LittleEndian.Uint16(l.state[:]))}
	l.chunk++
	return []video.Frame{f}, ctx.Err()
}

func (l *toyLine) Force(_ context.Context, latent []float32, actions ...int) error {
	l.mix(fmt.Sprint(latent, actions), nil)
	l.chunk++
	return nil
}

func (l *toyLine) Latents() ([]float32, error) { return l.latent, nil }
func (l *toyLine) SetPrompt(_ context.Context, p string) error {
	if p == "refused" {
		return badf("prompt refused")
	}
	l.mix("prompt "+p, nil)
	l.unknown = nil
	if strings.Contains(p, "zeppelin") {
		l.unknown = []text.Unknown{{Word: "zeppelin"}}
	}
	return nil
}
func (l *toyLine) Unknown() []text.Unknown { return l.unknown }
func (l *toyLine) Stats() kvcache.Stats    { return kvcache.Stats{Bytes: 1000, Tokens: float64(l.chunk)} }
func (l *toyLine) Times() rollout.Times    { return rollout.Times{Denoise: l.toy.delay} }
func (l *toyLine) Heading() int            { return l.chunk % 30 }
func (l *toyLine) Look(on bool)            { l.looks = on }
func (l *toyLine) Map() *api.Map {
	if !l.looks {
		return nil
	}
	return &api.Map{Rows: 1, Columns: 2, Kept: []float32{float32(l.chunk), 0}, Merged: []float32{0, 1}, Attended: []float32{0.25, 0.75}}
}
func (l *toyLine) Close() {
	if !l.closed {
		l.closed = true
		l.toy.opened.Add(-1)
	}
}

// rig is a server on a port of its own.
type rig struct {
	*Server
	t    testing.TB
	web  *httptest.Server
	toy  *toy
	auth string // a token
}

func newRig(t testing.TB, change func(*Options, *toy)) *rig {
	t.Helper()
	fake := &toy{}
	o := Options{Models: []*Model{fake.model()}, Limits: Limits{Requests: 1e6, Burst: 1e6, Owned: 1000}}
	if change != nil {
		change(&o, fake)
	}
	s, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Warm(t.Context()); err != nil {
		t.Fatal(err)
	}
	r := &rig{Server: s, t: t, toy: fake, web: httptest.NewUnstartedServer(s)}
	r.web.Config.MaxHeaderBytes = s.limits.Header
	r.web.Config.ReadHeaderTimeout = s.limits.SlowHead
	r.web.Config.ConnState = func(c net.Conn, state http.ConnState) {
		if tcp, ok := c.(*net.TCPConn); ok && state == http.StateNew {
			_ = tcp.SetWriteBuffer(4096) // so that slow readers are met soon
		}
	}
	r.web.Start()
	t.Cleanup(func() {
		s.Close()
		r.web.Close()
		if n := fake.opened.Load(); n != 0 {
			t.Errorf("%d timelines were left open", n)
		}
		if bytes, n := s.ledger.Used(); bytes != 0 || n != 0 {
			t.Errorf("%d bytes of %d sessions are still reserved", bytes, n)
		}
	})
	return r
}

func withStore(t testing.TB) func(*Options, *toy) {
	return func(o *Options, _ *toy) { o.Store = openStore(t) }
}

func openStore(t testing.TB) *Store {
	t.Helper()
	s, err := OpenStore(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// do makes a request and returns status and body. A body that is no string is sent as JSON.
func (r *rig) do(method, path string, in any, change ...func(*http.Request)) (int, []byte, http.Header) {
	r.t.Helper()
	var b io.Reader
	kind := "application/json"
	switch v := in.(type) {
	case nil:
	case string:
		b = strings.NewReader(v)
	default:
		j, err := json.Marshal(v)
		if err != nil {
			r.t.Fatal(err)
		}
		b = bytes.NewReader(j)
	}
	q, err := http.NewRequestWithContext(r.t.Context(), method, r.web.URL+path, b)
	if err != nil {
		r.t.Fatal(err)
	}
	q.Header.Set("Content-Type", kind)
	if r.auth != "" {
		q.Header.Set("Authorization", "Bearer "+r.auth)
	}
	for _, f := range change {
		f(q)
	}
	a, err := r.web.Client().Do(q)
	if err != nil {
		r.t.Fatal(err)
	}
	defer a.Body.Close()
	out, err := io.ReadAll(a.Body)
	if err != nil {
		r.t.Fatal(err)
	}
	return a.StatusCode, out, a.Header
}

// call is do for JSON answers of a status.
func call2[T any](r *rig, method, path string, in any, status int) (v T) {
	r.t.Helper()
	got, b, _ := r.do(method, path, in)
	if got != status {
		r.t.Fatalf("%s %s: status %d, not %d: %s", method, path, got, status, b)
	}
	if err := api.Strict(b, &v); err != nil {
		r.t.Fatalf("%s %s: %v in %s", method, path, err, b)
	}
	return v
}

// await polls until f is true.
func await(t testing.TB, what string, f func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !f(); {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain: %s", what)
		}
		time.Sleep(2 * time.Millisecond)
	}
}
