package pull

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// content of a model's two files.
func content() map[string]string {
	return map[string]string{"weights.safetensors": strings.Repeat("0123456789abcdef", 200_000), "config.json": "{}"}
}

func filesOf(c map[string]string) (out []File) {
	for _, name := range []string{"config.json", "weights.safetensors"} {
		out = append(out, File{name, int64(len(c[name])), fmt.Sprintf("%x", sha256.Sum256([]byte(c[name])))})
	}
	return out
}

// folderOf writes a source folder.
func folderOf(t *testing.T, c map[string]string) string {
	dir := t.TempDir()
	for name, text := range c {
		at := filepath.Join(dir, "hd", name)
		if err := os.MkdirAll(filepath.Dir(at), 0o777); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(at, []byte(text), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func source(t *testing.T, where string) Source {
	t.Helper()
	s, err := From(where)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// holds checks that the store has the model whole, and nothing else.
func holds(t *testing.T, store string, c map[string]string) {
	t.Helper()
	for name, text := range c {
		if got, err := os.ReadFile(filepath.Join(store, "hd", name)); err != nil || string(got) != text {
			t.Errorf("%s: %d bytes, %v", name, len(got), err)
		}
	}
	if list, _ := os.ReadDir(store); len(list) != 1 {
		t.Errorf("the store holds %v", list)
	}
}

func TestAModelComesFromAFolderOrAServer(t *testing.T) {
	c := content()
	dir := folderOf(t, c)
	server := httptest.NewServer(http.FileServer(http.Dir(dir)))
	defer server.Close()
	for _, where := range []string{dir, server.URL, server.URL + "/"} {
		store, told := filepath.Join(t.TempDir(), "new", "store"), int64(0)
		tell := func(_ string, there, total int64) { told = max(told, there); _ = total }
		if err := Into(t.Context(), store, "hd", filesOf(c), source(t, where), false, tell); err != nil {
			t.Fatalf("%s: %v", where, err)
		}
		holds(t, store, c)
		if told != int64(len(c["weights.safetensors"])) {
			t.Errorf("%s: told of %d bytes", where, told)
		}
		if err := Into(t.Context(), store, "hd", filesOf(c), source(t, where), false, nil); !errors.Is(err, ErrHere) {
			t.Errorf("%s: the second time: %v", where, err)
		}
	}
}

// cut is a server whose first answers end early; ranges says whether it goes on where it is asked to.
func cut(t *testing.T, dir string, after int64, times int32, ranges bool) (*httptest.Server, *atomic.Int64) {
	var left atomic.Int32
	var sent atomic.Int64
	left.Store(times)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !ranges {
			r.Header.Del("Range")
		}
		out := &counting{ResponseWriter: w, sent: &sent, left: 1 << 40}
		if strings.HasSuffix(r.URL.Path, "weights.safetensors") && left.Add(-1) >= 0 {
			out.left = after
		}
		http.FileServer(http.Dir(dir)).ServeHTTP(out, r)
	}))
	t.Cleanup(s.Close)
	return s, &sent
}

type counting struct {
	http.ResponseWriter
	sent *atomic.Int64
	left int64
}

func (c *counting) Write(b []byte) (int, error) {
	n := min(int64(len(b)), c.left)
	c.left -= n
	c.sent.Add(n)
	if n, err := c.ResponseWriter.Write(b[:n]); err != nil || c.left > 0 {
		return n, err
	}
	panic(http.ErrAbortHandler)
}

func TestAPullThatWasCutOffGoesOn(t *testing.T) {
	c := content()
	dir := folderOf(t, c)
	for _, ranges := range []bool{true, false} {
		server, sent := cut(t, dir, 1_500_000, 1, ranges)
		store := t.TempDir()
		err := Into(t.Context(), store, "hd", filesOf(c), source(t, server.URL), false, nil)
		if err == nil || !strings.Contains(err.Error(), "the same command goes on") {
			t.Fatalf("cut off: %v", err)
		}
		if _, err := os.Stat(filepath.Join(store, "hd")); err == nil {
			t.Fatal("half a model has its name")
		}
		if err := Into(t.Context(), store, "hd", filesOf(c), source(t, server.URL), false, nil); err != nil {
			t.Fatal(err)
		}
		holds(t, store, c)
		if total := int64(len(c["weights.safetensors"]) + 4); ranges && sent.Load() > total {
			t.Errorf("sent %d bytes for %d", sent.Load(), total)
		}
	}
}

func TestWhatIsNotTheFileIsNotKept(t *testing.T) {
	c := content()
	right := filesOf(c)
	for what, spoil := range map[string]func(string) string{
		"another byte": func(s string) string { return "X" + s[1:] },
		"shorter":      func(s string) string { return s[:len(s)-1] },
		"longer":       func(s string) string { return s + "x" },
		"empty":        func(string) string { return "" },
	} {
		wrong := content()
		wrong["weights.safetensors"] = spoil(wrong["weights.safetensors"])
		store, bad := t.TempDir(), folderOf(t, wrong)
		err := Into(t.Context(), store, "hd", right, source(t, bad), false, nil)
		if err == nil || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v", what, err)
		}
		if _, err := os.Stat(filepath.Join(store, "hd")); err == nil {
			t.Errorf("%s: was taken", what)
		}
		// What was left behind does no harm.
		if err := Into(t.Context(), store, "hd", right, source(t, folderOf(t, c)), false, nil); err != nil {
			t.Errorf("%s, then the right one: %v", what, err)
		}
		holds(t, store, c)
	}
}

