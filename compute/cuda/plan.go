package cuda

import "longtake/compute"

// planArgs mirrors PlanArgs in kernels/plan/plan.cu.
type planArgs struct {
	query, keys, logCount, lengths, kinds, fresh, dense, turns, mass                         uint64
	means, logs, tokens, groups, norms, scores, lists, tileKeys, tileEnds                    uint64
	fraction                                                                                 float64
	queryHead, queryRow, keyHead, keyRow, logHead                                            int64
	heads, queries, keyCount, headDim, tile, tiles, queryTile, queryTiles, group, groupsEach uint32
	turned, least, entries, queryHalf, keyHalf                                               uint32
	scale, temper                                                                            float32
	room                                                                                     uint32
	known, codes, groupCodes, codeLengths, groupLengths                                      uint64
	bits, words                                                                              uint32
	values, restValues, restKeys, rest                                                       uint64
	valueHead, valueRow                                                                      int64
	groupWeak                                                                                uint64
	tables, tableBits                                                                        uint32
}

var _ compute.Planner = (*queue)(nil)

// Plans says that queues are compute.Planners.
func (d *Device) Plans() {}

// planShared is the most shared memory that plan_groups asks for.
const planShared = 4 * planQueries * (planHeadDim + 1)

// planScoresShared is the shared memory that plan_scores asks for: COLUMNS means in halves, APART words apart.
const planScoresShared = 4 * 64 * 144

// The largest tile of queries and head dimension of kernels/plan.
const planQueries, planHeadDim = 128, 128

// Plan lists what tiles of queries see, see compute.Planner.
func (q *queue) Plan(p compute.Planning) {
	if q.err != nil {
		return
	}
	heads, queries, keys, headDim := p.Query.Shape[0], p.Query.Shape[1], p.Keys.Shape[1], p.Query.Shape[2]
	tiles, queryTiles := (keys+p.Tile-1)/p.Tile, (queries+p.QueryTile-1)/p.QueryTile
	each := (min(p.QueryTile, queries) + p.Group - 1) / p.Group
	if !(p.Query.Rank == 3 && p.Keys.Rank == 3 && p.Keys.Shape[0] == heads && p.Keys.Shape[2] == headDim && headDim <= planHeadDim && headDim%16 == 0 &&
		p.QueryTile <= planQueries && p.Kinds.Elems() >= tiles && p.Means.Shape[1] >= tiles && p.Groups.Elems() >= 2*heads*queryTiles*each*headDim &&
		p.Norms.Elems() >= heads*queryTiles*each && p.Scores.Elems() >= heads*queryTiles*tiles && p.Lists.Elems() >= heads*queryTiles*tiles &&
		p.TileEnds.Elems() == heads*queryTiles && p.Means.Contiguous() && p.Logs.Contiguous() && p.Tokens.Contiguous()) {
		mismatch("plan", p.Query, p.Keys, p.Means, p.Kinds, p.TileEnds)
	}
	if heads*queries == 0 {
		return
	}
	at := addressOr0
	a := &q.planArgs
	*a = planArgs{query: address(p.Query), keys: address(p.Keys), logCount: at(p.LogCount), lengths: at(p.Lengths), kinds: at(p.Kinds), fresh: at(p.Fresh),
		dense: at(p.Dense), turns: at(p.Turns), mass: at(p.Mass), means: at(p.Means), logs: at(p.Logs), tokens: at(p.Tokens), groups: at(p.Groups),
		norms: at(p.Norms), scores: at(p.Scores), lists: at(p.Lists), tileKeys: at(p.TileKeys), tileEnds: at(p.TileEnds), fraction: p.Fraction,
		queryHead: int64(p.Query.Stride[0]), queryRow: int64(p.Query.Stride[1]), keyHead: int64(p.Keys.Stride[0]), keyRow: int64(p.Keys.Stride[1]),
		logHead: int64(p.LogCount.Stride[0]), heads: uint32(heads), queries: uint32(queries), keyCount: uint32(keys), headDim: uint32(headDim),
		tile: uint32(p.Tile), tiles: uint32(tiles), queryTile: uint32(p.QueryTile), queryTiles: uint32(queryTiles), group: uint32(p.Group),
		groupsEach: uint32(each), turned: uint32(p.Turns.Shape[0]), least: uint32(p.Least), entries: uint32(p.TileKeys.Elems()),
		queryHalf: half("plan", p.Query), keyHalf: half("plan", p.Keys), scale: p.Scale, temper: p.Temper, room: uint32(p.Means.Shape[1])}
	q.planCodes(p, a)
	k, rows := &q.device.kernels.plan, [3]uint32{uint32(queryTiles), uint32(heads), 1}
	some, large := [3]uint32{128, 1, 1}, [3]uint32{256, 1, 1}
	q.launch("plan", k[0], [3]uint32{uint32(p.Fresh.Elems()), uint32(heads), 1}, some, 0, argument(a))
	q.planKnown(p)
	q.launch("plan", k[1], rows, large, planGroupsShared(p.QueryTile, headDim, a.queryHalf), argument(a))
	q.planHashes(p)
	if a.mass == 0 {
		q.launch("plan", k[2], [3]uint32{uint32((queryTiles*each + 15) / 16), uint32(heads), 1}, large, 0, argument(a))
	}
	q.launch("plan", k[3], planScores(a), some, planScoresShared, argument(a))
	q.launch("plan", k[4], rows, large, 0, argument(a))
	q.launch("plan", k[5], [3]uint32{uint32(heads * queryTiles), 1, 1}, large, 0, argument(a))
	if a.rest != 0 {
		q.launch("plan", k[6], [3]uint32{uint32((tiles*headDim/2 + 255) / 256), uint32(heads), 1}, large, 0, argument(a))
	}
}

