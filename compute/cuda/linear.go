package cuda

import (
	"fmt"

	"longtake/compute"
)

// linearArgs mirrors LinearArgs in kernels/linear/linear.cu.
type linearArgs struct {
	dst, x, w, bias       uint64
	dstStride, xStride    int64
	rows, in, out, act    uint32
	dstHalf, xHalf, wHalf uint32
	_                     uint32
}

// Linear computes dst = act(x Wᵀ + bias). Operands are brought to the type of the weights: a BF16 matrix takes x in bfloat16
// (F32 x is rounded into work space first, or cut into parts, see Options.Float32), an F32 matrix takes x in float32. Sums are float32. Where cuBLASLt has no
// algorithm for a float32 bias it is rounded to bfloat16.
func (q *queue) Linear(dst, x compute.Tensor, w compute.Matrix, bias compute.Tensor, act compute.Activation) {
	if q.err != nil {
		return
	}
	m, ok := w.(*matrix)
	if !ok {
		mismatch("linear", dst, x, matrixText(w))
	}
	if !(dst.Rank == 2 && x.Rank == 2 && dst.Shape[0] == x.Shape[0] && m.in() == x.Shape[1] && m.Shape[0] == dst.Shape[1]) {
		mismatch("linear", dst, x, matrixText(m))
	}
	checkBias("linear", bias, dst)
	half("linear", dst)
	if dst.Elems() == 0 {
		return
	}
	var xScale compute.Tensor
	if m.scale.IsZero() {
		x = q.operand(x, m)
	} else {
		x, xScale = q.quantised(x, compute.Tensor{}, compute.None)
	}
	to := dst
	if !m.half && dst.DType == compute.BF16 { // cuBLASLt does not round float32 products
		to = q.scratch(scratchOutput, compute.F32, dst.Shape[0], dst.Shape[1])
	}
	if q.err != nil {
		return
	}
	q.product(to, x, xScale, m, bias, act)
	if to.Buffer != dst.Buffer {
		q.Copy(dst, to)
	}
}

// operand returns x in the type of the weights.
func (q *queue) operand(x compute.Tensor, m *matrix) compute.Tensor {
	half("linear", x)
	if m.parts {
		return q.parts(x)
	}
	if x.DType == m.DType {
		return x
	}
	s := q.scratch(scratchInput, m.DType, x.Shape[0], x.Shape[1])
	if q.err == nil {
		q.Copy(s, x)
	}
	return s
}

// partsArgs mirrors PartsArgs in kernels/linear/linear.cu.
type partsArgs struct {
	dst, x         uint64
	xStride        int64
	rows, in, half uint32
	_              uint32
}

// parts cuts x [rows, in] into work space BF16 [rows, numParts * in]: first what the upper 8 bits of every mantissa are, then the next, then the last.
func (q *queue) parts(x compute.Tensor) compute.Tensor {
	s := q.scratch(scratchInput, compute.BF16, x.Shape[0], numParts*x.Shape[1])
	if q.err != nil {
		return s
	}
	a := &q.partsArgs
	*a = partsArgs{dst: address(s), x: address(x), xStride: int64(stride(x)), rows: uint32(x.Shape[0]), in: uint32(x.Shape[1]), half: half("linear", x)}
	const threads = 256
	grid := [3]uint32{uint32((x.Shape[1] + threads - 1) / threads), uint32(min(x.Shape[0], 65535)), 1}
	q.launch("linear", q.device.kernels.linear[1], grid, [3]uint32{threads, 1, 1}, 0, argument(a))
	return s
}

// product multiplies by cuBLASLt with as much of bias and activation fused as it offers, else by the plain kernel.
func (q *queue) product(dst, x, xScale compute.Tensor, m *matrix, bias compute.Tensor, act compute.Activation) {
	fused := act
	if act == compute.SiLU {
		fused = compute.None
	}
	key := product{rows: x.Shape[0], in: x.Shape[1], out: m.Shape[0], xStride: stride(x), dstStride: stride(dst), half: m.half,
		dstHalf: dst.DType == compute.BF16, bias: !bias.IsZero(), biasHalf: !bias.IsZero() && dst.DType == compute.BF16, act: uint8(fused), workspaceBytes: q.work.bytes,
		xAlign: alignment(x), dstAlign: alignment(dst), wAlign: alignment(m.Tensor)}
	if !m.scale.IsZero() {
		key.fp8, key.biasHalf = q.device.fp8, key.bias
	}
	if p := q.plan(key); p != nil {
		if q.multiply(p, dst, x, xScale, m, bias); act != fused {
			q.Activate(dst, dst, act)
		}
		return
	}
	key.bias, key.biasHalf, key.act = false, false, uint8(compute.None)
	bias = q.biasAs(compute.F32, bias)
	if p := q.plan(key); p != nil {
		q.multiply(p, dst, x, xScale, m, compute.Tensor{})
		q.elementwise("linear", opBias, dst, dst, compute.Tensor{}, bias, dst.Shape[0], act, 0, 0)
		return
	}
	if key.fp8 != NoFP8 {
		q.fail("linear", fmt.Errorf("%d x %d x %d in %v: %w", key.rows, key.in, key.out, key.fp8, compute.ErrUnsupported))
		return
	}
	q.plainLinear(dst, x, m, bias, act)
}

