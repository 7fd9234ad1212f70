package tidy

import (
	"fmt"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// module is the prefix of this module's import paths.
const module = "longtake/"

// arrows says which packages a package may import outside its tests, for every package from the top of the house to its
// foundation: a row may name only packages of later rows (docs/design/0001-the-house.md). "x/*" stands for all packages
// below x. A new arrow needs a design note.
var arrows = []struct {
	from string
	to   []string
}{
	{"cmd/*", []string{"serve", "client", "api", "analyze", "report", "compare", "model", "accel/*", "rollout", "video/*", "video", "vae", "text", "sampler", "dit", "attention", "kvcache",
		"weights", "world", "compute/cpu", "compute/cuda", "compute", "internal/pull"}},
	{"serve", []string{"api", "rollout", "text", "attention", "kvcache", "video/webm", "video", "compute"}},
	{"client", []string{"api"}},
	{"api", nil},
	{"analyze", []string{"report", "report/*", "compare", "rollout", "attention", "kvcache", "video", "compute"}},
	{"report", []string{"compare", "report/*"}},
	{"report/*", nil},
	{"compare", []string{"rollout", "attention", "kvcache", "video/metric", "video", "world", "compute"}},
	{"model/modeltest", []string{"model", "rollout", "compute/cpu"}}, // for tests alone
	{"model", []string{"rollout", "vae", "text", "sampler", "dit", "attention", "kvcache", "weights", "video", "compute"}},
	{"rollout", []string{"text", "sampler", "dit", "attention", "kvcache", "video", "compute"}},
	{"accel/*", []string{"accel/ann", "attention", "kvcache", "compute"}},
	{"accel/ann", []string{"attention", "kvcache", "compute"}},
	{"video/file", []string{"video/webm", "video", "video/internal/*"}},
	{"video/*", []string{"video", "video/internal/*"}},
	{"vae", []string{"weights", "video", "compute"}},
	{"text", []string{"weights", "compute"}},
	{"sampler", []string{"compute"}},
	{"dit", []string{"attention", "kvcache", "weights", "compute"}},
	{"attention/attentiontest", []string{"attention", "kvcache", "internal/golden", "compute"}},
	{"kvcache/kvcachetest", []string{"attention", "kvcache", "internal/golden", "compute"}},
	{"attention", []string{"kvcache", "compute"}},
	{"kvcache", []string{"compute"}},
	{"dev/*", []string{"internal/synth", "compute"}},
	{"internal/synth", []string{"compute"}},
	{"compute/computetest", []string{"internal/golden", "compute"}},
	{"internal/golden", []string{"weights", "compute"}},
	{"internal/devicetest", []string{"compute/cpu", "compute/cuda", "compute"}}, // for tests alone
	{"internal/*", nil},
	{"weights", []string{"compute"}},
	{"compute/cpu", []string{"compute/cpu/internal/*", "compute"}},
	{"compute/cuda", []string{"compute/cuda/internal/*", "compute"}},
	{"compute/cpu/internal/*", nil},
	{"compute/cuda/internal/*", nil},
	{"world", nil},
	{"video", []string{"video/internal/*"}},
	{"video/internal/*", nil},
	{"compute", nil},
}

// doors says which packages, tests included, may import a module from outside. Every package that is not named keeps to the
// standard library.
var doors = map[string][]string{
	"github.com/alecthomas/kong":   {"cmd/*"},
	"github.com/vbauerster/mpb":    {"cmd/*"},
	"golang.org/x/image":           {"cmd/*", "video/*"},
	"github.com/deepteams/webp":    {"video/webm"},
	"github.com/ebitengine/purego": {"compute/cuda"},
	"github.com/coder/websocket":   {"serve", "client"},
	"github.com/pion":              {"serve"},
	"github.com/prometheus":        {"serve"},
	"go.uber.org/goleak":           {"serve"},
	"golang.org/x/sys":             {"compute/cpu", "compute/cuda", "weights", "cmd/*"},
}

// matches reports whether a package is the pattern's.
func matches(pattern, pkg string) bool {
	prefix, all := strings.CutSuffix(pattern, "*")
	return pattern == pkg || all && strings.HasPrefix(pkg, prefix)
}

func anyMatches(patterns []string, pkg string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool { return matches(p, pkg) })
}

// row returns the most exact row of a package, or -1.
func row(pkg string) int {
	found := -1
	for i, r := range arrows {
		if matches(r.from, pkg) && (found < 0 || len(r.from) > len(arrows[found].from) || r.from == pkg) {
			found = i
		}
	}
	return found
}

func TestArrowsPointDownward(t *testing.T) {
	for i, r := range arrows {
		for _, to := range r.to {
			if at := row(to); at <= i {
				t.Errorf("row %q names %q, which does not come later in the table", r.from, to)
			}
		}
	}
}

func TestImportsFollowTheTable(t *testing.T) { obey(t, imports) }

// imports finds arrows that are not in the table, of code outside tests.
func imports(t *tree) (faults []string) {
	unknown := map[string]bool{}
	t.eachImport(func(s *source, at, to string) {
		inside, own := strings.CutPrefix(to, module)
		if !own || s.test {
			return
		}
		i := row(s.dir)
		switch {
		case i < 0 && !unknown[s.dir]:
			unknown[s.dir] = true
			faults = append(faults, fmt.Sprintf("%s: package %s has no row in the import table (internal/tidy/imports_test.go)", at, s.dir))
		case i < 0:
		case !anyMatches(arrows[i].to, inside):
			faults = append(faults, fmt.Sprintf("%s: %s must not import %s (internal/tidy/imports_test.go)", at, s.dir, inside))
		}
	})
	return faults
}

