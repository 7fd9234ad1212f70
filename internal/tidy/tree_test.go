package tidy

import (
	"bytes"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"sync"
	"testing"
)

// tree is the repository as the rules see it.
type tree struct {
	fset    *token.FileSet
	sources []*source         // Go files
	texts   map[string]string // Markdown, CUDA, Python and shell files by path
	all     map[string]bool   // every file and folder by path
}

// source is a parsed Go file.
type source struct {
	path, dir string // of the file, of its folder ("." for the root)
	syntax    *ast.File
	lines     int
	test      bool // by its name, *_test.go
	generated bool // says so in its header
	nested    bool // belongs to another module inside the repository
}

// textual are the files whose text is read, by extension.
var textual = []string{".md", ".cu", ".cuh", ".h", ".py", ".sh", ".js", ".css", ".html"}

// outputs are folders that .gitignore names: not part of the repository.
var outputs = []string{"bin", "out"}

// load parses what lies in the repository. Hidden folders other than .ci, and testdata, are passed over.
func load(files fs.FS) (*tree, error) {
	t := &tree{fset: token.NewFileSet(), texts: map[string]string{}, all: map[string]bool{}}
	modules := map[string]bool{}
	err := fs.WalkDir(files, ".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		last := path.Base(name)
		if entry.IsDir() {
			if hidden(last) || slices.Contains(outputs, name) {
				return fs.SkipDir
			}
			t.all[name] = true
			return nil
		}
		t.all[name] = true
		if strings.Contains(name, "testdata/") {
			return nil
		}
		if last == "go.mod" && name != "go.mod" {
			modules[path.Dir(name)] = true
		}
		return t.add(files, name)
	})
	for _, s := range t.sources {
		for dir := s.dir; dir != "."; dir = path.Dir(dir) {
			s.nested = s.nested || modules[dir]
		}
	}
	return t, err
}

func hidden(name string) bool { return strings.HasPrefix(name, ".") && name != "." && name != ".ci" }

// add reads a file that rules look into.
func (t *tree) add(files fs.FS, name string) error {
	ext := path.Ext(name)
	if ext != ".go" && !slices.Contains(textual, ext) && path.Dir(name) != ".ci" {
		return nil
	}
	text, err := fs.ReadFile(files, name)
	if err != nil {
		return err
	}
	if ext != ".go" {
		t.texts[name] = string(text)
		return nil
	}
	syntax, err := parser.ParseFile(t.fset, name, text, parser.ParseComments)
	if err != nil {
		return err
	}
	t.sources = append(t.sources, &source{
		path: name, dir: path.Dir(name), syntax: syntax, lines: bytes.Count(text, []byte("\n")),
		test: strings.HasSuffix(name, "_test.go"), generated: ast.IsGenerated(syntax),
	})
	return nil
}

// at writes a place as editors read it.
func (t *tree) at(p token.Pos) string {
	place := t.fset.Position(p)
	return fmt.Sprintf("%s:%d", place.Filename, place.Line)
}

// repository is the real tree, parsed once.
var repository = sync.OnceValues(func() (*tree, error) { return load(os.DirFS("../..")) })

// rule finds what breaks it; each fault starts with a place.
type rule func(*tree) []string

// obey fails the test for every fault in the repository.
func obey(t *testing.T, r rule) {
	t.Helper()
	tr, err := repository()
	if err != nil {
		t.Fatal(err)
	}
	if len(tr.sources) < 20 {
		t.Fatalf("only %d Go files found: is this the repository?", len(tr.sources))
	}
	for _, fault := range r(tr) {
		t.Error(fault)
	}
}
