package cpu

import (
	"math"
	"unsafe"

	"longtake/compute"
)

// The class amx multiplies bfloat16 tiles. B operands are words of two bfloat16, rows 2i and 2i+1 of B in lower and upper half,
// 32 words a row; A operands are plain rows. Both are padded to 32 along the inner dimension. This file lays operands out and
// is portable; the kernels are in tileKernels.

const (
	// tileSize is the rows, columns and inner length of a full step.
	tileSize = 32
	// tileKeys is keyBlock in tiles: long sums keep loads and stores of results few.
	tileKeys = 192
)

// tileKernels are what the class amx adds to its float32 kernels.
type tileKernels struct {
	gemm32, gemm16 func(args *tileArgs)
	// softmax is class.softmax for a multiple of four keys with probabilities as words in out, rows stride apart; s keeps the
	// logits, with LogCount. Where no maximum rose, rescale is not written and changed is 0.
	softmax func(args *softmaxArgs)
	// pairRows turns rows 2i and 2i+1 of 16 float32 into a row of 16 words.
	pairRows func(dst unsafe.Pointer, dstStride int, x unsafe.Pointer, xStride int, pairs int)
	// turnRows writes dst[c][r] = x[r][c] for 32 rows and blocks*8 columns of bfloat16.
	turnRows func(dst unsafe.Pointer, dstStride int, x unsafe.Pointer, xStride int, blocks int)
}

// tileArgs asks for C = init + A B for row blocks of 32 (or 16) by 32 columns, like gemmArgs: A bfloat16 rows aRow bytes apart,
// B words, C and init float32.
type tileArgs struct {
	a       unsafe.Pointer
	aRow    int
	b       unsafe.Pointer
	k       int // steps of 32, at least 1
	c       unsafe.Pointer
	cRow    int
	init    unsafe.Pointer // nil for zeros
	initRow int
	blocks  int
	ahead   unsafe.Pointer // memory soon needed: 1 KiB for every step of every 32 rows; nil for none
}

func padded(n, to int) int { return (n + to - 1) / to * to }

// run multiplies rows, a multiple of 16.
func (k *tileKernels) run(g *tileArgs, rows int) {
	if n := rows / 32; n > 0 {
		g.blocks = n
		k.gemm32(g)
		g.a = unsafe.Add(g.a, n*32*g.aRow)
		g.c = unsafe.Add(g.c, n*32*g.cRow)
		if g.init != nil {
			g.init = unsafe.Add(g.init, n*32*g.initRow)
		}
	}
	if rows%32 != 0 {
		g.blocks = 1
		k.gemm16(g)
	}
}

// pairBytes is the size of a panel of words.
func pairBytes(in int) int { return padded(max(in, 1), tileSize) * tileSize * 2 }

// packPairs fills a matrix with panels of words.
func packPairs(m *matrix, w compute.Host, read func([]float32, []byte)) {
	row, size := make([]float32, m.in), m.in*w.DType.Size()
	for o := range m.out {
		read(row, w.Data[o*size:][:size])
		panel := u16s(unsafe.Add(m.p, o/tileSize*pairBytes(m.in)), pairBytes(m.in)/2)
		for k, v := range row {
			panel[(k/2*tileSize+o%tileSize)*2+k%2] = compute.BF16FromF32(v)
		}
	}
}

// runTiles is Linear for the class amx: x is rounded to bfloat16 once, and read in place where it is bfloat16 in whole tiles.
func runTiles(q *Queue, t *linearTask, x compute.Tensor) {
	in := padded(max(t.w.in, 1), tileSize)
	if x.DType == compute.BF16 && t.w.in == in && t.rows%16 == 0 {
		t.x, t.xRow = address(x), x.Stride[0]*2
		t.cut(q.dev.pool.inUse())
		q.run(t, t.tiles())
		return
	}
	t.xRow = in * 2
	t.x = q.scratch.bytes(slotWhole, padded(t.rows, 16)*t.xRow)
	if t.w.in > 0 {
		q.each = eachTask{op: opCopy, dst: lines{p: t.x, dt: compute.BF16, width: t.w.in, rows: t.rows, n1: 1, n2: t.rows, s2: t.xRow}, x: linesOf(x, false)}
		if x.DType == compute.BF16 {
			q.each.op = opBytes
		}
		q.each.start(q)
	}
	if t.w.in < in {
		for r := range t.rows {
			clear(u16s(unsafe.Add(t.x, r*t.xRow), in)[t.w.in:])
		}
	}
	t.cut(q.dev.pool.inUse())
	q.run(t, t.tiles())
}

