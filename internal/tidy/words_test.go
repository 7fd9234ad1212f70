package tidy

import (
	"fmt"
	"go/ast"
	"go/token"
	"maps"
	"path"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode"
)

// bannedNames may not be a word of a name that is declared here, of a package or of a Go file (docs/terms.md says what to
// write instead). Names of others, such as filepath.Base, may be used.
var bannedNames = []string{
	"pipeline", "pipelines", "generator", "generators", "manager", "managers", "helper", "helpers",
	"util", "utils", "utility", "utilities", "common", "base", "sink", "sinks",
}

// bannedProse may not stand in comments of Go files, unless as part of a path or a quotation.
var bannedProse = regexp.MustCompile("(?i)(^|[\\s(\"])(pipelines?|managers?|helpers?|utils?|utility functions?|attention sinks?|sink tokens?|sink frames?)([\\s).,;:]|$)")

func TestNamesUseTheHousesWords(t *testing.T) { obey(t, names) }

// names finds banned words in the names of folders, files and declarations.
func names(t *tree) (faults []string) {
	for _, name := range slices.Sorted(maps.Keys(t.all)) {
		if strings.Contains(name, "testdata/") || t.all[name] && !strings.HasSuffix(name, ".go") && path.Ext(name) != "" {
			continue
		}
		for _, w := range words(strings.TrimSuffix(path.Base(name), ".go")) {
			if slices.Contains(bannedNames, w) {
				faults = append(faults, fmt.Sprintf("%s: name with %q, see docs/terms.md", name, w))
			}
		}
	}
	for _, s := range t.sources {
		if s.generated {
			continue
		}
		for _, id := range declared(s.syntax) {
			if id.Name == "Helper" { // a method of testing.TB
				continue
			}
			for _, w := range words(id.Name) {
				if slices.Contains(bannedNames, w) {
					faults = append(faults, fmt.Sprintf("%s: %s has the word %q, see docs/terms.md", t.at(id.Pos()), id.Name, w))
				}
			}
		}
	}
	return faults
}

// declared returns the identifiers that a file declares: of packages, types, functions, fields, variables and parameters.
func declared(file *ast.File) (out []*ast.Ident) {
	out = append(out, file.Name)
	fields := func(l *ast.FieldList) {
		if l != nil {
			for _, f := range l.List {
				out = append(out, f.Names...)
			}
		}
	}
	ast.Inspect(file, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.FuncDecl:
			out = append(out, n.Name)
			fields(n.Recv)
		case *ast.FuncType:
			fields(n.Params)
			fields(n.Results)
			fields(n.TypeParams)
		case *ast.TypeSpec:
			out = append(out, n.Name)
		case *ast.StructType:
			fields(n.Fields)
		case *ast.InterfaceType:
			fields(n.Methods)
		case *ast.ValueSpec:
			out = append(out, n.Names...)
		case *ast.AssignStmt:
			if n.Tok == token.DEFINE {
				out = append(out, identifiers(n.Lhs...)...)
			}
		case *ast.RangeStmt:
			if n.Tok == token.DEFINE {
				out = append(out, identifiers(n.Key, n.Value)...)
			}
		}
		return true
	})
	return out
}

func identifiers(exprs ...ast.Expr) (out []*ast.Ident) {
	for _, e := range exprs {
		if id, ok := e.(*ast.Ident); ok {
			out = append(out, id)
		}
	}
	return out
}

// words splits a name at case and at what is no letter, in lower case: "newBaseURL_x2" gives new, base, url, x.
func words(name string) (out []string) {
	runes := []rune(name)
	var word []rune
	end := func() {
		if len(word) > 0 {
			out = append(out, strings.ToLower(string(word)))
		}
		word = nil
	}
	for i, r := range runes {
		if !unicode.IsLetter(r) {
			end()
			continue
		}
		upper := unicode.IsUpper(r)
		if upper && i > 0 && (unicode.IsLower(runes[i-1]) || i+1 < len(runes) && unicode.IsLower(runes[i+1])) {
			end()
		}
		word = append(word, r)
	}
	end()
	return out
}

func TestCommentsUseTheHousesWords(t *testing.T) { obey(t, prose) }

// prose finds the worst words in comments.
func prose(t *tree) (faults []string) {
	t.eachCommentLine(func(s *source, at, line string) {
		if m := bannedProse.FindStringSubmatch(line); m != nil {
			faults = append(faults, fmt.Sprintf("%s: comment with %q, see docs/terms.md", at, m[2]))
		}
	})
	return faults
}

// unfinished marks work that was left for later.
var unfinished = regexp.MustCompile(`\b(TODO|FIXME|XXX|HACK)\b`)

// undecided marks a merge that nobody decided; a kernel with one is noticed where there is a GPU only.
var undecided = regexp.MustCompile(`^(<{7}|>{7})( |$)`)

func TestNothingIsLeftForLater(t *testing.T) { obey(t, later) }

// later finds marks of unfinished work in every text, Markdown that speaks of the rule excepted, and those of undecided merges.
func later(t *tree) (faults []string) {
	t.eachCommentLine(func(s *source, at, line string) {
		if m := unfinished.FindString(line); m != "" && s.dir != "internal/tidy" {
			faults = append(faults, fmt.Sprintf("%s: %s", at, m))
		}
	})
	for _, name := range slices.Sorted(maps.Keys(t.texts)) {
		for i, line := range strings.Split(t.texts[name], "\n") {
			m := undecided.FindString(line)
			if m == "" && path.Ext(name) != ".md" {
				m = unfinished.FindString(line)
			}
			if m != "" {
				faults = append(faults, fmt.Sprintf("%s:%d: %s", name, i+1, m))
			}
		}
	}
	return faults
}

// eachCommentLine calls f for every line of every comment, without its marks.
func (t *tree) eachCommentLine(f func(s *source, at, line string)) {
	for _, s := range t.sources {
		if s.generated {
			continue
		}
		for _, group := range s.syntax.Comments {
			for _, c := range group.List {
				first := t.fset.Position(c.Pos()).Line
				for i, line := range strings.Split(strings.Trim(c.Text, "/*"), "\n") {
					f(s, fmt.Sprintf("%s:%d", s.path, first+i), line)
				}
			}
		}
	}
}
