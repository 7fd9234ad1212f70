package compute

// PlanningDevice is a Device whose queues are Planners.
type PlanningDevice interface {
	Device
	// Plans does nothing.
	Plans()
}

// Planner chooses what the tiles of queries of a sparse attention see, without the host: the rules of package accel/annsa, which
// has them for queues with host memory and is the oracle.
type Planner interface {
	// Plan brings the mean keys up to date, scores tiles of keys for groups of queries and lists the best.
	Plan(p Planning)
}

// Kinds of tiles of keys for Planning.Kinds.
const (
	TileUnseen = iota // in no list
	TileKept          // in every list
	TileYoung         // in the lists of those queries that it matters to
	TileOld           // likewise; its keys are rotated anew for every chunk, and its mean is kept as it is at time 0
	TileMerged        // as TileYoung, but its mean is exact whatever codes there are
)

// Planning describes a plan. Tile t of keys is keys [t*Tile, (t+1)*Tile) of the view, likewise tiles of queries. Of every head
// and tile of queries, groups of Group queries that are near each other (halved at the median of the coordinate that varies most,
// again and again) are scored by their means: a tile of keys adds, for every group, min(1, mass/all mass)^Temper, where its mass
// is e^(Scale*mean query·mean key) times the tokens it stands for. The best are listed until their tokens would exceed
// Fraction of all tokens that can be chosen from, or Least.
type Planning struct {
	// Query [heads, queries, headDim], Keys [heads, keys, headDim], F32 or BF16, headDim at most 128; LogCount and Lengths as
	// in Attention.
	Query, Keys, LogCount, Lengths Tensor
	Scale, Temper                  float32
	Tile, QueryTile, Group         int // QueryTile at most 128
	Fraction                       float64
	Least                          int
	// Kinds I32 [tiles]; Fresh I32 [any], the tiles whose means are computed anew, may be absent; Dense I32 [heads], not 0 for
	// heads whose queries see everything, may be absent; Turns F32 [pairs, 2], by which keys of old tiles are rotated in time.
	Kinds, Fresh, Dense, Turns Tensor
	// Mass F32 [heads, queries], ln of the mass of all keys, if a dense pass has told it.
	Mass Tensor

	// Bits, 2, 4 or 8, has mean keys known by numbers of that many bits, with levels Step wide at a root mean square of 1: Known F32
	// [heads, room, headDim]. Planes F32 [bits, headDim], at most 512, has products of means and queries estimated by signs as in
	// Hasher.MatchCodes: Codes I64 [heads, room, words] and CodeLengths F32 [heads, room], GroupCodes I64 and GroupLengths F32 of
	// Groups. With Tables, mass is only in tiles that share a bucket with the group, whose uncertain bits are GroupWeak as GroupCodes. Absent:
	// means are known exactly.
	Bits                                         int
	Step                                         float32
	Known                                        Tensor
	Planes                                       Tensor
	Codes, CodeLengths, GroupCodes, GroupLengths Tensor
	Tables                                       Tables
	GroupWeak                                    Tensor

	// Rest F32 [heads*query tiles, tiles] receives log counts of the tiles that can be chosen and are not listed, -Inf for others: what
	// they count for by their means RestKeys and RestValues [heads, room, headDim], of the type of Keys, if they are added to the
	// attention (Adder). Values as Keys. Absent: what is not listed is dropped.
	Values, Rest, RestKeys, RestValues Tensor

	// Means F32 [heads, room, headDim], Logs F32 and Tokens I32 [heads, room], room for at least the tiles, are kept from plan to
	// plan.
	Means, Logs, Tokens Tensor
	// Work space: Groups F32 [2, heads, query tiles, groups, headDim], Norms F32 [heads, query tiles, groups], Scores F32 and
	// Lists I32 [heads, query tiles, tiles].
	Groups, Norms, Scores, Lists Tensor
	// TileKeys I32 [entries] and TileEnds I32 [heads*query tiles] receive Attention.Tiles. Lists that do not fit are cut.
	TileKeys, TileEnds Tensor
}
