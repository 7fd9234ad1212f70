package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"longtake/analyze"
)

func TestAnalyzeWritesAFolderThatABrowserOpens(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "study")
	r := succeed(t, "analyze", "--frames", "5", "--steps", "2", "--given", "2", "--layers", "1", "--seed", "7", "--thresholds", "0.9", "-q", "--json", "-o", dir)
	s := parse[analyze.Study](t, r.out)
	if s.Setup.Seed != 7 || s.Setup.Frames != 5 || s.Setup.Given != 2 || s.Setup.ModelHash == "" || !strings.Contains(s.Setup.Tool, "longtake") {
		t.Errorf("setup %+v", s.Setup)
	}
	if !slices.Equal(s.At, []int{4}) || !slices.Equal(s.Layers, []int{1}) || len(s.Trials) != 2 || len(s.Matchers) != len(triedMatchers(64)) {
		t.Errorf("study %+v", s)
	}
	if s.Words[0] != "you" || len(s.Words) != len(s.Prompt[0].Mass) {
		t.Errorf("words %v", s.Words)
	}
	exact := s.Matchers[0]
	for _, m := range s.Matchers {
		for k, mass := range m.Mass {
			if !(mass > 0 && mass <= exact.Mass[k]+1e-6 && m.Exact[k] == exact.Exact[k]) {
				t.Errorf("%s finds %v, exact ranking %v", m.Name, m.Mass, exact.Mass)
				break
			}
		}
	}
	for _, name := range []string{"index.html", "study.json", "recall.svg", "components-layer1.png", "correspondence-layer1.svg"} {
		if info, err := os.Stat(filepath.Join(dir, name)); err != nil || info.Size() == 0 {
			t.Errorf("%s: %v", name, err)
		}
	}
	if left, _ := filepath.Glob(filepath.Join(dir, ".*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestAnalyzeRefusesWhatItCannotStudy(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o666); err != nil {
		t.Fatal(err)
	}
	for want, args := range map[string][]string{
		"a cosine lies between":    {"--thresholds", "2"},
		"not a folder":             {"-o", file},
		"frame 9 cannot":           {"--frames", "5", "--at", "9"},
		"layer 12: the model has":  {"--layers", "12"},
		"must be at least 1 and":   {"--frames", "5", "--given", "5"},
		"must be between 2 and":    {"--frames", "1"},
		"known are":                {"--model", "nothing"},
		"pass 7: a chunk has deno": {"--pass", "7"},
	} {
		r := longtake(t, append([]string{"analyze", "-o", filepath.Join(t.TempDir(), "d")}, args...)...)
		if r.code != exitUsage || !strings.Contains(r.err, want) || strings.Count(r.err, "\n") != 1 {
			t.Errorf("%v: code %d, %q", args, r.code, r.err)
		}
	}
}
