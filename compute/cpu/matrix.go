package cpu

import (
	"encoding/binary"
	"fmt"
	"math"
	"unsafe"

	"longtake/compute"
)

// matrix is a weight in panels: panel p holds columns (outputs) [p*panel, (p+1)*panel), row k of a panel follows row k-1.
// Outputs beyond the last are zero.
type matrix struct {
	class   *class
	out, in int
	mem     []byte
	p       unsafe.Pointer
}

// Dims returns the output and input widths.
func (m *matrix) Dims() (out, in int) { return m.out, m.in }

// panels counts the panels of a weight with so many outputs.
func (c *class) panels(out int) int { return (out + c.panel - 1) / c.panel }

// MatrixBytes returns the size of the packed panels.
func (d *Device) MatrixBytes(w compute.Host) int64 {
	return int64(d.class.panels(w.Shape[0])) * int64(d.class.panelBytes(w.Shape[1]))
}

// Matrix packs a weight for Linear. Data that does not fit the shape, or an unknown type, becomes the arena's error.
func (a *arena) Matrix(w compute.Host) compute.Matrix {
	if a.err != nil {
		return nil
	}
	if len(w.Shape) != 2 || w.Shape[0] < 0 || w.Shape[1] < 0 || len(w.Data) != w.Elems()*w.DType.Size() {
		a.err = fmt.Errorf("matrix of shape %v and type %v with %d bytes", w.Shape, w.DType, len(w.Data))
		return nil
	}
	read := reader(w.DType)
	if read == nil {
		a.err = fmt.Errorf("matrix of %v: %w", w.DType, compute.ErrUnsupported)
		return nil
	}
	m := &matrix{class: a.dev.class, out: w.Shape[0], in: w.Shape[1]}
	m.mem = a.take(a.dev.MatrixBytes(w))
	if a.err != nil {
		return nil
	}
	m.p = start(m.mem)
	a.mats = append(a.mats, m)
	m.class.pack(m, w, read)
	return m
}

// panelBytes16 is the size of a float32 panel of 16 outputs.
func panelBytes16(in int) int { return 16 * 4 * in }

// packPanels writes float32 panels.
func packPanels(m *matrix, w compute.Host, read func([]float32, []byte)) {
	if m.in == 0 {
		return
	}
	row, size, width := make([]float32, m.in), m.in*w.DType.Size(), m.class.panel
	for o := range m.out {
		read(row, w.Data[o*size:][:size])
		panel := f32s(unsafe.Add(m.p, o/width*width*m.in*4), width*m.in)[o%width:]
		for k, v := range row {
			panel[k*width] = v
		}
	}
}

// reader returns a function that widens little-endian elements, nil for types that weights cannot have.
func reader(dt compute.DType) func(dst []float32, src []byte) {
	switch dt {
	case compute.F32:
		return func(dst []float32, src []byte) {
			for i := range dst {
				dst[i] = math.Float32frombits(binary.LittleEndian.Uint32(src[4*i:]))
			}
		}
	case compute.BF16:
		return func(dst []float32, src []byte) {
			for i := range dst {
				dst[i] = compute.F32FromBF16(binary.LittleEndian.Uint16(src[2*i:]))
			}
		}
	case compute.F16:
		return func(dst []float32, src []byte) {
			for i := range dst {
				dst[i] = compute.F32FromF16(binary.LittleEndian.Uint16(src[2*i:]))
			}
		}
	}
	return nil
}
