package cuda

import "longtake/compute"

// selectArgs mirrors SelectArgs in kernels/select/select.cu.
type selectArgs struct {
	query, keys, values, logCount, queryCodes, keyCodes, weak, norms, keep, toKeys, toValues, toCount, lengths uint64
	queryHead, queryRow, keyHead, keyRow, valueHead, valueRow                                                  int64
	heads, queries, count, headDim, bits, top, last, room, queryHalf, keyHalf, tables, tableBits               uint32
	products, known                                                                                            uint64
	first, words                                                                                               uint32
}

var _ compute.Selector = (*queue)(nil)

// Selects says that queues are compute.Selectors.
func (d *Device) Selects() {}

// Select keeps the keys that any query is near to, see compute.Selector.
func (q *queue) Select(s compute.Selection) {
	if q.err != nil {
		return
	}
	heads, queries, headDim, count := s.Query.Shape[0], s.Query.Shape[1], s.Query.Shape[2], s.Keys.Shape[1]
	if !(s.Query.Rank == 3 && s.Keys.Rank == 3 && s.Values.Shape == s.Keys.Shape && s.Keys.Shape[0] == heads && s.Keys.Shape[2] == headDim && headDim <= 256 &&
		s.Keys.DType == s.Values.DType && s.ToKeys.DType == s.Keys.DType && s.ToValues.DType == s.Keys.DType && s.ToKeys.Contiguous() && s.ToValues.Contiguous() &&
		count <= 1024 && s.Norms.Elems() >= heads*count &&
		s.Keep.Elems() >= count && s.ToKeys.Shape[1] >= count && s.Lengths.Elems() == heads) {
		mismatch("select", s.Query, s.Keys, s.Values, s.ToKeys, s.Planes)
	}
	if s.Bits > 0 && !(s.Known.DType == compute.BF16 && s.Known.Elems() >= heads*count*headDim && s.Planes.IsZero()) {
		mismatch("select", s.Planes, s.Known)
	}
	if heads*queries*count == 0 {
		return
	}
	a := &q.selectArgs
	*a = selectArgs{query: address(s.Query), keys: address(s.Keys), values: address(s.Values), norms: address(s.Norms),
		keep: address(s.Keep), toKeys: address(s.ToKeys), toValues: address(s.ToValues), toCount: address(s.ToCount), lengths: address(s.Lengths),
		queryHead: int64(s.Query.Stride[0]), queryRow: int64(s.Query.Stride[1]), keyHead: int64(s.Keys.Stride[0]), keyRow: int64(s.Keys.Stride[1]),
		valueHead: int64(s.Values.Stride[0]), valueRow: int64(s.Values.Stride[1]), heads: uint32(heads), queries: uint32(queries), count: uint32(count),
		headDim: uint32(headDim), top: uint32(s.Top), last: uint32(s.Last), room: uint32(s.ToKeys.Shape[1]),
		queryHalf: half("select", s.Query), keyHalf: half("select", s.Keys)}
	if !s.LogCount.IsZero() {
		a.logCount = address(s.LogCount)
	}
	k := &q.device.kernels.selects
	q.launch("select", k[0], [3]uint32{1, 1, 1}, [3]uint32{256, 1, 1}, 0, argument(a))
	if !s.Planes.IsZero() {
		q.selectHashes(s)
	}
	if s.Bits > 0 {
		known, scales := piece(s.Known, 0, heads, count, headDim), piece(s.Norms, 0, heads, count)
		q.Quantise(compute.Tensor{}, scales, known, s.Keys, compute.Tensor{}, s.Bits, s.Step)
		a.known = address(known)
	}
	q.selectMarks(s)
	q.launch("select", k[2], [3]uint32{uint32(count), uint32(heads), 1}, [3]uint32{128, 1, 1}, 0, argument(a))
}

// selectHashes codes queries and keys.
func (q *queue) selectHashes(s compute.Selection) {
	a, bits := &q.selectArgs, s.Planes.Shape[0]
	heads, queries, count, words := int(a.heads), int(a.queries), int(a.count), (bits+63)/64
	own, all := heads*queries*words, heads*(queries+count)*words
	if s.Tables.Count > 0 {
		all += own
	}
	if !(bits <= planBits && s.Codes.Elems() >= all && (s.Tables.Count == 0 || fits(s.Tables, words))) {
		mismatch("select", s.Planes, s.Codes, s.Tables)
	}
	asked, keys, weak := piece(s.Codes, 0, heads, queries, words), piece(s.Codes, own, heads, count, words), compute.Tensor{}
	a.bits, a.words, a.queryCodes, a.keyCodes = uint32(bits), uint32(words), address(asked), address(keys)
	if s.Tables.Count > 0 {
		weak = piece(s.Codes, all-own, heads, queries, words)
		a.bits, a.tables, a.tableBits, a.weak = uint32(s.Tables.Count*s.Tables.Bits), uint32(s.Tables.Count), uint32(s.Tables.Bits), address(weak)
	}
	q.Hash(asked, weak, compute.Tensor{}, s.Query, s.Planes, compute.Tensor{}, s.Tables)
	q.Hash(keys, compute.Tensor{}, piece(s.Norms, 0, heads, count), s.Keys, s.Planes, compute.Tensor{}, compute.Tables{})
}

// piece is what lies from an element of work space on, contiguous.
func piece(t compute.Tensor, from int, dims ...int) compute.Tensor {
	n := 1
	for _, d := range dims {
		n *= d
	}
	t.Rank, t.Shape, t.Stride = 1, [compute.MaxRank]int{t.Elems()}, [compute.MaxRank]int{1}
	return t.Slice(0, from, from+n).Reshape(dims...)
}

// selectMarks marks the keys of every query. Where products decide and all is bfloat16 they are made on the matrix units, head by head.
func (q *queue) selectMarks(s compute.Selection) {
	a, heads, queries, headDim, count := &q.selectArgs, s.Query.Shape[0], s.Query.Shape[1], s.Query.Shape[2], s.Keys.Shape[1]
	mark, threads, grid := q.device.kernels.selects[1], [3]uint32{256, 1, 1}, [3]uint32{uint32((queries + 7) / 8), uint32(heads), 1}
	if a.bits > 0 || q.device.float32 || s.Query.DType != compute.BF16 || s.Keys.DType != compute.BF16 && a.known == 0 {
		q.launch("select", mark, grid, threads, 0, argument(a))
		return
	}
	var keys compute.Tensor
	if a.known != 0 {
		keys = piece(s.Known, 0, heads*count, headDim)
	} else {
		keys = q.scratch(scratchSelectKeys, compute.BF16, heads*count, headDim)
	}
	products := q.scratch(scratchProducts, compute.F32, queries, count)
	if q.err != nil {
		return
	}
	if a.known == 0 {
		q.Copy(keys.Reshape(heads, count, headDim), s.Keys)
	}
	a.products, grid[1] = address(products), 1
	for h := range heads {
		w := matrix{Tensor: keys.Slice(0, h*count, (h+1)*count), half: true}
		q.product(products, s.Query.Index(h), compute.Tensor{}, &w, compute.Tensor{}, compute.None)
		a.first = uint32(h)
		q.launch("select", mark, grid, threads, 0, argument(a))
	}
}
