package cpu

import (
	"fmt"
	"unsafe"

	"longtake/compute"
)

// Cutting of a matrix product. A tile is rowBlock rows by some panels; the inner dimension is walked in pieces of kBlock, so
// that a piece of a panel stays in the first-level cache while all rows pass it.
const (
	rowBlock = 96
	kBlock   = 256
	// tileColumns bounds a tile's width, and with it the scratch for its results.
	tileColumns = 128
	// tileWork is the least multiply-adds that make a tile worth handing out.
	tileWork = 128 << 10
)

// zeros is the row that products without bias start from.
var zeros [tileColumns]float32

// linearTask computes dst = act(x Wᵀ + bias).
type linearTask struct {
	class    *class
	x        unsafe.Pointer // float32
	xRow     int            // bytes
	dst      lines
	w        *matrix
	bias     unsafe.Pointer
	act      compute.Activation
	rows     int
	rowTiles int
	wide     int // panels a tile
}

// Linear computes dst = act(x Wᵀ + bias).
func (q *Queue) Linear(dst, x compute.Tensor, w compute.Matrix, bias compute.Tensor, act compute.Activation) {
	m, ok := w.(*matrix)
	if !ok || m.class != q.class {
		panic(fmt.Sprintf("cpu: linear with a %T of another device", w))
	}
	wantFloat("linear", dst, x)
	if dst.Rank != 2 || x.Rank != 2 || dst.Shape[0] != x.Shape[0] || x.Shape[1] != m.in || dst.Shape[1] != m.out {
		panic(fmt.Sprintf("cpu: linear of %v with a weight of [%d %d] into %v", x, m.out, m.in, dst))
	}
	b := vector("linear bias", bias, dst)
	if dst.Elems() == 0 {
		return
	}
	if m.p == nil && m.in > 0 {
		panic("cpu: linear with a weight whose arena was freed")
	}
	t := &q.linear
	*t = linearTask{class: q.class, dst: linesOf(dst, false), w: m, bias: b, act: act, rows: dst.Shape[0]}
	q.class.linear(q, t, x)
}

// runPanels is Linear for the float32 classes.
func runPanels(q *Queue, t *linearTask, x compute.Tensor) {
	t.x, t.xRow = address(x), x.Stride[0]*4
	if x.DType == compute.BF16 {
		t.x, t.xRow = q.widened(x), x.Shape[1]*4
	}
	if t.x == nil {
		t.x, t.xRow = unsafe.Pointer(&zeros), 0 // nothing to multiply: dst is the bias
	}
	t.cut(q.dev.pool.inUse())
	q.run(t, t.tiles())
}

// widened returns rows of BF16 as dense float32 in the queue's scratch.
func (q *Queue) widened(x compute.Tensor) unsafe.Pointer {
	n := x.Shape[1]
	to := q.scratch.floats(slotWhole, x.Shape[0]*n)
	l := linesOf(x, false)
	for i := range l.rows {
		if n > 0 {
			q.class.widen(unsafe.Add(to, i*n*4), l.at(i, 0), n)
		}
	}
	return to
}

// cut chooses the tiles: wide ones, narrower while threads would go without work. Any cut gives the same bits.
func (t *linearTask) cut(threads int) {
	panels := t.class.panels(t.w.out)
	t.rowTiles = (t.rows + rowBlock - 1) / rowBlock
	t.wide = tileColumns / t.class.panel
	work := min(t.rows, rowBlock) * t.w.in * t.class.panel
	for t.wide > 1 && threads > 1 && t.rowTiles*((panels+t.wide-1)/t.wide) < 4*threads && work*t.wide/2 >= tileWork {
		t.wide /= 2
	}
}

// tiles counts the tiles that cut chose.
func (t *linearTask) tiles() int {
	return t.rowTiles * ((t.class.panels(t.w.out) + t.wide - 1) / t.wide)
}

