package main

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"longtake/api"
	"longtake/client"
	"longtake/serve"
	"longtake/world"
)

// hosted is a server of the embedded model.
func hosted(t *testing.T, o serve.Options) (*hosting, *client.Client) {
	t.Helper()
	return hostedModel(t, "tinyworld", o)
}

// hostedModel is a server of a world model.
func hostedModel(t *testing.T, name string, o serve.Options) (*hosting, *client.Client) {
	t.Helper()
	f := serveFlags{machineFlags: machineFlags{modelFlags: modelFlags{Model: name}, Device: "cpu", Quiet: true}, Policies: served,
		Idle: time.Minute, Life: time.Hour, Data: t.TempDir()}
	h, err := f.open(t.Context(), &streams{nil, os.Stdout, os.Stderr, time.Now()}, 0, o)
	if err != nil {
		t.Fatal(err)
	}
	web := httptest.NewServer(h.server)
	t.Cleanup(func() { h.close(); web.Close() })
	return h, &client.Client{URL: web.URL}
}

func TestASessionOfTheEmbeddedModelReplaysHashForHash(t *testing.T) {
	chunks, events := 14, 8
	if n, err := strconv.Atoi(os.Getenv("LONGTAKE_REPLAY")); err == nil { // 1000 take minutes
		chunks, events = n, n/5
	}
	h, c := hosted(t, serve.Options{})
	x, err := c.CreateSession(t.Context(), api.SessionRequest{Mode: api.Step, Seed: 7})
	if err != nil {
		t.Fatal(err)
	}
	r := rand.New(rand.NewPCG(1, 2))
	policies := []string{"window", "fast", "pose"}
	var last api.StepResult
	for i := range chunks {
		q := api.StepRequest{ActionIDs: []int{r.IntN(world.NumActions)}, Format: "none"}
		if r.IntN(chunks) < events {
			switch r.IntN(4) {
			case 0:
				prompt := "the sky is " + []string{"night", "sunny", "alien"}[r.IntN(3)] + " ."
				q.Prompt = &prompt
			case 1:
				if _, err := c.Control(t.Context(), x.ID, api.Control{Type: "policy", Policy: policies[r.IntN(len(policies))]}); err != nil {
					t.Fatal(err)
				}
			case 2:
				if _, err := c.Control(t.Context(), x.ID, api.Control{Type: "compare", Policy: []string{"", "fast"}[r.IntN(2)]}); err != nil {
					t.Fatal(err)
				}
			case 3:
				if i%5 == 0 {
					if _, err := c.Control(t.Context(), x.ID, api.Control{Type: "reset", Seed: r.Uint64()}); err != nil {
						t.Fatal(err)
					}
				}
			}
		}
		if last, err = c.Step(t.Context(), x.ID, q); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.DeleteSession(t.Context(), x.ID); err != nil {
		t.Fatal(err)
	}
	logs := filepath.Join(h.data, "logs", x.ID+".jsonl")
	got := parse[replayed](t, succeed(t, "replay", logs, "--json", "--device", "cpu").out)
	if !got.Same || !got.Complete || got.SHA256 != last.Digest || got.Chunks != chunks {
		t.Fatalf("%+v, the session's digest was %s", got, last.Digest)
	}
	// Another action makes other frames, and the program says so.
	b, err := os.ReadFile(logs)
	if err != nil {
		t.Fatal(err)
	}
	changed := filepath.Join(t.TempDir(), "changed.jsonl")
	if err := os.WriteFile(changed, []byte(strings.Replace(string(b), `"seed":7`, `"seed":8`, 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	if r := longtake(t, "replay", changed, "--device", "cpu"); r.code != exitFailed || !strings.Contains(r.err, "differ") {
		t.Fatalf("a changed log: code %d, %s", r.code, r.err)
	}
}

func TestTheEmbeddedModelIsPlayedOverAWebSocket(t *testing.T) {
	_, c := hosted(t, serve.Options{})
	p, err := c.Play(t.Context(), url.Values{"seed": {"3"}, "format": {"raw"}})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Cut()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := p.Send(ctx, api.Control{Type: "keys", Keys: []string{"KeyW", "KeyA"}, ID: 1}); err != nil {
		t.Fatal(err)
	}
	for {
		m, err := p.Next(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if m.Frame != nil && m.Frame.Action == "forward_left" {
			if len(m.Image) != 3*64*64 || m.Frame.CacheBytes == 0 || m.Frame.GenMS == 0 || m.Frame.DenoiseMS == 0 {
				t.Fatalf("%+v", m.Frame)
			}
			return
		}
	}
}

func TestMapsOfTheEmbeddedModelAddUp(t *testing.T) {
	_, c := hosted(t, serve.Options{})
	sums := map[string]string{}
	for _, on := range []bool{false, true} {
		p, err := c.Play(t.Context(), url.Values{"seed": {"3"}, "fps": {"60"}, "format": {"raw"}, "policy": {"window"}, "compare": {"fast"}})
		if err != nil {
			t.Fatal(err)
		}
		if err := p.Send(t.Context(), api.Control{Type: "map", Map: on}); err != nil {
			t.Fatal(err)
		}
		maps := map[string]*api.Map{}
		for chunk := 0; chunk < 20 || on && len(maps) < 2; {
			m, err := p.Next(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if m.Frame != nil {
				if chunk = m.Frame.Chunk; m.Frame.GenMS == 0 {
					continue // the start frame
				}
				if key := fmt.Sprint(m.Frame.Frame, m.Frame.View); sums[key] == "" {
					sums[key] = string(m.Image)
				} else if sums[key] != string(m.Image) {
					t.Fatalf("frame %s is another with a map", key)
				}
			} else if m.Notice.Type == "map" {
				maps[m.Notice.Map.Policy] = m.Notice.Map
			}
		}
		p.Cut()
		if !on {
			continue
		}
		sum := func(v []float32) (s float64) {
			for _, x := range v {
				s += float64(x)
			}
			return s
		}
		for _, policy := range []string{"window", "fast"} {
			m := maps[policy]
			if m == nil || m.Rows != 8 || m.Columns != 8 || len(m.Attended) != 64 {
				t.Fatalf("%s: %+v", policy, m)
			}
			if a := sum(m.Attended); math.Abs(a-1) > 1e-3 {
				t.Errorf("%s: shares of attention add up to %v", policy, a)
			}
			// Every token so far is in view, itself or as part of another.
			if got, want := sum(m.Kept)+sum(m.Merged), float64(64*(m.Chunk+2)); policy == "fast" && math.Abs(got-want) > 64 {
				t.Errorf("%s: %v tokens in chunk %d, not %v", policy, got, m.Chunk, want)
			}
			if merged := sum(m.Merged) > 0; merged != (policy == "fast") {
				t.Errorf("%s: %v merged tokens", policy, sum(m.Merged))
			}
		}
	}
}

func TestKeysMeanActions(t *testing.T) {
	for text, want := range map[string]world.Action{"": world.Noop, "KeyW": world.Forward, "ArrowDown": world.Back, "KeyA": world.TurnLeft,
		"KeyW KeyD": world.ForwardRight, "KeyW KeyS": world.Noop, "KeyA KeyD": world.Noop, "KeyQ": world.ForwardLeft, "KeyS KeyA": world.TurnLeft,
		"KeyW ArrowUp": world.Forward, "KeyZ": world.StrafeLeft, "KeyC KeyW": world.Forward, "KeyC KeyZ": world.Noop, "Unknown": world.Noop} {
		if got := steer(strings.Fields(text)); got != int(want) {
			t.Errorf("%q means %v, not %v", text, world.Action(got), want)
		}
	}
}

func TestWhatIsOpenToTheWorldNeedsAToken(t *testing.T) {
	for listen, want := range map[string]int{"127.0.0.1:0": 0, "localhost:0": 0, "[::1]:0": 0, "0.0.0.0:0": 1, ":7860": 1, "10.0.0.1:80": 1} {
		tokens, err := (&serveCommand{Listen: listen}).tokens()
		if err != nil || len(tokens) != want || want == 1 && len(tokens[0]) < 20 {
			t.Errorf("%s: %d tokens, %v", listen, len(tokens), err)
		}
	}
	if tokens, err := (&serveCommand{Listen: "0.0.0.0:1", NoAuth: true}).tokens(); err != nil || len(tokens) != 0 {
		t.Errorf("%v %v", tokens, err)
	}
	for _, args := range [][]string{{"--listen", "nothing"}, {"--token", "short"}, {"--insecure-no-auth", "--token", "0123456789abcdef"},
		{"--pprof", "0.0.0.0:6060"}, {"--policies", "full"}, {"--policies", "a=window;a=window"}, {"--policies", "none"}, {"--memory", "12f"},
		{"--idle", "-1s"}, {"--load", "-1"}, {"--listen", "256.0.0.1:80"}} {
		if r := longtake(t, append([]string{"serve", "--listen", "127.0.0.1:0", "--no-data"}, args...)...); r.code != exitUsage {
			t.Errorf("%v: code %d, %s", args, r.code, r.err)
		}
	}
}

func TestPprofAnswersLoopbackOnly(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	l.Close()
	s, err := profiles(addr)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for host, want := range map[string]int{addr: 200, "evil.example:6060": 403} {
		q, _ := http.NewRequestWithContext(t.Context(), "GET", fmt.Sprintf("http://%s/debug/pprof/cmdline", addr), nil)
		q.URL.Path = "/debug/pprof/"
		q.Host = host
		a, err := http.DefaultClient.Do(q)
		if err != nil {
			t.Fatal(err)
		}
		a.Body.Close()
		if a.StatusCode != want {
			t.Errorf("%s: status %d", host, a.StatusCode)
		}
	}
}

func TestServedPoliciesAreBoundedAndKnownBeforehand(t *testing.T) {
	_, c := hosted(t, serve.Options{})
	list, err := c.Models(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, p := range list.Data[0].Policies {
		if p.SessionBytes < 1<<20 || p.About == "" {
			t.Errorf("%+v", p)
		}
		names = append(names, p.Name)
	}
	if !slices.Equal(names, []string{"pose", "window", "dense", "fast", "balanced"}) || len(list.Data[0].Actions) != world.NumActions {
		b, _ := json.Marshal(list)
		t.Errorf("%s", b)
	}
}
