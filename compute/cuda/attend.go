package cuda

import (
	"embed"
	"fmt"
	"strings"
	"unsafe"

	"longtake/compute"
)

//go:embed kernels/attend/*.cu kernels/attend/*.cuh
var attendSources embed.FS

// attendRows is the number of queries of a tile of the kernels in kernels/attend.
const attendRows = 128

// attendArgs mirrors struct Attention in kernels/attend/attend_parts.cuh.
type attendArgs struct {
	out, logSum, logCount, lengths, tileKeys, tileEnds uint64
	partOut, partLogSum, counter                       uint64
	outHead, outToken, logCountHead                    int64
	heads, queries, keys, queryTiles, whole, pieces    int32
	scale                                              float32
	_                                                  int32
}

// attendOperands mirrors struct Operands in kernels/attend/attend_mma.cu.
type attendOperands struct {
	query, key, value                                               uint64
	queryHead, queryToken, keyHead, keyToken, valueHead, valueToken int64
}

// tensorMap describes rows [heads, tokens, headDim] of bfloat16 to the bulk copy engine, which brings boxes of rows x 64.
type tensorMap struct {
	address                uint64
	headDim, tokens, heads int
	tokenBytes, headBytes  int
	rows                   int
}

// encodedMap has room for a CUtensorMap at a multiple of 64 bytes.
type encodedMap [24]uint64

func (m *encodedMap) aligned() unsafe.Pointer {
	p := unsafe.Pointer(m)
	return unsafe.Add(p, -uintptr(p)&63)
}

// argument is the encoded map as launch takes it.
func (m *encodedMap) argument() argumentAt { return argumentAt{m.aligned(), 128} }

// attendVariant is what the kernels are compiled for.
type attendVariant struct {
	headDim, listTile, blockKeys int
	few                          int // not 0: the most keys there are, 32 or 64
	bias, ragged, float, byTile  bool
}

// attendModule is a compiled variant.
type attendModule struct {
	attend, merge uintptr
	shared        int
}

// Attend computes softmax attention, see compute.Attention. bfloat16 operands with a head dimension of 64 or 128 run on the
// matrix units (scale above 0, rows that allow 16-byte accesses, tiles of 128 queries by 64 or 128 keys); there, visible keys
// and values must be finite even where LogCount hides them. Everything else runs in float32, with a head dimension that
// fits into shared memory: up to 384 on Hopper.
func (q *queue) Attend(dst, query, keys, values compute.Tensor, a compute.Attention) {
	if q.err != nil {
		return
	}
	s := checkAttend(dst, query, keys, values, a)
	if s.heads == 0 || s.queries == 0 {
		return
	}
	if q.device.float32 || !attendFits(dst, query, keys, values, a, s) {
		q.attendAny(dst, query, keys, values, compute.Tensor{}, a, s)
		return
	}
	q.attendMatrix(dst, query, keys, values, a, s)
}

// attendFits says whether the kernels of kernels/attend take a call.
func attendFits(dst, query, keys, values compute.Tensor, a compute.Attention, s attendShape) bool {
	if query.DType != compute.BF16 || keys.DType != compute.BF16 || (s.headDim != 64 && s.headDim != 128) || s.keys == 0 || !(a.Scale > 0) {
		return false
	}
	if t := a.Tiles; !t.Ends.IsZero() && (t.QueryTile != attendRows || (t.KeyTile != 64 && t.KeyTile != 128) || t.Keys.IsZero() || t.Keys.Elems() == 0) {
		return false
	}
	return aligned(dst) && dst.Stride[0]%8 == 0 && dst.Stride[1]%8 == 0 && aligned(query) && aligned(keys) && aligned(values) &&
		(a.Lengths.IsZero() || a.Lengths.Contiguous()) && (a.LogSumExp.IsZero() || a.LogSumExp.Contiguous())
}

