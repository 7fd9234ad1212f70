package main

import (
	"image/png"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"longtake/compare"
)

func TestCompareWritesATableJSONAndAPage(t *testing.T) {
	if raceEnabled {
		t.Skip("takes a minute under the race detector; runs without it")
	}
	dir := t.TempDir()
	jsonPath, page := filepath.Join(dir, "a.json"), filepath.Join(dir, "a.html")
	r := succeed(t, "compare", "--frames", "6", "--given", "2", "--steps", "1", "--stills", "2", "--frontiers", "4", "--device", "cpu",
		"--policies", "window:window=2; preset:fast", "-o", jsonPath, "-o", page)
	for _, word := range []string{"preset:exact", "window:window=2", "preset:fast", "ceiling", "speed-up", "one step"} {
		if !strings.Contains(r.out, word) {
			t.Errorf("the table lacks %q:\n%s", word, r.out)
		}
	}
	if !strings.Contains(r.err, "preset:fast: cache tempcache") {
		t.Errorf("what a preset means is not said: %s", r.err)
	}
	b, err := os.ReadFile(jsonPath)
	if err != nil {
		t.Fatal(err)
	}
	report := parse[compare.Report](t, string(b))
	if len(report.Runs) != 3 || report.Ceiling == nil || report.Setup.Model != "tinyworld" || report.Setup.Given != 2 || report.Setup.Actions == "" {
		t.Errorf("report of %+v, %d runs", report.Setup, len(report.Runs))
	}
	if p := report.Runs[2].Policy; p.Name != "preset:fast" || p.Preset != "fast" || p.Cache == "" {
		t.Errorf("the preset is recorded as %+v", p)
	}
	if b, err := os.ReadFile(page); err != nil || !strings.Contains(string(b), "<html") {
		t.Errorf("no page (%v)", err)
	}
	if left := files(t, dir); len(left) != 2 {
		t.Errorf("files left: %q", left)
	}
}

func TestComparePassesSingleFlagsAsOnePolicy(t *testing.T) {
	r := succeed(t, "compare", "--frames", "3", "--steps", "1", "--stills", "0", "--ceiling", "none", "--no-one-step", "--quiet", "--device", "cpu",
		"--json", "--cache", "window", "--window", "1")
	report := parse[compare.Report](t, r.out)
	if len(report.Runs) != 2 || report.Runs[1].Policy.Cache != "window 1 + 0 anchor" || report.Ceiling != nil || r.err != "" {
		t.Errorf("%d runs, %+v; said %q", len(report.Runs), report.Runs[1].Policy, r.err)
	}
}

func TestBenchPrintsLinesOrJSON(t *testing.T) {
	txt := filepath.Join(t.TempDir(), "a.txt")
	args := []string{"bench", "--frames", "4", "--steps", "1", "--device", "cpu", "--policies", "window; full", "--quiet", "--turn", "1"}
	r := succeed(t, append(args, "--count", "2", "-o", txt)...)
	if strings.Count(r.out, "\nBenchmarkRollout/policy=window/frames=4-") != 2 || strings.Count(r.out, " ns/frame") != 4 {
		t.Errorf("said %s", r.out)
	}
	if b, err := os.ReadFile(txt); err != nil || string(b) != r.out {
		t.Errorf("the file and standard output differ (%v)", err)
	}
	report := parse[compare.BenchReport](t, succeed(t, append(args, "--json")...).out)
	if len(report.Runs) != 2 || report.Runs[0].Frontiers[0].FPS <= 0 {
		t.Errorf("report %+v", report)
	}
}

func TestEvalWorldDrawsAContactSheet(t *testing.T) {
	sheet := filepath.Join(t.TempDir(), "a.png")
	r := succeed(t, "eval", "world", "--tests", "look-around", "--span", "2", "--clips", "1", "--steps", "1", "--stills", "2", "--device", "cpu",
		"--policies", "full; window:window=1", "-o", sheet, "--json", "--quiet")
	report := parse[compare.MemoryReport](t, r.out)
	if len(report.Tests) != 1 || len(report.Tests[0].Rows) != 2 || report.Setup.Kernel == "" {
		t.Errorf("report %+v", report)
	}
	f, err := os.Open(sheet)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if m, err := png.Decode(f); err != nil || m.Bounds().Dx() != 2*64 || m.Bounds().Dy() != 3*64 {
		t.Errorf("sheet of %v (%v)", m.Bounds(), err)
	}
}

