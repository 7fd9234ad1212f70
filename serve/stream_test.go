package serve

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"

	"longtake/api"
	"longtake/client"
)

func (r *rig) client() *client.Client {
	return &client.Client{URL: r.web.URL, Token: r.auth, HTTP: r.web.Client()}
}

// player plays a new session that ends with the connection.
func (r *rig) player(query string) *client.Player {
	r.t.Helper()
	q, err := url.ParseQuery(query)
	if err != nil {
		r.t.Fatal(err)
	}
	p, err := r.client().Play(r.t.Context(), q)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { p.Cut() })
	return p
}

// next returns the next message that is wanted.
func next(t testing.TB, p *client.Player, wanted func(client.Message) bool) client.Message {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	for {
		m, err := p.Next(ctx)
		if err != nil {
			t.Fatalf("waiting for a message: %v", err)
		}
		if wanted(m) {
			return m
		}
	}
}

func notice(kind string) func(client.Message) bool {
	return func(m client.Message) bool { return m.Notice != nil && m.Notice.Type == kind }
}

func anyFrame(m client.Message) bool { return m.Frame != nil }

func send(t testing.TB, p *client.Player, c api.Control) {
	t.Helper()
	if err := p.Send(t.Context(), c); err != nil {
		t.Fatal(err)
	}
}

func TestKeysReachTheNextChunkAndTheReceiptSaysWhich(t *testing.T) {
	r := newRig(t, nil)
	p := r.player("seed=1&format=raw")
	hello := next(t, p, notice("hello")).Notice
	if hello.ProtocolVersion != 1 || hello.Session.Seed != 1 || hello.Model.ID != "toy" {
		t.Fatalf("%+v", hello)
	}
	send(t, p, api.Control{Type: "keys", Keys: []string{"KeyW"}, ID: 5, Time: 77})
	if got := next(t, p, notice("received")).Notice; got.ID != 5 {
		t.Fatalf("%+v", got)
	}
	applied := -1
	f := next(t, p, func(m client.Message) bool {
		if notice("applied")(m) {
			applied = m.Notice.Chunk
		}
		return m.Frame != nil && m.Frame.Action == "forward"
	})
	if f.Frame.Chunk != applied || f.Frame.Echo != 77 || len(f.Image) != 3*toySize*toySize || f.Frame.CacheBytes != 1000 || f.Frame.Policy != "window" {
		t.Fatalf("applied at chunk %d, %+v", applied, f.Frame)
	}
	send(t, p, api.Control{Type: "keys"})
	next(t, p, func(m client.Message) bool { return m.Frame != nil && m.Frame.Action == "noop" })
	// A tap that is over before the next chunk still counts once.
	send(t, p, api.Control{Type: "pause", Paused: true, ID: 6})
	next(t, p, func(m client.Message) bool { return notice("applied")(m) && m.Notice.ID == 6 })
	send(t, p, api.Control{Type: "keys", Keys: []string{"KeyW"}})
	send(t, p, api.Control{Type: "keys"})
	send(t, p, api.Control{Type: "ping", ID: 9, Time: 3})
	if pong := next(t, p, notice("pong")).Notice; pong.Time != 3 {
		t.Fatalf("%+v", pong)
	}
	send(t, p, api.Control{Type: "pause"})
	taps := 0
	for range 5 {
		if next(t, p, anyFrame).Frame.Action == "forward" {
			taps++
		}
	}
	if taps != 1 {
		t.Fatalf("a tap counted for %d chunks", taps)
	}
}

func TestOrdersAreObeyedWhileFramesFlow(t *testing.T) {
	r := newRig(t, nil)
	p := r.player("format=png")
	order := func(c api.Control, id int64) *api.Notice {
		t.Helper()
		c.ID = id
		send(t, p, c)
		return next(t, p, func(m client.Message) bool {
			return m.Notice != nil && m.Notice.ID == id && m.Notice.Type != "received"
		}).Notice
	}
	state := func() api.Session { return *next(t, p, notice("state")).Notice.Session }
	next(t, p, anyFrame)
	order(api.Control{Type: "prompt", Prompt: "night"}, 1)
	order(api.Control{Type: "compare", Policy: "fast"}, 2)
	for state().Compare != "fast" {
	}
	second := next(t, p, func(m client.Message) bool { return m.Frame != nil && m.Frame.View == 1 }).Frame
	if second.Policy != "fast" || second.PSNR == 0 {
		t.Fatalf("%+v", second)
	}
	order(api.Control{Type: "policy", View: 0, Policy: "fast"}, 3)
	next(t, p, func(m client.Message) bool { return m.Frame != nil && m.Frame.View == 0 && m.Frame.Policy == "fast" })
	order(api.Control{Type: "reset", Seed: 99}, 4)
	for state().Seed != 99 {
	}
	order(api.Control{Type: "compare"}, 5)
	if got := order(api.Control{Type: "prompt", Prompt: "refused"}, 6); got.Type != "error" || got.Error.Type != api.BadRequest {
		t.Fatalf("%+v", got)
	}
	if got := order(api.Control{Type: "policy", Policy: "none"}, 7); got.Type != "error" {
		t.Fatalf("%+v", got)
	}
	if got := order(api.Control{Type: "policy", View: 1, Policy: "fast"}, 8); got.Type != "error" {
		t.Fatalf("%+v", got)
	}
	if got := order(api.Control{Type: "action", Action: "fly"}, 9); got.Type != "error" {
		t.Fatalf("%+v", got)
	}
	order(api.Control{Type: "fps", FPS: 100}, 10)
	next(t, p, anyFrame)
}

