package text

import (
	"fmt"
	"slices"
	"strings"
	"unicode"
)

// Words is the tokenizer of a closed vocabulary: one token a word, punctuation apart.
type Words struct {
	words []string // by id; 0 is padding
	ids   map[string]int32
}

// Unknown is a word that the vocabulary lacks, with the nearest ones that it has.
type Unknown struct {
	Word    string
	Nearest []string
}

// String returns `"blu" (nearest: blue, blue-day)`.
func (u Unknown) String() string {
	return fmt.Sprintf("%q (nearest: %s)", u.Word, strings.Join(u.Nearest, ", "))
}

// NewWords takes the vocabulary by id.
func NewWords(vocabulary []string) *Words {
	w := &Words{words: vocabulary, ids: make(map[string]int32, len(vocabulary))}
	for i, s := range vocabulary {
		w.ids[s] = int32(i)
	}
	return w
}

// Encode returns the ids of a prompt's known words, at most limit of them, and the words that were left out.
// Case does not matter; ":", "," and "." are tokens of their own.
func (w *Words) Encode(prompt string, limit int) (ids []int32, unknown []Unknown) {
	for _, s := range split(prompt) {
		id, ok := w.ids[s]
		switch {
		case ok && id != 0 && len(ids) < limit:
			ids = append(ids, id)
		case !ok && !slices.ContainsFunc(unknown, func(u Unknown) bool { return u.Word == s }):
			unknown = append(unknown, Unknown{s, w.nearest(s, 3)})
		}
	}
	return ids, unknown
}

// Decode returns the words of ids, padding left out.
func (w *Words) Decode(ids []int32) string {
	var out []string
	for _, id := range ids {
		if id > 0 && int(id) < len(w.words) {
			out = append(out, w.words[id])
		}
	}
	return strings.Join(out, " ")
}

// split cuts a prompt at white space and around punctuation; a hyphen stays inside its word.
func split(prompt string) []string {
	var out []string
	start := -1
	end := func(i int) {
		if start >= 0 {
			out = append(out, strings.ToLower(prompt[start:i]))
		}
		start = -1
	}
	for i, r := range prompt {
		switch {
		case unicode.IsSpace(r):
			end(i)
		case r != '-' && (unicode.IsPunct(r) || unicode.IsSymbol(r)):
			end(i)
			if r == ':' || r == ',' || r == '.' {
				out = append(out, string(r))
			}
		case start < 0:
			start = i
		}
	}
	end(len(prompt))
	return out
}

// nearest returns the n words of least edit distance, ties in vocabulary order.
func (w *Words) nearest(s string, n int) []string {
	known := slices.DeleteFunc(slices.Clone(w.words), func(k string) bool { return len(k) < 2 || strings.HasPrefix(k, "<") })
	s = s[:min(len(s), 64)] // the cost is quadratic
	distance := make(map[string]int, len(known))
	for _, k := range known {
		distance[k] = editDistance(s, k)
	}
	slices.SortStableFunc(known, func(a, b string) int { return distance[a] - distance[b] })
	return known[:min(n, len(known))]
}

// editDistance counts insertions, deletions and replacements of bytes; a word inside the other costs less than its length.
func editDistance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = 2 * j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = 2 * (i + 1)
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost += 3
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+2, row[j+1]+2)
		}
	}
	return row[len(b)]
}
