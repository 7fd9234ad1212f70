package ann

import (
	"fmt"
	"math"
	"math/bits"
	"math/rand/v2"

	"longtake/compute"
)

// LSH hashes by the signs of random projections (Charikar, STOC 2002): two vectors at angle a differ in a share a/pi of their
// bits, so |key| cos(pi*different/bits) estimates their dot product up to the query's length. It is a Maker.
//
// Without Tables every key is ranked by the exclusive or of whole codes. With Tables the code is cut into that many bucket
// numbers of Bits each, and only keys that share at least one bucket with the query are ranked; Probes adds, table by table,
// the buckets that differ in the bits whose projections of the query are the smallest (multi-probe, Lv et al., VLDB 2007).
type LSH struct {
	Bits, Tables, Probes int
	// Centre subtracts the mean of the first Learn keys from all keys: ranking by products does not change, but angles use
	// the whole range, where keys have a large mean in the model (0.54 is the cosine of two random keys before rotation).
	Centre bool
	// Learn is how many keys the mean is taken of, 0 for 256.
	Learn int
	// Augment adds a dimension that makes all keys equally long (Neyshabur and Srebro, ICML 2015), so that bucket numbers and
	// angles speak of products and not of cosines; without it the estimate is multiplied by the key's length.
	Augment bool
	// Seed of the projections.
	Seed uint64
}

// Check refuses numbers that make no hash.
func (o LSH) Check() error {
	switch {
	case o.Bits < 1 || o.Tables < 0 || o.Probes < 0 || o.Learn < 0:
		return fmt.Errorf("hash of %d bits, %d tables, %d probes: want at least 1, 0, 0", o.Bits, o.Tables, o.Probes)
	case o.Tables == 0 && o.Bits > 4096:
		return fmt.Errorf("hash of %d bits, at most 4096", o.Bits)
	case o.Tables > 0 && (o.Bits > 16 || o.Tables > 64 || o.Probes > o.Bits):
		return fmt.Errorf("hash tables of %d bits, %d tables, %d probes: at most 16 bits, 64 tables, and a probe for each bit", o.Bits, o.Tables, o.Probes)
	}
	return nil
}

// String returns "lsh64", "lsh64 centred" or "lsh10x4+1".
func (o LSH) String() string {
	s := fmt.Sprintf("lsh%d", o.Bits)
	if o.Tables > 0 {
		s += fmt.Sprintf("x%d+%d", o.Tables, o.Probes)
	}
	if o.Centre {
		s += " centred"
	}
	return s
}

// hashed is an index of codes.
type hashed struct {
	LSH
	width, bits, words int
	planes             []float32 // [bits][width+1], the last for Augment
	projected          []float32 // [bits] of one vector
	query              []uint64  // [words]
	many               []uint64  // [rows][words]
	scales             []float32 // [rows]
	cosine             []float32 // [bits+1] of how many bits differ
	probes             []uint16  // [tables][1+Probes] buckets of the query
	scores             []float32

	code   []uint64  // [slots][words]
	length []float32 // [slots]

	// While learning: projections and squared lengths of the first keys, and their sum.
	learnt   bool
	seen     int
	early    []float32 // [slots][bits+1]
	sum      []float64 // [width]
	mean     []float32 // [width]
	meanDots []float32 // [bits] projections of the mean
	reach    float32   // length that Augment brings keys to
}

// New makes an index. It panics on numbers that Check refuses.
func (o LSH) New(width, slots int) Index {
	if err := o.Check(); err != nil {
		panic("ann: " + err.Error())
	}
	if o.Learn == 0 {
		o.Learn = 256
	}
	x := &hashed{LSH: o, width: width, bits: o.Bits * max(o.Tables, 1)}
	x.words = (x.bits + 63) / 64
	x.planes = planes(x.bits, width+1, o.Seed)
	x.projected, x.query = make([]float32, x.bits), make([]uint64, x.words)
	x.cosine = make([]float32, x.bits+1)
	for i := range x.cosine {
		x.cosine[i] = float32(math.Cos(math.Pi * float64(i) / float64(x.bits)))
	}
	x.probes = make([]uint16, o.Tables*(1+o.Probes))
	x.code, x.length = make([]uint64, slots*x.words), make([]float32, slots)
	x.mean, x.meanDots, x.sum = make([]float32, width), make([]float32, x.bits), make([]float64, width)
	x.learnt = !o.Centre && !o.Augment
	return x
}

