package weights

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"longtake/compute"
)

// Source is where a model finds its weights by name. *File is one.
type Source interface {
	// Tensor returns a tensor, or an error that wraps ErrMissing.
	Tensor(name string) (compute.Host, error)
}

// Mismatch is a tensor that is there, but not as the model needs it.
type Mismatch struct {
	Name  string
	Found string // "bf16[4 4]"
	Want  string // "float[4 8]"
}

// Report is everything that stood between a file and a model. As an error it is one line.
type Report struct {
	Path       string // where the weights came from, when known
	Missing    []string
	Unexpected []string
	Wrong      []Mismatch
	Failed     []error // what the Source said, other than ErrMissing
}

// Error lists all, each kind shortened to its first eight.
func (r *Report) Error() string {
	var parts []string
	add := func(kind string, items []string) {
		if len(items) == 0 {
			return
		}
		shown := items[:min(len(items), 8)]
		text := fmt.Sprintf("%d %s (%s", len(items), kind, strings.Join(shown, ", "))
		if more := len(items) - len(shown); more > 0 {
			text += fmt.Sprintf(" and %d more", more)
		}
		parts = append(parts, text+")")
	}
	add("missing", clipAll(r.Missing))
	var wrong, failed []string
	for _, m := range r.Wrong {
		wrong = append(wrong, fmt.Sprintf("%s is %s, want %s", clip(m.Name), m.Found, m.Want))
	}
	add("wrong", wrong)
	for _, err := range r.Failed {
		failed = append(failed, err.Error())
	}
	add("unreadable", failed)
	add("unexpected", clipAll(r.Unexpected))
	return strings.TrimSpace("load weights "+r.Path) + ": " + strings.Join(parts, ", ") + "; the file belongs to another model or version"
}

// Unwrap makes errors.Is(err, ErrMissing) and the Source's own errors visible.
func (r *Report) Unwrap() []error {
	if len(r.Missing) > 0 {
		return append([]error{ErrMissing}, r.Failed...)
	}
	return r.Failed
}

func clipAll(names []string) []string {
	out := make([]string, len(names))
	for i, n := range names {
		out[i] = clip(n)
	}
	return out
}

// Audit is a Source that remembers what was asked of it and what was wrong, so that one error lists all that stands between
// a file and a model: load through it (a Placer with a compute.Meter will do: nothing is read then), and look at Err once.
// Not safe for concurrent use.
type Audit struct {
	src    Source
	asked  map[string]bool
	report Report
}

// NewAudit watches src. If src can list its Names, tensors nobody asked for are reported; if it has a Path, messages start
// with it.
func NewAudit(src Source) *Audit {
	a := &Audit{src: src, asked: make(map[string]bool)}
	if p, ok := src.(interface{ Path() string }); ok {
		a.report.Path = p.Path()
	}
	return a
}

// Tensor passes on what the watched Source says.
func (a *Audit) Tensor(name string) (compute.Host, error) {
	h, err := a.src.Tensor(name)
	again := a.asked[name]
	a.asked[name] = true
	switch {
	case again || err == nil:
	case errors.Is(err, ErrMissing):
		a.report.Missing = append(a.report.Missing, name)
	default:
		a.report.Failed = append(a.report.Failed, err)
	}
	return h, err
}

// Want is Tensor for a tensor of F32, BF16 or F16 with exactly these dimensions, leading ones of length 1 aside; anything else is reported as wrong, and
// the result is false.
func (a *Audit) Want(name string, shape ...int) (compute.Host, bool) {
	h, err := a.Tensor(name)
	if err != nil {
		return h, false
	}
	for len(h.Shape) > len(shape) && h.Shape[0] == 1 {
		h.Shape = h.Shape[1:] // Wan stores modulations as [1, 6, dim]
	}
	float := h.DType == compute.F32 || h.DType == compute.BF16 || h.DType == compute.F16
	if float && slices.Equal(h.Shape, shape) {
		return h, true
	}
	m := Mismatch{name, fmt.Sprintf("%v%v", h.DType, h.Shape), fmt.Sprintf("float%v", shape)}
	if p, ok := a.src.(interface{ Offset(string) int64 }); ok && p.Offset(name) >= 0 {
		m.Found += fmt.Sprintf(" at byte %d", p.Offset(name))
	}
	if !slices.Contains(a.report.Wrong, m) {
		a.report.Wrong = append(a.report.Wrong, m)
	}
	return compute.Host{}, false
}

// Skip marks every tensor whose name starts with one of the prefixes as known, so that it is not unexpected.
func (a *Audit) Skip(prefixes ...string) {
	for _, name := range a.names() {
		for _, p := range prefixes {
			if strings.HasPrefix(name, p) {
				a.asked[name] = true
			}
		}
	}
}

func (a *Audit) names() []string {
	if lister, ok := a.src.(interface{ Names() []string }); ok {
		return lister.Names()
	}
	return nil
}

// Err returns nil when all tensors that were asked for are there and right and none is left over, else a *Report.
func (a *Audit) Err() error {
	r := a.report
	r.Unexpected = nil
	for _, name := range a.names() {
		if !a.asked[name] {
			r.Unexpected = append(r.Unexpected, name)
		}
	}
	if len(r.Missing)+len(r.Unexpected)+len(r.Wrong)+len(r.Failed) == 0 {
		return nil
	}
	return &r
}