func TestALiveSessionReplaysFromItsLog(t *testing.T) {
	r := newRig(t, withStore(t))
	x := r.create(api.SessionRequest{Seed: 4, Image: []byte("a picture")})
	p, err := r.client().Watch(t.Context(), x.ID, "jpeg")
	if err != nil {
		t.Fatal(err)
	}
	defer p.Cut()
	id := int64(0)
	apply := func(c api.Control) {
		t.Helper()
		id++
		c.ID = id
		send(t, p, c)
		next(t, p, func(m client.Message) bool { return notice("applied")(m) && m.Notice.ID == id })
	}
	apply(api.Control{Type: "keys", Keys: []string{"KeyW"}})
	apply(api.Control{Type: "prompt", Prompt: "the sky is night"})
	apply(api.Control{Type: "compare", Policy: "fast"})
	apply(api.Control{Type: "fps", FPS: 120})
	next(t, p, func(m client.Message) bool { return m.Frame != nil && m.Frame.Chunk > 40 })
	apply(api.Control{Type: "policy", Policy: "fast"})
	apply(api.Control{Type: "keys"})
	apply(api.Control{Type: "reset", Seed: 12})
	apply(api.Control{Type: "action", Action: "left"})
	next(t, p, func(m client.Message) bool { return m.Frame != nil && m.Frame.Chunk > 80 })
	call2[api.Deleted](r, "DELETE", "/v1/sessions/"+x.ID, nil, http.StatusOK)
	status, log, _ := r.do("GET", "/v1/logs/"+x.ID, nil)
	if status != http.StatusOK {
		t.Fatalf("status %d: %s", status, log)
	}
	events, err := ReadLog(strings.NewReader(string(log)), maxEvents)
	if err != nil {
		t.Fatal(err)
	}
	got, err := Replay(t.Context(), r.Models[0], events, nil)
	if err != nil || !got.Complete || got.Digests < 2 || got.Chunks < 80 {
		t.Fatalf("%+v %v", got, err)
	}
	// Any other event makes other frames. (A chunk earlier would not where the action came before the first.)
	for i, e := range events {
		if e.Type == eventAction {
			events[i].Action++
			break
		}
	}
	var diverged *DivergedError
	if _, err := Replay(t.Context(), r.Models[0], events, nil); !errors.As(err, &diverged) {
		t.Fatalf("a changed log replays: %v", err)
	}
	changed := *r.Models[0]
	changed.Policies = []Policy{{"window", "the last frames"}, {"fast", "fewer still"}}
	if _, err := Replay(t.Context(), &changed, events, nil); !errors.Is(err, ErrRequest) || !strings.Contains(err.Error(), `was "fewer", here it is "fewer still"`) {
		t.Fatalf("a log of a policy that has changed replays: %v", err)
	}
	events[0].Kernel = "other"
	if _, err := Replay(t.Context(), r.Models[0], events, nil); !errors.Is(err, ErrRequest) {
		t.Fatalf("a log of another kernel class replays: %v", err)
	}
}

func TestASlowViewerSlowsNobody(t *testing.T) {
	r := newRig(t, nil)
	x := r.create(api.SessionRequest{FPS: 100})
	var players []*client.Player
	for range 20 {
		p, err := r.client().Watch(t.Context(), x.ID, "raw")
		if err != nil {
			t.Fatal(err)
		}
		defer p.Cut()
		players = append(players, p)
	}
	// 19 do not read at all. The one that does misses nothing much.
	began, n := time.Now(), 0
	for time.Since(began) < time.Second {
		next(t, players[0], anyFrame)
		n++
	}
	if n < 50 { // of a machine that does other things, too: one that waits for a viewer shows a handful
		t.Errorf("%d frames of 100 in a second beside viewers that do not read", n)
	}
}