// Planes returns the directions of an index without Augment, [Signs][width], for a device that hashes. Bits that belong to no table
// have zeros.
func (o LSH) Planes(width int) []float32 {
	bits := o.Bits * max(o.Tables, 1)
	all, out := planes(bits, width+1, o.Seed), make([]float32, o.Signs()*width)
	for b := range bits {
		at := b
		if o.Tables > 0 {
			at = o.place(b/o.Bits) + b%o.Bits
		}
		copy(out[at*width:][:width], all[b*(width+1):])
	}
	return out
}

// Signs is how many bits a code has on a device, where no table lies in two words.
func (o LSH) Signs() int {
	if o.Tables == 0 {
		return o.Bits
	}
	return o.place(o.Tables-1) + o.Bits
}

// place is the first bit of a table in a device's code.
func (o LSH) place(table int) int {
	each := 64 / o.Bits
	return table/each*64 + table%each*o.Bits
}

// Cut describes the tables for a device.
func (o LSH) Cut() compute.Tables {
	return compute.Tables{Count: o.Tables, Bits: o.Bits * min(o.Tables, 1), Probes: o.Probes * min(o.Tables, 1)}
}

// planes returns random normal directions.
func planes(bits, width int, seed uint64) []float32 {
	rng := rand.New(rand.NewPCG(seed, 0x1f83d9abfb41bd6b))
	p := make([]float32, bits*width)
	for i := range p {
		p[i] = float32(rng.NormFloat64())
	}
	return p
}

// project computes the projections of a vector with extra as its last element.
func (x *hashed) project(dst, v []float32, extra float32) {
	w := x.width + 1
	for b := range dst {
		p := x.planes[b*w:][:w]
		dst[b] = Dot(v[:x.width], p) + extra*p[x.width]
	}
}

// Put hashes a key.
func (x *hashed) Put(slot int, key []float32) {
	x.code, x.length = grown(x.code, (slot+1)*x.words), grown(x.length, slot+1)
	x.project(x.projected, key, 0)
	square := Dot(key[:x.width], key)
	if !x.learnt {
		w := x.bits + x.width
		x.early = grown(x.early, (slot+1)*w)
		copy(x.early[slot*w:], x.projected)
		copy(x.early[slot*w+x.bits:], key[:x.width])
		for i, v := range key[:x.width] {
			x.sum[i] += float64(v)
		}
		x.reach = max(x.reach, square)
		if x.seen++; x.seen == x.Learn {
			x.learn()
			return
		}
	}
	x.store(slot, x.projected, key, square)
}

// learn fixes the mean and hashes again what was put so far: its projections are known, so that this needs no keys.
func (x *hashed) learn() {
	x.learnt = true
	if x.Centre {
		for i, s := range x.sum {
			x.mean[i] = float32(s / float64(x.seen))
		}
		x.project(x.meanDots, x.mean, 0)
	}
	x.reach *= 1.2 * 1.2 // later keys may be longer
	w := x.bits + x.width
	for slot := range len(x.early) / w {
		key := x.early[slot*w+x.bits:][:x.width]
		copy(x.projected, x.early[slot*w:])
		x.store(slot, x.projected, key, Dot(key, key))
	}
	x.early = nil
}

// store writes the code of projections.
func (x *hashed) store(slot int, projected, key []float32, square float32) {
	if x.Centre && x.learnt {
		square = 0
		for i, v := range key[:x.width] {
			square += (v - x.mean[i]) * (v - x.mean[i])
		}
	}
	if d := square - 1; d > -1e-5 && d < 1e-5 {
		square = 1 // rounding must not order vectors of unit length
	}
	extra := float32(0)
	if x.Augment {
		extra = float32(math.Sqrt(float64(max(0, x.reach-square))))
	}
	for b, p := range projected {
		projected[b] = p - x.meanDots[b] + extra*x.planes[b*(x.width+1)+x.width]
	}
	pack(x.code[slot*x.words:][:x.words], projected)
	x.length[slot] = float32(math.Sqrt(float64(square)))
	if x.Augment {
		x.length[slot] = float32(math.Sqrt(float64(x.reach)))
	}
}

// pack writes signs as bits.
func pack(code []uint64, v []float32) {
	clear(code)
	for b, p := range v {
		if p >= 0 {
			code[b/64] |= 1 << (b % 64)
		}
	}
}

