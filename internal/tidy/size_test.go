package tidy

import (
	"fmt"
	"go/ast"
	"maps"
	"path"
	"slices"
	"strings"
	"testing"
)

// Limits of length, in lines.
const (
	maxFile         = 600
	maxFunction     = 70
	maxReadme       = 150
	maxArchitecture = 200
)

// long are the files ("path") and functions ("path:Name", methods "path:Type.Name") that are longer, each with the reason.
// An entry that is not needed any more is a fault, too.
var long = map[string]string{}

// measured are the extensions whose files have a limit of length.
var measured = []string{".cu", ".cuh", ".h", ".py", ".sh", ".js"}

func TestFilesAreShort(t *testing.T) { obey(t, func(t *tree) []string { return files(t, long) }) }

// files finds long files. Generated ones may have any length.
func files(t *tree, exceptions map[string]string) (faults []string) {
	check := func(name string, lines int) {
		if _, excepted := exceptions[name]; lines > maxFile && !excepted {
			faults = append(faults, fmt.Sprintf("%s: %d lines, at most %d", name, lines, maxFile))
		} else if lines <= maxFile && excepted {
			faults = append(faults, fmt.Sprintf("%s: has %d lines now and needs no exception in internal/tidy/size_test.go", name, lines))
		}
	}
	for _, s := range t.sources {
		if !s.generated {
			check(s.path, s.lines)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(t.texts)) {
		if slices.Contains(measured, path.Ext(name)) {
			check(name, strings.Count(t.texts[name], "\n"))
		}
	}
	return faults
}

func TestFunctionsAreShort(t *testing.T) {
	obey(t, func(t *tree) []string { return functions(t, long) })
}

// functions finds long functions.
func functions(t *tree, exceptions map[string]string) (faults []string) {
	for _, s := range t.sources {
		if s.generated {
			continue
		}
		for _, d := range s.syntax.Decls {
			f, ok := d.(*ast.FuncDecl)
			if !ok {
				continue
			}
			lines := t.fset.Position(f.End()).Line - t.fset.Position(f.Pos()).Line + 1
			name := s.path + ":" + receiver(f) + f.Name.Name
			if _, excepted := exceptions[name]; lines > maxFunction && !excepted {
				faults = append(faults, fmt.Sprintf("%s: %s has %d lines, at most %d", t.at(f.Pos()), f.Name.Name, lines, maxFunction))
			} else if lines <= maxFunction && excepted {
				faults = append(faults, fmt.Sprintf("%s: has %d lines now and needs no exception in internal/tidy/size_test.go", name, lines))
			}
		}
	}
	return faults
}

// receiver returns "Type." of a method, and "" of a function.
func receiver(f *ast.FuncDecl) string {
	if f.Recv == nil || len(f.Recv.List) == 0 {
		return ""
	}
	e := f.Recv.List[0].Type
	for {
		switch x := e.(type) {
		case *ast.StarExpr:
			e = x.X
		case *ast.IndexExpr:
			e = x.X
		case *ast.IndexListExpr:
			e = x.X
		case *ast.Ident:
			return x.Name + "."
		default:
			return ""
		}
	}
}

func TestExceptionsExistAndHaveReasons(t *testing.T) {
	obey(t, func(t *tree) (faults []string) {
		known := map[string]bool{}
		for _, s := range t.sources {
			known[s.path] = true
			for _, d := range s.syntax.Decls {
				if f, ok := d.(*ast.FuncDecl); ok {
					known[s.path+":"+receiver(f)+f.Name.Name] = true
				}
			}
		}
		for name := range t.texts {
			known[name] = true
		}
		for _, name := range slices.Sorted(maps.Keys(long)) {
			if !known[name] || long[name] == "" {
				faults = append(faults, fmt.Sprintf("%s: an exception in internal/tidy/size_test.go without a file, a function or a reason", name))
			}
		}
		return faults
	})
}

func TestFrontPagesAreShort(t *testing.T) {
	obey(t, func(t *tree) (faults []string) {
		for name, limit := range map[string]int{"README.md": maxReadme, "ARCHITECTURE.md": maxArchitecture} {
			text, there := t.texts[name]
			if n := strings.Count(text, "\n"); !there || n >= limit {
				faults = append(faults, fmt.Sprintf("%s: %d lines, must exist and stay below %d", name, n, limit))
			}
		}
		return faults
	})
}

// TestLines prints the lines of Go of each package, so that growth shows in a review: go test ./internal/tidy -run Lines -v
func TestLines(t *testing.T) {
	tr, err := repository()
	if err != nil {
		t.Fatal(err)
	}
	type count struct{ code, tests, generated int }
	var sum count
	lines := map[string]*count{}
	for _, s := range tr.sources {
		c := lines[s.dir]
		if c == nil {
			c = new(count)
			lines[s.dir] = c
		}
		switch {
		case s.generated:
			c.generated += s.lines
			sum.generated += s.lines
		case s.test:
			c.tests += s.lines
			sum.tests += s.lines
		default:
			c.code += s.lines
			sum.code += s.lines
		}
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%-28s %8s %8s %10s\n", "lines of Go", "code", "tests", "generated")
	for _, dir := range slices.Sorted(maps.Keys(lines)) {
		c := lines[dir]
		fmt.Fprintf(&b, "%-28s %8d %8d %10d\n", dir, c.code, c.tests, c.generated)
	}
	fmt.Fprintf(&b, "%-28s %8d %8d %10d\n", "all", sum.code, sum.tests, sum.generated)
	t.Log("\n" + b.String())
}