func TestViewersThatLeaveNothingBehind(t *testing.T) {
	sessions := 160
	if n, err := strconv.Atoi(os.Getenv("LONGTAKE_CHURN")); err == nil { // 2000 take about a minute
		sessions = n
	}
	r := newRig(t, func(o *Options, _ *toy) { o.Store = openStore(t); o.Limits.Conns = 100 })
	r.player("").Close()
	await(t, "the first session's end", func() bool { return len(r.all()) == 0 })
	before, heap := runtime.NumGoroutine(), alive()
	var all sync.WaitGroup
	for worker := range 8 {
		all.Go(func() {
			for i := range sessions / 8 {
				p, err := r.client().Play(t.Context(), url.Values{"fps": {"100"}})
				if err != nil {
					t.Error(err)
					return
				}
				if i%3 != 0 {
					_, _ = p.Next(t.Context())
				}
				if i%5 == worker%5 {
					_ = p.Send(t.Context(), api.Control{Type: "compare", Policy: "fast"})
				}
				p.Cut()
			}
		})
	}
	all.Wait()
	await(t, "the end of all sessions", func() bool { return len(r.all()) == 0 })
	r.web.CloseClientConnections()
	await(t, "the goroutines' end", func() bool { return runtime.NumGoroutine() <= before+5 })
	if grown := alive() - heap; grown > 4<<20 {
		t.Errorf("%d sessions left %d bytes", sessions, grown)
	} else {
		t.Logf("%d sessions: %d goroutines before, %d after; %+d bytes", sessions, before, runtime.NumGoroutine(), grown)
	}
	if bytes, n := r.ledger.Used(); bytes != 0 || n != 0 || r.toy.opened.Load() != 0 || r.cacheBytes.Load() != 0 {
		t.Errorf("%d bytes of %d sessions, %d timelines, %d bytes of caches are left", bytes, n, r.toy.opened.Load(), r.cacheBytes.Load())
	}
}

// alive is the heap in use.
func alive() int64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

func TestAFullServerRefusesPolitelyAndTheOthersKeepTheirRate(t *testing.T) {
	r := newRig(t, func(o *Options, fake *toy) {
		fake.delay = 3 * time.Millisecond
		o.Ledger = NewLedger(0, 0, 0.5) // 3 sessions of 50 fps fit: 0.15 each, and a little for the clock
	})
	var players []*client.Player
	refused := 0
	for range 12 {
		p := r.player("fps=50&format=raw")
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		m, err := p.Next(ctx)
		if err == nil && m.Notice.Type == "error" {
			refused++
			if m.Notice.RetryAfter <= 0 || m.Notice.Error.Type != api.Overloaded {
				t.Errorf("%+v", m.Notice)
			}
			if _, err = p.Next(ctx); websocket.CloseStatus(err) != websocket.StatusTryAgainLater {
				t.Errorf("closed with %v", err)
			}
		} else if err != nil {
			t.Fatal(err)
		} else {
			players = append(players, p)
		}
		cancel()
	}
	if len(players) == 0 || len(players) > 3 || refused != 12-len(players) {
		t.Fatalf("%d served, %d refused", len(players), refused)
	}
	status, b, head := r.do("POST", "/v1/sessions", api.SessionRequest{})
	if status != http.StatusServiceUnavailable || head.Get("Retry-After") == "" {
		t.Fatalf("status %d, %s", status, b)
	}
	var slowest sync.Map
	var all sync.WaitGroup
	for i, p := range players {
		all.Go(func() {
			for next(t, p, anyFrame).Frame.Frame < 20 {
			}
			began, n := time.Now(), 0
			for time.Since(began) < time.Second {
				next(t, p, anyFrame)
				n++
			}
			slowest.Store(i, n)
		})
	}
	var worst time.Duration
	for range 20 {
		began := time.Now()
		if status, _, _ := r.do("GET", "/healthz", nil); status != http.StatusOK {
			t.Errorf("healthz: %d", status)
		}
		worst = max(worst, time.Since(began))
		time.Sleep(20 * time.Millisecond)
	}
	all.Wait()
	slowest.Range(func(i, n any) bool {
		if n.(int) < 25 { // of a machine that does other things, too
			t.Errorf("session %v made %d frames of 50", i, n)
		}
		return true
	})
	if worst > 2*time.Second {
		t.Errorf("healthz took %v under load", worst)
	}
}

