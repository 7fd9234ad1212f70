package compute

// HashingDevice is a Device whose queues are Hashers.
type HashingDevice interface {
	Device
	// Hashes does nothing.
	Hashes()
}

// Hasher writes codes of vectors and finds near vectors by them, without the host: the rules of package accel/ann, which has them for
// queues with host memory and is the oracle.
type Hasher interface {
	// Hash writes, of every row of x [heads, rows, width], F32 or BF16, the signs of its products with planes F32 [bits, width]: plane b
	// is bit b%64 of word b/64 of codes I64 [heads, room, words], 1 from 0 on; and its length to lengths F32 [heads, room], if there. counts I32
	// [heads], if there, says how many rows count. weak, of the shape of codes, if there, receives the bits that t calls uncertain.
	Hash(codes, weak, lengths, x, planes, counts Tensor, t Tables)
	// Quantise rounds rows of x as Hash takes them to numbers of bits bits, 2, 4 or 8, with one scale a row, step times the root mean
	// square: packed U8 [heads, room, bytes] (the first number in the lowest bits) and scales F32 [heads, room], or known F32
	// [heads, room, width], what they mean, or all three; absent ones are not written. known may be BF16: then it receives what scales are to
	// multiply, which that type holds exactly.
	Quantise(packed, scales, known, x, counts Tensor, bits int, step float32)
	// MatchCodes is Matcher.Match by codes of Hash: where n of bits signs differ a key of length l counts as l*cos(pi*n/bits).
	MatchCodes(best, score, query, keys, lengths, counts Tensor, bits int)
	// MatchTables is MatchCodes among the keys that share a bucket with the query, whose uncertain bits are weak; -1 and -Inf where none
	// does. Keys are sorted by their buckets first: order I32 [heads, tables, room of keys] and ends I32 [heads, tables, 2^t.Bits] are
	// work space.
	MatchTables(best, score, query, weak, keys, lengths, counts, order, ends Tensor, t Tables)
}

// Tables cut codes into Count bucket numbers of Bits bits, at most 16, 64/Bits of them in a word from its lowest bit on; no other bits are set
// in one code and not in another. A key shares a bucket with a query if their bits of any table are equal, or differ in
// one that is uncertain: one of the Probes bits of the query in that table whose products are the smallest. The zero value cuts nothing.
type Tables struct{ Count, Bits, Probes int }