// Score ranks by codes; with Tables what shares no bucket is -Inf.
func (x *hashed) Score(dst, query []float32, lo int) {
	x.code, x.length = grown(x.code, (lo+len(dst))*x.words), grown(x.length, lo+len(dst))
	x.project(x.projected, query, 0)
	pack(x.query, x.projected)
	x.list()
	scale := float32(math.Sqrt(float64(Dot(query[:x.width], query))))
	offset := float32(0)
	if x.Centre && x.learnt {
		offset = Dot(query[:x.width], x.mean)
	}
	if x.words == 1 && x.Tables == 0 {
		q := x.query[0]
		for i := range dst {
			dst[i] = scale*x.length[lo+i]*x.cosine[bits.OnesCount64(x.code[lo+i]^q)] + offset
		}
		return
	}
	for i := range dst {
		code := x.code[(lo+i)*x.words:][:x.words]
		if x.Tables > 0 && !x.shares(code) {
			dst[i] = float32(math.Inf(-1))
			continue
		}
		n := 0
		for w, c := range code {
			n += bits.OnesCount64(c ^ x.query[w])
		}
		dst[i] = scale*x.length[lo+i]*x.cosine[n] + offset
	}
}

// ScoreMany ranks by codes, query by query for each key; not for tables or a mean.
func (x *hashed) ScoreMany(dst, queries []float32, rows, lo int) bool {
	if x.Tables > 0 || x.Centre {
		return false
	}
	n := len(dst) / rows
	x.code, x.length = grown(x.code, (lo+n)*x.words), grown(x.length, lo+n)
	x.many, x.scales = grown(x.many, rows*x.words), grown(x.scales, rows)
	for r := range rows {
		q := queries[r*x.width:][:x.width]
		x.project(x.projected, q, 0)
		pack(x.many[r*x.words:][:x.words], x.projected)
		x.scales[r] = float32(math.Sqrt(float64(Dot(q, q))))
	}
	for i := range n {
		code, length, out := x.code[(lo+i)*x.words:][:x.words], x.length[lo+i], dst[i*rows:][:rows]
		if x.words == 1 {
			for r, scale := range x.scales[:rows] {
				out[r] = scale * length * x.cosine[bits.OnesCount64(code[0]^x.many[r])]
			}
			continue
		}
		for r, scale := range x.scales[:rows] {
			differ := 0
			for w, q := range x.many[r*x.words:][:len(code)] {
				differ += bits.OnesCount64(code[w] ^ q)
			}
			out[r] = scale * length * x.cosine[differ]
		}
	}
	return true
}

// list writes the buckets of the query, whose projections are in place.
func (x *hashed) list() {
	each := 1 + x.Probes
	for t := range x.Tables {
		own := x.bucket(x.query, t)
		x.probes[t*each] = own
		v := x.projected[t*x.Bits:][:x.Bits]
		var used uint16
		for p := range x.Probes {
			at, least := 0, float32(math.Inf(1))
			for b, d := range v {
				if d = max(d, -d); d < least && used>>b&1 == 0 {
					at, least = b, d
				}
			}
			used |= 1 << at
			x.probes[t*each+1+p] = own ^ 1<<at
		}
	}
}

// bucket returns the number of a code's bucket in table t.
func (x *hashed) bucket(code []uint64, t int) uint16 {
	at := t * x.Bits
	v := code[at/64] >> (at % 64)
	if at%64+x.Bits > 64 {
		v |= code[at/64+1] << (64 - at%64)
	}
	return uint16(v & (1<<x.Bits - 1))
}

// shares reports whether a key's code shares a bucket with the query.
func (x *hashed) shares(code []uint64) bool {
	each := 1 + x.Probes
	for t := range x.Tables {
		b := x.bucket(code, t)
		for _, p := range x.probes[t*each:][:each] {
			if b == p {
				return true
			}
		}
	}
	return false
}

// Nearest returns the key that ranks first.
func (x *hashed) Nearest(query []float32, slots int) int {
	x.scores = grown(x.scores, slots)
	x.Score(x.scores[:slots], query, 0)
	return best(x.scores[:slots])
}

// Reset forgets all keys, and what was learnt.
func (x *hashed) Reset() {
	clear(x.code)
	clear(x.length)
	clear(x.sum)
	clear(x.mean)
	clear(x.meanDots)
	x.early, x.seen, x.reach, x.learnt = nil, 0, 0, !x.Centre && !x.Augment
}

// Bytes returns the memory taken.
func (x *hashed) Bytes() int64 {
	return int64(8*len(x.code)) + int64(4*(len(x.length)+len(x.planes)+len(x.early)+len(x.scores)+len(x.projected)+len(x.cosine)))
}
