package ann

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// Index is a search over keys of one width in numbered slots. It belongs to one goroutine at a time and grows as needed.
type Index interface {
	// Put says that a slot now holds key, which is not kept.
	Put(slot int, key []float32)
	// Score estimates the dot products of query and the keys in slots lo to lo+len(dst): -Inf where the index says that
	// they are not worth a look. Slots that were never Put hold zeros.
	Score(dst, query []float32, lo int)
	// Nearest returns the slot below slots whose key seems to have the largest dot product with query (LSH and Quant compare
	// it as Score does), or -1. Of equal ones the first wins.
	Nearest(query []float32, slots int) int
	// Reset forgets all keys.
	Reset()
	// Bytes returns the memory taken.
	Bytes() int64
}

// Rows is an Index that can tell what it has kept of its keys: then many queries at once can be multiplied by them, which gives
// what Score gives, save for the order of summation.
type Rows interface {
	// Row writes the key of a slot as the index knows it.
	Row(dst []float32, slot int)
}

// Many is an Index that scores many queries at once.
type Many interface {
	// ScoreMany writes what Score gives for each of rows queries, [rows, width], and the keys from lo on: dst [keys, rows]. It
	// reports false, and writes nothing, where the index has no faster way than Score.
	ScoreMany(dst, queries []float32, rows, lo int) bool
}

// Maker makes indexes of a kind, for keys of a width, with room for so many slots before it has to grow. Equal makers with
// equal seeds make equal indexes.
type Maker interface {
	New(width, slots int) Index
	String() string
}

// Parse reads the name of a kind of index, as String of the makers writes it: "exact"; "lsh64" (bits), "lsh64 centred",
// "lsh10x4+1" (bits x tables + probes); "quant8", "quant4", "quant2"; "pq8" (subspaces).
func Parse(name string) (Maker, error) {
	word, option, _ := strings.Cut(name, " ")
	fail := fmt.Errorf("matcher %q: known are exact, lsh64, lsh64 centred, lsh10x4+1, quant2, quant4, quant8, pq8", name)
	number := func(s string) (int, bool) {
		n, err := strconv.Atoi(s)
		return n, err == nil && n >= 0
	}
	if rest, ok := strings.CutPrefix(word, "lsh"); ok && (option == "" || option == "centred") {
		l := LSH{Centre: option == "centred"}
		bits, tables, bucketed := strings.Cut(rest, "x")
		tables, probes, _ := strings.Cut(tables, "+")
		if probes == "" {
			probes = "0"
		}
		var ok1, ok2, ok3 bool
		l.Bits, ok1 = number(bits)
		l.Tables, ok2 = number(tables)
		l.Probes, ok3 = number(probes)
		if !bucketed {
			ok2 = true
		}
		if !ok1 || !ok2 || !ok3 || l.Check() != nil || bucketed && l.Tables == 0 {
			return nil, fail
		}
		return l, nil
	}
	if option != "" {
		return nil, fail
	}
	for prefix, make := range map[string]func(n int) (Maker, error){
		"quant": func(n int) (Maker, error) { return Scalar(n), Scalar(n).Check() },
		"pq":    func(n int) (Maker, error) { return Product{Subspaces: n}, Product{Subspaces: n}.Check() },
	} {
		if rest, ok := strings.CutPrefix(word, prefix); ok {
			if n, ok := number(rest); ok {
				if m, err := make(n); err == nil {
					return m, nil
				}
			}
			return nil, fail
		}
	}
	if word == "exact" {
		return Exact{}, nil
	}
	return nil, fail
}

// grown returns s with at least n elements, doubling.
func grown[T any](s []T, n int) []T {
	if n <= len(s) {
		return s
	}
	out := make([]T, max(n, 2*len(s)))
	copy(out, s)
	return out
}

// best returns the place of the largest score, -1 if there is none above -Inf.
func best(scores []float32) int {
	at, top := -1, float32(math.Inf(-1))
	for i, s := range scores {
		if s > top {
			at, top = i, s
		}
	}
	return at
}

// Dot returns the dot product of two vectors of one length, in float32, in a fixed order of summation.
func Dot(a, b []float32) float32 {
	var s0, s1, s2, s3 float32
	b = b[:len(a)]
	i := 0
	for ; i+4 <= len(a); i += 4 {
		s0 += a[i] * b[i]
		s1 += a[i+1] * b[i+1]
		s2 += a[i+2] * b[i+2]
		s3 += a[i+3] * b[i+3]
	}
	for ; i < len(a); i++ {
		s0 += a[i] * b[i]
	}
	return (s0 + s1) + (s2 + s3)
}

// Exact keeps the keys and computes the products: the oracle.
type Exact struct{}

// String returns "exact".
func (Exact) String() string { return "exact" }

// New makes an index.
func (Exact) New(width, slots int) Index {
	return &exact{width: width, keys: make([]float32, width*slots)}
}

type exact struct {
	width  int
	keys   []float32
	scores []float32
}

func (x *exact) Put(slot int, key []float32) {
	x.keys = grown(x.keys, (slot+1)*x.width)
	copy(x.keys[slot*x.width:], key[:x.width])
}

func (x *exact) Score(dst, query []float32, lo int) {
	x.keys = grown(x.keys, (lo+len(dst))*x.width)
	for i := range dst {
		dst[i] = Dot(query[:x.width], x.keys[(lo+i)*x.width:][:x.width])
	}
}

// Row copies a key.
func (x *exact) Row(dst []float32, slot int) {
	x.keys = grown(x.keys, (slot+1)*x.width)
	copy(dst, x.keys[slot*x.width:][:x.width])
}

func (x *exact) Nearest(query []float32, slots int) int {
	x.scores = grown(x.scores, slots)
	x.Score(x.scores[:slots], query, 0)
	return best(x.scores[:slots])
}

func (x *exact) Reset() { clear(x.keys) }

func (x *exact) Bytes() int64 { return int64(4 * (len(x.keys) + len(x.scores))) }
