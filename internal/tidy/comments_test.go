package tidy

import (
	"fmt"
	"go/ast"
	"go/token"
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"
)

func TestEveryPackageSaysWhatItIs(t *testing.T) { obey(t, packages) }

// packages finds packages without a doc comment, or with one that begins in another way than go doc expects.
func packages(t *tree) (faults []string) {
	said := map[string]bool{}
	for _, s := range t.sources {
		if s.test {
			said[s.dir] = said[s.dir] || false
			continue
		}
		doc := s.syntax.Doc.Text()
		want := "Package " + s.syntax.Name.Name + " "
		if s.syntax.Name.Name == "main" {
			want = "Command "
		}
		said[s.dir] = said[s.dir] || strings.HasPrefix(doc, want)
	}
	for _, dir := range slices.Sorted(maps.Keys(said)) {
		if !said[dir] {
			faults = append(faults, fmt.Sprintf("%s: no package comment that starts with \"Package name \" (or \"Command \")", dir))
		}
	}
	return faults
}

func TestEveryExportedNameHasADocComment(t *testing.T) { obey(t, exported) }

// exported finds exported names of packages without a doc comment, and functions and types whose comment begins with another
// name. A comment on a group of constants or variables serves all of them. Tests and commands export nothing.
func exported(t *tree) (faults []string) {
	miss := func(p token.Pos, name, doc string, group bool) {
		switch {
		case strings.TrimSpace(doc) == "":
			faults = append(faults, fmt.Sprintf("%s: %s has no doc comment", t.at(p), name))
		case !group && !begins(doc, name):
			faults = append(faults, fmt.Sprintf("%s: the doc comment of %s begins with another word", t.at(p), name))
		}
	}
	for _, s := range t.sources {
		if s.test || s.generated || s.syntax.Name.Name == "main" {
			continue
		}
		for _, d := range s.syntax.Decls {
			switch d := d.(type) {
			case *ast.FuncDecl:
				owner := strings.TrimSuffix(receiver(d), ".")
				if d.Name.IsExported() && (owner == "" || ast.IsExported(owner)) {
					miss(d.Pos(), d.Name.Name, d.Doc.Text(), false)
				}
			case *ast.GenDecl:
				for _, spec := range d.Specs {
					switch spec := spec.(type) {
					case *ast.TypeSpec:
						if spec.Name.IsExported() {
							single := spec.Doc.Text()
							miss(spec.Pos(), spec.Name.Name, single+d.Doc.Text()+spec.Comment.Text(), single == "" && d.Lparen.IsValid())
						}
					case *ast.ValueSpec:
						for _, id := range spec.Names {
							if id.IsExported() {
								miss(id.Pos(), id.Name, spec.Doc.Text()+d.Doc.Text()+spec.Comment.Text(), true)
							}
						}
					}
				}
			}
		}
	}
	return faults
}

// begins reports whether a comment starts with a name, an article allowed.
func begins(doc, name string) bool {
	for _, article := range []string{"A ", "An ", "The "} {
		doc = strings.TrimPrefix(doc, article)
	}
	first := strings.FieldsFunc(doc, func(r rune) bool {
		return !(r == '_' || 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9')
	})
	return len(first) > 0 && first[0] == name || strings.HasPrefix(doc, "Deprecated:")
}

func TestNothingHappensBeforeMain(t *testing.T) { obey(t, initials) }

// initials finds init functions: names meet constructors in a command's wire.go, not in a registry.
func initials(t *tree) (faults []string) {
	for _, s := range t.sources {
		for _, d := range s.syntax.Decls {
			if f, ok := d.(*ast.FuncDecl); ok && f.Recv == nil && f.Name.Name == "init" {
				faults = append(faults, fmt.Sprintf("%s: func init", t.at(f.Pos())))
			}
		}
	}
	return faults
}

func TestLibrariesReturnAndCommandsPrint(t *testing.T) { obey(t, printing) }

// silent are calls that only commands and tests make.
var silent = map[string][]string{
	"fmt": {"Print", "Printf", "Println"},
	"os":  {"Exit"},
	"log": {"Print", "Printf", "Println", "Fatal", "Fatalf", "Fatalln", "Panic", "Panicf"},
}

func printing(t *tree) (faults []string) {
	t.eachCall(func(s *source, call *ast.CallExpr) {
		if s.test || s.syntax.Name.Name == "main" {
			return
		}
		if f, ok := call.Fun.(*ast.SelectorExpr); ok {
			if pkg, ok := f.X.(*ast.Ident); ok && slices.Contains(silent[pkg.Name], f.Sel.Name) {
				faults = append(faults, fmt.Sprintf("%s: %s.%s in a library", t.at(call.Pos()), pkg.Name, f.Sel.Name))
			}
		}
	})
	return faults
}

func TestSkippedTestsSayWhy(t *testing.T) { obey(t, skips) }

// skips finds tests that are skipped without a word.
func skips(t *tree) (faults []string) {
	t.eachCall(func(s *source, call *ast.CallExpr) {
		f, ok := call.Fun.(*ast.SelectorExpr)
		if !ok {
			return
		}
		text := ""
		if len(call.Args) > 0 {
			text = "something"
			if l, ok := call.Args[0].(*ast.BasicLit); ok {
				text = strings.Trim(l.Value, "\"` ")
			}
		}
		switch f.Sel.Name {
		case "SkipNow":
			faults = append(faults, fmt.Sprintf("%s: SkipNow says nothing, use Skip with the reason", t.at(call.Pos())))
		case "Skip", "Skipf":
			if id, ok := f.X.(*ast.Ident); ok && text == "" && (id.Name == "t" || id.Name == "b" || id.Name == "f" || id.Name == "tb") {
				faults = append(faults, fmt.Sprintf("%s: a skipped test must say why", t.at(call.Pos())))
			}
		}
	})
	return faults
}

// eachCall calls f for every call expression.
func (t *tree) eachCall(f func(s *source, call *ast.CallExpr)) {
	for _, s := range t.sources {
		ast.Inspect(s.syntax, func(n ast.Node) bool {
			if call, ok := n.(*ast.CallExpr); ok {
				f(s, call)
			}
			return true
		})
	}
}

func TestFilesThatCommentsNameExist(t *testing.T) { obey(t, mentions) }

// mentioned is a path of this repository in prose. Paths of other repositories begin otherwise.
var mentioned = regexp.MustCompile("(?:^|[\\s(`\"])((?:docs|dev|train)/[\\w./-]*\\.(?:md|py|go|cu|h|json|sh))\\b")

// mentions finds comments and texts that name a file which is not there.
func mentions(t *tree) (faults []string) {
	check := func(at, line string) {
		for _, m := range mentioned.FindAllStringSubmatch(line, -1) {
			if !t.all[m[1]] {
				faults = append(faults, fmt.Sprintf("%s: there is no %s", at, m[1]))
			}
		}
	}
	t.eachCommentLine(func(s *source, at, line string) {
		if s.dir != "internal/tidy" {
			check(at, line)
		}
	})
	for _, name := range slices.Sorted(maps.Keys(t.texts)) {
		for i, line := range strings.Split(t.texts[name], "\n") {
			check(fmt.Sprintf("%s:%d", name, i+1), line)
		}
	}
	return faults
}
