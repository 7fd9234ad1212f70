//go:build amd64 && !purego

package cpu

import (
	"testing"
	"unsafe"
)

func TestAssemblyAgreesOnArgumentLayout(t *testing.T) {
	var g gemmArgs
	var s softmaxArgs
	for i, off := range []uintptr{unsafe.Offsetof(g.a), unsafe.Offsetof(g.aRow), unsafe.Offsetof(g.aCol), unsafe.Offsetof(g.b), unsafe.Offsetof(g.k),
		unsafe.Offsetof(g.c), unsafe.Offsetof(g.cRow), unsafe.Offsetof(g.init), unsafe.Offsetof(g.initRow), unsafe.Offsetof(g.blocks), unsafe.Offsetof(g.bPanel), unsafe.Offsetof(g.ahead), unsafe.Offsetof(g.aheadStep)} {
		if off != uintptr(8*i) {
			t.Errorf("field %d of gemmArgs lies at %d, internal/asmgen says %d", i, off, 8*i)
		}
	}
	var a tileArgs
	for i, off := range []uintptr{unsafe.Offsetof(a.a), unsafe.Offsetof(a.aRow), unsafe.Offsetof(a.b), unsafe.Offsetof(a.k), unsafe.Offsetof(a.c),
		unsafe.Offsetof(a.cRow), unsafe.Offsetof(a.init), unsafe.Offsetof(a.initRow), unsafe.Offsetof(a.blocks), unsafe.Offsetof(a.ahead)} {
		if off != uintptr(8*i) {
			t.Errorf("field %d of tileArgs lies at %d, kernels.s.in says %d", i, off, 8*i)
		}
	}
	for i, off := range []uintptr{unsafe.Offsetof(s.s), unsafe.Offsetof(s.stride), unsafe.Offsetof(s.keys), unsafe.Offsetof(s.count),
		unsafe.Offsetof(s.max), unsafe.Offsetof(s.sum), unsafe.Offsetof(s.rescale), unsafe.Offsetof(s.changed), unsafe.Offsetof(s.out), unsafe.Offsetof(s.ahead), unsafe.Offsetof(s.aheadStep)} {
		if off != uintptr(8*i) {
			t.Errorf("field %d of softmaxArgs lies at %d, internal/asmgen says %d", i, off, 8*i)
		}
	}
}

func BenchmarkPeak(b *testing.B) {
	if !hasAVX2() {
		b.Skip("needs AVX2, which all x86-64 processors since 2015 have")
	}
	const n = 100000
	measure(b, n*12*8*2, "GFLOP/s", func() { peakAVX2(n) })
}
