//go:build amd64 && !purego

package cpu

import (
	"unsafe"

	"golang.org/x/sys/cpu"

	"longtake/compute"
)

// classes lists what this machine can run, best first.
func classes() []*class {
	var all []*class
	if hasAVX512() && hasAMX() {
		all = append(all, amxClass)
	}
	if hasAVX512() {
		all = append(all, avx512Class)
	}
	if hasAVX2() {
		all = append(all, avx2Class)
	}
	return append(all, genericClass)
}

func hasAVX2() bool { return cpu.X86.HasAVX2 && cpu.X86.HasFMA && cpu.X86.HasBMI2 }

func hasAVX512() bool {
	return hasAVX2() && cpu.X86.HasAVX512F && cpu.X86.HasAVX512BW && cpu.X86.HasAVX512DQ && cpu.X86.HasAVX512VL
}

// rowKernel is a matrix kernel for blocks of so many rows.
type rowKernel struct {
	rows int
	run  func(g *gemmArgs)
}

// byRows covers any number of rows with kernels of falling height; the last has height 1.
func byRows(g *gemmArgs, rows int, kernels []rowKernel) {
	for i := range kernels {
		k := &kernels[i]
		n := rows / k.rows
		if n == 0 {
			continue
		}
		g.blocks = n
		k.run(g)
		if rows -= n * k.rows; rows == 0 {
			return
		}
		g.advance(n * k.rows)
	}
}

var avx2Class = &class{
	name: "avx2", cache: compute.F32, panel: 16, panelBytes: panelBytes16, lanes: []int{16},
	pack: packPanels, linear: runPanels,
	gemm:    func(g *gemmArgs, _, rows int) { byRows(g, rows, avx2Rows) },
	thin:    thinAVX2,
	softmax: softmaxAVX2,
	scaleRows: func(x unsafe.Pointer, stride int, f unsafe.Pointer, rows int) {
		if rows > 0 {
			scaleRowsAVX2(x, stride, f, rows)
		}
	},
	transpose16: transpose16AVX2,
	activate: func(dst, x unsafe.Pointer, n int, act compute.Activation) {
		switch act {
		case compute.GELU:
			geluAVX2(dst, x, n)
		case compute.SiLU:
			siluAVX2(dst, x, n)
		case compute.ReLU:
			reluAVX2(dst, x, n)
		default:
			genericActivate(dst, x, n, act)
		}
	},
	mix: mixAVX2, scale: scaleAVX2, clamp: clampAVX2, addGated: addGatedAVX2, add: addAVX2,
	widen: func(dst, x unsafe.Pointer, n int) {
		if whole := n &^ 7; whole > 0 {
			widenAVX2(dst, x, whole)
		}
		if n&7 > 0 { // a pointer behind the last element would be none
			genericWiden(unsafe.Add(dst, n&^7*4), unsafe.Add(x, n&^7*2), n&7)
		}
	},
	narrow: func(dst, x unsafe.Pointer, n int) {
		if whole := n &^ 7; whole > 0 {
			narrowAVX2(dst, x, whole)
		}
		if n&7 > 0 { // a pointer behind the last element would be none
			genericNarrow(unsafe.Add(dst, n&^7*2), unsafe.Add(x, n&^7*4), n&7)
		}
	},
	sum: sumAVX2, squares: squaresAVX2, norm: normAVX2, rotate: rotateAVX2, noise: fillNoiseAVX2,
}

var avx2Rows = []rowKernel{{6, gemmAVX2V2R6}, {4, gemmAVX2V2R4}, {2, gemmAVX2V2R2}, {1, gemmAVX2V2R1}}

// thinAVX2 keeps enough sums in flight for one to three rows by taking several panels at a time. The order of each sum is
// that of the other kernels.
func thinAVX2(g *gemmArgs, rows, panels int) int {
	g.blocks = 1
	switch {
	case rows == 1 && panels >= 4:
		gemmAVX2V2R1P4(g)
		return 4
	case rows == 2 && panels >= 2:
		gemmAVX2V2R2P2(g)
		return 2
	case rows == 3 && panels >= 2:
		gemmAVX2V2R3P2(g)
		return 2
	}
	return 0
}

// transpose16AVX2 leaves ragged pieces to plain Go.
func transpose16AVX2(dst unsafe.Pointer, dstStride int, x unsafe.Pointer, xStride int, rows, cols int, f float32) {
	if rows != 16 || cols%8 != 0 || cols == 0 {
		genericTranspose16(dst, dstStride, x, xStride, rows, cols, f)
		return
	}
	transpose8AVX2(dst, dstStride, x, xStride, cols/8, f)
	transpose8AVX2(unsafe.Add(dst, 32), dstStride, unsafe.Add(x, 8*xStride), xStride, cols/8, f)
}

// fillNoiseAVX2 does whole groups of 16 numbers and leaves the rest, or an odd start, to the definition.
func fillNoiseAVX2(dst []float32, key compute.NoiseKey, first uint64) {
	n := len(dst) &^ 15
	if first%4 != 0 || n == 0 {
		compute.FillNoise(dst, key, first)
		return
	}
	noiseAVX2(unsafe.Pointer(&dst[0]), n/16, first/4, uint64(key.Chunk), uint64(key.Step), key.Seed)
	compute.FillNoise(dst[n:], key, first+uint64(n))
}
