package cuda

import (
	"fmt"

	"longtake/compute"
)

// attendAnyArgs mirrors AttendAnyArgs in kernels/attendany/attendany.cu.
type attendAnyArgs struct {
	dst, query, keys, values                      uint64
	logCount, lengths, tileKeys, tileEnds         uint64
	lse, fault                                    uint64
	dstHead, dstRow, queryHead, queryRow          int64
	keyHead, keyRow, valueHead, valueRow          int64
	logHead, lseHead                              int64
	queries, keyCount                             uint32
	queryTile, keyTile, queryTiles, blocksPerTile uint32
	entries                                       uint32
	dstHalf, queryHalf, cacheHalf                 uint32
	scale                                         float32
	vec                                           uint32
	pair                                          uint64
	pairHead, pairRow                             int64
	byTile, pieceKeys                             uint32
	partOut, partSums                             uint64
}

// attendJoinArgs mirrors AttendJoinArgs in kernels/attendany/attendany.cu.
type attendJoinArgs struct {
	dst, lse, partOut, partSums uint64
	dstHead, dstRow, lseHead    int64
	queries, pieces, dstHalf, _ uint32
}

// attendShape is a checked attention call.
type attendShape struct {
	heads, queries, keys, headDim int
	queryTile, queryTiles         int
	byTile                        bool // log counts have a row for each tile of queries
}

// checkAttend panics unless the tensors fit compute.Queue.Attend.
func checkAttend(dst, query, keys, values compute.Tensor, a compute.Attention) attendShape {
	const op = "attend"
	if !(dst.Rank == 3 && query.Rank == 3 && keys.Rank == 3 && values.Rank == 3 && dst.Shape == query.Shape &&
		keys.Shape == values.Shape && keys.Shape[0] == query.Shape[0] && keys.Shape[2] == query.Shape[2] && keys.DType == values.DType) {
		mismatch(op, dst, query, keys, values)
	}
	s := attendShape{heads: query.Shape[0], queries: query.Shape[1], keys: keys.Shape[1], headDim: query.Shape[2]}
	if !(s.headDim%16 == 0 && s.headDim > 0) {
		mismatch(op, query)
	}
	if t := a.LogCount; !t.IsZero() {
		if !(t.DType == compute.F32 && t.Rank == 2 && t.Shape[0] == s.heads && t.Shape[1] == s.keys) {
			mismatch(op, "log count", t, keys)
		}
	}
	if t := a.Lengths; !t.IsZero() {
		if !(t.DType == compute.I32 && t.Rank == 1 && t.Shape[0] == s.heads) {
			mismatch(op, "lengths", t, keys)
		}
	}
	if t := a.LogSumExp; !t.IsZero() {
		if !(t.DType == compute.F32 && t.Rank == 2 && t.Shape[0] == s.heads && t.Shape[1] == s.queries) {
			mismatch(op, "log sum exp", t, query)
		}
	}
	s.queryTile, s.queryTiles = max(s.queries, 1), 1
	if t := a.Tiles; !t.Ends.IsZero() {
		if !(t.QueryTile > 0 && t.KeyTile > 0 && t.Ends.DType == compute.I32 && t.Keys.DType == compute.I32) {
			mismatch(op, "tiles", t.Keys, t.Ends)
		}
		s.queryTile = t.QueryTile
		s.queryTiles = (s.queries + t.QueryTile - 1) / t.QueryTile
		if !(t.Ends.Elems() == s.heads*s.queryTiles && t.Ends.Contiguous() && t.Keys.Contiguous()) {
			mismatch(op, "tiles", t.Keys, t.Ends, query)
		}
	}
	return s
}

// attendBlock is the number of queries of a thread block.
const attendBlock = 64

// AttendBiased computes attention with a bias for every pair of query and key, in float32, see compute.BiasedAttender.
func (q *queue) AttendBiased(dst, query, keys, values, bias compute.Tensor, scale float32) {
	if q.err != nil {
		return
	}
	a := compute.Attention{Scale: scale}
	s := checkAttend(dst, query, keys, values, a)
	if !(bias.Rank == 3 && bias.DType == compute.F32 && bias.Shape[0] == s.heads && bias.Shape[1] == s.queries && bias.Shape[2] == s.keys) {
		mismatch("biased attend", query, keys, bias)
	}
	if s.heads > 0 && s.queries > 0 {
		q.attendAny(dst, query, keys, values, bias, a, s)
	}
}

