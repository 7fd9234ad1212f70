package cuda

import (
	"fmt"
	"math"
	"math/bits"

	"longtake/compute"
)

// mapArgs mirrors MapArgs in kernels/map/map.cu.
type mapArgs struct {
	dst, x, y, param     uint64
	dstStride, xStride   [3]int64
	yStride              [3]int64
	paramStride          int64
	rowChunks, n1, n2    divisor
	rowsPerGroup         divisor
	chunks, op, act, vec uint32
	a, b                 float32
}

// divisor lets kernels divide numbers below 2^31 by a multiplication: n/d = (n*m >> 32) >> shift (Granlund and Montgomery,
// PLDI 1994, as in CUTLASS's FastDivmod).
type divisor struct{ d, m, shift uint32 }

func newDivisor(d int) divisor {
	if d <= 1 {
		return divisor{d: 1}
	}
	p := 31 + bits.Len32(uint32(d-1))
	return divisor{uint32(d), uint32((uint64(1)<<p + uint64(d) - 1) / uint64(d)), uint32(p - 32)}
}

// Operations of the kernel, numbered as in map.cu.
const (
	opActivate = iota
	opMix
	opClamp
	opAddGated
	opBias
	opSquash
)

// Threads of a block and chunks of a thread, with one operand to read and with two: the fastest of BenchmarkSweep.
const (
	mapThreads = 256
	mapUnroll1 = 1
	mapUnroll2 = 1
)

// outer is what remains of up to three operands' dimensions when neighbours that lie together in all of them are merged:
// the row width and up to three outer dimensions with their strides, operand by operand.
type outer struct {
	width  int
	n      [3]int
	stride [3][3]int64 // [operand][dimension]
	rows   int
}

// merge finds the longest rows that all operands share. With keepRows the last dimension stays a row of its own.
func merge(op string, keepRows bool, operands []compute.Tensor) outer {
	first := operands[0]
	for _, t := range operands[1:] {
		if !(t.Rank == first.Rank && t.Shape == first.Shape) {
			mismatch(op, first, t)
		}
	}
	type dim struct {
		n      int
		stride [3]int64
	}
	var space [compute.MaxRank]dim
	dims := space[:0]
	for i := range first.Rank {
		d := dim{n: first.Shape[i]}
		for k, t := range operands {
			d.stride[k] = int64(t.Stride[i])
		}
		last := i == first.Rank-1
		if d.n == 1 && !last {
			continue
		}
		if len(dims) > 0 && !(keepRows && last) {
			p := &dims[len(dims)-1]
			together := true
			for k := range operands {
				together = together && p.stride[k] == d.stride[k]*int64(d.n)
			}
			if together {
				p.n, p.stride = p.n*d.n, d.stride
				continue
			}
		}
		dims = append(dims, d)
	}
	o := outer{width: dims[len(dims)-1].n, n: [3]int{1, 1, 1}, rows: 1}
	dims = dims[:len(dims)-1]
	if len(dims) == 1 { // the kernel's short way: one outer dimension is the first
		o.n[0], o.rows = dims[0].n, dims[0].n
		for k := range operands {
			o.stride[k][0] = dims[0].stride[k]
		}
		return o
	}
	for i, d := range dims {
		at := 3 - len(dims) + i
		o.n[at] = d.n
		o.rows *= d.n
		for k := range operands {
			o.stride[k][at] = d.stride[k]
		}
	}
	return o
}

