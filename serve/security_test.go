package serve

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"longtake/api"
	"longtake/client"
)

func header2(name, value string) func(*http.Request) {
	return func(q *http.Request) { q.Header.Set(name, value) }
}

func host(name string) func(*http.Request) { return func(q *http.Request) { q.Host = name } }

// Rule 1: a token where one is set, on everything but health and the page.
func TestATokenIsNeededWhereOneIsSet(t *testing.T) {
	r := newRig(t, func(o *Options, _ *toy) { o.Tokens = []string{"first-token", "second-token"}; o.Store = openStore(t) })
	for _, rt := range r.routes {
		path := strings.ReplaceAll(rt.path, "{id}", "ses_none")
		for name, change := range map[string]func(*http.Request){
			"nothing": header2("X-Nothing", ""), "a wrong token": header2("Authorization", "Bearer first-toke"), "a longer token": header2("Authorization", "Bearer first-tokenx"),
			"another scheme": header2("Authorization", "Basic first-token"), "an empty token": header2("Authorization", "Bearer "),
			"a made-up cookie": header2("Cookie", cookieName+"=0.99999999999.AAAA"), "a token in the query": func(q *http.Request) { q.URL.RawQuery = "token=first-token" },
		} {
			status, _, _ := r.do(rt.method, path, nil, change)
			if open := status != http.StatusUnauthorized; open != rt.open {
				t.Errorf("%s %s with %s: status %d", rt.method, rt.path, name, status)
			}
		}
	}
	if status, _, _ := r.do("GET", "/", nil); status != http.StatusOK {
		t.Errorf("the page: status %d", status)
	}
	r.auth = "second-token"
	x := r.create(api.SessionRequest{})
	r.auth = "first-token" // sees no sessions of the other
	if list := call2[api.SessionList](r, "GET", "/v1/sessions", nil, 200); len(list.Data) != 0 {
		t.Errorf("%+v", list)
	}
	for _, c := range [][2]string{{"GET", ""}, {"DELETE", ""}, {"POST", "/control"}, {"GET", "/snapshot"}, {"POST", "/fork"}} {
		if status, _, _ := r.do(c[0], "/v1/sessions/"+x.ID+c[1], nil); status != http.StatusNotFound {
			t.Errorf("%s %s of another's session: status %d", c[0], c[1], status)
		}
	}
}

func TestACookieStandsForATokenForAWhile(t *testing.T) {
	r := newRig(t, func(o *Options, _ *toy) { o.Tokens = []string{"tok"} })
	_, _, head := r.do("POST", "/v1/login", nil, header2("Authorization", "Bearer tok"))
	line := head.Get("Set-Cookie")
	for _, want := range []string{"HttpOnly", "SameSite=Strict", "Max-Age=3600", "Path=/"} {
		if !strings.Contains(line, want) {
			t.Errorf("the cookie %q has no %s", line, want)
		}
	}
	if strings.Contains(line, "tok.") || strings.Contains(line, "=tok") {
		t.Errorf("the cookie %q shows the token", line)
	}
	cookie := strings.SplitN(strings.TrimPrefix(line, cookieName+"="), ";", 2)[0]
	with := func(value string) int {
		status, _, _ := r.do("GET", "/v1/models", nil, header2("Cookie", cookieName+"="+value))
		return status
	}
	if got := with(cookie); got != http.StatusOK {
		t.Errorf("the cookie: status %d", got)
	}
	if got := with("1" + cookie[1:]); got != http.StatusUnauthorized {
		t.Errorf("a cookie for another: status %d", got)
	}
	if got := with(r.door.seal("0", time.Now().Add(-time.Second))); got != http.StatusUnauthorized {
		t.Errorf("an old cookie: status %d", got)
	}
	if other := newDoor([]string{"tok"}, nil, nil, Limits{}); other.sign("a") == r.door.sign("a") {
		t.Error("two servers sign alike")
	}
}

func TestACallerHasARateAndAQuota(t *testing.T) {
	r := newRig(t, func(o *Options, _ *toy) { o.Limits = Limits{Requests: 1, Burst: 5, Owned: 2} })
	counts := map[int]int{}
	for range 8 {
		status, _, head := r.do("GET", "/v1/models", nil)
		counts[status]++
		if status == http.StatusTooManyRequests && head.Get("Retry-After") == "" {
			t.Error("429 without Retry-After")
		}
	}
	if counts[200] < 5 || counts[200] > 6 || counts[429] < 2 {
		t.Errorf("%v", counts)
	}
	if status, _, _ := r.do("GET", "/healthz", nil); status != 200 {
		t.Errorf("healthz is limited: %d", status)
	}
	r2 := newRig(t, func(o *Options, _ *toy) { o.Limits.Owned = 2 })
	r2.create(api.SessionRequest{})
	r2.create(api.SessionRequest{})
	if status, _, _ := r2.do("POST", "/v1/sessions", nil); status != http.StatusServiceUnavailable {
		t.Errorf("a third session of 2: %d", status)
	}
}

