package cuda

import (
	"fmt"
	"unsafe"

	"longtake/compute"
)

// FP8 says how weights that may be coarse (compute.Host.Coarse) are stored and multiplied.
type FP8 uint8

// NoFP8 keeps bfloat16. FP8Rows stores e4m3 with a scale for every output, and rounds activations with one for every row,
// which Hopper multiplies; FP8Tensors has one scale for a whole weight, and one for all activations. FP8Best is the first of
// the two that the GPU has.
const (
	NoFP8 FP8 = iota
	FP8Best
	FP8Rows
	FP8Tensors
)

// String returns the word for a device's name.
func (f FP8) String() string {
	return [...]string{"bf16", "e4m3", "e4m3 by rows", "e4m3 by tensors"}[f]
}

// quantArgs mirrors QuantArgs in kernels/quant/quant.cu.
type quantArgs struct {
	dst, x, scale, top, found, bias uint64
	xStride, dstStride              int64
	rows, width, vec, act           uint32
}

const (
	quantHeld  = 5 // chunks of 8 that a thread keeps
	quantMost  = 512 * quantHeld * 8
	quantAlign = 16 // widths and outputs that the matrix units take
)

// chooseFP8 settles what FP8Best is, by asking for a small product.
func (d *Device) chooseFP8(f FP8) (FP8, error) {
	if f == NoFP8 {
		return f, nil
	}
	if cc := d.limit.major*10 + d.limit.minor; cc < 89 {
		return f, fmt.Errorf("cuda: fp8 needs compute capability 8.9, this GPU has %d.%d; use bf16: %w", d.limit.major, d.limit.minor, compute.ErrUnsupported)
	}
	for _, try := range []FP8{FP8Rows, FP8Tensors} {
		if f != FP8Best && f != try {
			continue
		}
		p, err := d.drv.NewProduct(product{rows: 64, in: 256, out: 256, xStride: 256, dstStride: 256, half: true, dstHalf: true, fp8: try,
			xAlign: 256, dstAlign: 256, wAlign: 256, workspaceBytes: workspaceBytes})
		if err == nil && p != nil {
			d.drv.FreeProduct(p)
			return try, nil
		}
		if f == try && err != nil {
			return f, fmt.Errorf("cuda: %v: %w: %w", f, err, compute.ErrUnsupported)
		}
	}
	return f, fmt.Errorf("cuda: cuBLASLt offers no product of %v on this GPU; use bf16: %w", f, compute.ErrUnsupported)
}

// coarse says whether a weight is stored in e4m3.
func (d *Device) coarse(w compute.Host) bool {
	return d.fp8 != NoFP8 && w.Coarse && w.Shape[0]%quantAlign == 0 && w.Shape[1]%quantAlign == 0 && w.Shape[1] <= quantMost
}

// quantBytes is what a matrix [out, in] takes: its elements, and scales.
func (d *Device) quantBytes(out, in int) int64 { return align(int64(out)*int64(in)) + 4*int64(out) }

// quantPlan says how to round x [rows, width] to dst: with top, the address of a zeroed word, by one scale for all.
func quantPlan(dst, x, scale compute.Tensor, top uint64) (a quantArgs, threads int) {
	a = quantArgs{dst: address(dst), x: address(x), scale: address(scale), found: top, xStride: int64(x.Stride[0]), dstStride: int64(dst.Stride[0]),
		rows: uint32(x.Shape[0]), width: uint32(x.Shape[1]), vec: 1}
	return a, wholeWarps(x.Shape[1]/8, quantHeld)
}

// rounded is what scratchQuant holds in e4m3 by rows, with its scales in scratchScales: a tensor that the last of so many operations wrote.
type rounded struct {
	of   compute.Tensor
	ops  uint64
	only bool // nothing else of it was written
}

// coarseToo says whether AddNorm is to round dst to e4m3 as well, for a product that may come next, and tells its kernel where.
func (q *queue) coarseToo(dst compute.Tensor) bool {
	if q.device.fp8 != FP8Rows || dst.Shape[1]%quantAlign != 0 {
		return false
	}
	to, scale := q.scratch(scratchQuant, compute.F8E4M3, dst.Shape[0], dst.Shape[1]), q.scratch(scratchScales, compute.F32, 1, dst.Shape[0]+1)
	if q.err == nil {
		q.addArgs.coarse, q.addArgs.scale = address(to), address(scale)
	}
	return q.err == nil
}

