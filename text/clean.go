package text

import (
	"html"
	"regexp"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Clean prepares a prompt as Wan does (wan/modules/tokenizers.py): ftfy's repairs, HTML references resolved twice, every run
// of white space one space, none at the ends. The result is valid UTF-8.
//
// Of ftfy.fix_text (6.1, default settings) these are done: HTML references, unless the text has a "<"; UTF-8 that was read as
// windows-1252, when the whole text is so and consists of Latin-1 letters or of longer sequences; C1 controls as
// windows-1252; Latin ligatures; full-width ASCII and the ideographic space; curly quotes; line breaks; terminal escapes;
// control characters. Not done: other broken encodings, half-width katakana and composition (NFC), of which the last two are
// among what the tokenizer's own rules do.
func Clean(prompt string) string {
	s := strings.Map(func(r rune) rune { return r }, prompt) // stray bytes become U+FFFD
	if !strings.Contains(s, "<") {
		s = html.UnescapeString(s)
	}
	s = reread(s)
	s = terminalEscape.ReplaceAllLiteralString(s, "")
	s = repair(s)
	s = html.UnescapeString(html.UnescapeString(s))
	return strings.Join(strings.FieldsFunc(s, isSpace), " ")
}

var terminalEscape = regexp.MustCompile("\x1b\\[[0-9;]*[a-zA-Z]")

// isSpace is Python's idea of white space.
func isSpace(r rune) bool { return unicode.IsSpace(r) || r >= 0x1C && r <= 0x1F }

// windows1252 are the characters of bytes 0x80 to 0x9F; the five free ones stay C1 controls, as in ftfy's "sloppy" table.
var windows1252 = [32]rune{'€', 0x81, '‚', 'ƒ', '„', '…', '†', '‡', 'ˆ', '‰', 'Š', '‹', 'Œ', 0x8D, 'Ž', 0x8F,
	0x90, '‘', '’', '“', '”', '•', '–', '—', '˜', '™', 'š', '›', 'œ', 0x9D, 'ž', 'Ÿ'}

// reread undoes one or more readings of UTF-8 as windows-1252 ("Ã©" for "é").
func reread(s string) string {
	for range 4 {
		b := make([]byte, 0, len(s))
		for _, r := range s {
			c, ok := byteOf1252(r)
			if !ok {
				return s
			}
			b = append(b, c)
		}
		if len(b) == len(s) || !utf8.Valid(b) || !convincing(b) {
			return s
		}
		s = string(b)
	}
	return s
}

func byteOf1252(r rune) (byte, bool) {
	if r < 0x80 || r >= 0xA0 && r < 0x100 {
		return byte(r), true
	}
	for i, w := range windows1252 {
		if r == w || r == rune(0x80+i) {
			return byte(0x80 + i), true
		}
	}
	return 0, false
}

// convincing tells whether valid UTF-8 can hardly be a text in Latin letters: two-byte sequences other than those of Latin-1
// can, as in "CAFÉ®".
func convincing(b []byte) bool {
	for _, c := range b {
		if c >= 0xC4 && c < 0xE0 {
			return false
		}
	}
	return true
}

var ligatures = map[rune]string{'Ĳ': "IJ", 'ĳ': "ij", 'ŉ': "ʼn", 'Ǳ': "DZ", 'ǲ': "Dz", 'ǳ': "dz", 'Ǆ': "DŽ", 'ǅ': "Dž", 'ǆ': "dž",
	'Ǉ': "LJ", 'ǈ': "Lj", 'ǉ': "lj", 'Ǌ': "NJ", 'ǋ': "Nj", 'ǌ': "nj",
	'ﬀ': "ff", 'ﬁ': "fi", 'ﬂ': "fl", 'ﬃ': "ffi", 'ﬄ': "ffl", 'ﬅ': "ſt", 'ﬆ': "st"}

// repair replaces and removes single characters; what a ligature gives is looked at again, it may be a quote.
func repair(s string) string {
	var b strings.Builder
	b.Grow(len(s))
	for _, r := range s {
		if r >= 0x80 && r < 0xA0 {
			r = windows1252[r-0x80]
		}
		if l, ok := ligatures[r]; ok {
			for _, r := range l {
				b.WriteRune(plain(r))
			}
			continue
		}
		if !removed(r) {
			b.WriteRune(plain(r))
		}
	}
	return b.String()
}

// plain straightens quotes and narrows full-width characters.
func plain(r rune) rune {
	switch {
	case r > 0xFF00 && r < 0xFF5F:
		return r - 0xFEE0
	case r == 0x3000:
		return ' '
	case r == 0x02BC || r >= 0x2018 && r <= 0x201B:
		return '\''
	case r >= 0x201C && r <= 0x201F:
		return '"'
	case r == '\r' || r == 0x85 || r == 0x2028 || r == 0x2029:
		return '\n'
	}
	return r
}

// removed are control characters without a meaning in a text.
func removed(r rune) bool {
	switch {
	case r < 0x20:
		return r != '\t' && r != '\n' && r != '\f' && r != '\r'
	case r == 0x7F, r >= 0x206A && r < 0x2070, r == 0xFEFF, r >= 0xFFF9 && r < 0xFFFD:
		return true
	}
	return false
}
