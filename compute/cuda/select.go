package cuda

import "longtake/compute"

// selectArgs mirrors SelectArgs in kernels/select/select.cu.
type selectArgs struct {
	query, keys, values, logCount, planes, codes, norms, keep, toKeys, toValues, toCount, lengths uint64
	queryHead, queryRow, keyHead, keyRow, valueHead, valueRow                                     int64
	heads, queries, count, headDim, bits, top, last, room, queryHalf, keyHalf, tables, probes     uint32
	products, known                                                                               uint64
	first, _                                                                                      uint32
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
		count <= 1024 && s.Planes.Shape[0] <= 64 && s.Codes.Elems() >= heads*(queries+count) && s.Norms.Elems() >= heads*count &&
		s.Keep.Elems() >= count && s.ToKeys.Shape[1] >= count && s.Lengths.Elems() == heads) {
		mismatch("select", s.Query, s.Keys, s.Values, s.ToKeys, s.Planes)
	}
	if s.Tables > 0 && !(s.Planes.Shape[0]%s.Tables == 0 && s.Probes <= s.Planes.Shape[0]/s.Tables && s.Planes.Shape[0]/s.Tables < 64 &&
		s.Codes.Elems() >= heads*(2*queries+count)) {
		mismatch("select", s.Planes, s.Codes)
	}
	if s.Bits > 0 && !(s.Known.DType == compute.BF16 && s.Known.Elems() >= heads*count*headDim && s.Planes.IsZero()) {
		mismatch("select", s.Planes, s.Known)
	}
	if heads*queries*count == 0 {
		return
	}
	a := &q.selectArgs
	*a = selectArgs{query: address(s.Query), keys: address(s.Keys), values: address(s.Values), codes: address(s.Codes), norms: address(s.Norms),
		keep: address(s.Keep), toKeys: address(s.ToKeys), toValues: address(s.ToValues), toCount: address(s.ToCount), lengths: address(s.Lengths),
		queryHead: int64(s.Query.Stride[0]), queryRow: int64(s.Query.Stride[1]), keyHead: int64(s.Keys.Stride[0]), keyRow: int64(s.Keys.Stride[1]),
		valueHead: int64(s.Values.Stride[0]), valueRow: int64(s.Values.Stride[1]), heads: uint32(heads), queries: uint32(queries), count: uint32(count),
		headDim: uint32(headDim), bits: uint32(s.Planes.Shape[0]), top: uint32(s.Top), last: uint32(s.Last), room: uint32(s.ToKeys.Shape[1]),
		queryHalf: half("select", s.Query), keyHalf: half("select", s.Keys),
		tables: uint32(s.Tables), probes: uint32(s.Probes)}
	if !s.LogCount.IsZero() {
		a.logCount = address(s.LogCount)
	}
	if !s.Planes.IsZero() {
		a.planes = address(s.Planes)
	}
	k := &q.device.kernels.selects
	const each = 32 // rows of a block of select_hash
	q.launch("select", k[0], [3]uint32{uint32((queries + count + each - 1) / each), uint32(heads), 1}, [3]uint32{64, 1, 1}, selectShared(headDim, int(a.bits)), argument(a))
	if s.Bits > 0 {
		known, scales := first(s.Known, heads, count, headDim), first(s.Norms, heads, count)
		q.Quantise(compute.Tensor{}, scales, known, s.Keys, compute.Tensor{}, s.Bits, s.Step)
		a.known = address(known)
	}
	q.selectMarks(s)
	q.launch("select", k[2], [3]uint32{uint32(count), uint32(heads), 1}, [3]uint32{128, 1, 1}, 0, argument(a))
}

// first is the beginning of work space, contiguous.
func first(t compute.Tensor, dims ...int) compute.Tensor {
	n := 1
	for _, d := range dims {
		n *= d
	}
	t.Rank, t.Shape, t.Stride = 1, [compute.MaxRank]int{n}, [compute.MaxRank]int{1}
	return t.Reshape(dims...)
}

// selectShared is the shared memory of select_hash: the planes.
func selectShared(headDim, bits int) int {
	if bits == 0 {
		return 0
	}
	return 4 * headDim * 65
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
		keys = first(s.Known, heads*count, headDim)
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
