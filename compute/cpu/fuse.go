package cpu

import "longtake/compute"

// Operations of one queue that follow each other row by row are done in one go: every worker keeps its rows in the first-level
// cache and waits once instead of twice. The arithmetic is that of the single operations.

// addNormTask is AddGated, then Norm of what it gave.
type addNormTask struct {
	add  eachTask
	norm normTask
}

// AddNorm is AddGated(sum, x, y, gate), then Norm(dst, sum, n).
func (q *Queue) AddNorm(dst, sum, x, y, gate compute.Tensor, n compute.Norm) {
	t := &q.addNorm
	t.add.setGated(q, sum, x, y, gate)
	t.norm.set(q, dst, sum, n)
	if dst.Elems() == 0 {
		return
	}
	t.add.setLines(sum, x, y, false)
	q.run(t, t.norm.tiles())
}

func (t *addNormTask) tile(s *scratch, i int) {
	lo, hi := t.norm.rows(i)
	for row := lo; row < hi; row++ {
		for col := 0; col < t.add.dst.width; col += eachChunk {
			t.add.chunk(s, row, col, min(eachChunk, t.add.dst.width-col))
		}
	}
	t.norm.tile(s, i)
}

// normRopeTask is Norm in place, then Rope.
type normRopeTask struct {
	norm normTask
	rope ropeTask
}

// NormRope is Norm(x, x, n), then Rope(dst, x.Heads(heads), pos, r); two operations where dst has frames.
func (q *Queue) NormRope(dst, x compute.Tensor, n compute.Norm, pos compute.Tensor, r compute.Rope) {
	if dst.Rank == 4 {
		q.Norm(x, x, n)
		compute.RopeFrames(q, dst, x.Heads(dst.Shape[0]), pos, r)
		return
	}
	t := &q.normRope
	t.norm.set(q, x, x, n)
	t.rope.set(q, dst, x.Heads(dst.Shape[0]), pos, r)
	if x.Elems() == 0 {
		return
	}
	t.rope.step = t.norm.step
	q.run(t, t.norm.tiles())
}

func (t *normRopeTask) tile(s *scratch, i int) {
	t.norm.tile(s, i)
	t.rope.tile(s, i)
}