func TestMemoryIsRefusedBeforeItIsTaken(t *testing.T) {
	one := int64(toyBytes) + pastBytes((&toy{}).model())
	r := newRig(t, func(o *Options, _ *toy) { o.Ledger = NewLedger(2*one+100, 0, 0) })
	a := r.create(api.SessionRequest{Mode: api.Step})
	b := r.create(api.SessionRequest{})
	if status, _, head := r.do("POST", "/v1/sessions", nil); status != 503 || head.Get("Retry-After") == "" {
		t.Fatalf("a third session: status %d", status)
	}
	p, err := r.client().Watch(t.Context(), b.ID, "raw")
	if err != nil {
		t.Fatal(err)
	}
	defer p.Cut()
	send(t, p, api.Control{Type: "compare", Policy: "fast", ID: 1})
	if e := next(t, p, notice("error")).Notice; e.Error.Type != api.Overloaded || e.RetryAfter == 0 {
		t.Fatalf("%+v", e)
	}
	next(t, p, anyFrame) // the session goes on
	call2[api.Deleted](r, "DELETE", "/v1/sessions/"+a.ID, nil, 200)
	send(t, p, api.Control{Type: "compare", Policy: "fast", ID: 2})
	next(t, p, func(m client.Message) bool { return m.Frame != nil && m.Frame.View == 1 })
}

func TestFaultsEndOneSessionOnly(t *testing.T) {
	var failing sync.Map
	r := newRig(t, func(_ *Options, fake *toy) {
		fake.fail = func(chunk int) error {
			if what, ok := failing.LoadAndDelete("next"); ok {
				if what == "panic" {
					panic("secret address 0xdeadbeef")
				}
				return errors.New("read /secret/path: input/output error")
			}
			return nil
		}
	})
	other := r.player("format=raw")
	next(t, other, anyFrame)
	for _, kind := range []string{"panic", "error"} {
		x := r.create(api.SessionRequest{Mode: api.Step})
		failing.Store("next", kind)
		// Either session may meet it; if it was the player's, another is started.
		status, b, _ := r.do("POST", "/v1/sessions/"+x.ID+"/step", api.StepRequest{ActionIDs: []int{0, 0, 0}})
		if strings.Contains(string(b), "secret") {
			t.Errorf("%s: the answer tells too much: %s", kind, b)
		}
		if status == 200 {
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			for {
				m, err := other.Next(ctx)
				if err != nil {
					break
				}
				if m.Notice != nil && strings.Contains(m.Notice.Reason, "secret") {
					t.Errorf("%s: the notice tells too much: %+v", kind, m.Notice)
				}
			}
			cancel()
			other = r.player("format=raw")
		}
		next(t, other, anyFrame)
	}
}

func TestTheKthAllocationMayFail(t *testing.T) {
	r := newRig(t, nil)
	for k := int64(1); k <= 4; k++ {
		r.toy.allowed.Store(k)
		x := r.create(api.SessionRequest{Compare: "fast"})
		p, err := r.client().Watch(t.Context(), x.ID, "raw")
		if err == nil {
			_ = p.Send(t.Context(), api.Control{Type: "policy", Policy: "fast"})
			ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
			for {
				if _, err := p.Next(ctx); err != nil {
					break
				}
			}
			cancel()
			p.Cut()
		}
		r.do("DELETE", "/v1/sessions/"+x.ID, nil)
		await(t, "everything to be given back", func() bool {
			bytes, n := r.ledger.Used()
			return bytes == 0 && n == 0 && r.toy.opened.Load() == 0
		})
	}
	r.toy.allowed.Store(0)
	next(t, r.player("format=raw"), anyFrame)
}

func TestIdleAndOldSessionsEnd(t *testing.T) {
	r := newRig(t, func(o *Options, _ *toy) { o.Limits.Idle, o.Limits.Life = 50*time.Millisecond, 400*time.Millisecond })
	x := r.create(api.SessionRequest{})
	await(t, "the idle session's end", func() bool { s, _, _ := r.do("GET", "/v1/sessions/"+x.ID, nil); return s == 404 })
	p := r.player("format=raw")
	end := next(t, p, notice("end")).Notice
	if end.Reason != errLife.Error() {
		t.Fatalf("%+v", end)
	}
}