// attendPlan cuts the query tiles of the last, partly filled round into pieces of equal length, so that all multiprocessors end
// together: the first whole tiles stay whole. Costs are in stages of keys: 1 for starting and ending an item, and for the
// merge a launch and its bytes. dev/gpu/attend/attend.py is the same.
func attendPlan(tiles, stages, multiprocessors int) (whole, pieces int) {
	rest := tiles % multiprocessors
	if rest == 0 || stages < 2 {
		return tiles, 1
	}
	best, pieces := float64(stages)+1, 1
	try := func(n int) {
		if n < rest || n > 4*multiprocessors || n > rest*min(stages, 16) {
			return
		}
		items := 1.0 // of a piece
		if n%rest != 0 {
			items += float64(rest) / float64(n)
		}
		rounds := float64((n + multiprocessors - 1) / multiprocessors)
		if cost := rounds*(float64(rest*stages)/float64(n)+items) + 2 + 0.02*float64(n+rest); cost < best {
			best, pieces = cost, n
		}
	}
	for p := 2; p <= 16; p++ {
		try(p * rest)
	}
	for p := 1; p <= 4; p++ {
		try(p * multiprocessors)
	}
	if pieces == 1 {
		return tiles, 1
	}
	return tiles - rest, pieces
}

// attendMatrix runs the kernels of kernels/attend.
func (q *queue) attendMatrix(dst, query, keys, values compute.Tensor, a compute.Attention, s attendShape) {
	v := attendVariant{headDim: s.headDim, blockKeys: 160, bias: !a.LogCount.IsZero(), ragged: !a.Lengths.IsZero(), float: dst.DType == compute.F32, byTile: s.byTile}
	if v.bias {
		v.blockKeys = 128
	}
	g := &q.attendArgs
	*g = attendArgs{out: address(dst), outHead: int64(dst.Stride[0]), outToken: int64(dst.Stride[1]), heads: int32(s.heads),
		queries: int32(s.queries), keys: int32(s.keys), queryTiles: int32((s.queries + attendRows - 1) / attendRows), scale: a.Scale}
	if q.device.hopper() && s.keys <= 64 && a.Tiles.Ends.IsZero() && !s.byTile {
		// A prompt's keys: stages of 128 would be mostly empty, and one block a multiprocessor waits for its queries.
		if v.few, v.blockKeys = 64, 64; s.keys <= 32 {
			v.few = 32
		}
	}
	tiles := s.heads * int(g.queryTiles)
	stages := (s.keys + v.blockKeys - 1) / v.blockKeys
	if t := a.Tiles; !t.Ends.IsZero() {
		v.listTile, v.blockKeys = t.KeyTile, attendRows
		g.tileKeys, g.tileEnds = address(t.Keys), address(t.Ends)
		stages = t.Keys.Elems() / tiles * t.KeyTile / v.blockKeys
	}
	if v.bias {
		g.logCount, g.logCountHead = address(a.LogCount), int64(a.LogCount.Stride[0])
	}
	if v.ragged {
		g.lengths = address(a.Lengths)
	}
	if !a.LogSumExp.IsZero() {
		g.logSum = address(a.LogSumExp)
	}
	if v.ragged || v.listTile > 0 { // uneven: blocks take the next item when they are free
		g.counter = q.counter.ptr
	}
	whole, pieces := attendPlan(tiles, stages, q.device.limit.multiprocessors)
	g.whole, g.pieces = int32(whole), int32(pieces)
	rest, items := tiles-whole, whole
	if pieces > 1 {
		items = whole + pieces
		slots := pieces + rest - 1 // every end of a tile within a piece makes two of it
		parts := q.scratch(scratchParts, compute.F32, slots*attendRows, s.headDim)
		sums := q.scratch(scratchPartSums, compute.F32, slots, attendRows)
		if q.err != nil {
			return
		}
		g.partOut, g.partLogSum = address(parts), address(sums)
	}
	m, err := q.device.attendModule(v)
	if err != nil {
		q.fail("attend", err)
		return
	}
	if q.device.hopper() && v.few == 0 {
		q.attendHopper(m, v, items, query, keys, values, s)
	} else {
		if pieces > 1 {
			items = whole + pieces + rest - 1 // a block for each slot
		}
		q.operands = attendOperands{address(query), address(keys), address(values), int64(query.Stride[0]), int64(query.Stride[1]),
			int64(keys.Stride[0]), int64(keys.Stride[1]), int64(values.Stride[0]), int64(values.Stride[1])}
		q.launch("attend", m.attend, [3]uint32{uint32(items), 1, 1}, [3]uint32{256, 1, 1}, m.shared, argument(&q.operands), argument(g))
	}
	if pieces > 1 {
		const perBlock = 8
		q.launch("attend", m.merge, [3]uint32{uint32((rest*attendRows + perBlock - 1) / perBlock), 1, 1}, [3]uint32{256, 1, 1}, 0, argument(g))
	}
}

