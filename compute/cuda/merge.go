package cuda

import (
	"unsafe"

	"longtake/compute"
)

// mergeStore mirrors MergeStore in kernels/merge/merge.cu.
type mergeStore struct {
	keys, values, raw, means, logCount, unit, first, queries uint64
	places, lengths, entries, state, weight, totals          uint64
	local                                                    uint64
	slots, _                                                 uint32
}

// mergeArgs mirrors MergeArgs there.
type mergeArgs struct {
	stores, frequencies, turns, probe, query, best, hits, order, recent        uint64
	countCap, decay, maxError, maxChange, spread                               float64
	threshold, floor                                                           float32
	frame, retest                                                              int32
	tokens, columns, rows, at, dense, anchors, ahead, headDim, timePairs, ring uint32
	heads, groups, orderWords, radius, depth, queryLow, queryHigh              uint32
	half, rawHalf, space, first                                                uint32
	lossless, mean, onePerFrame, noCount, neighbours, asked, asks              uint32
	batch, byMembers, rest, _                                                  uint32
}

var _ compute.Merger = (*queue)(nil)

// Merges says that queues are compute.Mergers.
func (d *Device) Merges() {}

// mergeThreads are the threads of a block of merge_found, FOUND there.
const mergeThreads = 256

// mergeShared is the most shared memory that merge_found is given: marks of half a million entries.
const mergeShared = 64 << 10

// Merge takes a frame into the entries of every store, see compute.Merger. Heads have at most 256 elements.
func (q *queue) Merge(m compute.Merging, stores []compute.MergeStore) {
	if q.err != nil || len(stores) == 0 {
		return
	}
	first := &stores[0]
	heads, groups := first.Keys.Shape[0], first.Entries.Elems()
	if m.HeadDim > 256 || groups == 0 || heads%groups != 0 || mergeMarks(stores, m.Dense) > mergeShared {
		mismatch("merge", first.Keys, first.Entries)
	}
	q.mergeTable(m, stores)
	table := q.scratch(scratchStores, compute.U8, 1, len(stores)*int(unsafe.Sizeof(mergeStore{})))
	if q.err != nil {
		return
	}
	q.Upload(table, unsafe.Slice((*byte)(unsafe.Pointer(&q.mergeStores[0])), table.Elems()))
	a := &q.mergeArgs
	*a = q.mergeCall(m, first)
	a.stores, a.heads, a.groups = address(table), uint32(heads), uint32(groups)
	threads, k, marks := [3]uint32{256, 1, 1}, &q.device.kernels.merge, mergeMarks(stores, m.Dense)
	switch layers := len(stores); {
	case m.Frame >= 0 && m.AtOnce():
		// One layer leaves most of the GPU idle: its lists of cells are 12 thread blocks of 1.3B.
		a.batch = 1
		every := [3]uint32{uint32((m.Tokens + 7) / 8), a.groups, uint32(layers)}
		q.launch("merge", k[0], every, threads, 0, argument(a))
		q.launch("merge", k[1], [3]uint32{a.groups, uint32(layers), 1}, [3]uint32{1024, 1, 1}, 4*(m.Tokens+1024), argument(a))
		for _, search := range k[2:5] {
			q.launch("merge", search, every, threads, 0, argument(a))
		}
	case m.Frame >= 0:
		each := [3]uint32{uint32((m.Tokens + 7) / 8), uint32(groups), 1}
		for i := range stores {
			s := &stores[i]
			a.first = uint32(i)
			q.launch("merge", k[0], each, threads, 0, argument(a))
			q.mergeSearch(m, s, each)
			q.launch("merge", k[3], each, threads, 0, argument(a))
			q.launch("merge", k[4], each, threads, 0, argument(a))
		}
	}
	a.first = 0
	q.launch("merge", k[5], [3]uint32{uint32(groups), uint32(len(stores)), 1}, [3]uint32{mergeThreads, 1, 1}, marks, argument(a))
}

// mergeMarks is the shared memory of merge_found: a bit for each entry of the largest store.
func mergeMarks(stores []compute.MergeStore, dense int) int {
	most := 0
	for i := range stores {
		most = max(most, stores[i].Keys.Shape[1]-dense)
	}
	return 4 * ((most + 31) / 32)
}

