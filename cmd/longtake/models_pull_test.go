package main

import (
	"crypto/sha256"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"longtake/api"
	"longtake/serve"
)

// finerModel is a folder in which a model of random numbers lies, finer: 24x16 pixels, 2 x 3 patches half as far apart. It returns the
// folder and its file of sums.
func finerModel(t *testing.T) (dir, sums string) {
	dir = t.TempDir()
	if err := os.CopyFS(filepath.Join(dir, "finer"), os.DirFS(filepath.Join("..", "..", "model", "testdata", "golden", "finer"))); err != nil {
		t.Fatal(err)
	}
	var lines strings.Builder
	for _, name := range []string{"config.json", "vocab.json", "weights.safetensors"} {
		raw, err := os.ReadFile(filepath.Join(dir, "finer", name))
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&lines, "%x  %s\n", sha256.Sum256(raw), name)
	}
	// The golden numbers beside it are a second safetensors file: no part of the model.
	if err := os.Remove(filepath.Join(dir, "finer", "rollout.safetensors")); err != nil {
		t.Fatal(err)
	}
	sums = filepath.Join(dir, "SHA256SUMS")
	if err := os.WriteFile(sums, []byte(lines.String()), 0o666); err != nil {
		t.Fatal(err)
	}
	return dir, sums
}

func TestAPulledModelIsUsedByItsName(t *testing.T) {
	dir, sums := finerModel(t)
	server := httptest.NewServer(http.FileServer(http.Dir(dir)))
	defer server.Close()
	for _, where := range []string{dir, server.URL} {
		store := t.TempDir()
		t.Setenv("LONGTAKE_MODELS", store)
		t.Setenv("LONGTAKE_PULL_FROM", where)
		r := succeed(t, "models", "pull", "finer", "--sums", sums)
		if !strings.Contains(r.err, "3 files, each equal to its SHA-256; use it as --model finer") {
			t.Errorf("said %q", r.err)
		}
		if r = succeed(t, "models", "pull", "finer", "--sums", sums); !strings.Contains(r.err, "is there already") {
			t.Errorf("the second time %q", r.err)
		}
	}
	if r := succeed(t, "models", "verify", "finer"); !strings.Contains(r.out, "finer is whole: world model of 24x16 pixels") {
		t.Errorf("verify said %q", r.out)
	}
	// By name, by folder, by file: the same model, the same frames.
	at, digests := filepath.Join(os.Getenv("LONGTAKE_MODELS"), "finer"), map[string]bool{}
	for _, name := range []string{"finer", at, filepath.Join(at, "weights.safetensors")} {
		out := filepath.Join(t.TempDir(), "a.y4m")
		succeed(t, "generate", "--model", name, "--frames", "5", "--seed", "3", "--scale", "1", "--cpu-kernel", "generic", "-q", "-o", out)
		raw, err := os.ReadFile(out)
		if err != nil {
			t.Fatal(err)
		}
		if !strings.HasPrefix(string(raw), "YUV4MPEG2 W24 H16 ") {
			t.Errorf("%s: the video begins %.40q", name, raw)
		}
		digests[fmt.Sprintf("%x", sha256.Sum256(raw))] = true
	}
	if len(digests) != 1 {
		t.Errorf("%d different videos", len(digests))
	}
}

func TestOtherCommandsTakeAModelOfAnotherSize(t *testing.T) {
	dir, _ := finerModel(t)
	at, out := filepath.Join(dir, "finer"), t.TempDir()
	succeed(t, "compare", "--model", at, "--frames", "12", "--policies", "full; window:window=4; pose:window=6", "-q", "-o", filepath.Join(out, "c.json"))
	succeed(t, "eval", "world", "--model", at, "--tests", "look-around", "--span", "3", "--clips", "1", "--policies", "full; pose", "-q", "-o", filepath.Join(out, "e.json"))
	succeed(t, "eval", "world", "--model", at, "--tests", "next-frame, actions", "--clips", "1", "--frames", "25", "-q", "-o", filepath.Join(out, "n.json"))
}

