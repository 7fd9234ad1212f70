package tidy

import (
	"fmt"
	"go/ast"
	"maps"
	"net/url"
	"path"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode"
)

func TestLinksInDocumentsResolve(t *testing.T) { obey(t, links) }

var (
	link     = regexp.MustCompile(`\[[^\]]*\]\(([^)\s]+)(?:\s+"[^"]*")?\)`)
	codeSpan = regexp.MustCompile("`[^`]*`")
)

// links finds relative links to files or headings that are not there.
func links(t *tree) (faults []string) {
	t.eachDocument(func(name string, prose, _ []line) {
		for _, l := range prose {
			for _, m := range link.FindAllStringSubmatch(codeSpan.ReplaceAllString(l.text, ""), -1) {
				if problem := t.resolve(name, m[1]); problem != "" {
					faults = append(faults, fmt.Sprintf("%s:%d: link to %s: %s", name, l.number, m[1], problem))
				}
			}
		}
	})
	return faults
}

// resolve returns what is wrong with a link in the document name, or "".
func (t *tree) resolve(name, target string) string {
	u, err := url.Parse(target)
	if err != nil {
		return err.Error()
	}
	if u.Scheme != "" {
		return "" // elsewhere
	}
	file := name
	if u.Path != "" {
		file = path.Join(path.Dir(name), u.Path)
	}
	if !t.all[file] && file != "." {
		return "no such file"
	}
	if u.Fragment != "" && path.Ext(file) == ".md" && !slices.Contains(anchors(t.texts[file]), u.Fragment) {
		return "no such heading"
	}
	return ""
}

// anchors returns the names that headings get on code-hosting sites.
func anchors(text string) (out []string) {
	prose, _ := split(text)
	for _, l := range prose {
		title := strings.TrimLeft(l.text, "#")
		if title == l.text || !strings.HasPrefix(title, " ") {
			continue
		}
		a := strings.Map(func(r rune) rune {
			switch {
			case unicode.IsLetter(r), unicode.IsDigit(r), r == '-', r == '_':
				return unicode.ToLower(r)
			case r == ' ':
				return '-'
			}
			return -1
		}, strings.TrimSpace(title))
		name := a
		for i := 1; slices.Contains(out, name); i++ {
			name = fmt.Sprintf("%s-%d", a, i)
		}
		out = append(out, name)
	}
	return out
}

// line is a line of a document.
type line struct {
	number int
	text   string
}

// split divides a document into prose and the lines of fenced code.
func split(text string) (prose, code []line) {
	fenced := false
	for i, s := range strings.Split(text, "\n") {
		switch {
		case strings.HasPrefix(strings.TrimSpace(s), "```"):
			fenced = !fenced
		case fenced:
			code = append(code, line{i + 1, s})
		default:
			prose = append(prose, line{i + 1, s})
		}
	}
	return prose, code
}

// eachDocument calls f for every Markdown file with its prose and its fenced code.
func (t *tree) eachDocument(f func(name string, prose, code []line)) {
	for _, name := range slices.Sorted(maps.Keys(t.texts)) {
		if path.Ext(name) == ".md" {
			prose, code := split(t.texts[name])
			f(name, prose, code)
		}
	}
}

func TestCommandsInDocumentsNameWhatExists(t *testing.T) { obey(t, commands) }

var (
	goCommand  = regexp.MustCompile(`\bgo (?:run|test|build|vet|install|generate|tool)\b[^|;&#]*`)
	goFolder   = regexp.MustCompile(`(?:^|\s)\./([\w./-]*)`)
	goFunction = regexp.MustCompile(`\b(?:Test|Fuzz|Benchmark)[A-Z]\w*`)
)

// commands finds go commands in documents that name a package which is not there, and names of tests, fuzz tests and
// benchmarks, in commands or between backquotes, that no function begins with.
func commands(t *tree) (faults []string) {
	functions := t.testFunctions()
	t.eachDocument(func(name string, prose, code []line) {
		for _, l := range prose {
			for _, span := range codeSpan.FindAllString(l.text, -1) {
				code = append(code, line{l.number, strings.Trim(span, "`")})
			}
		}
		for _, l := range code {
			at := fmt.Sprintf("%s:%d", name, l.number)
			for _, command := range goCommand.FindAllString(l.text, -1) {
				for _, m := range goFolder.FindAllStringSubmatch(command, -1) {
					folder := strings.TrimSuffix(strings.TrimSuffix(m[1], "..."), "/")
					if folder != "" && !t.all[folder] {
						faults = append(faults, fmt.Sprintf("%s: there is no ./%s", at, folder))
					}
				}
			}
			for _, f := range goFunction.FindAllString(l.text, -1) {
				if !slices.ContainsFunc(functions, func(have string) bool { return strings.HasPrefix(have, f) }) {
					faults = append(faults, fmt.Sprintf("%s: there is no %s", at, f))
				}
			}
		}
	})
	return faults
}

// testFunctions returns the names of the functions in tests.
func (t *tree) testFunctions() (out []string) {
	for _, s := range t.sources {
		for _, d := range s.syntax.Decls {
			if f, ok := d.(*ast.FuncDecl); ok && s.test && f.Recv == nil {
				out = append(out, f.Name.Name)
			}
		}
	}
	return out
}

func TestKernelsHaveSourceAndReadme(t *testing.T) { obey(t, kernels) }

// kernels finds folders of CUDA kernels without a .cu file or a README.md.
func kernels(t *tree) (faults []string) {
	const root = "compute/cuda/kernels"
	source := map[string]bool{} // by folder
	for name := range t.all {
		if dir := path.Dir(name); path.Dir(dir) == root {
			source[dir] = source[dir] || path.Ext(name) == ".cu"
		}
	}
	for _, dir := range slices.Sorted(maps.Keys(source)) {
		if !source[dir] || !t.all[dir+"/README.md"] {
			faults = append(faults, dir+": a kernel has a .cu file and a README.md")
		}
	}
	return faults
}

func TestTheArchitectureNamesEveryFolder(t *testing.T) { obey(t, named) }

// named finds folders at the top of the repository that ARCHITECTURE.md does not name.
func named(t *tree) (faults []string) {
	for _, dir := range slices.Sorted(maps.Keys(t.all)) {
		if path.Dir(dir) == "." && path.Ext(dir) == "" && slices.ContainsFunc(t.sources, func(s *source) bool {
			return s.dir == dir || strings.HasPrefix(s.dir, dir+"/")
		}) && !strings.Contains(t.texts["ARCHITECTURE.md"], "`"+dir) {
			faults = append(faults, "ARCHITECTURE.md: does not name `"+dir+"`")
		}
	}
	return faults
}
