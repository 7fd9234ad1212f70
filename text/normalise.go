package text

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// space is how pieces write a space.
const space = "▁"

// replacement stands for each byte that is not UTF-8.
const replacement = "\uFFFD"

// charsmap replaces sequences of characters: a Darts-clone double array over UTF-8 whose values are places in replaced, where
// NUL-terminated strings lie. Sentencepiece calls it precompiled_charsmap.
type charsmap struct {
	units    []uint32
	replaced string
}

// maxReplacement is the most bytes that a rule may give; the longest of NFKC has 33. It bounds what a text can grow to.
const maxReplacement = 255

// newCharsmap reads the size of the double array in bytes, its units, and the strings. No bytes: no rules.
func newCharsmap(b []byte) (charsmap, error) {
	if len(b) == 0 {
		return charsmap{}, nil
	}
	if len(b) < 8 {
		return charsmap{}, errors.New("charsmap is shorter than its head")
	}
	size := int64(binary.LittleEndian.Uint32(b))
	if size == 0 || size%4 != 0 || 4+size >= int64(len(b)) {
		return charsmap{}, fmt.Errorf("charsmap of %d bytes says that its double array has %d", len(b), size)
	}
	c := charsmap{units: make([]uint32, size/4), replaced: string(b[4+size:])}
	for i := range c.units {
		c.units[i] = binary.LittleEndian.Uint32(b[4+4*i:])
	}
	if !strings.HasSuffix(c.replaced, "\x00") {
		return charsmap{}, errors.New("charsmap's last string does not end")
	}
	if n := c.widest(); n > maxReplacement {
		return charsmap{}, fmt.Errorf("charsmap has a string of %d bytes, at most %d", n, maxReplacement)
	}
	return c, nil
}

// widest returns the bytes of the longest string.
func (c *charsmap) widest() int {
	widest := 0
	for s := range strings.SplitSeq(c.replaced, "\x00") {
		widest = max(widest, len(s))
	}
	return widest
}

// longest applies the rule with the longest left side that s starts with; 0 when there is none.
func (c *charsmap) longest(s string) (to string, n int) { return c.apply(s, false) }

// apply is longest, or with first set the same with the shortest left side.
func (c *charsmap) apply(s string, first bool) (to string, n int) {
	if len(c.units) == 0 {
		return "", 0
	}
	// A unit holds a label in bits 0-7, whether a value follows in bit 8, and an offset in bits 10-30 that bit 9 scales by
	// 256; the offset is relative to the unit's own place, by exclusive or. Values have bit 31 set.
	offset := func(u uint32) uint32 { return u >> 10 << (u & (1 << 9) >> 6) }
	place := offset(c.units[0])
	value := uint32(0)
	for i := range len(s) {
		place ^= uint32(s[i])
		if place >= uint32(len(c.units)) {
			break
		}
		u := c.units[place]
		if u&(1<<31|0xff) != uint32(s[i]) {
			break
		}
		place ^= offset(u)
		if u>>8&1 == 1 && place < uint32(len(c.units)) {
			if v := c.units[place] & (1<<31 - 1); v < uint32(len(c.replaced)) {
				n, value = i+1, v
			}
			if first && n > 0 {
				break
			}
		}
	}
	if n == 0 {
		return "", 0
	}
	end := strings.IndexByte(c.replaced[value:], 0)
	return c.replaced[value : int(value)+end], n
}

// clusters applies the rules as Hugging Face's Precompiled does: to every cluster of characters. One of less than six bytes is
// replaced as a whole by the shortest rule that fits, even when that leaves accents out; in others each character is alone.
func (c *charsmap) clusters(s string) string {
	out := make([]byte, 0, len(s)+len(s)/2)
	for s != "" {
		n := cluster(s)
		if n < 6 {
			if to, used := c.apply(s[:n], true); used > 0 {
				out, s = append(out, to...), s[n:]
				continue
			}
		}
		for end := len(s) - n; len(s) > end; {
			_, width := utf8.DecodeRuneInString(s)
			to, used := c.apply(s[:width], true)
			if used == 0 {
				to = s[:width]
			}
			out, s = append(out, to...), s[width:]
		}
	}
	return string(out)
}

// cluster returns the bytes of the first grapheme cluster of s (Unicode UAX 29): a character with the marks behind it. Clusters
// of other kinds (Hangul letters, flags, joined emoji) have at least six bytes, where clusters need not be found.
func cluster(s string) int {
	r, n := utf8.DecodeRuneInString(s)
	if r == '\r' && strings.HasPrefix(s[n:], "\n") {
		return 2
	}
	if unicode.In(r, unicode.Cc, unicode.Zl, unicode.Zp) || unicode.Is(unicode.Cf, r) && r != zeroWidthJoiner && r != zeroWidthNonJoiner {
		return n
	}
	for n < len(s) {
		r, width := utf8.DecodeRuneInString(s[n:])
		if !unicode.In(r, unicode.Mn, unicode.Me, unicode.Mc) && r != zeroWidthNonJoiner && r != zeroWidthJoiner {
			break
		}
		n += width
	}
	return n
}

const (
	zeroWidthNonJoiner = 0x200C
	zeroWidthJoiner    = 0x200D
)

// normaliser is what sentencepiece does to a text before it looks for pieces (normalizer.cc of v0.1.97).
type normaliser struct {
	charsmap charsmap
	symbols  *lexicon // user-defined symbols pass unchanged
	prefix   bool     // add a space in front
	suffix   bool     // the added space goes to the end instead
	collapse bool     // trim spaces and join runs of them
	escape   bool     // write spaces as ▁
}

// step normalises what s starts with, and tells how many bytes of s that was.
func (z *normaliser) step(s string) (to string, n int) {
	if n, _ := z.symbols.longest(s); n > 0 {
		return s[:n], n
	}
	if to, n = z.charsmap.longest(s); n > 0 {
		return to, n
	}
	r, n := utf8.DecodeRuneInString(s)
	if r == utf8.RuneError && n == 1 {
		return replacement, 1
	}
	return s[:n], n
}

// text normalises s.
func (z *normaliser) text(s string) string {
	if z.collapse {
		for s != "" {
			to, n := z.step(s)
			if to != " " {
				break
			}
			s = s[n:]
		}
	}
	if s == "" {
		return ""
	}
	white := " "
	if z.escape {
		white = space
	}
	out := make([]byte, 0, len(s)+len(s)/2+2*len(white))
	if z.prefix && !z.suffix {
		out = append(out, white...)
	}
	afterSpace := z.collapse
	for s != "" {
		to, n := z.step(s)
		s = s[n:]
		if afterSpace {
			to = strings.TrimLeft(to, " ")
		}
		if to == "" {
			continue // what came before is still what it was
		}
		for i := range len(to) {
			if to[i] == ' ' {
				out = append(out, white...)
			} else {
				out = append(out, to[i])
			}
		}
		afterSpace = z.collapse && to[len(to)-1] == ' '
	}
	if z.collapse {
		for bytes.HasSuffix(out, []byte(white)) {
			out = out[:len(out)-len(white)]
		}
	}
	if z.prefix && z.suffix {
		out = append(out, white...)
	}
	return string(out)
}
