package compute

// Adder adds keys to an attention that has been computed.
type Adder interface {
	// AttendMore changes dst and a.LogSumExp, which Attend has written for query, to what they are with keys and values as well: one
	// softmax over both. a.LogCount F32 [heads*tiles, keys], if it is there, has a row for each tile of queryTile queries of each head;
	// a.Lengths and a.Tiles are absent.
	AttendMore(dst, query, keys, values Tensor, a Attention, queryTile int)
}