// elementwise runs the map kernel. y and param may be absent; param goes with rows, rowsPerGroup of which share one of its.
func (q *queue) elementwise(name string, op uint32, dst, x, y, param compute.Tensor, rowsPerGroup int, act compute.Activation, a, b float32) {
	if dst.Elems() == 0 {
		if !(dst.Shape == x.Shape) {
			mismatch(name, dst, x)
		}
		return
	}
	operands := [3]compute.Tensor{dst, x, y}
	n := 3
	if y.IsZero() {
		n = 2
	}
	o := merge(name, !param.IsZero(), operands[:n])
	args := &q.elementArgs
	*args = mapArgs{dst: address(dst), x: address(x), n1: newDivisor(o.n[1]), n2: newDivisor(o.n[2]), rowsPerGroup: newDivisor(rowsPerGroup),
		op: op, act: uint32(act), a: a, b: b, dstStride: o.stride[0], xStride: o.stride[1], yStride: o.stride[2]}
	pair := half(name, dst)<<1 | half(name, x)
	kernel, unroll := q.device.kernels.one[pair], q.device.unroll1
	vec := o.width%8 == 0 && aligned(dst) && aligned(x) && aligned(y) && aligned(param)
	if !y.IsZero() {
		args.y = address(y)
		kernel, unroll = q.device.kernels.two[pair<<1|half(name, y)], q.device.unroll2
	}
	if !param.IsZero() {
		args.param = address(param)
		if param.Rank == 2 {
			args.paramStride = int64(param.Stride[0])
		}
	}
	chunk := 1
	if vec {
		chunk, args.vec = 8, 1
	}
	chunks := o.rows * (o.width / chunk)
	if chunks > math.MaxInt32-mapThreads*unroll {
		q.fail(name, fmt.Errorf("%v has too many elements: %w", dst, compute.ErrUnsupported))
		return
	}
	args.chunks, args.rowChunks = uint32(chunks), newDivisor(o.width/chunk)
	blocks := (chunks + mapThreads*unroll - 1) / (mapThreads * unroll)
	q.launch(name, kernel, [3]uint32{uint32(blocks), 1, 1}, [3]uint32{mapThreads, 1, 1}, 0, argument(args))
}

// Copy copies src to dst of the same shape, converting between F32 and BF16. Dense tensors of any one type, and strided ones
// of any 4-byte type, are copied as they are.
func (q *queue) Copy(dst, src compute.Tensor) {
	if q.err != nil {
		return
	}
	if dst.DType == src.DType && dst.Elems() > 0 && dst.Shape == src.Shape && dst.Contiguous() && src.Contiguous() {
		q.copyOn(address(dst), address(src), dst.Bytes())
		return
	}
	if dst.DType == src.DType && dst.DType.Size() == 4 { // the kernel moves these without looking at them
		dst.DType, src.DType = compute.F32, compute.F32
	}
	q.elementwise("copy", opActivate, dst, src, compute.Tensor{}, compute.Tensor{}, 1, compute.None, 0, 0)
}

// copyOn copies bytes on the GPU, or writes that down in a batch.
func (q *queue) copyOn(dst, src uint64, bytes int64) {
	q.ops++
	if q.batch.open {
		q.batch.now.steps = append(q.batch.now.steps, step{kind: stepCopy, operands: operands{dst: dst, x: src, w: uint64(bytes)}})
		return
	}
	if q.profile != nil {
		q.profiled(q.profile, opKey{name: "copy of a block of memory"})
	}
	q.fail("copy", q.drv.CopyOn(dst, src, bytes, q.stream))
}

// Activate computes dst = act(x) on elements.
func (q *queue) Activate(dst, x compute.Tensor, act compute.Activation) {
	if q.err != nil {
		return
	}
	q.elementwise("activate", opActivate, dst, x, compute.Tensor{}, compute.Tensor{}, 1, act, 0, 0)
}

// Mix computes dst = a*x + b*y on elements; y may be absent.
func (q *queue) Mix(dst compute.Tensor, a float32, x compute.Tensor, b float32, y compute.Tensor) {
	if q.err != nil {
		return
	}
	q.elementwise("mix", opMix, dst, x, y, compute.Tensor{}, 1, compute.None, a, b)
}

// Clamp limits every element to [lo, hi].
func (q *queue) Clamp(dst, x compute.Tensor, lo, hi float32) {
	if q.err != nil {
		return
	}
	q.elementwise("clamp", opClamp, dst, x, compute.Tensor{}, compute.Tensor{}, 1, compute.None, lo, hi)
}

// AddGated computes dst = x + y*gate, gate [groups, width] or absent.
func (q *queue) AddGated(dst, x, y, gate compute.Tensor) {
	if q.err != nil {
		return
	}
	if !(dst.Rank == 2 && !y.IsZero()) {
		mismatch("add gated", dst, x, y, gate)
	}
	share := 1
	if !gate.IsZero() {
		share = groups("add gated", gate, dst)
	}
	q.elementwise("add gated", opAddGated, dst, x, y, gate, share, compute.None, 0, 0)
}