// planCodes fills in how means are known, and what becomes of tiles that are not listed.
func (q *queue) planCodes(p compute.Planning, a *planArgs) {
	room, groups := p.Means.Shape[1], p.Groups.Elems()/p.Means.Shape[2]
	if p.Bits != 0 {
		if p.Known.Elems() != p.Means.Elems() || !p.Known.Contiguous() {
			mismatch("plan", p.Known, p.Means)
		}
		a.known = address(p.Known)
	}
	if bits := p.Planes.Shape[0]; bits > 0 {
		words := (bits + 63) / 64
		if !(bits <= planBits && p.Codes.Elems() == p.Means.Shape[0]*room*words && p.CodeLengths.Elems() == p.Means.Shape[0]*room && p.GroupCodes.Elems() >= groups*words &&
			p.GroupLengths.Elems() >= groups) {
			mismatch("plan", p.Planes, p.Codes, p.GroupCodes)
		}
		a.bits, a.words = uint32(bits), uint32(words)
		if t := p.Tables; t.Count > 0 {
			if !(fits(t, words) && p.GroupWeak.Elems() >= groups*words) {
				mismatch("plan", p.Planes, p.GroupWeak, t)
			}
			a.bits, a.tables, a.tableBits, a.groupWeak = uint32(t.Count*t.Bits), uint32(t.Count), uint32(t.Bits), address(p.GroupWeak)
		}
		a.codes, a.codeLengths, a.groupCodes, a.groupLengths = address(p.Codes), address(p.CodeLengths), address(p.GroupCodes), address(p.GroupLengths)
	}
	if p.Rest.IsZero() {
		return
	}
	if !(p.Values.Shape == p.Keys.Shape && p.Values.DType == p.Keys.DType && p.RestKeys.DType == p.Keys.DType && p.RestValues.DType == p.Keys.DType &&
		p.RestKeys.Elems() == p.Means.Elems() && p.RestValues.Elems() == p.Means.Elems() && p.RestKeys.Contiguous() && p.RestValues.Contiguous() &&
		p.Rest.Contiguous() && p.Rest.Elems() == p.TileEnds.Elems()*int(a.tiles)) {
		mismatch("plan", p.Values, p.RestKeys, p.RestValues, p.Rest)
	}
	a.values, a.valueHead, a.valueRow = address(p.Values), int64(p.Values.Stride[0]), int64(p.Values.Stride[1])
	a.restValues, a.restKeys, a.rest = address(p.RestValues), address(p.RestKeys), address(p.Rest)
}

// planBits is the most bits of codes, MOST_BITS in kernels/plan.
const planBits = 512

// planKnown codes the means, which have changed if any are fresh.
func (q *queue) planKnown(p compute.Planning) {
	if p.Fresh.Elems() == 0 {
		return
	}
	if p.Bits != 0 {
		q.Quantise(compute.Tensor{}, compute.Tensor{}, p.Known, p.Means, compute.Tensor{}, p.Bits, p.Step)
	}
	if p.Planes.Shape[0] > 0 {
		q.Hash(p.Codes, compute.Tensor{}, p.CodeLengths, p.Means, p.Planes, compute.Tensor{}, compute.Tables{})
	}
}

// planHashes codes the groups of queries.
func (q *queue) planHashes(p compute.Planning) {
	if p.Planes.Shape[0] == 0 {
		return
	}
	a := &q.planArgs
	rows, words := int(a.queryTiles*a.groupsEach), int(a.words)
	heads, weak := 2*int(a.heads), compute.Tensor{}
	if a.tables > 0 {
		weak = piece(p.GroupWeak, 0, heads, rows, words)
	}
	q.Hash(piece(p.GroupCodes, 0, heads, rows, words), weak, piece(p.GroupLengths, 0, heads, rows), piece(p.Groups, 0, heads, rows, int(a.headDim)), p.Planes, compute.Tensor{}, p.Tables)
}

// planGroupsShared is the shared memory of plan_groups: the queries of a tile, rows an odd number of words apart.
func planGroupsShared(queryTile, headDim int, half uint32) int {
	return 4 * queryTile * (headDim>>half + 1)
}

// planScores is the grid of plan_scores: tiles of queries that have 64 groups together, or one tile, by 64 tiles of keys.
func planScores(a *planArgs) [3]uint32 {
	each := max(1, 64/a.groupsEach)
	return [3]uint32{(a.queryTiles + each - 1) / each, (a.tiles + 63) / 64, a.heads}
}
