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
	// is bit b%64 of word b/64 of codes I64 [heads, room, words], 1 from 0 on; and its length to lengths F32 [heads, room]. counts I32
	// [heads], if there, says how many rows count.
	Hash(codes, lengths, x, planes, counts Tensor)
	// Quantise rounds rows of x as Hash takes them to numbers of bits bits, 2, 4 or 8, with one scale a row, step times the root mean
	// square: packed U8 [heads, room, bytes] (the first number in the lowest bits) and scales F32 [heads, room], or known F32
	// [heads, room, width], what they mean, or all three; absent ones are not written.
	Quantise(packed, scales, known, x, counts Tensor, bits int, step float32)
	// MatchCodes is Matcher.Match by codes of Hash: where n of bits signs differ a key of length l counts as l*cos(pi*n/bits).
	MatchCodes(best, score, query, keys, lengths, counts Tensor, bits int)
}
