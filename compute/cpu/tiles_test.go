package cpu

import (
	"testing"
	"unsafe"

	"longtake/compute"
)

// modelClass has the layouts of the class amx with kernels in plain Go, so that every machine tests them.
var modelClass = newModelClass()

func newModelClass() *class {
	c := *genericClass
	c.name, c.cache, c.panel, c.panelBytes, c.lanes = "amx-model", compute.BF16, tileSize, pairBytes, []int{32, 16}
	c.pack, c.linear = packPairs, runTiles
	c.tiles = &tileKernels{gemm32: func(a *tileArgs) { modelGemm(a, 32) }, gemm16: func(a *tileArgs) { modelGemm(a, 16) },
		softmax: modelSoftmax, pairRows: modelPairRows, turnRows: modelTurnRows}
	return &c
}

//go:nocheckptr
func modelGemm(g *tileArgs, rows int) {
	var sum [32][32]float32
	for b := range g.blocks {
		for r := range rows {
			if sum[r] = [32]float32{}; g.init != nil {
				sum[r] = *(*[32]float32)(unsafe.Add(g.init, (b*rows+r)*g.initRow))
			}
			a := u16s(unsafe.Add(g.a, (b*rows+r)*g.aRow), g.k*32)
			for k, v := range a {
				w := u16s(unsafe.Add(g.b, k/2*128), 64)
				for j := range sum[r] {
					sum[r][j] += compute.F32FromBF16(v) * compute.F32FromBF16(w[2*j+k%2])
				}
			}
		}
		for r := range rows {
			*(*[32]float32)(unsafe.Add(g.c, (b*rows+r)*g.cRow)) = sum[r]
		}
	}
}

func modelSoftmax(a *softmaxArgs) {
	if a.keys%4 != 0 {
		panic("not a multiple of four keys")
	}
	genericSoftmax(a)
	modelPairRows(a.out, a.stride, a.s, a.stride, a.keys/2)
}

func modelPairRows(dst unsafe.Pointer, dstStride int, x unsafe.Pointer, xStride int, pairs int) {
	for p := range pairs {
		to := u16s(unsafe.Add(dst, p*dstStride), 32)
		for odd := range 2 {
			for i, v := range f32s(unsafe.Add(x, (2*p+odd)*xStride), 16) {
				to[2*i+odd] = compute.BF16FromF32(v)
			}
		}
	}
}

func modelTurnRows(dst unsafe.Pointer, dstStride int, x unsafe.Pointer, xStride int, blocks int) {
	for r := range 32 {
		for c, v := range u16s(unsafe.Add(x, r*xStride), blocks*8) {
			*(*uint16)(unsafe.Add(dst, c*dstStride+r*2)) = v
		}
	}
}

func TestAMXRunsWhereTheProcessorHasIt(t *testing.T) {
	for _, name := range Kernels() {
		if name == "amx" {
			return // every other test ran it
		}
	}
	t.Skip("needs AMX (Sapphire Rapids and newer): its kernels were not run here, its layouts were, by the model")
}