// attendAny runs the kernel that takes every variant, in float32; bias may be absent.
func (q *queue) attendAny(dst, query, keys, values, bias compute.Tensor, a compute.Attention, s attendShape) {
	fns, shared, err := q.device.attendKernels(s.headDim, !bias.IsZero())
	if err != nil {
		q.fail("attend", err)
		return
	}
	g := &q.attendAnyArgs
	*g = attendAnyArgs{dst: address(dst), query: address(query), keys: address(keys), values: address(values), fault: q.faultAt,
		dstHead: int64(dst.Stride[0]), dstRow: int64(dst.Stride[1]), queryHead: int64(query.Stride[0]), queryRow: int64(query.Stride[1]),
		keyHead: int64(keys.Stride[0]), keyRow: int64(keys.Stride[1]), valueHead: int64(values.Stride[0]), valueRow: int64(values.Stride[1]),
		queries: uint32(s.queries), keyCount: uint32(s.keys), queryTile: uint32(s.queryTile), queryTiles: uint32(s.queryTiles),
		blocksPerTile: uint32((s.queryTile + attendBlock - 1) / attendBlock), dstHalf: half("attend", dst), queryHalf: half("attend", query),
		cacheHalf: half("attend", keys), scale: a.Scale}
	if aligned(query) && aligned(keys) && aligned(values) {
		g.vec = 1
	}
	if !bias.IsZero() {
		g.pair, g.pairHead, g.pairRow = biasAddress(bias), int64(bias.Stride[0]), int64(bias.Stride[1])
	}
	if !a.LogCount.IsZero() {
		g.logCount, g.logHead = address(a.LogCount), int64(a.LogCount.Stride[0])
	}
	if s.byTile {
		g.byTile = 1
	}
	if !a.Lengths.IsZero() {
		if !(a.Lengths.Contiguous()) {
			mismatch("attend", a.Lengths)
		}
		g.lengths = address(a.Lengths)
	}
	if !a.LogSumExp.IsZero() {
		g.lse, g.lseHead = address(a.LogSumExp), int64(a.LogSumExp.Stride[0])
	}
	if t := a.Tiles; !t.Ends.IsZero() {
		g.tileEnds, g.keyTile, g.entries = address(t.Ends), uint32(t.KeyTile), uint32(t.Keys.Elems())
		if !t.Keys.IsZero() {
			g.tileKeys = address(t.Keys)
		}
	}
	grid := [3]uint32{g.queryTiles * g.blocksPerTile, uint32(s.heads), 1}
	pieces := 1
	if a.Tiles.Ends.IsZero() {
		pieces, g.pieceKeys = attendPieces(int(grid[0]*grid[1]), s.keys, q.device.limit.multiprocessors)
	}
	if pieces == 1 {
		g.pieceKeys = 0
		q.launch("attend", fns[0], grid, [3]uint32{256, 1, 1}, shared, argument(g))
		return
	}
	out, sums := q.scratch(scratchParts, compute.F32, pieces*s.heads*s.queries, s.headDim), q.scratch(scratchPartSums, compute.F32, pieces*s.heads*s.queries, 2)
	if q.err != nil {
		return
	}
	grid[2], g.partOut, g.partSums = uint32(pieces), address(out), address(sums)
	q.launch("attend", fns[0], grid, [3]uint32{256, 1, 1}, shared, argument(g))
	j := &q.attendJoinArgs
	*j = attendJoinArgs{dst: g.dst, lse: g.lse, partOut: g.partOut, partSums: g.partSums, dstHead: g.dstHead, dstRow: g.dstRow, lseHead: g.lseHead,
		queries: g.queries, pieces: uint32(pieces), dstHalf: g.dstHalf}
	q.launch("attend", fns[1], [3]uint32{g.queries, uint32(s.heads), 1}, [3]uint32{uint32(s.headDim), 1, 1}, 0, argument(j))
}

// attendPieces cuts keys so that all multiprocessors have work where there are few queries: a block has 64 of one head.
func attendPieces(blocks, keys, multiprocessors int) (pieces int, pieceKeys uint32) {
	steps := (keys + attendBlock - 1) / attendBlock
	if steps < 2 || 2*blocks > multiprocessors {
		return 1, 0
	}
	each := max((steps*blocks+multiprocessors-1)/multiprocessors, 1)
	return (steps + each - 1) / each, uint32(each * attendBlock)
}

// biasAddress is address for a bias, whose strides may be negative: it checks the views of the first and last query.
func biasAddress(t compute.Tensor) uint64 {
	if t.Elems() == 0 {
		return address(t)
	}
	at := t
	for i := range 2 {
		if t.Stride[i] < 0 {
			at.Offset += (t.Shape[i] - 1) * t.Stride[i]
			at.Stride[i] = -t.Stride[i]
		}
	}
	return address(at) + uint64(int64(t.Offset-at.Offset)*int64(t.DType.Size()))
}

// attendAnyVariant is what attendany is compiled for.
type attendAnyVariant struct {
	headDim int
	biased  bool
}

// attendKernels returns the kernel compiled for a head dimension with what joins its pieces, and the shared memory of the first.
func (d *Device) attendKernels(headDim int, biased bool) (fns [2]uintptr, shared int, err error) {
	const row = attendBlock + 4
	shared = 4 * (headDim*row + max(headDim*row, 64*(headDim+1)) + 64*row)
	if shared > d.limit.sharedBytes {
		return fns, 0, fmt.Errorf("head dimension %d takes %d KiB of shared memory, the GPU has %d: %w", headDim, shared>>10, d.limit.sharedBytes>>10, compute.ErrUnsupported)
	}
	d.attendMu.Lock()
	defer d.attendMu.Unlock()
	v, pair := attendAnyVariant{headDim, biased}, 0
	if biased {
		pair = 1
	}
	if known, ok := d.attends[v]; ok {
		return known, shared, nil
	}
	module, err := d.modules.load("attendany", define("HEAD_DIM", headDim), define("PAIR", pair))
	if err != nil {
		return fns, 0, err
	}
	for i, name := range [2]string{"attendany", "attendany_join"} {
		if fns[i], err = d.drv.Function(module, name); err != nil {
			return fns, 0, err
		}
	}
	if err := d.drv.SetShared(fns[0], shared); err != nil {
		return fns, 0, err
	}
	d.attends[v] = fns
	return fns, shared, nil
}
