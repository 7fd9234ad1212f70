package cuda

import "longtake/compute"

// bucketsArgs mirrors BucketsArgs in kernels/buckets/buckets.cu.
type bucketsArgs struct {
	query, weak, keys, lengths, counts, order, ends, best, score    uint64
	heads, queries, queryRoom, room, words, bits, tables, tableBits uint32
}

// fits reports whether codes of so many words can be cut into tables.
func fits(t compute.Tables, words int) bool {
	return t.Count > 0 && t.Bits > 0 && t.Bits <= 16 && t.Probes >= 0 && t.Probes <= t.Bits && (t.Count-1)/(64/t.Bits)+1 == words
}

// MatchTables finds nearest keys by hash tables, see compute.Hasher.
func (q *queue) MatchTables(best, score, query, weak, keys, lengths, counts, order, ends compute.Tensor, t compute.Tables) {
	if q.err != nil {
		return
	}
	heads, queries, room, words := query.Shape[0], best.Shape[1], keys.Shape[1], query.Shape[2]
	whole := func(x compute.Tensor, dt compute.DType, elems int) bool {
		return x.DType == dt && x.Contiguous() && x.Elems() == elems
	}
	if !(query.Rank == 3 && keys.Rank == 3 && fits(t, words) && t.Count*t.Bits <= planBits && queries <= query.Shape[1] && whole(query, compute.I64, query.Elems()) &&
		whole(weak, compute.I64, query.Elems()) && whole(keys, compute.I64, heads*room*words) && whole(lengths, compute.F32, heads*room) &&
		whole(best, compute.I32, heads*queries) && whole(score, compute.F32, heads*queries) && whole(order, compute.I32, heads*t.Count*room) &&
		whole(ends, compute.I32, heads*t.Count<<t.Bits) && (counts.IsZero() || whole(counts, compute.I32, heads))) {
		mismatch("match tables", best, score, query, weak, keys, lengths, order, ends, t)
	}
	if heads*queries == 0 {
		return
	}
	a := &q.bucketsArgs
	*a = bucketsArgs{query: address(query), weak: address(weak), keys: addressOr0(keys), lengths: addressOr0(lengths), counts: addressOr0(counts), order: addressOr0(order),
		ends: address(ends), best: address(best), score: address(score), heads: uint32(heads), queries: uint32(queries), queryRoom: uint32(query.Shape[1]),
		room: uint32(room), words: uint32(words), bits: uint32(t.Count * t.Bits), tables: uint32(t.Count), tableBits: uint32(t.Bits)}
	k := &q.device.kernels.buckets
	q.launch("match tables", k[0], [3]uint32{a.tables, a.heads, 1}, [3]uint32{1024, 1, 1}, 0, argument(a))
	q.launch("match tables", k[1], [3]uint32{(a.queries + 7) / 8, a.heads, 1}, [3]uint32{256, 1, 1}, 4*(int(a.bits)+1), argument(a))
}