// mergeSearch fills in m.Best for a store.
func (q *queue) mergeSearch(m compute.Merging, s *compute.MergeStore, each [3]uint32) {
	a, k := &q.mergeArgs, &q.device.kernels.merge
	if m.Neighbours {
		q.launch("merge", k[1], [3]uint32{a.groups, 1, 1}, [3]uint32{1024, 1, 1}, 4*(m.Tokens+1024), argument(a))
		q.launch("merge", k[2], each, [3]uint32{256, 1, 1}, 0, argument(a))
		return
	}
	probe, keys := m.Probe, s.Unit
	if m.Asked {
		probe = m.Query
		if m.Space == 2 && !m.Approximate {
			keys = s.Keys.Slice(1, m.Dense, s.Keys.Shape[1])
		}
	}
	switch {
	case m.Planes.Shape[0] > 0:
		q.Hash(m.Codes, compute.Tensor{}, m.CodeLengths, keys, m.Planes, s.Entries, compute.Tables{})
		q.Hash(m.ProbeCodes, m.ProbeWeak, m.ProbeLengths, probe, m.Planes, compute.Tensor{}, m.Tables)
		if m.Tables.Count > 0 {
			q.MatchTables(m.Best, m.Score, m.ProbeCodes, m.ProbeWeak, m.Codes, m.CodeLengths, s.Entries, m.BucketOrder, m.BucketEnds, m.Tables)
			return
		}
		q.MatchCodes(m.Best, m.Score, m.ProbeCodes, m.Codes, m.CodeLengths, s.Entries, m.Planes.Shape[0])
	case m.Bits != 0:
		q.Quantise(compute.Tensor{}, compute.Tensor{}, m.Known, keys, s.Entries, m.Bits, m.Step)
		q.Match(m.Best, m.Score, probe, m.Known, s.Entries)
	default:
		q.Match(m.Best, m.Score, probe, keys, s.Entries)
	}
}

// mergeTable fills in q.mergeStores.
func (q *queue) mergeTable(m compute.Merging, stores []compute.MergeStore) {
	at := func(t compute.Tensor) uint64 {
		if t.IsZero() || t.Elems() == 0 {
			return 0
		}
		if !t.Contiguous() {
			mismatch("merge", t)
		}
		return address(t)
	}
	q.mergeStores = q.mergeStores[:0]
	for i := range stores {
		s := &stores[i]
		q.mergeStores = append(q.mergeStores, mergeStore{keys: at(s.Keys), values: at(s.Values), raw: at(s.Raw), means: at(s.Means),
			logCount: at(s.LogCount), unit: at(s.Unit), first: at(s.First), queries: at(s.Queries), places: at(s.Places), lengths: at(s.Lengths),
			entries: at(s.Entries), state: at(s.State), weight: at(s.Weight), totals: at(s.Totals), local: s.Local, slots: uint32(s.Keys.Shape[1] - m.Dense)})
	}
}

// mergeCall is what all launches of a call share.
func (q *queue) mergeCall(m compute.Merging, s *compute.MergeStore) mergeArgs {
	number := map[bool]uint32{true: 1}
	a := mergeArgs{frequencies: address(m.Frequencies), probe: address(m.Probe), best: address(m.Best), hits: address(m.Hits), order: address(m.Order),
		countCap: m.CountCap, decay: m.Decay, maxError: m.MaxError, maxChange: m.MaxChange, spread: m.Spread, threshold: m.Threshold, floor: m.Floor, frame: int32(m.Frame), retest: int32(m.Retest),
		tokens: uint32(m.Tokens), columns: uint32(m.Columns), rows: uint32(m.Tokens / m.Columns), at: uint32(m.At), dense: uint32(m.Dense),
		anchors: uint32(m.Anchors), ahead: uint32(m.Ahead), headDim: uint32(m.HeadDim), timePairs: uint32(m.Frequencies.Elems()),
		orderWords: uint32(m.Order.Dim(-1)), radius: uint32(m.Radius), depth: uint32(m.Depth), queryLow: uint32(m.QueryLow), queryHigh: uint32(m.QueryHigh),
		half: half("merge", s.Keys), rawHalf: half("merge", s.Raw), space: uint32(m.Space), lossless: number[m.Lossless], mean: number[m.Mean],
		onePerFrame: number[m.OnePerFrame], noCount: number[m.NoCount], neighbours: number[m.Neighbours], asked: number[m.Asked], asks: number[m.Asks], byMembers: number[m.ByMembers], rest: number[m.Rest]}
	if m.Turns.Elems() > 0 {
		a.turns = address(m.Turns)
	}
	if m.Neighbours {
		a.recent = address(m.Recent)
	}
	if m.Asked {
		a.query = address(m.Query)
	}
	if !s.Queries.IsZero() {
		a.ring = uint32(s.Queries.Shape[1])
	}
	return a
}