// Rule 2: Host and Origin on every request and upgrade.
func TestStrangeHostsAndOriginsAreRefusedEverywhere(t *testing.T) {
	r := newRig(t, func(o *Options, _ *toy) {
		o.Hosts, o.Origins = []string{"play.example"}, []string{"https://friend.example"}
	})
	addr := strings.TrimPrefix(r.web.URL, "http://")
	port := addr[strings.LastIndexByte(addr, ':'):]
	paths := []string{"/", "/app.js", "/nothing"}
	for _, rt := range r.routes {
		paths = append(paths, strings.ReplaceAll(rt.path, "{id}", "ses_none")+"?protocol_version=1")
	}
	bad := map[string]func(*http.Request){
		"a rebound name":        host("evil.example" + port),
		"another address":       host("10.0.0.1" + port),
		"a name with our start": host("127.0.0.1.evil.example"),
		"another site":          header2("Origin", "https://evil.example"),
		"no site":               header2("Origin", "null"),
		"a file":                header2("Origin", "file://"),
		"another port":          header2("Origin", "http://127.0.0.1:1"),
		"a name with our host":  header2("Origin", "http://"+addr+".evil.example"),
		"a site's image":        header2("Sec-Fetch-Site", "cross-site"),
		"a neighbour's image":   header2("Sec-Fetch-Site", "same-site"),
	}
	upgrade := func(q *http.Request) {
		for k, v := range map[string]string{"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA=="} {
			q.Header.Set(k, v)
		}
	}
	for name, change := range bad {
		for _, path := range paths {
			if status, b, _ := r.do("GET", path, nil, change); status != http.StatusForbidden {
				t.Errorf("%s on %s: status %d %.80s", name, path, status, b)
			}
		}
		if status, _, _ := r.do("GET", "/v1/play?protocol_version=1", nil, upgrade, change); status != http.StatusForbidden {
			t.Errorf("%s: an upgrade: status %d", name, status)
		}
	}
	for name, change := range map[string]func(*http.Request){
		"localhost": host("localhost" + port), "our own page": header2("Origin", r.web.URL), "a listed name": host("play.example"),
		"a listed site": header2("Origin", "https://friend.example"), "a link": func(q *http.Request) {
			q.Header.Set("Sec-Fetch-Site", "cross-site")
			q.Header.Set("Sec-Fetch-Mode", "navigate")
		},
	} {
		if status, _, _ := r.do("GET", "/", nil, change); status != http.StatusOK {
			t.Errorf("%s: status %d", name, status)
		}
	}
	_, _, head := r.do("GET", "/v1/models", nil, header2("Origin", r.web.URL))
	if head.Get("Access-Control-Allow-Origin") != "" {
		t.Error("CORS is on")
	}
	_, _, head = r.do("GET", "/v1/models", nil, header2("Origin", "https://friend.example"))
	if head.Get("Access-Control-Allow-Origin") != "https://friend.example" || head.Get("Access-Control-Allow-Credentials") != "" {
		t.Errorf("a listed site: %v", head)
	}
	for _, name := range []string{"Content-Security-Policy", "X-Content-Type-Options", "X-Frame-Options", "Cross-Origin-Resource-Policy"} {
		if head.Get(name) == "" {
			t.Errorf("no %s", name)
		}
	}
}

// Rules 3 and 5: nothing that a caller sends is run, and nothing that looks like an address or a path is followed. The package
// imports no way to run programs or to make requests of its own.
func TestNothingThatCallersSendIsRunOrFetched(t *testing.T) {
	names, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, word := range []string{`"os/exec"`, `"plugin"`, "http.Get(", "http.Client", "net.Dial", `"encoding/gob"`, `"unsafe"`} {
			if bytes.Contains(b, []byte(word)) {
				t.Errorf("%s has %s", name, word)
			}
		}
	}
	for _, field := range []string{"image_url", "url", "input_reference", "path", "model_path"} {
		r := newRig(t, nil)
		if status, _, _ := r.do("POST", "/v1/sessions", fmt.Sprintf(`{%q:"http://169.254.169.254/"}`, field)); status != 400 {
			t.Errorf("%s: status %d", field, status)
		}
	}
}

