package world

import (
	"errors"
	"slices"
	"strings"
	"testing"
)

func TestParseActions(t *testing.T) {
	for _, c := range []struct{ name, script, want string }{
		{"an empty script has no actions", "", ""},
		{"a count repeats an action", "w3 d2", "w3 d2"},
		{"items need nothing between them", "w2dw", "w2 d w"},
		{"commas and line ends separate", "w2,d\r\nw\t,", "w2 d w"},
		{"case does not matter", "WaSdQe", "w a s d q e"},
		{"a dot or n does nothing", ".n2", ".3"},
		{"equal neighbours join", "w2 w w3", "w6"},
		{"a comment ends with its line", "# go\nw2 # and back: s\ns2", "w2 s2"},
		{"a group repeats", "(w2 d)x3", "w2 d w2 d w2 d"},
		{"a group without a count is done once", "(w2 d)", "w2 d"},
		{"groups nest", "((w)x2 d)X2", "w2 d w2 d"},
		{"an empty group repeated is nothing", "()x1000000 w", "w"},
	} {
		t.Run(c.name, func(t *testing.T) {
			actions, err := ParseActions(c.script)
			if err != nil {
				t.Fatal(err)
			}
			if got := FormatActions(actions); got != c.want {
				t.Errorf("%q reads as %q, want %q", c.script, got, c.want)
			}
		})
	}
}

func TestParseActionsPointsAtTheProblem(t *testing.T) {
	for _, c := range []struct {
		name, script string
		want         []string // lines of the error
	}{
		{"an unknown letter", "w20\n\td8 y3 w", []string{
			`line 2, column 5: expected an action (w s a d q e z c .) or a group "(", found "y"`, "    \td8 y3 w", "    \t   ^"}},
		{"a letter outside ASCII counts as one column", "wé", []string{
			`line 1, column 2: expected an action (w s a d q e z c .) or a group "(", found "é"`, "    wé", "     ^"}},
		{"a count apart from its action", "w 20", []string{
			`line 1, column 3: expected an action (w s a d q e z c .) or a group "("; a count directly follows its action, as in w20`, "    w 20", "      ^"}},
		{"a count of nothing", "d0", []string{"line 1, column 2: expected a count of 1 or more, found 0", "    d0", "     ^"}},
		{"a group that does not end", "w (d2", []string{
			`line 1, column 3: expected ")" to close this group, found the end of the script`, "    w (d2", "      ^"}},
		{"an end without a group", "w)", []string{
			`line 1, column 2: expected an action (w s a d q e z c .) or a group "(", found ")" that closes no group`, "    w)", "     ^"}},
		{"x without a count", "(w)x w", []string{`line 1, column 5: expected a count, found " "`, "    (w)x w", "        ^"}},
		{"a group's count without x", "(w)4", []string{"line 1, column 4: expected x before a group's count, as in (w10 d5)x4", "    (w)4", "       ^"}},
		{"a long line is cut around the problem", strings.Repeat("w2 ", 50) + "k" + strings.Repeat(" d2", 50), []string{
			`line 1, column 151: expected an action (w s a d q e z c .) or a group "(", found "k"`,
			"    " + (strings.Repeat("w2 ", 50))[110:] + "k" + (strings.Repeat(" d2", 50))[:39], "    " + strings.Repeat(" ", 40) + "^"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := ParseActions(c.script)
			var syntax *SyntaxError
			if !errors.As(err, &syntax) {
				t.Fatalf("error is %v, want a SyntaxError", err)
			}
			if want := strings.Join(c.want, "\n"); err.Error() != want {
				t.Errorf("error is\n%s\nwant\n%s", err, want)
			}
		})
	}
}

func TestHostileCountsAreRefusedEarly(t *testing.T) {
	for _, script := range []string{
		"w1000001",
		"w99999999999999999999999999",
		"w1000000 d",
		"((w1000)x1000)x2",
		"(((((w9)x999999)x999999)x999999)x999999)x999999",
		strings.Repeat("(", 1_000_000),
		strings.Repeat("(w)x999999 ", 3),
	} {
		if actions, err := ParseActions(script); err == nil {
			t.Errorf("%.40q makes %d actions, want an error", script, len(actions))
		}
	}
	if actions, err := ParseActions("((w1000)x1000)x1"); err != nil || len(actions) != MaxActions {
		t.Errorf("a script of exactly MaxActions: %d actions, error %v", len(actions), err)
	}
}

func FuzzParseActions(f *testing.F) {
	f.Add("w20 d8 w10")
	f.Fuzz(func(t *testing.T, script string) {
		actions, err := ParseActions(script)
		if err != nil {
			var syntax *SyntaxError
			if !errors.As(err, &syntax) || syntax.Line < 1 || syntax.Column < 1 || syntax.Caret < 0 {
				t.Fatalf("bad error: %#v", err)
			}
			if lines := strings.Count(err.Error(), "\n"); lines != 2 {
				t.Fatalf("error has %d line ends, want 2: %q", lines, err)
			}
			return
		}
		if len(actions) > MaxActions {
			t.Fatalf("%d actions", len(actions))
		}
		text := FormatActions(actions)
		again, err := ParseActions(text)
		if err != nil || !slices.Equal(again, actions) {
			t.Fatalf("%q formats as %q, which does not read back: %v", script, text, err)
		}
		if FormatActions(again) != text {
			t.Fatalf("%q is not stable", text)
		}
	})
}
