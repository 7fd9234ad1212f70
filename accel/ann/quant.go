package ann

import (
	"fmt"
	"math"
	"math/rand/v2"
)

// Scalar quantises every number of a key to 2, 4 or 8 bits with one scale a key; it is a Maker. Queries stay as they are
// (asymmetric distance, Jégou et al., TPAMI 2011). Steps are those that are best for normal numbers (Max, 1960), since the
// largest number makes a poor scale at few bits: our choice; the paper's ablation names the bits alone.
type Scalar int

// Check refuses other numbers of bits.
func (b Scalar) Check() error {
	if b != 2 && b != 4 && b != 8 {
		return fmt.Errorf("quantisation to %d bits: known are 2, 4 and 8", int(b))
	}
	return nil
}

// String returns "quant4".
func (b Scalar) String() string { return fmt.Sprintf("quant%d", int(b)) }

// steps of uniform quantisers for numbers with a root mean square of 1.
var steps = map[Scalar]float32{2: 0.9957, 4: 0.3352, 8: 0.0308}

// Step is the width of a level for numbers with a root mean square of 1, for a device that quantises.
func (b Scalar) Step() float32 { return steps[b] }

// New makes an index. It panics on numbers that Check refuses.
func (b Scalar) New(width, slots int) Index {
	if err := b.Check(); err != nil {
		panic("ann: " + err.Error())
	}
	per := 8 / int(b)
	return newCoded(&scalarBook{bits: int(b), per: per, width: width, step: steps[b]}, width, (width+per-1)/per, slots)
}

// Product cuts keys into Subspaces parts and stores for each the nearest of 256 centroids (Jégou et al., TPAMI 2011). The
// centroids are found by k-means on the first Learn keys (0 for 512) and then stay; until then keys are kept whole. It is a Maker.
type Product struct {
	Subspaces, Learn int
	Seed             uint64
}

// Check refuses numbers that cannot be.
func (p Product) Check() error {
	if p.Subspaces < 1 || p.Subspaces > 256 || p.Learn < 0 {
		return fmt.Errorf("product quantisation with %d subspaces: want 1 to 256", p.Subspaces)
	}
	return nil
}

// String returns "pq8".
func (p Product) String() string { return fmt.Sprintf("pq%d", p.Subspaces) }

// New makes an index. It panics on numbers that Check refuses, or a width that Subspaces do not divide.
func (p Product) New(width, slots int) Index {
	if p.Check() != nil || width%p.Subspaces != 0 {
		panic(fmt.Sprintf("ann: %d subspaces of width %d", p.Subspaces, width))
	}
	if p.Learn == 0 {
		p.Learn = 512
	}
	x := newCoded(&productBook{n: p.Subspaces, each: width / p.Subspaces, seed: p.Seed}, width, p.Subspaces, slots)
	x.learn, x.learnt = p.Learn, false
	return x
}

// book turns vectors into bytes and queries into tables of what a byte contributes to the dot product.
type book interface {
	encode(code []byte, key []float32) (scale float32)
	table(dst []float32, query []float32) // [len(code)][256]
	product(code []byte, query []float32) float32
	decode(dst []float32, code []byte, scale float32)
	train(keys []float32, width int)
}

// coded is an index of bytes.
type coded struct {
	book
	width, bytes int
	code         []byte    // [slots][bytes]
	scale        []float32 // [slots]
	tables       []float32 // [bytes][256] of the query
	scores       []float32
	learn        int
	learnt       bool
	early        []float32 // [slots][width] while learning
	seen, top    int
}

func newCoded(b book, width, bytes, slots int) *coded {
	return &coded{book: b, width: width, bytes: bytes, learnt: true, code: make([]byte, slots*bytes), scale: make([]float32, slots),
		tables: make([]float32, bytes*256)}
}