func TestAnotherModelOfThatNameIsReplacedOnlyWhenAsked(t *testing.T) {
	c := content()
	dir, store := folderOf(t, c), t.TempDir()
	if err := os.MkdirAll(filepath.Join(store, "hd"), 0o777); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(store, "hd", "mine"), nil, 0o666); err != nil {
		t.Fatal(err)
	}
	if err := Into(t.Context(), store, "hd", filesOf(c), source(t, dir), false, nil); err == nil || !strings.Contains(err.Error(), "--force") {
		t.Errorf("without asking: %v", err)
	}
	if err := Into(t.Context(), store, "hd", filesOf(c), source(t, dir), true, nil); err != nil {
		t.Fatal(err)
	}
	holds(t, store, c)
}

// full is a file on a full disk.
type full struct{}

func (full) Write([]byte) (int, error) {
	return 0, &os.PathError{Op: "write", Path: "x", Err: syscall.ENOSPC}
}
func (full) Seek(int64, int) (int64, error) { return 0, nil }
func (full) Truncate(int64) error           { return nil }

func TestAFullDiskIsSaid(t *testing.T) {
	c := content()
	p := &puller{store: "/store", model: "hd", from: source(t, folderOf(t, c))}
	f := filesOf(c)[1]
	there, err := p.take(t.Context(), full{}, sha256.New(), f, 0)
	if err = p.explain(err, f, there); err == nil || !strings.Contains(err.Error(), "no space left in /store after 0 of 3200000 bytes") {
		t.Error(err)
	}
}

func TestACancelledPullKeepsWhatItHas(t *testing.T) {
	c := content()
	store := t.TempDir()
	ctx, cancel := context.WithCancel(t.Context())
	tell := func(_ string, there, _ int64) {
		if there > 1_000_000 {
			cancel()
		}
	}
	err := Into(ctx, store, "hd", filesOf(c), source(t, folderOf(t, c)), false, tell)
	if !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	if err := Into(t.Context(), store, "hd", filesOf(c), source(t, folderOf(t, c)), false, nil); err != nil {
		t.Fatal(err)
	}
	holds(t, store, c)
}

func TestSourcesThatAreRefused(t *testing.T) {
	for where, want := range map[string]string{
		"http://example.com/models":          "only https",
		"ftp://example.com":                  "only https",
		"https://":                           "only https",
		"https://user:secret@bad host/":      "cannot be read",
		filepath.Join(t.TempDir(), "nobody"): "is no folder",
	} {
		if _, err := From(where); err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: %v", where, err)
		}
	}
	away := httptest.NewServer(http.RedirectHandler("http://192.0.2.1/other", http.StatusFound))
	defer away.Close()
	_, err := source(t, away.URL).Open(t.Context(), "hd", "x", 0)
	if err == nil || !strings.Contains(err.Error(), "only https") {
		t.Errorf("a redirect away from https: %v", err)
	}
	gone := httptest.NewServer(http.NotFoundHandler())
	defer gone.Close()
	if _, err = source(t, gone.URL).Open(t.Context(), "hd", "x", 0); err == nil || !strings.Contains(err.Error(), "404") {
		t.Errorf("a file that is not there: %v", err)
	}
}

func TestNamesThatWouldLeaveTheStore(t *testing.T) {
	c := content()
	for _, name := range []string{"", "..", ".hidden", "a/b", `a\b`, "a b", strings.Repeat("a", 200)} {
		f := filesOf(c)[:1]
		f[0].Name = name
		if err := Into(t.Context(), t.TempDir(), "hd", f, source(t, folderOf(t, c)), false, nil); err == nil {
			t.Errorf("the file %q was taken", name)
		}
		if err := Into(t.Context(), t.TempDir(), name, filesOf(c), source(t, folderOf(t, c)), false, nil); err == nil {
			t.Errorf("the model %q was taken", name)
		}
	}
}

func TestASilentServerIsGivenUp(t *testing.T) {
	w := &watched{body: io.NopCloser(strings.NewReader("")), ctx: t.Context(), cancel: func(error) {}, timer: time.AfterFunc(time.Hour, func() {})}
	ctx, cancel := context.WithCancelCause(t.Context())
	w.ctx, w.cancel, w.body = ctx, cancel, io.NopCloser(failing{})
	cancel(errors.New("said nothing"))
	if _, err := w.Read(make([]byte, 1)); err == nil || err.Error() != "said nothing" {
		t.Error(err)
	}
}

type failing struct{}

func (failing) Read([]byte) (int, error) { return 0, context.Canceled }
