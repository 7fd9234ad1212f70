//go:build amd64 && !purego

package cpu

import "unsafe"

// Go declarations of the AVX-512 assembly, see kernels_amd64.go.

//go:noescape
func gemmAVX512V4R6(args *gemmArgs)

//go:noescape
func gemmAVX512V4R4(args *gemmArgs)

//go:noescape
func gemmAVX512V4R3(args *gemmArgs)

//go:noescape
func gemmAVX512V4R2(args *gemmArgs)

//go:noescape
func gemmAVX512V4R1(args *gemmArgs)

//go:noescape
func gemmAVX512V2R12(args *gemmArgs)

//go:noescape
func gemmAVX512V2R8(args *gemmArgs)

//go:noescape
func gemmAVX512V2R4(args *gemmArgs)

//go:noescape
func gemmAVX512V2R2(args *gemmArgs)

//go:noescape
func gemmAVX512V2R1(args *gemmArgs)

//go:noescape
func gemmAVX512V1R12(args *gemmArgs)

//go:noescape
func gemmAVX512V1R8(args *gemmArgs)

//go:noescape
func gemmAVX512V1R4(args *gemmArgs)

//go:noescape
func gemmAVX512V1R2(args *gemmArgs)

//go:noescape
func gemmAVX512V1R1(args *gemmArgs)

//go:noescape
func softmaxAVX512(args *softmaxArgs)

//go:noescape
func mixAVX512(dst, x, y unsafe.Pointer, n int, a, b float32)

//go:noescape
func scaleAVX512(dst, x unsafe.Pointer, n int, a float32)

//go:noescape
func clampAVX512(dst, x unsafe.Pointer, n int, lo, hi float32)

//go:noescape
func addAVX512(dst, x, y unsafe.Pointer, n int)

//go:noescape
func addGatedAVX512(dst, x, y, gate unsafe.Pointer, n int)

//go:noescape
func normAVX512(dst, x, scale, shift unsafe.Pointer, n int, mean, inv float32)

//go:noescape
func rotateAVX512(dst, x, turn unsafe.Pointer, n int)

//go:noescape
func reluAVX512(dst, x unsafe.Pointer, n int)

//go:noescape
func siluAVX512(dst, x unsafe.Pointer, n int)

//go:noescape
func geluAVX512(dst, x unsafe.Pointer, n int)

//go:noescape
func sumAVX512(x unsafe.Pointer, n int) float32

//go:noescape
func squaresAVX512(x unsafe.Pointer, n int, mean float32) float32

//go:noescape
func widenAVX512(dst, x unsafe.Pointer, n int)

//go:noescape
func narrowAVX512(dst, x unsafe.Pointer, n int)

//go:noescape
func scaleRowsAVX512(x unsafe.Pointer, stride int, f unsafe.Pointer, rows int)

//go:noescape
func pairRowsAVX512(dst unsafe.Pointer, dstStride int, x unsafe.Pointer, xStride int, pairs int)

//go:noescape
func turnRowsAVX512(dst unsafe.Pointer, dstStride int, x unsafe.Pointer, xStride int, blocks int)