// Put encodes a key.
func (x *coded) Put(slot int, key []float32) {
	x.code, x.scale = grown(x.code, (slot+1)*x.bytes), grown(x.scale, slot+1)
	if !x.learnt {
		x.early = grown(x.early, (slot+1)*x.width)
		copy(x.early[slot*x.width:], key[:x.width])
		x.top = max(x.top, slot+1)
		if x.seen++; x.seen < x.learn {
			return
		}
		x.train(x.early[:x.top*x.width], x.width)
		for i := range x.top {
			x.scale = grown(x.scale, i+1)
			x.code = grown(x.code, (i+1)*x.bytes)
			x.scale[i] = x.encode(x.code[i*x.bytes:][:x.bytes], x.early[i*x.width:][:x.width])
		}
		x.early, x.learnt = nil, true
		return
	}
	x.scale[slot] = x.encode(x.code[slot*x.bytes:][:x.bytes], key)
}

// Score sums table entries.
func (x *coded) Score(dst, query []float32, lo int) {
	if !x.learnt {
		x.early = grown(x.early, (lo+len(dst))*x.width)
		for i := range dst {
			dst[i] = Dot(query[:x.width], x.early[(lo+i)*x.width:][:x.width])
		}
		return
	}
	x.code, x.scale = grown(x.code, (lo+len(dst))*x.bytes), grown(x.scale, lo+len(dst))
	if len(dst) < 128 { // a table would cost more than it saves
		for i := range dst {
			dst[i] = x.scale[lo+i] * x.product(x.code[(lo+i)*x.bytes:][:x.bytes], query)
		}
		return
	}
	x.table(x.tables, query[:x.width])
	for i := range dst {
		code := x.code[(lo+i)*x.bytes:][:x.bytes]
		var s0, s1 float32
		b := 0
		for ; b+2 <= len(code); b += 2 {
			s0 += x.tables[b*256+int(code[b])]
			s1 += x.tables[(b+1)*256+int(code[b+1])]
		}
		if b < len(code) {
			s0 += x.tables[b*256+int(code[b])]
		}
		dst[i] = x.scale[lo+i] * (s0 + s1)
	}
}

// Nearest returns the key that ranks first.
func (x *coded) Nearest(query []float32, slots int) int {
	x.scores = grown(x.scores, slots)
	x.Score(x.scores[:slots], query, 0)
	return best(x.scores[:slots])
}

// Row decodes a key.
func (x *coded) Row(dst []float32, slot int) {
	if !x.learnt {
		x.early = grown(x.early, (slot+1)*x.width)
		copy(dst, x.early[slot*x.width:][:x.width])
		return
	}
	x.code, x.scale = grown(x.code, (slot+1)*x.bytes), grown(x.scale, slot+1)
	x.decode(dst[:x.width], x.code[slot*x.bytes:][:x.bytes], x.scale[slot])
}

// Reset forgets all keys; centroids stay.
func (x *coded) Reset() {
	clear(x.code)
	clear(x.scale)
	clear(x.early)
	x.seen, x.top = 0, 0
}

// Bytes returns the memory taken.
func (x *coded) Bytes() int64 {
	return int64(len(x.code)) + int64(4*(len(x.scale)+len(x.tables)+len(x.scores)+len(x.early)))
}

// scalarBook packs 8/bits numbers into a byte.
type scalarBook struct {
	bits, per, width int
	step             float32
}

func (b *scalarBook) encode(code []byte, key []float32) float32 {
	scale := b.step * float32(math.Sqrt(float64(Dot(key[:b.width], key)/float32(b.width))))
	clear(code)
	if scale == 0 {
		return 0
	}
	half := float32(int(1) << (b.bits - 1))
	for i, v := range key[:b.width] {
		// Levels lie in the middle of steps: -half+0.5 ... half-0.5.
		level := float32(math.Floor(float64(v/scale))) + half
		code[i/b.per] |= byte(min(max(level, 0), 2*half-1)) << (i % b.per * b.bits)
	}
	return scale
}

