package compute

// Splitter orders the tokens of frames so that runs of them are near each other: the rule of package accel/annsa, which has it for queues
// with host memory and is the oracle.
type Splitter interface {
	// Split orders some frames and copies keys and values of some in the order that they have.
	Split(s Splitting)
}

// Splitting describes frames of Tokens tokens, at most 4096: place p of Keys and Values [heads, keys, headDim], F32 or BF16, is keys [p*Tokens,
// (p+1)*Tokens). Sets of tokens are halved at the median of the coordinate that varies most, again and again, until they are tiles of
// Tile tokens, the last one shorter.
type Splitting struct {
	Keys, Values Tensor
	Tokens, Tile int
	// Fresh I32 lists frames to order, twice the place, and one more if keys are first turned back by Turns F32 [pairs, 2]; Moved I32
	// places to copy. Either may be absent.
	Fresh, Moved, Turns Tensor
	// Order I32 [heads, places*Tokens] is kept from call to call. ToKeys and ToValues [heads, rows, headDim], contiguous, of the type of Keys,
	// have whole tiles for every place.
	Order, ToKeys, ToValues Tensor
}
