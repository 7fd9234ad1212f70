//go:build amd64 && !purego

package cpu

import "unsafe"

//go:generate go -C ../../internal/asmgen run ./avx2 -out ../../compute/cpu/kernels_avx2_amd64.s
//go:generate go -C ../../internal/asmgen run ./avx512 -out ../../compute/cpu/kernels_avx512_amd64.s
//go:generate go -C ../../internal/asmgen run ./amx amx/kernels.s.in ../../compute/cpu/kernels_amx_linux_amd64.s

// Go declarations of the assembly; internal/asmgen/kernels says what each does. Those on elements take any n, widen and
// narrow whole registers only.

func pause()
func peakAVX2(n int)

//go:noescape
func gemmAVX2V2R6(args *gemmArgs)

//go:noescape
func gemmAVX2V2R4(args *gemmArgs)

//go:noescape
func gemmAVX2V2R2(args *gemmArgs)

//go:noescape
func gemmAVX2V2R1(args *gemmArgs)

//go:noescape
func gemmAVX2V2R1P4(args *gemmArgs)

//go:noescape
func gemmAVX2V2R2P2(args *gemmArgs)

//go:noescape
func gemmAVX2V2R3P2(args *gemmArgs)

//go:noescape
func softmaxAVX2(args *softmaxArgs)

//go:noescape
func mixAVX2(dst, x, y unsafe.Pointer, n int, a, b float32)

//go:noescape
func scaleAVX2(dst, x unsafe.Pointer, n int, a float32)

//go:noescape
func clampAVX2(dst, x unsafe.Pointer, n int, lo, hi float32)

//go:noescape
func addAVX2(dst, x, y unsafe.Pointer, n int)

//go:noescape
func addGatedAVX2(dst, x, y, gate unsafe.Pointer, n int)

//go:noescape
func normAVX2(dst, x, scale, shift unsafe.Pointer, n int, mean, inv float32)

//go:noescape
func rotateAVX2(dst, x, turn unsafe.Pointer, n int)

//go:noescape
func reluAVX2(dst, x unsafe.Pointer, n int)

//go:noescape
func siluAVX2(dst, x unsafe.Pointer, n int)

//go:noescape
func geluAVX2(dst, x unsafe.Pointer, n int)

//go:noescape
func sumAVX2(x unsafe.Pointer, n int) float32

//go:noescape
func squaresAVX2(x unsafe.Pointer, n int, mean float32) float32

//go:noescape
func widenAVX2(dst, x unsafe.Pointer, n int)

//go:noescape
func narrowAVX2(dst, x unsafe.Pointer, n int)

//go:noescape
func scaleRowsAVX2(x unsafe.Pointer, stride int, f unsafe.Pointer, rows int)

//go:noescape
func transpose8AVX2(dst unsafe.Pointer, dstStride int, x unsafe.Pointer, xStride int, blocks int, f float32)

//go:noescape
func noiseAVX2(dst unsafe.Pointer, blocks int, first, chunk, step, seed uint64)
