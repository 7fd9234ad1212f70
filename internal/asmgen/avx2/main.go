// Command avx2 writes kernels_avx2_amd64.s of compute/cpu.
package main

import (
	. "github.com/mmcloughlin/avo/build"

	"longtake/internal/asmgen/kernels"
)

func main() {
	ConstraintExpr("amd64,!purego")
	s := kernels.AVX2()
	s.Masks()
	for _, rows := range []int{6, 4, 2, 1} {
		s.Gemm(rows, 1, 2)
	}
	s.Gemm(1, 4, 2)
	s.Gemm(2, 2, 2)
	s.Gemm(3, 2, 2)
	s.Softmax()
	s.Each()
	s.Sums()
	s.Move()
	kernels.Noise()
	kernels.Pause()
	Generate()
}
