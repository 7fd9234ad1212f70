package compare_test

import (
	"bytes"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"longtake/compare"
	"longtake/compute/cpu"
	"longtake/model/modeltest"
	"longtake/world"
)

// benchLine is a line of a Go benchmark: name, iterations, then pairs of value and unit.
var benchLine = regexp.MustCompile(`^Benchmark[^\s]*-\d+\t\d+(\t\S+ \S+)+$`)

func TestABenchWritesLinesOfGoBenchmarks(t *testing.T) {
	e := modeltest.TinyWorld(t, cpu.Options{})
	o := options(t, e, full, entry("window: 1 / 2", narrow.Keeps))
	r, err := compare.Bench(t.Context(), compare.BenchOptions{Engine: e, Request: o.Request, Actions: o.Actions, Frames: 8,
		Entries: o.Entries, Frontiers: []int{5}, Span: 2, Turn: 2})
	if err != nil {
		t.Fatal(err)
	}
	roundTrip(t, r)
	together, err := compare.Bench(t.Context(), compare.BenchOptions{Engine: e, Request: o.Request, Actions: o.Actions, Frames: 8,
		Entries: o.Entries, Frontiers: []int{5}, Span: 2, Turn: 1, Together: true})
	if err != nil {
		t.Fatal(err)
	}
	for i, run := range together.Runs {
		for j, f := range run.Frontiers {
			if want := r.Runs[i].Frontiers[j]; f.Frame != want.Frame || f.Chunks != want.Chunks || f.Tokens != want.Tokens || f.CacheBytes != want.CacheBytes {
				t.Errorf("together %+v, one after the other %+v", f, want)
			}
		}
	}
	r.Setup.Threads, r.Setup.Kernel = 2, "any"
	var b bytes.Buffer
	if err := r.WriteLines(&b); err != nil {
		t.Fatal(err)
	}
	names := map[string]map[string]float64{}
	for line := range strings.Lines(b.String()) {
		line = strings.TrimSuffix(line, "\n")
		if !strings.HasPrefix(line, "Benchmark") {
			if !strings.HasPrefix(line, "Unit ") && !strings.Contains(line, ": ") {
				t.Errorf("neither benchmark nor configuration: %q", line)
			}
			continue
		}
		if !benchLine.MatchString(line) {
			t.Errorf("no benchmark line: %q", line)
			continue
		}
		fields := strings.Fields(line)
		values := map[string]float64{}
		for i := 2; i < len(fields); i += 2 {
			v, err := strconv.ParseFloat(fields[i], 64)
			if err != nil {
				t.Error(err)
			}
			values[fields[i+1]] = v
		}
		names[fields[0]] = values
	}
	for _, name := range []string{"policy=full/frames=5-2", "policy=full/frames=8-2", "policy=window:_1___2/frames=5-2", "policy=window:_1___2/frames=8-2"} {
		v := names["BenchmarkRollout/"+name]
		if v == nil {
			t.Errorf("no line %s in\n%s", name, b.String())
			continue
		}
		if !(v["fps"] > 0) || v["fps"]*v["ns/frame"] < 0.99e9 || v["fps"]*v["ns/frame"] > 1.01e9 || v["cache-bytes"] <= 0 || v["first-frame-ns"] <= 0 {
			t.Errorf("%s: %v", name, v)
		}
	}
	if names["BenchmarkRollout/policy=full/frames=8-2"]["tokens"] != 8*64 || names["BenchmarkRollout/policy=window:_1___2/frames=8-2"]["tokens"] != 2*64 {
		t.Errorf("tokens:\n%s", b.String())
	}
}