// quantised rounds x, or act(x + bias) with a bias in BF16 (by rows only), to work space, and returns it with its scales.
func (q *queue) quantised(x, bias compute.Tensor, act compute.Activation) (to, scale compute.Tensor) {
	to, scale = q.scratch(scratchQuant, compute.F8E4M3, x.Shape[0], x.Shape[1]), q.scratch(scratchScales, compute.F32, 1, x.Shape[0]+1)
	if q.err != nil {
		return to, scale
	}
	scale = scale.Reshape(x.Shape[0] + 1)
	if bias.IsZero() && q.rounded.ops == q.ops && q.rounded.of == x {
		return to, scale
	}
	if q.rounded.only && q.rounded.of == x {
		q.fail("product", fmt.Errorf("%v was normalised for a product that had to come at once (compute.Norm.Coarse)", x))
		return to, scale
	}
	kind := half("quantise", x)
	if !aligned(x) {
		s := q.scratch(scratchInput, compute.BF16, x.Shape[0], x.Shape[1])
		if q.err != nil {
			return to, scale
		}
		q.Copy(s, x)
		x, kind = s, 1
	}
	var top uint64
	if q.device.fp8 == FP8Tensors {
		top = address(scale.Slice(0, x.Shape[0], x.Shape[0]+1))
		q.Mix(scale.Slice(0, x.Shape[0], x.Shape[0]+1), 0, scale.Slice(0, x.Shape[0], x.Shape[0]+1), 0, compute.Tensor{})
	}
	a, threads := quantPlan(to, x, scale, top)
	if !bias.IsZero() {
		a.bias, a.act = address(bias), uint32(act)
	}
	q.quantArgs = a
	if top != 0 {
		q.launch("quantise", q.device.kernels.quant[2+kind], [3]uint32{uint32(min(x.Shape[0], 4*q.device.limit.multiprocessors)), 1, 1}, [3]uint32{256, 1, 1}, 0, argument(&q.quantArgs))
		q.quantArgs.top = top
	}
	q.launch("quantise", q.device.kernels.quant[kind], [3]uint32{uint32(x.Shape[0]), 1, 1}, [3]uint32{uint32(threads), 1, 1}, 0, argument(&q.quantArgs))
	return to, scale
}

// FeedForward is two products, see compute.FeedForwarder. Between two of e4m3 by rows the bias and the activation are applied where the
// second one's operand is rounded: cuBLASLt's epilogue takes 35 us for GELU at Wan 1.3B's size, here it hides behind the memory.
func (q *queue) FeedForward(dst, hidden, x compute.Tensor, w1, w2 compute.Matrix, bias1, bias2 compute.Tensor, act compute.Activation) {
	m1, ok1 := w1.(*matrix)
	m2, ok2 := w2.(*matrix)
	if !(ok1 && ok2 && q.device.fp8 == FP8Rows && !m1.scale.IsZero() && !m2.scale.IsZero() && hidden.DType == compute.BF16 && aligned(hidden) && !bias1.IsZero() &&
		hidden.Rank == 2 && hidden.Shape[0] == x.Shape[0] && hidden.Shape[1] == m1.Shape[0] && dst.Rank == 2 && dst.Shape[0] == hidden.Shape[0] &&
		m2.Shape[1] == m1.Shape[0] && m2.Shape[0] == dst.Shape[1]) {
		q.Linear(hidden, x, w1, bias1, act)
		q.Linear(dst, hidden, w2, bias2, compute.None)
		return
	}
	checkBias("feed forward", bias1, hidden)
	checkBias("feed forward", bias2, dst)
	q.Linear(hidden, x, w1, compute.Tensor{}, compute.None)
	if bias1 = q.biasAs(compute.BF16, bias1); q.err != nil {
		return
	}
	if to, scale := q.quantised(hidden, bias1, act); q.err == nil {
		q.product(dst, to, scale, m2, bias2, compute.None)
	}
}

// Coarse reports whether the weight is in e4m3, see compute.CoarseMatrix.
func (m *matrix) Coarse() bool { return !m.scale.IsZero() }

// coarseMatrix brings a weight in and rounds it. The device is locked.
func (a *arena) coarseMatrix(w compute.Host) (*matrix, error) {
	out, in := w.Shape[0], w.Shape[1]
	d := a.device
	bytes := d.quantBytes(out, in)
	b, at, ok := a.take(bytes)
	if !ok {
		return nil, nil
	}
	m := &matrix{Tensor: compute.NewTensor(b, int(at), compute.F8E4M3, out, in), half: true}
	m.scale = compute.NewTensor(b, int(at+align(int64(out)*int64(in)))/4, compute.F32, out)
	from := compute.BF16
	if w.DType == compute.F32 {
		from = compute.F32
	}
	room, err := d.alloc(align(int64(out)*int64(in)*int64(from.Size())) + arenaAlign)
	if err != nil {
		return nil, err
	}
	defer d.release(room)
	x := compute.NewTensor(room, 0, from, out, in)
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.feed.in(address(x), w.Data, w.DType.Size(), from.Size(), converter(w.DType, from), d.feedStream); err != nil {
		return nil, err
	}
	return m, d.quantiseMatrix(m, x, room.ptr+uint64(align(x.Bytes())))
}

// quantiseMatrix rounds x to m; word is the address of a spare one.
func (d *Device) quantiseMatrix(m *matrix, x compute.Tensor, word uint64) error {
	kind := half("matrix", x)
	top := uint64(0)
	if d.fp8 == FP8Tensors {
		top = word
		if err := d.drv.Sync(d.feedStream); err != nil {
			return err
		}
		if err := d.drv.Memset(top, 0, 4); err != nil {
			return err
		}
	}
	args, threads := quantPlan(m.Tensor, x, m.scale, top)
	l := &d.feedLaunch
	l.stream, l.params[0] = d.feedStream, unsafe.Pointer(&args)
	if top != 0 {
		l.fn, l.grid, l.block = d.kernels.quant[2+kind], [3]uint32{uint32(min(int(args.rows), 4*d.limit.multiprocessors)), 1, 1}, [3]uint32{256, 1, 1}
		if err := d.drv.Launch(l); err != nil {
			return err
		}
		args.top = top
	}
	l.fn, l.grid, l.block = d.kernels.quant[kind], [3]uint32{args.rows, 1, 1}, [3]uint32{uint32(threads), 1, 1}
	if err := d.drv.Launch(l); err != nil {
		return err
	}
	return d.drv.Sync(d.feedStream)
}
