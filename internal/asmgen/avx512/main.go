// Command avx512 writes kernels_avx512_amd64.s of compute/cpu.
package main

import (
	. "github.com/mmcloughlin/avo/build"

	"longtake/internal/asmgen/kernels"
)

func main() {
	ConstraintExpr("amd64,!purego")
	s := kernels.AVX512()
	s.Masks()
	for _, k := range [][2]int{{6, 4}, {4, 4}, {3, 4}, {2, 4}, {1, 4}, {12, 2}, {8, 2}, {4, 2}, {2, 2}, {1, 2}, {12, 1}, {8, 1}, {4, 1}, {2, 1}, {1, 1}} {
		s.Gemm(k[0], 1, k[1])
	}
	s.Softmax()
	s.Each()
	s.Sums()
	s.Move()
	Generate()
}
