package text

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
)

// lexicon finds every piece that a text goes on with. It is a sorted list: each further byte narrows a range of it, which
// needs no memory beyond the pieces and reads them in one sort.
type lexicon struct {
	texts []string
	ids   []int32
	first [257]int32 // where pieces that start with a byte begin
}

// maxPiece is the most bytes of a piece; it bounds the work for a byte of text. SentencePiece trains at most 512.
const maxPiece = 512

// newLexicon lists the texts that keep accepts, by id.
func newLexicon(pieces []piece, keep func(id int, p *piece) bool) (*lexicon, error) {
	l := &lexicon{}
	for i := range pieces {
		if !keep(i, &pieces[i]) {
			continue
		}
		switch n := len(pieces[i].text); {
		case n == 0:
			return nil, fmt.Errorf("piece %d is empty", i)
		case n > maxPiece:
			return nil, fmt.Errorf("piece %d has %d bytes, at most %d", i, n, maxPiece)
		}
		l.ids = append(l.ids, int32(i))
	}
	slices.SortFunc(l.ids, func(a, b int32) int { return cmp.Compare(pieces[a].text, pieces[b].text) })
	l.texts = make([]string, len(l.ids))
	for i, id := range l.ids {
		l.texts[i] = pieces[id].text
		if i > 0 && l.texts[i] == l.texts[i-1] {
			return nil, fmt.Errorf("pieces %d and %d are both %q", l.ids[i-1], id, l.texts[i])
		}
	}
	at := 0
	for b := range 257 {
		for at < len(l.texts) && int(l.texts[at][0]) < b {
			at++
		}
		l.first[b] = int32(at)
	}
	return l, nil
}

// cursor is a range of pieces that share their first bytes.
type cursor struct{ lo, hi, depth int32 }

func (l *lexicon) start() cursor { return cursor{0, int32(len(l.texts)), 0} }

// next narrows to the pieces that go on with b and reports whether there are any; id is the piece that ends here, -1 if none.
func (l *lexicon) next(c *cursor, b byte) (id int32, any bool) {
	if c.depth == 0 {
		c.lo, c.hi = l.first[b], l.first[int(b)+1]
	} else {
		c.lo = l.search(c, int(b))
		c.hi = l.search(c, int(b)+1)
	}
	c.depth++
	if c.lo >= c.hi {
		return -1, false
	}
	// Of pieces with one beginning the shortest sorts first.
	if len(l.texts[c.lo]) == int(c.depth) {
		return l.ids[c.lo], true
	}
	return -1, true
}

// search returns the first piece of the range whose next byte is at least b.
func (l *lexicon) search(c *cursor, b int) int32 {
	lo, hi := c.lo, c.hi
	for lo < hi {
		mid := int32(uint32(lo+hi) >> 1)
		if t := l.texts[mid]; len(t) <= int(c.depth) || int(t[c.depth]) < b {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	return lo
}

// longest returns the longest piece that s starts with, in bytes, and its id; 0 and -1 without any.
func (l *lexicon) longest(s string) (n int, id int32) {
	id = -1
	if l == nil || len(l.texts) == 0 {
		return 0, id
	}
	c := l.start()
	for i := range len(s) {
		found, any := l.next(&c, s[i])
		if !any {
			break
		}
		if found >= 0 {
			n, id = i+1, found
		}
	}
	return n, id
}

// maxPieces bounds a vocabulary, and with it what a hostile file can make us allocate. The largest known has 256 thousand.
const maxPieces = 1 << 20

var errPieces = errors.New("more than 1048576 pieces")