func TestModulesFromOutsideEnterByTheirDoor(t *testing.T) { obey(t, outside) }

// outside finds imports of other modules where they have no place, cgo among them.
func outside(t *tree) (faults []string) {
	t.eachImport(func(s *source, at, to string) {
		first, _, _ := strings.Cut(to, "/")
		switch {
		case to == "C":
			faults = append(faults, fmt.Sprintf("%s: cgo; this project builds without a C compiler", at))
		case strings.HasPrefix(to, module) || !strings.Contains(first, "."):
			return
		case !slices.ContainsFunc(slices.Collect(maps.Keys(doors)), func(m string) bool {
			return (to == m || strings.HasPrefix(to, m+"/")) && anyMatches(doors[m], s.dir)
		}):
			faults = append(faults, fmt.Sprintf("%s: %s must not import %s (doors in internal/tidy/imports_test.go)", at, s.dir, to))
		}
	})
	return faults
}

func TestOnlyCommandsAndTestsNameDevices(t *testing.T) {
	obey(t, onlyCommands("compute/cpu", "compute/cuda"))
}

// Deleting accel and the lines of cmd's wire files that name it leaves an engine that is dense and correct: nothing else,
// apart from tests, knows of it.
func TestDeletingAccelLeavesADenseEngine(t *testing.T) {
	obey(t, onlyCommands("accel/*"))
	obey(t, func(t *tree) (faults []string) {
		t.eachImport(func(s *source, at, to string) {
			wire := strings.HasPrefix(path.Base(s.path), "wire")
			if !s.test && !wire && matches("cmd/*", s.dir) && strings.HasPrefix(to, module+"accel/") {
				faults = append(faults, fmt.Sprintf("%s: only wire*.go of a command names accelerations", at))
			}
		})
		return faults
	})
}

// onlyCommands finds imports of packages from outside their own folder, other than in commands, tests, and what only tests use.
func onlyCommands(patterns ...string) rule {
	return func(t *tree) (faults []string) {
		t.eachImport(func(s *source, at, to string) {
			inside, own := strings.CutPrefix(to, module)
			if !own || s.test || matches("cmd/*", s.dir) || forTests(s.dir) || !anyMatches(patterns, inside) {
				return
			}
			for _, p := range patterns {
				folder := strings.TrimSuffix(p, "/*")
				if s.dir == folder || strings.HasPrefix(s.dir, folder+"/") {
					return
				}
			}
			faults = append(faults, fmt.Sprintf("%s: only cmd and tests import %s", at, inside))
		})
		return faults
	}
}

func TestSuitesServeTestsOnly(t *testing.T) { obey(t, suites) }

// forTests says whether a package exists for tests: internal/golden, internal/devicetest, and packages like compute/computetest.
func forTests(pkg string) bool {
	return pkg == "internal/golden" || pkg == "internal/devicetest" || path.Base(pkg) == path.Base(path.Dir(pkg))+"test"
}

// suites finds imports of what exists for tests by what does not.
func suites(t *tree) (faults []string) {
	t.eachImport(func(s *source, at, to string) {
		if inside, own := strings.CutPrefix(to, module); own && forTests(inside) && !s.test && !forTests(s.dir) {
			faults = append(faults, fmt.Sprintf("%s: only tests import %s", at, inside))
		}
	})
	return faults
}

// worldly are the packages of the standard library that touch the world outside the process, and who may.
var worldly = map[string][]string{
	"os":            {"cmd/*", "dev/*", "serve", "analyze", "report", "compare", "model", "weights", "video", "video/*", "internal/*", "compute/computetest", "compute/cpu", "compute/cuda"},
	"os/exec":       {"cmd/*", "video"},
	"os/signal":     {"cmd/*"},
	"flag":          {"cmd/*", "dev/*", "internal/*"},
	"net":           {"cmd/*", "serve", "internal/pull"},
	"net/http":      {"cmd/*", "serve", "client", "internal/pull"},
	"log":           {"cmd/*"},
	"path/filepath": {"cmd/*", "serve", "analyze", "model", "weights", "video", "video/*", "internal/*", "compute/cuda"},
}

func TestTheEngineKnowsNothingOfFlagsFilesAndNetworks(t *testing.T) { obey(t, world) }

// world finds imports that bring files, flags, networks or the process's environment where they do not belong.
func world(t *tree) (faults []string) {
	t.eachImport(func(s *source, at, to string) {
		if who, listed := worldly[to]; listed && !s.test && !s.nested && !anyMatches(who, s.dir) {
			faults = append(faults, fmt.Sprintf("%s: %s must not import %s (worldly in internal/tidy/imports_test.go)", at, s.dir, to))
		}
	})
	return faults
}

// eachImport calls f for every import of this module's files with its place and path.
func (t *tree) eachImport(f func(s *source, at, to string)) {
	for _, s := range t.sources {
		for _, spec := range s.syntax.Imports {
			to, err := strconv.Unquote(spec.Path.Value)
			if err == nil && !s.nested {
				f(s, t.at(spec.Pos()), to)
			}
		}
	}
}