// Rule 4: ids never lead to files.
func TestIdsNeverBecomePaths(t *testing.T) {
	s := openStore(t)
	outside := filepath.Join(filepath.Dir(s.root.Name()), "outside.webm")
	if err := os.WriteFile(outside, []byte("secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	defer os.Remove(outside)
	if err := os.Symlink(outside, filepath.Join(s.root.Name(), "videos", "vid_aaaaaaaaaaaaaaaaaaaaaaaaaa.webm")); err != nil {
		t.Skip("needs symbolic links, which Linux and macOS give every user")
	}
	for _, id := range []string{"", ".", "..", "../outside", "..%2foutside", "/etc/passwd", `..\outside`, "vid_../../outsideaaaaaaaaaaaa", "VID_aaaaaaaaaaaaaaaaaaaaaaaaaa",
		"vid_aaaaaaaaaaaaaaaaaaaaaaaaaa\x00", "vid_aaaaaaaaaaaaaaaaaaaaaaaaaa"} {
		if f, err := s.open("videos", id, ".webm"); err == nil {
			b, _ := io.ReadAll(f)
			f.Close()
			t.Errorf("id %q opens a file: %q", id, b)
		}
		if f, err := s.create("videos", id, ".webm"); err == nil {
			f.Close()
			t.Errorf("id %q makes a file", id)
		}
	}
	for range 100 {
		if id := newID("ses"); !validID(id) {
			t.Fatalf("our own id %q is none", id)
		}
	}
}

// raw talks to a server without a client's manners.
func (r *rig) raw(text string) net.Conn {
	r.t.Helper()
	c, err := net.Dial("tcp", strings.TrimPrefix(r.web.URL, "http://"))
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { c.Close() })
	if _, err := io.WriteString(c, text); err != nil {
		r.t.Fatal(err)
	}
	return c
}

// Rule 6: limits.
func TestSlowAndLargeRequestsEnd(t *testing.T) {
	r := newRig(t, func(o *Options, _ *toy) {
		o.Limits.SlowHead, o.Limits.SlowBody, o.Limits.SlowWrite = 300*time.Millisecond, 300*time.Millisecond, 300*time.Millisecond
	})
	at := "Host: " + strings.TrimPrefix(r.web.URL, "http://") + "\r\n"
	var all sync.WaitGroup
	for name, c := range map[string]struct{ text, want string }{
		"a header that never ends": {"GET / HTTP/1.1\r\n" + at + "X: ", ""},
		"a body that never comes":  {"POST /v1/sessions HTTP/1.1\r\n" + at + "Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{", "408"},
		"a chunk that never comes": {"POST /v1/sessions HTTP/1.1\r\n" + at + "Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\nff\r\n{", "408"},
		"a header of 40 KiB":       {"GET /healthz HTTP/1.1\r\n" + at + "X: " + strings.Repeat("x", 40<<10) + "\r\n\r\n", "431"},
		"a body of 11 MiB":         {"POST /v1/sessions HTTP/1.1\r\n" + at + "Content-Type: application/json\r\nContent-Length: 11534336\r\n\r\n", "4"},
	} {
		all.Go(func() {
			conn := r.raw(c.text)
			_ = conn.SetReadDeadline(time.Now().Add(8 * time.Second))
			b, err := io.ReadAll(conn)
			if err != nil && !strings.Contains(err.Error(), "reset") {
				t.Errorf("%s: the connection stays open: %v", name, err)
			}
			if c.want != "" && !strings.HasPrefix(string(b), "HTTP/1.1 "+c.want) {
				t.Errorf("%s: %.60q", name, b)
			}
		})
	}
	all.Wait()
}

func TestAViewerThatTakesOneByteASecondIsLetGo(t *testing.T) {
	r := newRig(t, func(o *Options, _ *toy) { o.Limits.SlowWrite = 200 * time.Millisecond })
	x := r.create(api.SessionRequest{FPS: 120})
	conn := r.raw("GET /v1/sessions/" + x.ID + "/mjpeg HTTP/1.1\r\nHost: " + strings.TrimPrefix(r.web.URL, "http://") + "\r\n\r\n")
	_ = conn.(*net.TCPConn).SetReadBuffer(1024)
	_, _ = bufio.NewReaderSize(conn, 16).ReadByte()
	viewers := func() int { return call2[api.Session](r, "GET", "/v1/sessions/"+x.ID, nil, 200).Viewers }
	await(t, "the viewer", func() bool { return viewers() == 1 })
	deadline := time.Now().Add(20 * time.Second)
	for viewers() != 0 { // the system's buffers hold a few seconds of small frames
		if time.Now().After(deadline) {
			t.Skip("needs a system whose socket buffers hold less than 20 s of frames, as Linux's do")
		}
		time.Sleep(50 * time.Millisecond)
	}
}

func TestTheDefaultLimitsAreThoseThatArePromised(t *testing.T) {
	l := Limits{}.withDefaults()
	if l.Body != 10<<20 || l.Control > 2<<20 || l.Header != 16<<10 || l.SlowHead != 10*time.Second || l.Idle != 5*time.Minute ||
		l.Life != 24*time.Hour || l.Controls != 240 || l.VideoSize != 2048 || api.MaxPromptBytes != 8<<10 {
		t.Errorf("%+v", l)
	}
}

// Rule 9: logs hold no prompts, errors no paths.
func TestPromptsStayOutOfLogs(t *testing.T) {
	var b lockedBuffer
	r := newRig(t, func(o *Options, _ *toy) {
		o.Logger = slog.New(slog.NewJSONHandler(&b, &slog.HandlerOptions{Level: slog.LevelDebug}))
	})
	secret := "a private prompt"
	x := r.create(api.SessionRequest{Prompt: &secret, Mode: api.Step})
	call2[api.StepResult](r, "POST", "/v1/sessions/"+x.ID+"/step", api.StepRequest{ActionIDs: []int{0}, Prompt: &secret}, 200)
	r.do("POST", "/v1/sessions", `{"prompt":"a private prompt","seed":"no number"}`)
	p := r.player("format=raw")
	send(t, p, api.Control{Type: "prompt", Prompt: secret, ID: 1})
	next(t, p, func(m client.Message) bool { return notice("applied")(m) && m.Notice.ID == 1 })
	p.Close()
	call2[api.Deleted](r, "DELETE", "/v1/sessions/"+x.ID, nil, 200)
	if text := b.String(); strings.Contains(text, "private") || !strings.Contains(text, x.ID) {
		t.Errorf("the log: %s", text)
	}
}

type lockedBuffer struct {
	mu sync.Mutex
	bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.Buffer.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.Buffer.String()
}

// Rule 8 is TestASlowViewerSlowsNobody, rule 7 TestMemoryIsRefusedBeforeItIsTaken, rule 10 the two tests of files that are cut.
func TestALogIsReadUpToItsLastWholeLine(t *testing.T) {
	m := (&toy{}).model()
	var log bytes.Buffer
	e, err := NewLedger(0, 0, 0).admit(0, 0)
	if err != nil {
		t.Fatal(err)
	}
	bytes, err := need(m, Setup{}, "")
	if err != nil || e.grow(bytes) != nil {
		t.Fatal(err)
	}
	s, _, err := openScene(t.Context(), m, e, Setup{Seed: 1}, "", func(e *Event) { log.Write(e.line()) })
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for i := range 100 {
		if err := s.steer(i / 10 % 3); err != nil {
			t.Fatal(err)
		}
		if _, err := s.step(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	s.end()
	whole := log.Bytes()
	for n := range len(whole) {
		events, err := ReadLog(strings.NewReader(string(whole[:n])), maxEvents)
		if err != nil {
			if strings.Contains(string(whole[:n]), "\n") {
				t.Fatalf("cut to %d bytes: %v", n, err)
			}
			continue
		}
		if n%50 != 0 {
			continue
		}
		if _, err := Replay(t.Context(), m, events, nil); err != nil {
			t.Fatalf("cut to %d bytes: %v", n, err)
		}
	}
}

func FuzzReadLog(f *testing.F) {
	f.Add([]byte(`{"type":"begin","chunk":0,"version":1,"model":"toy","model_sha256":"cafe","kernel_class":"none","setup":{"seed":1,"policy":"window"}}` + "\n" +
		`{"type":"action","chunk":3,"action":1}` + "\n" + `{"type":"end","chunk":5,"sha256":"00"}` + "\n"))
	f.Add([]byte(`{"type":"begin","chunk":0,"version":1,"setup":{}}` + "\n" + `{"type":"policy","chunk":1,"view":-1}` + "\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		events, err := ReadLog(bytes.NewReader(b), 50)
		if err != nil {
			return
		}
		if events[len(events)-1].Chunk > 200 {
			return
		}
		_, _ = Replay(t.Context(), (&toy{}).model(), events, nil)
	})
}

func FuzzHosts(f *testing.F) {
	f.Add("127.0.0.1:80", "http://127.0.0.1:80")
	f.Add("[::1]:7860", "null")
	d := newDoor(nil, nil, nil, Limits{})
	f.Fuzz(func(t *testing.T, host, origin string) {
		q := &http.Request{Host: host, Header: http.Header{"Origin": {origin}}, Method: "GET"}
		if d.knownHost(q) {
			t.Fatalf("%q is known without an address", host)
		}
		if d.knownOrigin(q) && origin != "" && !strings.Contains(strings.ToLower(origin), strings.ToLower(host)) {
			t.Fatalf("%q may call %q", origin, host)
		}
	})
}