// attendHopper starts the kernel that is fed by the bulk copy engine.
func (q *queue) attendHopper(m attendModule, v attendVariant, items int, query, keys, values compute.Tensor, s attendShape) {
	rows := v.blockKeys
	if v.listTile == 64 {
		rows = 64
	}
	for i, t := range [3]compute.Tensor{query, keys, values} {
		d := tensorMap{address: address(t), headDim: s.headDim, tokens: t.Shape[1], heads: s.heads,
			tokenBytes: 2 * max(t.Stride[1], 8), headBytes: 2 * max(t.Stride[0], 8), rows: rows}
		if i == 0 {
			d.rows = attendRows
		}
		if err := q.drv.EncodeMap(q.maps[i].aligned(), d); err != nil {
			q.fail("attend", err)
			return
		}
	}
	grid := [3]uint32{uint32(min(items, q.device.limit.multiprocessors)), 1, 1}
	q.launch("attend", m.attend, grid, [3]uint32{384, 1, 1}, m.shared,
		q.maps[0].argument(), q.maps[1].argument(), q.maps[2].argument(), argument(&q.attendArgs))
}

// hopper says whether kernels are compiled with Hopper's own instructions.
func (d *Device) hopper() bool { return d.modules.arch == "sm_90a" }

// attendModule returns a variant, compiled at its first use.
func (d *Device) attendModule(v attendVariant) (attendModule, error) {
	if !d.hopper() || v.few > 0 {
		v.blockKeys = 0
	}
	d.attendMu.Lock()
	defer d.attendMu.Unlock()
	if m, ok := d.variants[v]; ok {
		return m, nil
	}
	name, src, options, err := d.attendSource(v)
	if err != nil {
		return attendModule{}, err
	}
	module, err := d.modules.loadSource(name, src, options...)
	if err != nil {
		return attendModule{}, err
	}
	var m attendModule
	if m.attend, err = d.drv.Function(module, "attend"); err != nil {
		return m, err
	}
	if m.merge, err = d.drv.Function(module, "attend_merge"); err != nil {
		return m, err
	}
	m.shared = v.sharedBytes()
	if err := d.drv.SetShared(m.attend, m.shared); err != nil {
		return m, err
	}
	d.variants[v] = m
	return m, nil
}

// sharedBytes is the dynamic shared memory of a variant, as kernels/attend/README.md counts it; blockKeys is 0 for the
// portable kernel.
func (v attendVariant) sharedBytes() int {
	switch {
	case v.few > 0:
		return (256 + 4*v.few) * v.headDim
	case v.blockKeys == 0:
		return (256 + 512) * v.headDim
	}
	const stages, most = 2, 227 << 10
	queries, n := 256*v.headDim, 1024+4*stages*v.blockKeys*v.headDim+256
	if v.bias {
		n += 32 * stages * v.blockKeys
	}
	if n+2*queries <= most {
		return n + 2*queries
	}
	return n + queries
}

// attendSource joins the parts of a kernel and lists its defines.
func (d *Device) attendSource(v attendVariant) (name string, src []byte, options []string, err error) {
	number := map[bool]int{true: 1}
	options = []string{define("HEAD_DIM", v.headDim), define("LIST_TILE", v.listTile), define("BIAS", number[v.bias]),
		define("RAGGED", number[v.ragged]), define("OUT_F32", number[v.float]), define("BY_TILE", number[v.byTile])}
	name, parts := "attend_mma", []string{"attend_parts.cuh", "attend_mma.cu"}
	switch {
	case v.few > 0:
		options = append(options, define("FEW", v.few))
	case d.hopper():
		name, parts = "attend_sm90", []string{"attend_parts.cuh", "attend_hopper.cuh", "attend_sm90.cu"}
		options = append(options, define("BLOCK_N", v.blockKeys))
	}
	var b strings.Builder
	for _, p := range parts {
		text, err := attendSources.ReadFile("kernels/attend/" + p)
		if err != nil {
			return "", nil, nil, err
		}
		fmt.Fprintf(&b, "#line 1 \"%s\"\n%s\n", p, text)
	}
	return name, []byte(b.String()), options, nil
}
