package cuda

import "longtake/compute"

// splitArgs mirrors SplitArgs in kernels/split/split.cu.
type splitArgs struct {
	keys, values, toKeys, toValues, order, fresh, moved, turns uint64
	keyHead, keyRow, valueHead, valueRow, toHead, orderHead    int64
	heads, tokens, padded, tile, headDim, turned, half, size   uint32
}

var _ compute.Splitter = (*queue)(nil)

// splitTokens is the most tokens of a frame that kernels/split orders, splitShared what that takes.
const (
	splitTokens = 4096
	splitShared = splitTokens * (8 + 4*4)
)

// Split orders tokens of frames and copies them, see compute.Splitter.
func (q *queue) Split(s compute.Splitting) {
	if q.err != nil {
		return
	}
	heads, headDim := s.Keys.Shape[0], s.Keys.Shape[2]
	padded := (s.Tokens + s.Tile - 1) / s.Tile * s.Tile
	if !(s.Keys.Rank == 3 && s.Values.Shape == s.Keys.Shape && s.Values.DType == s.Keys.DType && s.Tokens > 0 && s.Tokens <= splitTokens && headDim%2 == 0 &&
		s.ToKeys.DType == s.Keys.DType && s.ToValues.DType == s.Keys.DType && s.ToKeys.Contiguous() && s.ToValues.Shape == s.ToKeys.Shape && s.ToValues.Contiguous() &&
		s.ToKeys.Shape[0] == heads && s.Order.Contiguous() && s.Order.Shape[0] == heads && s.ToKeys.Shape[1]/padded == s.Order.Shape[1]/s.Tokens) {
		mismatch("split", s.Keys, s.Values, s.Order, s.ToKeys, s.ToValues)
	}
	size := 1
	for size < s.Tokens {
		size *= 2
	}
	a := &q.splitArgs
	*a = splitArgs{keys: address(s.Keys), values: address(s.Values), toKeys: address(s.ToKeys), toValues: address(s.ToValues), order: address(s.Order),
		fresh: addressOr0(s.Fresh), moved: addressOr0(s.Moved), turns: addressOr0(s.Turns), keyHead: int64(s.Keys.Stride[0]), keyRow: int64(s.Keys.Stride[1]),
		valueHead: int64(s.Values.Stride[0]), valueRow: int64(s.Values.Stride[1]), toHead: int64(s.ToKeys.Stride[0]), orderHead: int64(s.Order.Stride[0]),
		heads: uint32(heads), tokens: uint32(s.Tokens), padded: uint32(padded), tile: uint32(s.Tile), headDim: uint32(headDim),
		turned: uint32(s.Turns.Shape[0]), half: half("split", s.Keys), size: uint32(size)}
	k := &q.device.kernels.split
	q.launch("split", k[0], [3]uint32{uint32(s.Fresh.Elems()), uint32(heads), 1}, [3]uint32{1024, 1, 1}, 8*size+16*s.Tokens, argument(a))
	q.launch("split", k[1], [3]uint32{uint32((s.Tokens + 7) / 8), uint32(s.Moved.Elems()), uint32(heads)}, [3]uint32{256, 1, 1}, 0, argument(a))
}
