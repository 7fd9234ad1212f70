package world

import (
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"
)

// MaxActions is the longest action script that [ParseActions] accepts; longer ones,
// repetition counted in, are an error, so that no count can exhaust memory.
const MaxActions = 1_000_000

// maxNesting bounds groups within groups.
const maxNesting = 32

// actionKeys are the letters of a script, by action.
const actionKeys = ".wsadqezc"

const expectedItem = `an action (w s a d q e z c .) or a group "("`

// A SyntaxError says where an action script cannot be read, and why.
type SyntaxError struct {
	Line, Column int    // both from 1; columns count characters
	Text         string // the line, shortened around the column if it is long
	Caret        int    // where in Text the column is, in characters from 0
	Problem      string // such as `expected a count, found "z"`
}

// Error returns the position and problem, then the line, then a caret below the column.
func (e *SyntaxError) Error() string {
	var pad strings.Builder
	for i, c := range []rune(e.Text) {
		if i == e.Caret {
			break
		}
		if c != '\t' { // a tab is kept, so that the caret lines up
			c = ' '
		}
		pad.WriteRune(c)
	}
	return fmt.Sprintf("line %d, column %d: %s\n    %s\n    %s^", e.Line, e.Column, e.Problem, e.Text, pad.String())
}

// ParseActions reads an action script, such as "w20 d8 (w10 q5)x4". The letters are
//
//	w forward    a turn left     q forward and left
//	s back       d turn right    e forward and right    . or n nothing
//	z step left  c step right    (not every model knows these two)
//
// in either case. A count may follow a letter directly and repeats it. Parentheses
// group; x and a count may follow a group. Blanks, commas and line ends may stand
// between items, and # starts a comment that ends with the line. An empty script has
// no actions. Errors are [*SyntaxError].
func ParseActions(script string) ([]Action, error) {
	p := parser{text: script}
	if err := p.items(0); err != nil {
		return nil, err
	}
	return p.actions, nil
}

type parser struct {
	text    string
	at      int // byte offset
	actions []Action
}

// items reads up to the end of the script or, inside a group, up to its ")".
func (p *parser) items(depth int) error {
	for {
		p.skipBlanks()
		start, c := p.at, p.peek()
		a, isAction := actionOf(c)
		switch {
		case c == 0 && p.at == len(p.text), c == ')' && depth > 0:
			return nil
		case isAction:
			p.at++
			n, err := p.count(1)
			if err != nil {
				return err
			}
			if n > MaxActions-len(p.actions) {
				return p.tooLong(start)
			}
			for range n {
				p.actions = append(p.actions, a)
			}
		case c == '(':
			if err := p.group(depth + 1); err != nil {
				return err
			}
		case isDigit(c):
			return p.problem(start, "expected "+expectedItem+"; a count directly follows its action, as in w20")
		case c == ')':
			return p.problem(start, "expected "+expectedItem+`, found ")" that closes no group`)
		default:
			return p.expected(expectedItem)
		}
	}
}

// group reads "( items )" and an optional "x count".
func (p *parser) group(depth int) error {
	open, first := p.at, len(p.actions)
	if depth > maxNesting {
		return p.problem(open, fmt.Sprintf("expected at most %d groups within each other", maxNesting))
	}
	p.at++
	if err := p.items(depth); err != nil {
		return err
	}
	if p.peek() != ')' {
		return p.problem(open, `expected ")" to close this group, found the end of the script`)
	}
	p.at++
	n := 1
	if c := p.peek(); c == 'x' || c == 'X' {
		p.at++
		var err error
		if n, err = p.count(0); err != nil {
			return err
		}
	} else if isDigit(c) {
		return p.problem(p.at, "expected x before a group's count, as in (w10 d5)x4")
	}
	body := p.actions[first:]
	// In 64 bits: both factors may be a million.
	if int64(len(body))*int64(n-1) > int64(MaxActions-len(p.actions)) {
		return p.tooLong(open)
	}
	if len(body) == 0 {
		return nil
	}
	for range n - 1 {
		p.actions = append(p.actions, body...)
	}
	return nil
}

// count reads a number from 1 to MaxActions. Without a digit it is missing, or an
// error where missing is 0.
func (p *parser) count(missing int) (int, error) {
	start, n := p.at, 0
	for isDigit(p.peek()) {
		n = min(n*10+int(p.peek()-'0'), MaxActions+1)
		p.at++
	}
	switch {
	case p.at == start && missing > 0:
		return missing, nil
	case p.at == start:
		return 0, p.expected("a count")
	case n == 0:
		return 0, p.problem(start, "expected a count of 1 or more, found 0")
	case n > MaxActions:
		return 0, p.tooLong(start)
	}
	return n, nil
}

func (p *parser) skipBlanks() {
	for {
		switch p.peek() {
		case ' ', '\t', '\r', '\n', ',':
			p.at++
		case '#':
			end := strings.IndexByte(p.text[p.at:], '\n')
			if end < 0 {
				p.at = len(p.text)
				return
			}
			p.at += end
		default:
			return
		}
	}
}

// peek returns the next byte, 0 at the end.
func (p *parser) peek() byte {
	if p.at < len(p.text) {
		return p.text[p.at]
	}
	return 0
}

func (p *parser) expected(what string) error {
	found := "the end of the script"
	if p.at < len(p.text) {
		c, _ := utf8.DecodeRuneInString(p.text[p.at:])
		found = strconv.Quote(string(c))
	}
	return p.problem(p.at, "expected "+what+", found "+found)
}

func (p *parser) tooLong(at int) error {
	return p.problem(at, fmt.Sprintf("expected a script of at most %d actions, this makes it longer", MaxActions))
}

// problem makes the error for a byte offset.
func (p *parser) problem(at int, what string) error {
	const around = 40 // characters shown on either side
	begin := strings.LastIndexByte(p.text[:at], '\n') + 1
	line := p.text[begin:]
	if end := strings.IndexByte(line, '\n'); end >= 0 {
		line = line[:end]
	}
	text := []rune(strings.TrimSuffix(line, "\r"))
	caret := utf8.RuneCountInString(p.text[begin:at])
	from, to := max(0, min(caret-around, len(text))), min(caret+around, len(text))
	return &SyntaxError{
		Line:    strings.Count(p.text[:begin], "\n") + 1,
		Column:  caret + 1,
		Text:    string(text[from:to]),
		Caret:   caret - from,
		Problem: what,
	}
}

func isDigit(c byte) bool { return '0' <= c && c <= '9' }

func actionOf(key byte) (Action, bool) {
	if 'A' <= key && key <= 'Z' {
		key += 'a' - 'A'
	}
	if key == 'n' {
		return Noop, true
	}
	i := strings.IndexByte(actionKeys, key)
	return Action(max(i, 0)), i >= 0
}

// FormatActions writes the script that [ParseActions] reads back as the same actions,
// each run of one action as its letter and count: "w20 d8 .". It panics on a value
// that is not an action.
func FormatActions(actions []Action) string {
	var b strings.Builder
	for i := 0; i < len(actions); {
		a, run := actions[i], 1
		for i+run < len(actions) && actions[i+run] == a {
			run++
		}
		if i > 0 {
			b.WriteByte(' ')
		}
		b.WriteByte(actionKeys[a])
		if run > 1 {
			b.WriteString(strconv.Itoa(run))
		}
		i += run
	}
	return b.String()
}
