package compute

// MergingDevice is a Device whose queues are Mergers.
type MergingDevice interface {
	Device
	// Merges does nothing.
	Merges()
}

// Merger merges the tokens of a latent frame into entries without the host: the rules of package accel/tempcache, which has
// them for queues with host memory and is the oracle.
type Merger interface {
	// Merge takes one frame into the entries of every store, or, with a negative Frame, only tells the lengths. Numbers of
	// entries stay on the device.
	Merge(m Merging, stores []MergeStore)
}

// MergeStore is the storage of one layer. All tensors are contiguous. A head's slots are Dense slots of whole frames, then its
// entries. Heads are decided on in groups of equal size; width is the headDim of a group's heads together.
type MergeStore struct {
	Keys, Values Tensor // F32 or BF16 [heads, dense+entries, headDim]; keys rotated
	Raw          Tensor // F32 or BF16 of this shape: keys before rotation; F32 with Merging.Mean
	Means        Tensor // F32 [heads, entries, headDim]: values as running means; absent where Values are F32
	LogCount     Tensor // F32 [heads, dense+entries]
	Places       Tensor // I32 [heads, anchors+entries, 3]: time, row, column of the newest member
	Unit         Tensor // F32 [groups, entries, width]: what is compared, of unit length
	First        Tensor // likewise, of each entry's first member; absent without Merging.Retest
	Queries      Tensor // F32 or BF16 [heads, ring slots, headDim], rotated; absent without Merging.Asks
	Lengths      Tensor // I32 [heads]: Merging.Ahead plus entries
	Entries      Tensor // I32 [groups]: entries in use
	Weight       Tensor // F64 [groups, entries]
	State        Tensor // I32 [7, groups, entries]: members, time, cell, near, joined, and as F32 bits nearness and the members' mean square length
	Totals       Tensor // F64 [groups, 3]: tokens entered, tokens evicted, sum of moved logits
	Local        uint64 // bit g: tokens of group g do not become entries, they count as evicted
}

// Merging says which frame is taken and by what rules; accel/tempcache.Policy explains them.
type Merging struct {
	Frame, Tokens, Columns int
	At                     int // first slot of the frame
	Dense, Anchors, Ahead  int // slots before the entries, tokens of the anchors, slots in view before the entries
	HeadDim                int
	// Frequencies F64 [temporal pairs], Turns F32 [tokens, spatial pairs, 2] with (cos, sin) of rows and columns.
	Frequencies, Turns Tensor

	Threshold, Floor           float32
	Lossless                   bool // joined keys must be equal
	Space                      int  // keys compared 0: after the turn by place, 1: before rotation, 2: as stored
	Mean, OnePerFrame, NoCount bool
	ByMembers                  bool // entries are forgotten by members alone, of equals the oldest
	Rest                       bool // the last entry sums up what is forgotten
	CountCap, Decay, Spread    float64
	Retest                     int
	// Neighbours searches Radius and Depth, else the nearest of all entries counts. Asked searches by queries, Asks says
	// that queries are kept at all, QueryLow and QueryHigh in which slots of the ring; MaxError bounds the movement, MaxChange
	// its product with the difference of the values.
	Neighbours, Asked, Asks bool
	Radius, Depth           int
	QueryLow, QueryHigh     int
	MaxError, MaxChange     float64

	// Approximate searches compare what is known of Unit, by queries too: numbers of Bits bits with levels Step wide (Known F32 [groups,
	// entries, width]), or signs of products with Planes (Codes I64 and CodeLengths F32 of entries, ProbeCodes and ProbeLengths of
	// tokens), as Hasher has them; or all of it, without either. With Tables entries must share a bucket with the token, whose uncertain bits
	// are ProbeWeak as ProbeCodes; BucketOrder and BucketEnds are Hasher.MatchTables' work space.
	Approximate                                                 bool
	Bits                                                        int
	Step                                                        float32
	Known, Planes, Codes, CodeLengths, ProbeCodes, ProbeLengths Tensor
	Tables                                                      Tables
	ProbeWeak, BucketOrder, BucketEnds                          Tensor

	// Work space: Probe and, with Asked, Query F32 [groups, tokens, width]; Best I32 and Score F32 [groups, tokens]; Hits I32
	// [layers, 4, groups, tokens]; Order I32 [layers, groups, 4*entries+5*tokens]; Recent I32 [groups, tokens, Depth] with Neighbours.
	// With Neighbours, Probe, Best and Recent may have [layers] in front: then all layers go on at once.
	Probe, Query, Best, Score, Hits, Order, Recent Tensor
}

// AtOnce reports whether there is work space for all layers to go on at once.
func (m Merging) AtOnce() bool { return m.Neighbours && !m.Asked && m.Probe.Rank == MaxRank }
