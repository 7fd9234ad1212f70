package report

import (
	_ "embed" // the template is part of the binary
	"encoding/base64"
	"fmt"
	"html/template"
	"io"

	"longtake/report/plot"
)

// Page is a document.
type Page struct {
	Title, Lead string
	Facts       []Fact
	Sections    []Section
}

// Fact is a line of the list below the title.
type Fact struct{ Name, Value string }

// Section is a part of a page with a heading; what is empty is left out.
type Section struct {
	Title   string
	Text    []string // paragraphs
	Tables  []Table
	Figures []Figure
	Strips  []Strips
}

// Table has a row of headings; the first cell of each row names it. Words marks a table of text, not of numbers.
type Table struct {
	Caption string
	Words   bool
	Head    []string
	Rows    [][]string
}

// Figure is a drawing of package plot, which must be SVG that escapes its text, or a PNG file.
type Figure struct {
	SVG     string
	PNG     []byte
	Caption string
}

// Strips are rows of pictures (PNG files, empty where there is none) below the same columns.
type Strips struct {
	Caption string
	Columns []string
	Rows    []StripRow
}

// StripRow is a row of pictures.
type StripRow struct {
	Name string
	PNGs [][]byte
}

//go:embed page.html
var pageText string

var pageTemplate = template.Must(template.New("page").Funcs(template.FuncMap{
	"png": func(b []byte) template.URL {
		return template.URL("data:image/png;base64," + base64.StdEncoding.EncodeToString(b))
	},
	"svg": func(s string) template.HTML { return template.HTML(s) },
}).Parse(pageText))

// Write writes the page. The error is w's.
func (p *Page) Write(w io.Writer) error {
	err := pageTemplate.Execute(w, struct {
		*Page
		Style template.CSS
	}{p, template.CSS(plot.Style())})
	if err != nil {
		return fmt.Errorf("write page: %w", err)
	}
	return nil
}