func TestAMemoryTestTellsThoseWhoForgetFromThoseWhoRemember(t *testing.T) {
	e := modeltest.TinyWorld(t, cpu.Options{})
	// Three steps further round a circle half of the view is still the last frame's; ten steps are only in the memory.
	for kind, want := range map[world.Kind]struct{ span, given, made int }{
		world.LookAround: {3, 4, 3}, world.WalkAndUndo: {3, 4, 3}, world.Circles: {10, 31, 10},
	} {
		m := compare.MemoryOptions{Engine: e, Kind: kind, Span: want.span, Clips: 1, Seed: 7, Steps: 1, Entries: []compare.Entry{full, narrow}, Stills: 2}
		test, err := compare.Memory(t.Context(), m)
		if err != nil {
			t.Fatal(err)
		}
		if test.Given != want.given || test.Made != want.made || len(test.Seeds) != 1 || test.Seeds[0] < 7 || len(test.TruthStrip) != 2 {
			t.Errorf("%v: %+v", kind, test)
		}
		a, b := test.Rows[0], test.Rows[1]
		if !(a.PSNR > b.PSNR+1) || a.Tokens <= b.Tokens || a.ToFirst.Measured() || !b.ToFirst.Measured() || len(a.Frames) != want.made || a.Worst != a.Clips[0] {
			t.Errorf("%v: full %+v, narrow %+v", kind, a, b)
		}
		if a.New > 0.001 || !(a.Seen > b.Seen+1) || a.Seen-a.PSNR > 0.05 || a.PSNR-a.Seen > 0.05 {
			t.Errorf("%v shows nothing new: full %v dB of all, %v dB of the %v that was seen before; narrow %v", kind, a.PSNR, a.Seen, 1-a.New, b.Seen)
		}
		report := compare.MemoryReport{Tests: []compare.MemoryTest{*test}}
		roundTrip(t, &report)
		var text bytes.Buffer
		if err := report.Table(&text); err != nil || strings.Count(text.String(), "\n") != 4 {
			t.Errorf("table (%v):\n%s", err, text.String())
		}
	}
}

func TestAWayBackShowsWhatTheWayThereDidNot(t *testing.T) {
	test, err := compare.Memory(t.Context(), compare.MemoryOptions{Engine: modeltest.TinyWorld(t, cpu.Options{}), Kind: world.WalkAndReturn, Span: 10, Clips: 1, Seed: 7, Steps: 1, Entries: []compare.Entry{full}})
	if err != nil {
		t.Fatal(err)
	}
	if row := test.Rows[0]; !(row.New > 0.02 && row.New < 0.7) || !(row.Seen > row.PSNR) {
		t.Errorf("%v of the way back is new, %v dB of all, %v of what was seen before", row.New, row.PSNR, row.Seen)
	}
}

func TestALongWalkIsHeldAgainstTrueOnes(t *testing.T) {
	test, err := compare.Play(t.Context(), compare.PlayOptions{Engine: modeltest.TinyWorld(t, cpu.Options{}), Measure: compare.Stability, Frames: 100, Given: 50, Clips: 1, Seed: 3000, Steps: 1,
		Entries: []compare.Entry{narrow}})
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]float64{}
	for _, f := range test.Rows[0].Findings {
		found[f.Name] = float64(f.Mean)
	}
	dream, real := found["sharpness at 100, dream"], found["sharpness at 100, true walks astray"]
	if !(real > 5 && real < 20) || !(dream > 0 && dream < real) {
		t.Errorf("a window of one frame and one step dream with a sharpness of %v, true walks have %v: want less", dream, real)
	}
}

func TestImpossibleMemoryTestsAreRefused(t *testing.T) {
	e := modeltest.TinyWorld(t, cpu.Options{})
	for want, change := range map[string]func(*compare.MemoryOptions){
		"no policies":       func(m *compare.MemoryOptions) { m.Entries = nil },
		"at least 1":        func(m *compare.MemoryOptions) { m.Clips = 0 },
		"span of 0":         func(m *compare.MemoryOptions) { m.Span = 0 },
		"known are look-":   func(m *compare.MemoryOptions) { m.Kind = world.Mixed },
		"denoising steps":   func(m *compare.MemoryOptions) { m.Steps = -7 },
		"episode of 200000": func(m *compare.MemoryOptions) { m.Span = 1_000_000 },
	} {
		m := compare.MemoryOptions{Engine: e, Kind: world.LookAround, Span: 2, Clips: 1, Steps: 1, Entries: []compare.Entry{full}}
		change(&m)
		if _, err := compare.Memory(t.Context(), m); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want %q: %v", want, err)
		}
	}
}
