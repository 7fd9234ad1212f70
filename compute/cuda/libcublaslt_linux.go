//go:build linux && (amd64 || arm64) && !nocuda

package cuda

import (
	"fmt"
	"runtime"
	"unsafe"

	"github.com/ebitengine/purego"

	"longtake/compute"
)

// Numbers of cublasLt.h and library_types.h.
const (
	ltNotSupported  = 15
	ltCompute32F    = 68
	ltReal32F       = 0
	ltReal16BF      = 14
	ltReal8E4M3     = 28
	ltDescScaleA    = 17 // then B
	ltDescModeA     = 31 // then B
	ltModeRows      = 3  // CUBLASLT_MATMUL_MATRIX_SCALE_OUTER_VEC_32F
	ltDescTransA    = 3
	ltDescEpilogue  = 7
	ltDescBias      = 8
	ltDescFastSums  = 25 // CUBLASLT_MATMUL_DESC_FAST_ACCUM
	ltDescBiasType  = 26
	ltPrefWorkspace = 1
	ltPrefAlignA    = 5 // then B, C, D
	ltEpilogueNone  = 1
	ltEpilogueBias  = 4
	ltEpilogueReLU  = 2
	ltEpilogueGELU  = 32
)

func openCUBLASLt(l library) (*sharedLibrary, error) {
	return openLibrary(l, "cublasLtCreate", "cublasLtDestroy", "cublasLtMatmul", "cublasLtMatmulDescCreate",
		"cublasLtMatmulDescDestroy", "cublasLtMatmulDescSetAttribute", "cublasLtMatrixLayoutCreate", "cublasLtMatrixLayoutDestroy",
		"cublasLtMatmulPreferenceCreate", "cublasLtMatmulPreferenceDestroy", "cublasLtMatmulPreferenceSetAttribute",
		"cublasLtMatmulAlgoGetHeuristic")
}

// ltCall runs a function of cuBLASLt in the GPU's context.
//
//go:uintptrescapes
func (d *gpu) ltCall(name string, args ...uintptr) error {
	defer runtime.UnlockOSThread()
	if r := d.current(); r != 0 {
		return d.cuda.check("cuCtxSetCurrent", r)
	}
	r, _, _ := purego.SyscallN(d.lt.functions[name], args...)
	return ltCheck(name, r)
}

func ltCheck(name string, result uintptr) error {
	if code := int32(result); code != 0 {
		return &Error{Call: name, Code: int(code), Text: "cublasStatus_t"}
	}
	return nil
}

// NewProduct describes dst[rows, out] = x[rows, in] W[out, in]ᵀ to a library that thinks in columns: dstᵀ = Wᵀᵀ xᵀ with W
// as a column-major [in, out] taken transposed, xᵀ [in, rows] and dstᵀ [out, rows] as they lie.
func (d *gpu) NewProduct(p product) (*productPlan, error) {
	if compute.Activation(p.act) == compute.SiLU {
		return nil, fmt.Errorf("cuda: cuBLASLt has no SiLU epilogue")
	}
	plan := &productPlan{product: p, one: 1}
	var preference uintptr
	steps := append(d.describeProduct(plan),
		func() error {
			return d.ltCall("cublasLtMatmulPreferenceCreate", uintptr(unsafe.Pointer(&preference)))
		},
		func() error { return d.prefer(preference, ltPrefWorkspace, unsafe.Pointer(&p.workspaceBytes), 8) })
	for i, align := range []int{p.wAlign, p.xAlign, p.dstAlign, p.dstAlign} {
		steps = append(steps, func() error {
			v := uint32(align)
			return d.prefer(preference, uintptr(ltPrefAlignA+i), unsafe.Pointer(&v), 4)
		})
	}
	var found int32
	answers := make([][12]uint64, p.choice+1)
	steps = append(steps, func() error {
		return d.ltCall("cublasLtMatmulAlgoGetHeuristic", d.handle, plan.descriptor, plan.a, plan.b, plan.c, plan.c, preference,
			uintptr(len(answers)), uintptr(unsafe.Pointer(&answers[0])), uintptr(unsafe.Pointer(&found)))
	})
	err := inOrder(steps)
	if preference != 0 {
		d.ltCall("cublasLtMatmulPreferenceDestroy", preference)
	}
	if e, ok := err.(*Error); ok && e.Code == ltNotSupported {
		err, found = nil, 0
	}
	if err != nil || int(found) <= p.choice {
		d.FreeProduct(plan)
		return nil, err
	}
	plan.algorithm = answers[p.choice]
	return plan, nil
}

