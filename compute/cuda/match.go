package cuda

import (
	"longtake/compute"
)

// matchArgs mirrors MatchArgs in kernels/match/match.cu.
type matchArgs struct {
	query, keys, lengths, best, score, found           uint64
	queryHead, queryRow, keyHead, keyRow               int64
	heads, queries, keyCount, width, pieces, pieceKeys uint32
	queryHalf, keyHalf                                 uint32
	keyLengths                                         uint64
	bits, codeRoom, queryRoom, _                       uint32
}

var _ compute.Matcher = (*queue)(nil)

// matchWidth is the largest width of the kernel on the matrix units.
const matchWidth = 128

// Match finds for every query the key with the largest dot product, see compute.Matcher. Without keys the score is -Inf.
// Products are within 2^-16 of float ones, or float ones with Options.Float32 and widths above 128.
func (q *queue) Match(best, score, query, keys, lengths compute.Tensor) {
	if q.err != nil {
		return
	}
	heads, queries, count, width := query.Shape[0], query.Shape[1], keys.Shape[1], query.Shape[2]
	if !(query.Rank == 3 && keys.Rank == 3 && keys.Shape[0] == heads && keys.Shape[2] == width && best.DType == compute.I32 && score.DType == compute.F32 &&
		best.Contiguous() && score.Contiguous() && best.Elems() == heads*queries && score.Elems() == heads*queries &&
		(lengths.IsZero() || lengths.DType == compute.I32 && lengths.Contiguous() && lengths.Elems() == heads)) {
		mismatch("match", best, score, query, keys, lengths)
	}
	if heads*queries == 0 {
		return
	}
	found := q.scratch(scratchFound, compute.I64, heads, queries)
	if q.err != nil {
		return
	}
	a := &q.matchArgs
	*a = matchArgs{query: address(query), keys: address(keys), best: address(best), score: address(score), found: address(found),
		queryHead: int64(query.Stride[0]), queryRow: int64(query.Stride[1]), keyHead: int64(keys.Stride[0]), keyRow: int64(keys.Stride[1]),
		heads: uint32(heads), queries: uint32(queries), keyCount: uint32(count), width: uint32(width),
		queryHalf: half("match", query), keyHalf: half("match", keys)}
	if !lengths.IsZero() {
		a.lengths = address(lengths)
	}
	kernel, tile := q.device.kernels.match[1], 256
	if q.device.float32 || width > matchWidth || width%16 != 0 {
		kernel, tile = q.device.kernels.match[2], 64
	}
	q.matchBy(kernel, tile, 256, 0)
}

// MatchCodes finds nearest keys by codes, see compute.Hasher.
func (q *queue) MatchCodes(best, score, query, keys, lengths, counts compute.Tensor, bits int) {
	if q.err != nil {
		return
	}
	heads, queries, words := query.Shape[0], best.Shape[1], query.Shape[2]
	if !(query.Rank == 3 && keys.Rank == 3 && query.Contiguous() && keys.Contiguous() && keys.Shape[0] == heads && keys.Shape[2] == words && words == (bits+63)/64 &&
		bits <= matchBits && query.DType == compute.I64 && keys.DType == compute.I64 && queries <= query.Shape[1] && lengths.Contiguous() && lengths.Elems() == heads*keys.Shape[1] &&
		best.Contiguous() && score.Contiguous() && best.Elems() == heads*queries && score.Elems() == heads*queries && (counts.IsZero() || counts.Elems() == heads)) {
		mismatch("match codes", best, score, query, keys, lengths)
	}
	if heads*queries == 0 {
		return
	}
	found := q.scratch(scratchFound, compute.I64, heads, queries)
	if q.err != nil {
		return
	}
	a := &q.matchArgs
	*a = matchArgs{query: address(query), keys: address(keys), best: address(best), score: address(score), found: address(found), lengths: addressOr0(counts),
		keyLengths: address(lengths), heads: uint32(heads), queries: uint32(queries), keyCount: uint32(keys.Shape[1]), width: uint32(words),
		bits: uint32(bits), codeRoom: uint32(keys.Shape[1]), queryRoom: uint32(query.Shape[1])}
	q.matchBy(q.device.kernels.match[4], 128, 128, 8*(64*words+128*(words+1))+4*(64+bits+1))
}

// matchBits is the most bits of codes that are matched: what fits into 48 KiB.
const matchBits = 1024

// matchBy starts a kernel whose blocks take tile queries, between those that begin and end a search.
func (q *queue) matchBy(kernel uintptr, tile, blockThreads, shared int) {
	a := &q.matchArgs
	heads, queries, count := int(a.heads), int(a.queries), int(a.keyCount)
	// Four blocks for every multiprocessor, if there are keys enough.
	blocks := heads * ((queries + tile - 1) / tile)
	pieces := min(max(1, 4*q.device.limit.multiprocessors/blocks), max(1, count/512))
	each := ((count+pieces-1)/pieces + 63) / 64 * 64
	a.pieces, a.pieceKeys = uint32(pieces), uint32(max(each, 64))
	threads, all := [3]uint32{256, 1, 1}, [3]uint32{uint32((heads*queries + 255) / 256), 1, 1}
	q.launch("match", q.device.kernels.match[0], all, threads, 0, argument(a))
	q.launch("match", kernel, [3]uint32{uint32((queries + tile - 1) / tile), uint32(heads), uint32(pieces)}, [3]uint32{uint32(blockThreads), 1, 1}, shared, argument(a))
	q.launch("match", q.device.kernels.match[3], all, threads, 0, argument(a))
}