func TestDrainingTellsViewersAndFinishesFiles(t *testing.T) {
	r := newRig(t, withStore(t))
	p := r.player("format=raw")
	send(t, p, api.Control{Type: "record", Record: true, ID: 1})
	id := next(t, p, func(m client.Message) bool { return notice("state")(m) && m.Notice.Session.Recording != "" }).Notice.Session.Recording
	for range 5 {
		next(t, p, anyFrame)
	}
	go r.Close()
	end := next(t, p, notice("end")).Notice
	if end.Reason != errDraining.Error() {
		t.Fatalf("%+v", end)
	}
	if _, err := p.Next(t.Context()); websocket.CloseStatus(err) != websocket.StatusGoingAway {
		t.Fatalf("closed with %v", err)
	}
	r.Close()
	got := call2[api.Recording](r, "GET", "/v1/recordings/"+id, nil, 200)
	if got.Status != "completed" || got.Frames < 4 {
		t.Fatalf("%+v", got)
	}
	if status, _, _ := r.do("POST", "/v1/sessions", nil); status != 503 {
		t.Fatalf("a session while draining: status %d", status)
	}
}

func TestMessagesThatMeanNothingAreAnsweredThenEnd(t *testing.T) {
	r := newRig(t, nil)
	for name, write := range map[string]func(*websocket.Conn) error{
		"no JSON": func(c *websocket.Conn) error { return c.Write(t.Context(), websocket.MessageText, []byte("{")) },
		"binary": func(c *websocket.Conn) error {
			return c.Write(t.Context(), websocket.MessageBinary, []byte(`{"type":"ping"}`))
		},
		"too long": func(c *websocket.Conn) error {
			return c.Write(t.Context(), websocket.MessageText, make([]byte, 65<<10))
		},
	} {
		c, _, err := websocket.Dial(t.Context(), "ws"+r.web.URL[4:]+"/v1/play?protocol_version=1", nil)
		if err != nil {
			t.Fatal(err)
		}
		c.SetReadLimit(1 << 20)
		for range maxMistakes + 1 {
			_ = write(c)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		for err == nil {
			_, _, err = c.Read(ctx)
		}
		cancel()
		if code := websocket.CloseStatus(err); code != websocket.StatusPolicyViolation && code != websocket.StatusMessageTooBig && !strings.Contains(err.Error(), "reset") {
			t.Errorf("%s: %v", name, err)
		}
		c.CloseNow()
	}
}

func TestAFloodOfControlsIsPaced(t *testing.T) {
	r := newRig(t, func(o *Options, _ *toy) { o.Limits.Controls = 50 })
	p := r.player("format=raw")
	for i := range 120 {
		send(t, p, api.Control{Type: "ping", ID: int64(i + 1)})
	}
	began := time.Now()
	next(t, p, func(m client.Message) bool { return notice("pong")(m) && m.Notice.ID == 120 })
	if took := time.Since(began); took < time.Second {
		t.Errorf("70 controls beyond the burst came through in %v at 50 a second", took)
	}
}

func TestMJPEGShowsFrames(t *testing.T) {
	r := newRig(t, nil)
	x := r.create(api.SessionRequest{})
	q, _ := http.NewRequestWithContext(t.Context(), "GET", r.web.URL+"/v1/sessions/"+x.ID+"/mjpeg", nil)
	a, err := r.web.Client().Do(q)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Body.Close()
	b := make([]byte, 4096)
	n, err := a.Body.Read(b)
	if err != nil || !strings.Contains(string(b[:n]), "image/jpeg") || !strings.HasPrefix(a.Header.Get("Content-Type"), "multipart/x-mixed-replace") {
		t.Fatalf("%q %v", b[:n], err)
	}
}

func TestALogOnAFullDiskDoesNotStopTheSession(t *testing.T) {
	broke := make(chan struct{})
	l := newLogFile(&fullDisk{}, func() { close(broke) })
	l.write([]byte("line\n"))
	<-broke
	l.write([]byte("line\n"))
	l.close()
	tape := newRecording("rec", "ses", &fullDisk{}, videoOptions())
	for range 100 {
		tape.offer(toyFrame())
	}
	tape.finish()
	if got := tape.describe(); got.Status != "failed" || got.Error == nil || strings.Contains(got.Error.Message, "/") {
		t.Fatalf("%+v", got)
	}
}

type fullDisk struct{}

func (*fullDisk) Write([]byte) (int, error) {
	return 0, &os.PathError{Op: "write", Path: "/secret/file", Err: errors.New("no space left on device")}
}
func (*fullDisk) Close() error { return nil }

func TestMain(m *testing.M) {
	code := m.Run()
	// Whatever the tests left running by now is a leak.
	for range 200 {
		if runtime.NumGoroutine() <= 3 {
			os.Exit(code)
		}
		time.Sleep(10 * time.Millisecond)
	}
	stacks := make([]byte, 1<<20)
	fmt.Printf("goroutines are left:\n%s\n", stacks[:runtime.Stack(stacks, true)])
	os.Exit(1)
}