// multiplyTiles computes some panels of some rows.
func (t *linearTask) multiplyTiles(s *scratch, panel, panels, row, rows int, c unsafe.Pointer, cRow int, bias unsafe.Pointer, biasStep int) {
	size := pairBytes(t.w.in)
	for p := range panels {
		s.tile = tileArgs{a: unsafe.Add(t.x, row*t.xRow), aRow: t.xRow, b: unsafe.Add(t.w.p, (panel+p)*size), k: size / (2 * tileSize * tileSize),
			c: unsafe.Add(c, p*tileSize*4), cRow: cRow, init: unsafe.Add(bias, p*biasStep)}
		// The panel that this thread probably takes next.
		if next := panel + p + 1; next < t.class.panels(t.w.out) {
			s.tile.ahead = unsafe.Add(t.w.p, next*size)
		}
		t.class.tiles.run(&s.tile, rows)
	}
}

// pairQueries rounds the scaled queries to words.
func (t *attendTask) pairQueries(s *scratch, f *flash) {
	d := t.headDim
	s.bytes(slotPairs, f.lanes*d*2)
	for lane := 0; lane < f.lanes; lane += 16 {
		// Column groups are 32 wide: two halves of 64 bytes.
		group, half := lane&^31, lane&16*4
		t.class.tiles.pairRows(unsafe.Add(s.bytes(slotPairs, 0), group*d*2+half), 128, unsafe.Add(f.query, group*d*4+half), 128, d/2)
	}
}

// rows returns keys or values of a block: in place when they are one run of whole tiles, gathered and padded with zeros
// otherwise.
func (t *attendTask) rows(s *scratch, k slot, from *lines3, h int, parts []part, used int) (unsafe.Pointer, int) {
	n := padded(used, tileSize)
	if len(parts) == 1 && n == used {
		return from.at(h, parts[0].first), from.row
	}
	size := t.headDim * 2
	to := s.bytes(k, tileKeys*size)
	at := 0
	for _, p := range parts {
		if from.row == size { // one copy waits for memory once
			copy(unsafe.Slice((*byte)(unsafe.Add(to, at*size)), p.n*size), unsafe.Slice((*byte)(from.at(h, p.first)), p.n*size))
			at += p.n
			continue
		}
		for i := range p.n {
			copy(unsafe.Slice((*byte)(unsafe.Add(to, (at+i)*size)), size), unsafe.Slice((*byte)(from.at(h, p.first+i)), size))
		}
		at += p.n
	}
	clear(unsafe.Slice((*byte)(unsafe.Add(to, used*size)), (n-used)*size))
	return to, size
}

// blockTiles is block for the class amx: values are transposed once for all column groups.
func (t *attendTask) blockTiles(s *scratch, f *flash, parts []part, used int) {
	d, n, kernels := t.headDim, padded(used, tileSize), t.class.tiles
	t.counts(f, parts)
	if t.count.p != nil {
		clear(f32s(f.count, n)[used:])
	}
	key, keyRow := t.rows(s, slotKey, &t.keys, f.h, parts, used)
	value, valueRow := t.rows(s, slotValue, &t.values, f.h, parts, used)
	turned := s.bytes(slotTurned, tileKeys*d*2)
	for r := 0; r < n; r += tileSize {
		kernels.turnRows(unsafe.Add(turned, r*2), tileKeys*2, unsafe.Add(value, r*valueRow), valueRow, d/8)
	}
	// All logits, then all probabilities, then all sums: tile loads wait for recent stores.
	const logitBytes, probBytes = tileKeys * tileSize * 4, tileKeys * tileSize * 2
	groups := f.lanes / tileSize
	prob := s.bytes(slotProb, groups*probBytes)
	for i := range groups {
		logit := unsafe.Add(f.logit, i*logitBytes)
		s.tile = tileArgs{a: key, aRow: keyRow, b: unsafe.Add(s.bytes(slotPairs, 0), i*tileSize*d*2), k: d / tileSize,
			c: logit, cRow: tileSize * 4}
		kernels.run(&s.tile, n)
		hidden := f32s(logit, n*tileSize)[used*tileSize:]
		for i := range hidden {
			hidden[i] = float32(math.Inf(-1))
		}
	}
	// Lanes without a query keep whatever they hold.
	for lane := 0; lane < f.queries; lane += 16 {
		i := lane / tileSize
		half := lane % tileSize
		t.softmax(s, f, lane-half, half, tileSize, n, unsafe.Add(f.logit, i*logitBytes), unsafe.Add(prob, i*probBytes+half*4))
	}
	for i := range groups {
		acc := unsafe.Add(f.acc, i*tileSize*d*4)
		s.tile = tileArgs{a: turned, aRow: tileKeys * 2, b: unsafe.Add(prob, i*probBytes), k: n / tileSize,
			c: acc, cRow: tileSize * 4, init: acc, initRow: tileSize * 4}
		kernels.run(&s.tile, d)
	}
}
