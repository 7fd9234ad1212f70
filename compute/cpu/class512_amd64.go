//go:build amd64 && !purego

package cpu

import (
	"unsafe"

	"longtake/compute"
)

var avx512Class = &class{
	name: "avx512", cache: compute.F32, panel: 64, panelBytes: func(in int) int { return 64 * 4 * in }, lanes: []int{64, 32, 16},
	pack: packPanels, linear: runPanels,
	gemm: gemmAVX512, softmax: softmaxAVX512,
	scaleRows: func(x unsafe.Pointer, stride int, f unsafe.Pointer, rows int) {
		if rows > 0 {
			scaleRowsAVX512(x, stride, f, rows)
		}
	},
	transpose16: transpose16AVX2, activate: activateAVX512,
	mix: mixAVX512, scale: scaleAVX512, clamp: clampAVX512, addGated: addGatedAVX512, add: addAVX512,
	widen: widen512, narrow: narrow512,
	sum: sumAVX512, squares: squaresAVX512, norm: normAVX512, rotate: rotateAVX512, noise: fillNoiseAVX2,
}

var (
	avx512Rows64 = []rowKernel{{6, gemmAVX512V4R6}, {4, gemmAVX512V4R4}, {3, gemmAVX512V4R3}, {2, gemmAVX512V4R2}, {1, gemmAVX512V4R1}}
	avx512Rows32 = []rowKernel{{12, gemmAVX512V2R12}, {8, gemmAVX512V2R8}, {4, gemmAVX512V2R4}, {2, gemmAVX512V2R2}, {1, gemmAVX512V2R1}}
	avx512Rows16 = []rowKernel{{12, gemmAVX512V1R12}, {8, gemmAVX512V1R8}, {4, gemmAVX512V1R4}, {2, gemmAVX512V1R2}, {1, gemmAVX512V1R1}}
)

func gemmAVX512(g *gemmArgs, width, rows int) {
	switch width {
	case 64:
		byRows(g, rows, avx512Rows64)
	case 32:
		byRows(g, rows, avx512Rows32)
	default:
		byRows(g, rows, avx512Rows16)
	}
}

func activateAVX512(dst, x unsafe.Pointer, n int, act compute.Activation) {
	switch act {
	case compute.GELU:
		geluAVX512(dst, x, n)
	case compute.SiLU:
		siluAVX512(dst, x, n)
	case compute.ReLU:
		reluAVX512(dst, x, n)
	default:
		genericActivate(dst, x, n, act)
	}
}

func widen512(dst, x unsafe.Pointer, n int) {
	if whole := n &^ 15; whole > 0 {
		widenAVX512(dst, x, whole)
	}
	if n&15 > 0 { // a pointer behind the last element would be none
		genericWiden(unsafe.Add(dst, n&^15*4), unsafe.Add(x, n&^15*2), n&15)
	}
}

func narrow512(dst, x unsafe.Pointer, n int) {
	if whole := n &^ 15; whole > 0 {
		narrowAVX512(dst, x, whole)
	}
	if n&15 > 0 { // a pointer behind the last element would be none
		genericNarrow(unsafe.Add(dst, n&^15*2), unsafe.Add(x, n&^15*4), n&15)
	}
}