func (t *linearTask) tile(s *scratch, i int) {
	width := t.class.panel
	row, panel := i%t.rowTiles*rowBlock, i/t.rowTiles*t.wide
	rows, col := min(rowBlock, t.rows-row), panel*width
	panels := min(t.wide, t.class.panels(t.w.out)-panel)
	cols := min(panels*width, t.w.out-col)
	direct := t.act == compute.None && t.dst.dt == compute.F32 && cols == panels*width
	all := rows // rows that the kernels write
	if t.class.tiles != nil {
		all = padded(rows, 16)
		direct = direct && all == rows
	}

	c, cRow := unsafe.Pointer(nil), t.dst.s2
	if direct {
		c = t.dst.at(row, col)
	} else {
		c, cRow = s.floats(slotAcc, all*panels*width), panels*width*4
	}
	bias, biasStep := unsafe.Pointer(&zeros), 0
	if t.bias != nil {
		bias, biasStep = unsafe.Add(t.bias, col*4), width*4
		if cols < panels*width {
			// The kernels read whole panels; the bias ends with the outputs.
			padded := s.floats(slotScale, panels*width)
			copy(f32s(padded, cols), f32s(bias, cols))
			bias = padded
		}
	}
	if t.class.tiles != nil {
		t.multiplyTiles(s, panel, panels, row, all, c, cRow, bias, biasStep)
	} else {
		t.multiply(s, panel, panels, row, rows, c, cRow, bias, biasStep)
	}
	if !direct {
		t.finish(s, c, cRow, row, rows, col, cols)
	}
}

// multiply computes some panels of some rows. The inner dimension is the outermost loop: what a piece of it needs of x then
// stays in the second-level cache for all panels.
func (t *linearTask) multiply(s *scratch, panel, panels, row, rows int, c unsafe.Pointer, cRow int, bias unsafe.Pointer, biasStep int) {
	g, width, in := &s.gemm, t.class.panel, t.w.in
	size := width * in * 4
	step := kBlock
	if in <= kBlock*3/2 {
		step = max(in, 1)
	}
	for k := 0; k == 0 || k < in; k += step {
		for p := 0; p < panels; p++ {
			*g = gemmArgs{a: unsafe.Add(t.x, row*t.xRow+k*4), aRow: t.xRow, aCol: 4, k: min(step, in-k),
				c: unsafe.Add(c, p*width*4), cRow: cRow, init: unsafe.Add(bias, p*biasStep), bPanel: size}
			if in > 0 {
				g.b = unsafe.Add(t.w.p, (panel+p)*size+k*width*4)
			}
			if k > 0 {
				g.init, g.initRow = g.c, cRow
			}
			if rows <= 3 && t.class.thin != nil {
				if n := t.class.thin(g, rows, panels-p); n > 0 {
					p += n - 1
					continue
				}
			}
			g.ahead, g.aheadStep = t.ahead(panel, panels, p, k, step, rows)
			t.class.gemm(g, width, rows)
		}
	}
}

// ahead names the weights that a thread needs after a piece of panel+p from k on, and how far to go in four steps of k so that
// all of them are fetched while rows rows are multiplied. Weights come from the third-level cache or from memory.
func (t *linearTask) ahead(panel, panels, p, k, step, rows int) (at unsafe.Pointer, aheadStep int) {
	next, width := panel+p+1, t.class.panel
	if p+1 == panels && k+step < t.w.in {
		next, k = panel, k+step
	} else if p+1 == panels {
		k = 0
	}
	if rows < 6 || next >= t.class.panels(t.w.out) {
		return nil, 0
	}
	blocks := rows / 6
	return unsafe.Add(t.w.p, (next*t.w.in+k)*width*4), (width*16 + blocks - 1) / blocks
}

// finish applies the activation and moves results to dst.
func (t *linearTask) finish(s *scratch, c unsafe.Pointer, cRow, row, rows, col, cols int) {
	for r := range rows {
		from := unsafe.Add(c, r*cRow)
		if t.dst.dt == compute.F32 {
			t.class.activate(t.dst.at(row+r, col), from, cols, t.act)
			continue
		}
		if t.act != compute.None {
			t.class.activate(from, from, cols, t.act)
		}
		t.class.narrow(t.dst.at(row+r, col), from, cols)
	}
}