// describeProduct lists the steps that make a plan's descriptor and layouts.
func (d *gpu) describeProduct(plan *productPlan) []func() error {
	typeOf := func(half bool) uintptr {
		if half {
			return ltReal16BF
		}
		return ltReal32F
	}
	epilogue, transposed, biasType := int32(ltEpilogueNone), int32(1), int32(typeOf(plan.biasHalf))
	switch compute.Activation(plan.act) {
	case compute.GELU:
		epilogue = ltEpilogueGELU
	case compute.ReLU:
		epilogue = ltEpilogueReLU
	}
	if plan.bias {
		epilogue = epilogue&^ltEpilogueNone | ltEpilogueBias
	}
	operand, p := typeOf(plan.half), plan.product
	if p.fp8 != NoFP8 {
		operand = ltReal8E4M3
	}
	steps := []func() error{
		func() error {
			return d.ltCall("cublasLtMatmulDescCreate", uintptr(unsafe.Pointer(&plan.descriptor)), ltCompute32F, ltReal32F)
		},
		func() error { return d.describe(plan, ltDescTransA, unsafe.Pointer(&transposed), 4) },
		func() error { return d.describe(plan, ltDescEpilogue, unsafe.Pointer(&epilogue), 4) },
		func() error { return d.layout(&plan.a, operand, p.in, p.out, p.in) },
		func() error { return d.layout(&plan.b, operand, p.in, p.rows, p.xStride) },
		func() error { return d.layout(&plan.c, typeOf(p.dstHalf), p.out, p.rows, p.dstStride) },
	}
	if p.fp8 == FP8Rows {
		for i := range uintptr(2) {
			mode := int32(ltModeRows)
			steps = append(steps, func() error { return d.describe(plan, ltDescModeA+i, unsafe.Pointer(&mode), 4) })
		}
	}
	if p.fp8 != NoFP8 { // sums stay in the matrix units, which keep 14 bits of them (e4m3 keeps 4 of an operand); the library wants to know that there will be scales
		fast := int8(1)
		steps = append(steps, func() error { return d.describe(plan, ltDescFastSums, unsafe.Pointer(&fast), 1) })
		plan.given.xScale, plan.given.wScale = 1<<20, 1<<20
		for i, at := range [2]*uint64{&plan.given.wScale, &plan.given.xScale} {
			steps = append(steps, func() error { return d.describe(plan, uintptr(ltDescScaleA+i), unsafe.Pointer(at), 8) })
		}
	}
	if plan.bias {
		steps = append(steps, func() error { return d.describe(plan, ltDescBiasType, unsafe.Pointer(&biasType), 4) })
	}
	return steps
}

func inOrder(steps []func() error) error {
	for _, s := range steps {
		if err := s(); err != nil {
			return err
		}
	}
	return nil
}

func (d *gpu) describe(p *productPlan, attr uintptr, value unsafe.Pointer, bytes uintptr) error {
	return d.ltCall("cublasLtMatmulDescSetAttribute", p.descriptor, attr, uintptr(value), bytes)
}

func (d *gpu) prefer(preference, attr uintptr, value unsafe.Pointer, bytes uintptr) error {
	return d.ltCall("cublasLtMatmulPreferenceSetAttribute", preference, attr, uintptr(value), bytes)
}

func (d *gpu) layout(to *uintptr, dtype uintptr, rows, columns, stride int) error {
	return d.ltCall("cublasLtMatrixLayoutCreate", uintptr(unsafe.Pointer(to)), dtype, uintptr(rows), uintptr(columns), uintptr(stride))
}

func (d *gpu) FreeProduct(p *productPlan) {
	if p.descriptor != 0 {
		d.ltCall("cublasLtMatmulDescDestroy", p.descriptor)
	}
	for _, l := range []uintptr{p.a, p.b, p.c} {
		if l != 0 {
			d.ltCall("cublasLtMatrixLayoutDestroy", l)
		}
	}
}

func (d *gpu) Multiply(p *productPlan, o operands, workspace uint64, stream uintptr) error {
	r := d.current()
	if r != 0 {
		runtime.UnlockOSThread()
		return d.cuda.check("cuCtxSetCurrent", r)
	}
	defer runtime.UnlockOSThread()
	g := &p.given
	for _, a := range [3]struct {
		name    uintptr
		now, to *uint64
	}{{ltDescBias, &o.bias, &g.bias}, {ltDescScaleA, &o.wScale, &g.wScale}, {ltDescScaleA + 1, &o.xScale, &g.xScale}} {
		if *a.now == 0 || *a.now == *a.to {
			continue
		}
		*a.to = *a.now
		if r, _, _ = purego.SyscallN(d.ltAttr, p.descriptor, a.name, uintptr(unsafe.Pointer(a.to)), 8); int32(r) != 0 {
			return ltCheck("cublasLtMatmulDescSetAttribute", r)
		}
	}
	p.raw = [16]uintptr{d.handle, p.descriptor, uintptr(unsafe.Pointer(&p.one)), uintptr(o.w), p.a, uintptr(o.x), p.b,
		uintptr(unsafe.Pointer(&p.zero)), uintptr(o.dst), p.c, uintptr(o.dst), p.c, uintptr(unsafe.Pointer(&p.algorithm[0])),
		uintptr(workspace), uintptr(p.workspaceBytes), stream}
	r, _, _ = purego.SyscallN(d.ltMatmul, p.raw[:]...)
	runtime.KeepAlive(p)
	return ltCheck("cublasLtMatmul", r)
}
