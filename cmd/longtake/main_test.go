package main

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "rewrite testdata/golden")

// asProgram makes the test binary behave as the program itself, for tests that need a process to send signals to.
const asProgram = "LONGTAKE_TEST_MAIN"

func TestMain(m *testing.M) {
	if os.Getenv(asProgram) != "" {
		main()
		return
	}
	flag.Parse()
	os.Exit(m.Run())
}

// result is what a run of the program left.
type result struct {
	code     int
	out, err string
}

func longtake(t testing.TB, args ...string) result {
	t.Helper()
	var out, errs bytes.Buffer
	code := run(t.Context(), args, strings.NewReader("w2 d"), &out, &errs)
	if strings.Contains(errs.String(), "goroutine ") {
		t.Errorf("%q printed a stack trace:\n%s", args, errs.String())
	}
	return result{code, out.String(), errs.String()}
}

// succeed fails the test unless the program does.
func succeed(t testing.TB, args ...string) result {
	t.Helper()
	r := longtake(t, args...)
	if r.code != exitDone {
		t.Fatalf("%q: exit code %d, %s", args, r.code, r.err)
	}
	return r
}

// files lists everything in a folder, hidden files included.
func files(t testing.TB, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

func parse[T any](t testing.TB, text string) T {
	t.Helper()
	var v T
	d := json.NewDecoder(strings.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(&v); err != nil {
		t.Fatalf("%v in %s", err, text)
	}
	if d.More() {
		t.Fatalf("more than one JSON value in %s", text)
	}
	return v
}

// badInput are command lines that must fail, and what must be said.
var badInput = []struct {
	args string // separated by blanks; DIR is the folder
	want string
}{
	{"", `expected one of "generate", "compare", "bench", "forward"`},
	{"paint", "unexpected argument paint"},
	{"generate --fram 3", `unknown flag --fram, did you mean`},
	{"generate extra", "unexpected argument extra"},
	{"generate --model DIR/bad.safetensors", "not a safetensors file"},
	{"generate --model DIR/missing.safetensors", "no such file"},
	{"generate --frames 0", "--frames 0: must be between 1 and 1000000"},
	{"generate --frames -5", "--frames -5: must be between"},
	{"generate --frames x", "--frames: expected a valid"},
	{"generate --seed -1", "--seed: expected a valid"},
	{"generate --steps -1", "--steps -1: must not be negative"},
	{"generate --steps 2000", "2000 denoising steps: use 1 to 1000"},
	{"generate --scale -1", "--scale -1"},
	{"generate --scale 1000 -o DIR/a.gif", "scale 1000: must be between 1 and 64"},
	{"generate --fps 0", "--fps: frame rate 0"},
	{"generate --fps fast", `--fps: frame rate "fast"`},
	{"generate --threads -2", "--threads -2"},
	{"generate --precision int4", `--precision "int4": known are bf16, fp8`},
	{"generate --precision fp8 --device cpu", "--precision fp8 needs --device cuda"},
	{"generate --device cuda:x", `--device "cuda:x": the GPU is a number from 0`},
	{"generate --threads 99999", "--threads 99999"},
	{"generate --device tpu", `--device "tpu": known are auto, cpu`},
	{"generate --cpu-kernel mmx", `kernel class "mmx" cannot run`},
	{"generate --model big", "model big: no such file or folder, and not a name: known are tinyworld"},
	{"generate --cache lru", `--cache "lru": known are full, pose, tempcache, window`},
	{"generate --cache full --window 3", "--window has no meaning with --cache full, only with window or tempcache or pose"},
	{"generate --preset bold", `--preset "bold": known are balanced, exact, fast, paper, places`},
	{"generate --threshold 0.5", "--threshold has no meaning with --cache pose, only with tempcache"},
	{"generate --cache tempcache --budget 2f", "need at least 3"},
	{"compare --frames 1", "--frames 1: must be between 2"},
	{"compare --given 240", "--given 240: must be at least 1 and less than --frames 240"},
	{"compare --given 2 --start none", "--given 2: only the simulator gives more than one frame"},
	{"compare --policies window;fast;window", `bad request: policy "window" is listed twice`},
	{"compare --policies ;", "an empty list of policies"},
	{"compare --policies window --window 3", "--policies and single flags of a policy (window=3) exclude each other"},
	{"compare --frames 5 --frontiers 0", "bad request: frontier 0: frames are counted from 1"},
	{"compare --frames 5 --reference preset:fast", "which the reference"},
	{"compare --ceiling mmx", "--ceiling: kernel class"},
	{"compare --span 0", "--span 0"},
	{"compare -o DIR/a.pdf", "known endings are .json, .html"},
	{"compare -o DIR/gone/a.json", "no such file"},
	{"bench --count 0", "--count 0"},
	{"bench -o DIR/a.html", "known endings are .json, .txt"},
	{"eval world --tests swim", `--tests "swim": known are circles, look-around, walk-and-return, walk-and-undo, and actions, next-frame, one-step, one-step-own, one-step-true, prompt, stability, stroll, walls`},
	{"eval world --frames 5", "--frames 5"},
	{"eval world --given 49", "--given 49"},
	{"eval world --clips 0", "--clips 0"},
	{"eval world --tokens 1", "--tokens 1"},
	{"generate --window -1", "--window -1 --anchor 0: both must be between"},
	{"generate --anchor 2000000", "both must be between"},
	{"generate --window 1000000", "the session needs"},
	{"generate --cache full --frames 1000000", "the session needs"},
	{"generate --start DIR/none.png", "none.png: no such file or directory"},
	{"generate --start DIR/no.png", "not a PNG, JPEG, GIF or WebP image"},
	{"generate --start DIR", "not a PNG, JPEG"},
	{"generate --start sim:x", "--start sim:x: the simulator's seed must be a number"},
	{"generate --start sim:-3", "--start sim:-3"},
	{"generate --actions w2y", "--actions: line 1, column 3: expected an action"},
	{"generate --actions DIR/bad.txt", "--actions: line 2, column 4"},
	{"generate --actions @DIR/gone", "--actions: read DIR/gone: no such file"},
	{"generate --prompt @DIR/gone", "--prompt: read DIR/gone: no such file"},
	{"generate -o DIR/a.avi", `unknown extension ".avi"`},
	{"generate -o DIR/gone/a.webm", "gone: file does not exist"},
	{"generate -o DIR/taken.webm", "is not a regular file"},
	{"generate -o - --json", "exclude each other"},
	{"generate --preview", "not a terminal"},
	{"doctor --frames 0", "--frames 0: must be between 1 and 1000"},
	{"models inspect DIR/gone", "no such file"},
	{"models inspect DIR/no.png", "too few for a safetensors file"},
}

func TestBadInputIsOneClearLineAndExitCodeTwo(t *testing.T) {
	dir := t.TempDir()
	path := func(name string) string { return filepath.Join(dir, name) }
	write := func(name string, b []byte) {
		if err := os.WriteFile(path(name), b, 0o666); err != nil {
			t.Fatal(err)
		}
	}
	write("no.png", []byte("nothing"))
	write("bad.safetensors", []byte("<html>nothing here</html>"))
	write("bad.txt", []byte("w3\nw4 k"))
	if err := os.MkdirAll(path("taken.webm.json"), 0o777); err != nil {
		t.Fatal(err)
	}
	before := files(t, dir)
	for _, c := range badInput {
		args := strings.Fields(strings.ReplaceAll(c.args, "DIR", dir))
		want := strings.ReplaceAll(c.want, "DIR", dir)
		if len(args) > 0 && args[0] == "generate" && !slices.Contains(args, "-o") {
			args = append(args, "-o", path("never.webm"))
		}
		r := longtake(t, args...)
		if r.code != exitUsage || r.out != "" {
			t.Errorf("%s: exit code %d, output %q", c.args, r.code, r.out)
		}
		if !strings.HasPrefix(r.err, "longtake: ") || !strings.Contains(r.err, want) {
			t.Errorf("%s: said %q, want %q", c.args, r.err, want)
		}
		if lines := strings.Count(r.err, "\n"); lines != 1 && !strings.Contains(r.err, "column") {
			t.Errorf("%s: %d lines: %q", c.args, lines, r.err)
		}
	}
	if after := files(t, dir); !slices.Equal(before, after) {
		t.Errorf("files left: %q", after)
	}
}

func TestHelpGoesToStandardOutput(t *testing.T) {
	for _, args := range [][]string{{"--help"}, {"generate", "--help"}, {"models", "--help"}, {"models", "inspect", "-h"}, {"compare", "--help"}, {"bench", "-h"}, {"eval", "world", "--help"}} {
		if r := succeed(t, args...); !strings.Contains(r.out, "Usage: longtake") || r.err != "" {
			t.Errorf("%q: %q, %q", args, r.out, r.err)
		}
	}
	for _, word := range []string{"Examples:", "walk.webm", "window", ".gif", "tinyworld", "generic"} {
		if r := longtake(t, "generate", "--help"); !strings.Contains(r.out, word) {
			t.Errorf("help of generate lacks %q", word)
		}
	}
}

func TestFlagsMayBeWrittenTheFieldsWay(t *testing.T) {
	for in, want := range map[string]string{
		"generate --num_frames 3 --a=b_c":        "generate --num-frames 3 --a=b_c",
		"generate --frames -3 -n -4":             "generate --frames=-3 -n -4",
		"generate --output_path=x_y -- --a_b":    "generate --output-path=x_y -- --a_b",
		"generate --base_seed 1 --sink_size=2 x": "generate --base-seed 1 --sink-size=2 x",
	} {
		if got := strings.Join(normalize(strings.Fields(in)), " "); got != want {
			t.Errorf("%s became %s, want %s", in, got, want)
		}
	}
}

func TestVersion(t *testing.T) {
	if r := succeed(t, "version"); !strings.HasPrefix(r.out, "longtake ") || !strings.Contains(r.out, "go1.") {
		t.Errorf("said %q", r.out)
	}
	v := parse[map[string]any](t, succeed(t, "version", "--json").out)
	for _, key := range []string{"name", "version", "go", "os", "arch"} {
		if v[key] == "" || v[key] == nil {
			t.Errorf("lacks %s: %v", key, v)
		}
	}
}

func TestModelsAreListed(t *testing.T) {
	if r := succeed(t, "models"); !strings.Contains(r.out, "tinyworld") || !strings.Contains(r.out, "Apache-2.0") {
		t.Errorf("said %q", r.out)
	}
	list := parse[struct{ Models []modelInfo }](t, succeed(t, "models", "list", "--json").out).Models
	if len(list) != 7 || list[1].Name != "world-hd" || list[2].Name != "self-forcing" || list[0].Width != 64 || list[0].Parameters != 7669696 || len(list[0].Hash) != 64 {
		t.Errorf("found %+v", list)
	}
}

func TestDoctorFindsThisMachineHealthy(t *testing.T) {
	if testing.Short() || raceEnabled {
		t.Skip("takes seconds; runs without -short and without the race detector")
	}
	d := parse[diagnosis](t, succeed(t, "doctor", "--frames", "1", "--json").out)
	if !d.Healthy || len(d.Tests) != len(d.Kernels) || d.Threads < 1 {
		t.Errorf("found %+v", d)
	}
	for _, k := range d.Tests {
		if k.FPS <= 0 || k.Error != "" || !k.Equal && k.PSNR < testPSNR {
			t.Errorf("found %+v", k)
		}
	}
}

func TestACancelledContextEndsEveryCommandThatTakesTime(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	dir := t.TempDir()
	for _, args := range [][]string{{"generate", "-o", filepath.Join(dir, "a.webm")}, {"doctor", "--json"}, {"compare"}, {"bench"}, {"eval", "world"}} {
		var out, errs bytes.Buffer
		if code := run(ctx, args, nil, &out, &errs); code != exitInterrupted || out.Len() > 0 {
			t.Errorf("%q: exit code %d, output %q, %q", args, code, out.String(), errs.String())
		}
	}
	if left := files(t, dir); len(left) > 0 {
		t.Errorf("files left: %q", left)
	}
}
