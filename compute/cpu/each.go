package cpu

import (
	"fmt"
	"unsafe"

	"longtake/compute"
)

// eachOp is an operation on elements.
type eachOp uint8

const (
	opCopy eachOp = iota
	opBytes
	opActivate
	opMix
	opClamp
	opGated
)

// eachChunk is how many elements go through scratch at a time; small enough for the first-level cache.
const eachChunk = 2048

// eachTask runs an operation on elements: rows, each cut into chunks of columns, several of them a tile.
type eachTask struct {
	op        eachOp
	class     *class
	dst, x, y lines
	gate      lines
	group     int // rows that share a row of gate
	act       compute.Activation
	a, b      float32
	chunks    int // chunks a row
	step      int // chunks a tile
	total     int
}

// Copy copies elements of any strides, converting between F32 and BF16.
func (q *Queue) Copy(dst, src compute.Tensor) {
	wantSame("copy", dst, src)
	t := &q.each
	*t = eachTask{op: opCopy}
	if dst.DType == src.DType {
		t.op = opBytes
	} else {
		wantFloat("copy", dst, src)
	}
	q.elements(dst, src, compute.Tensor{})
}

// Activate computes dst = act(x).
func (q *Queue) Activate(dst, x compute.Tensor, act compute.Activation) {
	wantSame("activate", dst, x)
	wantFloat("activate", dst, x)
	q.each = eachTask{op: opActivate, act: act}
	q.elements(dst, x, compute.Tensor{})
}

// Mix computes dst = a*x + b*y, or a*x without y.
func (q *Queue) Mix(dst compute.Tensor, a float32, x compute.Tensor, b float32, y compute.Tensor) {
	wantSame("mix", dst, x)
	wantFloat("mix", dst, x, y)
	if y.Rank != 0 {
		wantSame("mix", dst, y)
	}
	q.each = eachTask{op: opMix, a: a, b: b}
	q.elements(dst, x, y)
}

// Clamp limits elements to [lo, hi].
func (q *Queue) Clamp(dst, x compute.Tensor, lo, hi float32) {
	wantSame("clamp", dst, x)
	wantFloat("clamp", dst, x)
	q.each = eachTask{op: opClamp, a: lo, b: hi}
	q.elements(dst, x, compute.Tensor{})
}

// AddGated computes dst = x + y*gate.
func (q *Queue) AddGated(dst, x, y, gate compute.Tensor) {
	q.each.setGated(q, dst, x, y, gate)
	q.elements(dst, x, y)
}

// setGated makes t AddGated, without its lines.
func (t *eachTask) setGated(q *Queue, dst, x, y, gate compute.Tensor) {
	wantSame("add", dst, x)
	wantSame("add", dst, y)
	wantFloat("add", dst, x, y)
	if dst.Rank != 2 {
		panic(fmt.Sprintf("cpu: add of %v, want rows", dst))
	}
	*t = eachTask{op: opGated, class: q.class, group: groupsOf("add", gate, x)}
	if gate.Rank != 0 {
		t.gate = linesOf(gate, false)
	}
}

// elements sets the task's lines and runs it.
func (q *Queue) elements(dst, x, y compute.Tensor) {
	if dst.Elems() == 0 {
		return
	}
	t := &q.each
	join := dst.Contiguous() && x.Contiguous() && (y.Rank == 0 || y.Contiguous()) && t.gate.rows == 0
	t.setLines(dst, x, y, join)
	t.start(q)
}

func (t *eachTask) setLines(dst, x, y compute.Tensor, join bool) {
	t.dst, t.x, t.y = linesOf(dst, join), linesOf(x, join), linesOf(y, join)
}

// start cuts into tiles and runs a task whose lines are set.
func (t *eachTask) start(q *Queue) {
	t.class = q.class
	t.chunks = (t.dst.width + eachChunk - 1) / eachChunk
	t.total = t.dst.rows * t.chunks
	t.step = max(1, worthIt/min(t.dst.width, eachChunk))
	q.run(t, (t.total+t.step-1)/t.step)
}

func (t *eachTask) tile(s *scratch, i int) {
	row, chunk := i*t.step/t.chunks, i*t.step%t.chunks
	for range min(t.step, t.total-i*t.step) {
		col := chunk * eachChunk
		t.chunk(s, row, col, min(eachChunk, t.dst.width-col))
		if chunk++; chunk == t.chunks {
			row, chunk = row+1, 0
		}
	}
}

func (t *eachTask) chunk(s *scratch, row, col, n int) {
	c := t.class
	if t.op == opBytes {
		size := t.dst.dt.Size()
		copy(unsafe.Slice((*byte)(t.dst.at(row, col)), n*size), unsafe.Slice((*byte)(t.x.at(row, col)), n*size))
		return
	}
	x := t.x.load(c, s, slotX, row, col, n)
	if t.op == opCopy {
		if t.dst.dt == compute.F32 {
			copy(f32s(t.dst.at(row, col), n), f32s(x, n))
		} else {
			c.narrow(t.dst.at(row, col), x, n)
		}
		return
	}
	dst := t.dst.out(s, row, col, n)
	switch t.op {
	case opActivate:
		c.activate(dst, x, n, t.act)
	case opClamp:
		c.clamp(dst, x, n, t.a, t.b)
	case opMix:
		if t.y.rows == 0 {
			c.scale(dst, x, n, t.a)
		} else {
			c.mix(dst, x, t.y.load(c, s, slotY, row, col, n), n, t.a, t.b)
		}
	case opGated:
		y := t.y.load(c, s, slotY, row, col, n)
		if t.gate.rows == 0 {
			c.add(dst, x, y, n)
		} else {
			c.addGated(dst, x, y, t.gate.at(row/t.group, col), n)
		}
	}
	t.dst.store(c, dst, row, col, n)
}