func TestEvalWorldMeasuresPlay(t *testing.T) {
	page := filepath.Join(t.TempDir(), "a.html")
	r := succeed(t, "eval", "world", "--tests", "next-frame,actions,walls,stroll,prompt", "--frames", "25", "--clips", "2", "--steps", "1", "--stills", "2",
		"--parallel", "2", "--device", "cpu", "--policies", "window", "-o", page, "--json", "--quiet")
	report := parse[compare.MemoryReport](t, r.out)
	if len(report.Play) != 5 {
		t.Fatalf("report %+v", report)
	}
	least := map[string]float64{"PSNR to the truth, dB": 27, "PSNR where earlier frames have shown it, dB": 27, "obeyed": 0.6, "locked": 0, "other places, dB to the truth": 9,
		"a turn of the simulator: all four": 1, "a turn: sky": 0.5}
	for _, test := range report.Play {
		for _, f := range test.Rows[0].Findings {
			if want, ok := least[f.Name]; ok {
				if delete(least, f.Name); f.N != 2 || float64(f.Mean) < want {
					t.Errorf("%s: %s is %v in %d clips, want at least %v in 2", test.Measure, f.Name, f.Mean, f.N, want)
				}
			}
		}
	}
	if len(least) > 0 {
		t.Errorf("not measured: %v", least)
	}
	if b, err := os.ReadFile(page); err != nil || !strings.Contains(string(b), "dream") {
		t.Errorf("page of %d bytes, %v", len(b), err)
	}
}

func TestCalibrateWritesAProfileThatGenerateReads(t *testing.T) {
	if raceEnabled {
		t.Skip("takes long under the race detector; runs without it")
	}
	dir := t.TempDir()
	profile := filepath.Join(dir, "p.json")
	r := succeed(t, "calibrate", "--clips", "1", "--frames", "12", "--made", "1", "--steps", "1", "--device", "cpu", "--dense", "0.5", "-o", profile, "--quiet")
	if strings.Count(r.out, "*") != 1+12 || !strings.Contains(r.out, "layer 5") {
		t.Errorf("said %s", r.out)
	}
	out := succeed(t, "generate", "--frames", "2", "--steps", "1", "--device", "cpu", "--self", "annsa", "--profile", profile, "--json", "--quiet",
		"-o", filepath.Join(dir, "a.y4m")).out
	if got := parse[record](t, out).Request.Self; !strings.Contains(got, "profile") {
		t.Errorf("self attention is %q", got)
	}
	if r := longtake(t, "calibrate", "--density", "1", "-o", profile); r.code != exitUsage {
		t.Errorf("a density of 1 gave %d, %s", r.code, r.err)
	}
	routing := filepath.Join(dir, "r.json")
	r = succeed(t, "calibrate", "--for", "tempcache", "--clips", "1", "--frames", "12", "--made", "1", "--steps", "1", "--device", "cpu", "--least", "0.3", "-o", routing, "--quiet")
	if n := strings.Count(r.out, "*"); n < 2 || !strings.Contains(r.out, "layer 5") {
		t.Errorf("said %s", r.out)
	}
	out = succeed(t, "generate", "--frames", "2", "--steps", "1", "--device", "cpu", "--cache", "tempcache", "--routing", routing, "--json", "--quiet", "-o", filepath.Join(dir, "b.y4m")).out
	if got := parse[record](t, out).Request.Cache; !strings.Contains(got, "local heads") {
		t.Errorf("cache is %q", got)
	}
	for bad, args := range map[string][]string{
		"at least 2":       {"--cache", "tempcache", "--window", "1", "--routing", routing},
		"longtake-routing": {"--cache", "tempcache", "--routing", profile},
		"annsa profile":    {"--self", "annsa", "--profile", routing},
	} {
		if r := longtake(t, append([]string{"generate", "--frames", "2", "-o", filepath.Join(dir, "c.y4m")}, args...)...); r.code != exitUsage || !strings.Contains(r.err, bad) {
			t.Errorf("%v gave %d, %s", args, r.code, r.err)
		}
	}
}
