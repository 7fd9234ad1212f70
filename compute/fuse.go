package compute

// AddNormer is a Queue that adds and normalises in one pass over the rows.
type AddNormer interface {
	// AddNorm is AddGated(sum, x, y, gate), then Norm(dst, sum, n). sum may be x, and dst y.
	AddNorm(dst, sum, x, y, gate Tensor, n Norm)
}

// AddNorm runs dq's AddNorm, or the two operations that it stands for.
func AddNorm(dq Queue, dst, sum, x, y, gate Tensor, n Norm) {
	if f, ok := dq.(AddNormer); ok {
		f.AddNorm(dst, sum, x, y, gate, n)
		return
	}
	dq.AddGated(sum, x, y, gate)
	dq.Norm(dst, sum, n)
}

// CoarseMatrix is a Matrix that may be stored in less than its queue's products otherwise take.
type CoarseMatrix interface {
	Matrix
	// Coarse reports whether it is.
	Coarse() bool
}

// IsCoarse reports whether a weight is stored coarsely, see Norm.Coarse.
func IsCoarse(m Matrix) bool {
	c, ok := m.(CoarseMatrix)
	return ok && c.Coarse()
}

// FeedForwarder is a Queue that runs two linear layers as one.
type FeedForwarder interface {
	// FeedForward is Linear(hidden, x, w1, bias1, act), then Linear(dst, hidden, w2, bias2, None). Hidden afterwards holds anything.
	FeedForward(dst, hidden, x Tensor, w1, w2 Matrix, bias1, bias2 Tensor, act Activation)
}

// FeedForward runs dq's FeedForward, or the two operations that it stands for.
func FeedForward(dq Queue, dst, hidden, x Tensor, w1, w2 Matrix, bias1, bias2 Tensor, act Activation) {
	if f, ok := dq.(FeedForwarder); ok {
		f.FeedForward(dst, hidden, x, w1, w2, bias1, bias2, act)
		return
	}
	dq.Linear(hidden, x, w1, bias1, act)
	dq.Linear(dst, hidden, w2, bias2, None)
}

// NormRoper is a Queue that normalises rows and rotates their heads in one pass.
type NormRoper interface {
	// NormRope is Norm(x, x, n), then Rope(dst, x.Heads(heads), pos, r): x [tokens, heads*headDim], dst [heads, tokens,
	// headDim] with any strides, also the heads of x, or [heads, frames, tokens of one, headDim] (RopeFrames). Where dst is elsewhere, x
	// afterwards holds what it held or its norm.
	NormRope(dst, x Tensor, n Norm, pos Tensor, r Rope)
}

// NormRope runs dq's NormRope, or the two operations that it stands for.
func NormRope(dq Queue, dst, x Tensor, n Norm, pos Tensor, r Rope) {
	if f, ok := dq.(NormRoper); ok {
		f.NormRope(dst, x, n, pos, r)
		return
	}
	dq.Norm(x, x, n)
	RopeFrames(dq, dst, x.Heads(dst.Shape[0]), pos, r)
}

// RopeFrames is Rope(dst, x, pos, r), also to dst [heads, frames, tokens of one, headDim], whose frames may lie anywhere, such as the
// last one first; x is [heads, tokens, headDim].
func RopeFrames(dq Queue, dst, x, pos Tensor, r Rope) {
	if dst.Rank < 4 {
		dq.Rope(dst, x, pos, r)
		return
	}
	n := dst.Shape[2]
	for f := range dst.Shape[1] {
		to := dst.Slice(1, f, f+1)
		to.Rank, to.Shape, to.Stride = 3, [MaxRank]int{to.Shape[0], n, to.Shape[3]}, [MaxRank]int{to.Stride[0], to.Stride[2], to.Stride[3]}
		dq.Rope(to, x.Slice(1, f*n, (f+1)*n), pos.Slice(pos.Rank-2, f*n, (f+1)*n), r)
	}
}