// plan looks up or makes the plan for a case; nil means that cuBLASLt has none, or that the queue failed.
func (q *queue) plan(key product) *productPlan {
	if q.err != nil {
		return nil
	}
	p, ok := q.products[key]
	if !ok {
		var err error
		if p, err = q.drv.NewProduct(key); err != nil {
			q.fail("linear", fmt.Errorf("plan %d x %d x %d: %w", key.rows, key.in, key.out, err))
			return nil
		}
		if p != nil {
			p.number, q.plans = uint64(len(q.plans)), append(q.plans, p)
		}
		q.products[key] = p
	}
	return p
}

func (q *queue) multiply(p *productPlan, dst, x, xScale compute.Tensor, m *matrix, bias compute.Tensor) {
	if q.err != nil {
		return
	}
	o := operands{dst: address(dst), x: address(x), w: address(m.Tensor)}
	if !m.scale.IsZero() {
		o.xScale, o.wScale = address(xScale), address(m.scale)
	}
	if !bias.IsZero() {
		dt := compute.F32
		if p.biasHalf {
			dt = compute.BF16
		}
		if bias = q.biasAs(dt, bias); q.err != nil {
			return
		}
		o.bias = address(bias)
	}
	if q.err == nil {
		q.run(p, o)
	}
}

// checkBias panics unless a bias [out] goes with dst [rows, out].
func checkBias(op string, bias, dst compute.Tensor) {
	if !bias.IsZero() && !((bias.DType == compute.F32 || bias.DType == compute.BF16) && bias.Elems() == dst.Shape[1] && bias.Contiguous()) {
		mismatch(op, bias, dst)
	}
}

// biasAs returns a bias in another type, if need be in work space.
func (q *queue) biasAs(dt compute.DType, bias compute.Tensor) compute.Tensor {
	if bias.IsZero() || bias.DType == dt || q.err != nil {
		return bias
	}
	s := q.scratch(scratchBias, dt, 1, bias.Elems())
	if q.err != nil {
		return bias
	}
	s = s.Reshape(bias.Elems())
	q.Copy(s, bias)
	return s
}

// run starts a product, or writes it down in a batch.
func (q *queue) run(p *productPlan, o operands) {
	q.ops++
	if q.batch.open {
		q.batch.now.steps = append(q.batch.now.steps, step{kind: stepProduct, target: p.number, operands: o})
		return
	}
	if q.profile != nil {
		q.profiled(q.profile, opKey{name: p.text(), target: p.number})
	}
	q.fail("linear", q.drv.Multiply(p, o, q.work.ptr, q.stream))
}

// plainLinear runs the kernel of kernels/linear.
func (q *queue) plainLinear(dst, x compute.Tensor, m *matrix, bias compute.Tensor, act compute.Activation) {
	if bias = q.biasAs(compute.F32, bias); q.err != nil {
		return
	}
	a := &q.linearArgs
	*a = linearArgs{dst: address(dst), x: address(x), w: address(m.Tensor), bias: row("linear", bias, dst),
		dstStride: int64(stride(dst)), xStride: int64(stride(x)), rows: uint32(x.Shape[0]), in: uint32(x.Shape[1]), out: uint32(m.Shape[0]),
		act: uint32(act), dstHalf: half("linear", dst), xHalf: half("linear", x), wHalf: half("linear", m.Tensor)}
	const tile = 64
	grid := [3]uint32{uint32((m.Shape[0] + tile - 1) / tile), uint32((x.Shape[0] + tile - 1) / tile), 1}
	q.launch("linear", q.device.kernels.linear[0], grid, [3]uint32{256, 1, 1}, 0, argument(a))
}

// stride is the row stride; that of a single row may be anything and is taken as dense, which keeps cuBLASLt content.
func stride(t compute.Tensor) int {
	if t.Shape[0] == 1 {
		return t.Shape[1]
	}
	return t.Stride[0]
}

// alignment is the largest power of two up to 256 that divides the address.
func alignment(t compute.Tensor) int {
	at := address(t)
	return int(min(at&-at, 256))
}

// matrixText prints a matrix for a panic.
func matrixText(w compute.Matrix) string {
	if m, ok := w.(*matrix); ok {
		return m.Tensor.String()
	}
	return fmt.Sprintf("%T", w)
}