func (b *scalarBook) table(dst, query []float32) {
	half, mask := float32(int(1)<<(b.bits-1))-0.5, 1<<b.bits-1
	for first := 0; first < b.width; first += b.per {
		out := dst[first/b.per*256:][:256]
		clear(out)
		for j := 0; j < b.per && first+j < b.width; j++ {
			q := query[first+j]
			for v := range out {
				out[v] += q * (float32(v>>(j*b.bits)&mask) - half)
			}
		}
	}
}

func (b *scalarBook) product(code []byte, query []float32) float32 {
	half, mask := float32(int(1)<<(b.bits-1))-0.5, byte(1<<b.bits-1)
	var sum float32
	for i, q := range query[:b.width] {
		sum += q * (float32(code[i/b.per]>>(i%b.per*b.bits)&mask) - half)
	}
	return sum
}

func (b *scalarBook) decode(dst []float32, code []byte, scale float32) {
	half := float32(int(1)<<(b.bits-1)) - 0.5
	if b.bits == 8 {
		for i, c := range code[:len(dst)] {
			dst[i] = scale * (float32(c) - half)
		}
		return
	}
	mask := byte(1<<b.bits - 1)
	for i := range dst {
		dst[i] = scale * (float32(code[i/b.per]>>(i%b.per*b.bits)&mask) - half)
	}
}

func (b *scalarBook) train([]float32, int) {}

// centroids of a subspace.
const centroids = 256

// productBook holds the centroids.
type productBook struct {
	n, each int
	seed    uint64
	centre  []float32 // [n][256][each]
}

func (b *productBook) encode(code []byte, key []float32) float32 {
	for s := range b.n {
		code[s] = byte(nearest(b.centre[s*centroids*b.each:][:centroids*b.each], key[s*b.each:][:b.each]))
	}
	return 1
}

// nearest returns the row nearest to v.
func nearest(rows, v []float32) int {
	at, least := 0, float32(math.Inf(1))
	for i := range len(rows) / len(v) {
		var d float32
		for j, r := range rows[i*len(v):][:len(v)] {
			d += (r - v[j]) * (r - v[j])
		}
		if d < least {
			at, least = i, d
		}
	}
	return at
}

func (b *productBook) table(dst, query []float32) {
	for s := range b.n {
		q := query[s*b.each:][:b.each]
		for c := range centroids {
			dst[s*256+c] = Dot(q, b.centre[(s*centroids+c)*b.each:])
		}
	}
}

func (b *productBook) product(code []byte, query []float32) float32 {
	var sum float32
	for s, c := range code {
		sum += Dot(query[s*b.each:][:b.each], b.centre[(s*centroids+int(c))*b.each:])
	}
	return sum
}

func (b *productBook) decode(dst []float32, code []byte, scale float32) {
	for s, c := range code {
		for j, v := range b.centre[(s*centroids+int(c))*b.each:][:b.each] {
			dst[s*b.each+j] = scale * v
		}
	}
}

// rounds of k-means: few, since the centroids only rank.
const rounds = 6

// train finds centroids by k-means, begun at keys drawn at random.
func (b *productBook) train(keys []float32, width int) {
	n := len(keys) / width
	rng := rand.New(rand.NewPCG(b.seed, 0x9b05688c2b3e6c1f))
	b.centre = make([]float32, b.n*centroids*b.each)
	sum, count := make([]float32, centroids*b.each), make([]int, centroids)
	for s := range b.n {
		c := b.centre[s*centroids*b.each:][:centroids*b.each]
		part := func(i int) []float32 { return keys[i*width+s*b.each:][:b.each] }
		for i := range centroids {
			copy(c[i*b.each:], part(rng.IntN(n)))
		}
		for range rounds {
			clear(sum)
			clear(count)
			for i := range n {
				at := nearest(c, part(i))
				count[at]++
				for j, v := range part(i) {
					sum[at*b.each+j] += v
				}
			}
			for i, m := range count {
				for j := range b.each {
					if m > 0 {
						c[i*b.each+j] = sum[i*b.each+j] / float32(m)
					}
				}
			}
		}
	}
}
