package cpu

import (
	"unsafe"

	"longtake/compute"
)

// vectors are a class's kernels for rows of the host.
type vectors struct{ class *class }

// Vectors returns kernels for short vectors, see compute.Vectorer.
func (q *Queue) Vectors() compute.Vectors { return vectors{q.class} }

func start32(x []float32) unsafe.Pointer { return unsafe.Pointer(unsafe.SliceData(x)) }

func (v vectors) Widen(dst []float32, x []uint16) {
	v.class.widen(start32(dst[:len(x)]), unsafe.Pointer(unsafe.SliceData(x)), len(x))
}

func (v vectors) Narrow(dst []uint16, x []float32) {
	v.class.narrow(unsafe.Pointer(unsafe.SliceData(dst[:len(x)])), start32(x), len(x))
}

func (v vectors) Mix(dst, x, y []float32, a, b float32) {
	v.class.mix(start32(dst[:len(x)]), start32(x), start32(y[:len(x)]), len(x), a, b)
}

func (v vectors) Scale(dst, x []float32, a float32) {
	v.class.scale(start32(dst[:len(x)]), start32(x), len(x), a)
}

func (v vectors) Turn(x, turns []float32) {
	v.class.rotate(start32(x[:len(turns)]), start32(x), start32(turns), len(turns))
}

func (v vectors) Squares(x []float32) float32 { return v.class.squares(start32(x), len(x), 0) }