func TestWhatPullRefuses(t *testing.T) {
	dir, sums := finerModel(t)
	t.Setenv("LONGTAKE_MODELS", t.TempDir())
	t.Setenv("LONGTAKE_PULL_FROM", "")
	bad := filepath.Join(dir, "bad")
	if err := os.WriteFile(bad, []byte("abc ../x\n"), 0o666); err != nil {
		t.Fatal(err)
	}
	for what, c := range map[string]struct {
		args []string
		want string
	}{
		"no source":                           {[]string{"finer", "--sums", sums}, "no source is configured: --from or LONGTAKE_PULL_FROM"},
		"a release that is not at its source": {[]string{"world-hd", "--from", dir}, "no such file"},
		"unknown model":                       {[]string{"mine", "--from", dir}, "not released by this project"},
		"the embedded one":                    {[]string{"tinyworld", "--from", dir}, "part of the program"},
		"a family":                            {[]string{"self-forcing", "--from", dir}, "had from its authors"},
		"a path":                              {[]string{"../x", "--from", dir}, "a model's name has"},
		"no folder":                           {[]string{"finer", "--sums", sums, "--from", filepath.Join(dir, "none")}, "is no folder"},
		"plain http":                          {[]string{"finer", "--sums", sums, "--from", "http://example.com"}, "only https"},
		"a bad file":                          {[]string{"finer", "--sums", bad, "--from", dir}, "is not a SHA-256 and a plain file name"},
		"sums not there":                      {[]string{"finer", "--sums", dir + "/none", "--from", dir}, "no such file"},
		"no model of sums":                    {[]string{"other", "--sums", sums, "--from", dir}, "no such file"},
	} {
		r := longtake(t, append([]string{"models", "pull"}, c.args...)...)
		if r.code == exitDone || !strings.Contains(r.err, c.want) || strings.Count(r.err, "\n") != 1 {
			t.Errorf("%s: exit code %d, %q", what, r.code, r.err)
		}
	}
	if r := longtake(t, "generate", "--model", "world-hd", "-q"); r.code != exitUsage || !strings.Contains(r.err, "longtake models pull world-hd brings it") {
		t.Errorf("a release that was not pulled: exit code %d, %q", r.code, r.err)
	}
	damaged := filepath.Join(dir, "finer", "weights.safetensors")
	raw, err := os.ReadFile(damaged)
	if err != nil {
		t.Fatal(err)
	}
	raw[len(raw)-1] ^= 1
	if err := os.WriteFile(damaged, raw, 0o666); err != nil {
		t.Fatal(err)
	}
	r := longtake(t, "models", "pull", "finer", "--sums", sums, "--from", dir)
	if r.code != exitFailed || !strings.Contains(r.err, "finer/weights.safetensors from ") || !strings.Contains(r.err, "has SHA-256") {
		t.Errorf("a damaged file: exit code %d, %q", r.code, r.err)
	}
	if r = longtake(t, "generate", "--model", "finer", "-q"); r.code != exitUsage {
		t.Errorf("a damaged model was used: %d %q", r.code, r.err)
	}
}

// A model of another size, by its folder: lock-step with a second policy, the log made again, and a walk over a WebSocket.
func TestAModelOfAnotherSizeIsServed(t *testing.T) {
	dir, _ := finerModel(t)
	at := filepath.Join(dir, "finer")
	h, c := hostedModel(t, at, serve.Options{})
	x, err := c.CreateSession(t.Context(), api.SessionRequest{Mode: api.Step, Seed: 7, Compare: "fast"})
	if err != nil {
		t.Fatal(err)
	}
	last, err := c.Step(t.Context(), x.ID, api.StepRequest{Actions: []string{"forward", "strafe_left", "turn_right", "forward", "back"}})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.DeleteSession(t.Context(), x.ID); err != nil {
		t.Fatal(err)
	}
	log := filepath.Join(h.data, "logs", x.ID+".jsonl")
	got := parse[replayed](t, succeed(t, "replay", log, "--json", "--device", "cpu", "--model", at).out)
	if !got.Same || !got.Complete || got.SHA256 != last.Digest {
		t.Errorf("%+v, the session's digest was %s", got, last.Digest)
	}
	p, err := c.Play(t.Context(), url.Values{"seed": {"3"}, "format": {"raw"}})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Cut()
	for {
		m, err := p.Next(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if m.Frame != nil {
			if len(m.Image) != 3*24*16 {
				t.Errorf("a frame of %d bytes", len(m.Image))
			}
			return
		}
	}
}
