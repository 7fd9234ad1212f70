package cpu

import (
	"math"
	"runtime"
	"unsafe"

	"longtake/compute"
)

// genericClass is plain Go. Its matrix kernel keeps 2x4 or 4x4 sums in registers.
var genericClass = &class{
	name: "generic", cache: compute.F32, panel: 16, panelBytes: panelBytes16, lanes: []int{16},
	gemm: genericGemm, softmax: genericSoftmax, scaleRows: genericScaleRows, transpose16: genericTranspose16,
	activate: genericActivate, mix: genericMix, scale: genericScale, clamp: genericClamp, addGated: genericAddGated,
	add: genericAdd, widen: genericWiden, narrow: genericNarrow, sum: genericSum, squares: genericSquares,
	norm: genericNorm, rotate: genericRotate, noise: compute.FillNoise,
	pack: packPanels, linear: runPanels,
}

func f32at(p unsafe.Pointer, off int) float32 { return *(*float32)(unsafe.Add(p, off)) }

// manyRegisters says that sixteen sums fit the registers; the sixteen of amd64 hold eight.
const manyRegisters = runtime.GOARCH != "amd64" && runtime.GOARCH != "386"

func genericGemm(g *gemmArgs, width, rows int) {
	h := *g
	for rows > 0 {
		n := min(rows, 2)
		if manyRegisters && rows >= 4 {
			n = 4
		}
		for j := 0; j < width; j += 4 {
			switch n {
			case 4:
				gemm4x4(&h, width, j)
			case 2:
				gemm2x4(&h, width, j)
			default:
				gemm1x4(&h, width, j)
			}
		}
		if rows -= n; rows > 0 {
			h.advance(n)
		}
	}
}

// gemm4x4 does four rows and columns. The directive keeps race builds quick: they would check each address.
//
//go:nocheckptr
func gemm4x4(g *gemmArgs, width, j int) {
	i0 := (*[4]float32)(unsafe.Add(g.init, j*4))
	i1 := (*[4]float32)(unsafe.Add(g.init, j*4+g.initRow))
	i2 := (*[4]float32)(unsafe.Add(g.init, j*4+2*g.initRow))
	i3 := (*[4]float32)(unsafe.Add(g.init, j*4+3*g.initRow))
	c00, c01, c02, c03 := i0[0], i0[1], i0[2], i0[3]
	c10, c11, c12, c13 := i1[0], i1[1], i1[2], i1[3]
	c20, c21, c22, c23 := i2[0], i2[1], i2[2], i2[3]
	c30, c31, c32, c33 := i3[0], i3[1], i3[2], i3[3]
	for k := range g.k {
		b := (*[4]float32)(unsafe.Add(g.b, (k*width+j)*4))
		a := unsafe.Add(g.a, k*g.aCol)
		b0, b1, b2, b3 := b[0], b[1], b[2], b[3]
		x := f32at(a, 0)
		c00, c01, c02, c03 = c00+x*b0, c01+x*b1, c02+x*b2, c03+x*b3
		x = f32at(a, g.aRow)
		c10, c11, c12, c13 = c10+x*b0, c11+x*b1, c12+x*b2, c13+x*b3
		x = f32at(a, 2*g.aRow)
		c20, c21, c22, c23 = c20+x*b0, c21+x*b1, c22+x*b2, c23+x*b3
		x = f32at(a, 3*g.aRow)
		c30, c31, c32, c33 = c30+x*b0, c31+x*b1, c32+x*b2, c33+x*b3
	}
	*(*[4]float32)(unsafe.Add(g.c, j*4)) = [4]float32{c00, c01, c02, c03}
	*(*[4]float32)(unsafe.Add(g.c, j*4+g.cRow)) = [4]float32{c10, c11, c12, c13}
	*(*[4]float32)(unsafe.Add(g.c, j*4+2*g.cRow)) = [4]float32{c20, c21, c22, c23}
	*(*[4]float32)(unsafe.Add(g.c, j*4+3*g.cRow)) = [4]float32{c30, c31, c32, c33}
}

// gemm2x4 does two rows.
//
//go:nocheckptr
func gemm2x4(g *gemmArgs, width, j int) {
	i0 := (*[4]float32)(unsafe.Add(g.init, j*4))
	i1 := (*[4]float32)(unsafe.Add(g.init, j*4+g.initRow))
	c00, c01, c02, c03 := i0[0], i0[1], i0[2], i0[3]
	c10, c11, c12, c13 := i1[0], i1[1], i1[2], i1[3]
	a, aRow, aCol := g.a, g.aRow, g.aCol
	at, step := j*4, width*4
	for k := range g.k {
		b := (*[4]float32)(unsafe.Add(g.b, at))
		at += step
		x, y := f32at(a, k*aCol), f32at(a, k*aCol+aRow)
		c00 += x * b[0]
		c10 += y * b[0]
		c01 += x * b[1]
		c11 += y * b[1]
		c02 += x * b[2]
		c12 += y * b[2]
		c03 += x * b[3]
		c13 += y * b[3]
	}
	*(*[4]float32)(unsafe.Add(g.c, j*4)) = [4]float32{c00, c01, c02, c03}
	*(*[4]float32)(unsafe.Add(g.c, j*4+g.cRow)) = [4]float32{c10, c11, c12, c13}
}

// gemm1x4 does one row.
//
//go:nocheckptr
func gemm1x4(g *gemmArgs, width, j int) {
	i := (*[4]float32)(unsafe.Add(g.init, j*4))
	c0, c1, c2, c3 := i[0], i[1], i[2], i[3]
	for k := range g.k {
		b := (*[4]float32)(unsafe.Add(g.b, (k*width+j)*4))
		x := f32at(g.a, k*g.aCol)
		c0, c1, c2, c3 = c0+x*b[0], c1+x*b[1], c2+x*b[2], c3+x*b[3]
	}
	*(*[4]float32)(unsafe.Add(g.c, j*4)) = [4]float32{c0, c1, c2, c3}
}

func genericSoftmax(a *softmaxArgs) {
	top, sum, rescale := (*[16]float32)(a.max), (*[16]float32)(a.sum), (*[16]float32)(a.rescale)
	now := *top
	for j := range a.keys {
		c := float32(0)
		if a.count != nil {
			c = f32at(a.count, j*4)
		}
		s := (*[16]float32)(unsafe.Add(a.s, j*a.stride))
		for i := range s {
			s[i] += c
			if s[i] > now[i] {
				now[i] = s[i]
			}
		}
	}
	for i := range now {
		rescale[i] = exp(top[i] - now[i])
		if rescale[i] != 1 {
			a.changed = 1
		}
		sum[i] *= rescale[i]
	}
	*top = now
	for j := range a.keys {
		s := (*[16]float32)(unsafe.Add(a.s, j*a.stride))
		for i := range s {
			s[i] = exp(s[i] - now[i])
			sum[i] += s[i]
		}
	}
}

// Coefficients of 2^f = 1 + c1 f + ... + c6 f^6 for |f| <= 1/2: (2^f-1)/f interpolated at the Chebyshev nodes, relative error
// 5e-9 and, in float32, 7e-8. The constant is exactly 1, so that 2^0 = 1.
const (
	exp2c1 = 0.6931471824645996
	exp2c2 = 0.24022650718688965
	exp2c3 = 0.055503569543361664
	exp2c4 = 0.009618083015084267
	exp2c5 = 0.0013390863314270973
	exp2c6 = 0.00015453163359779865
)

// log2e is log2(e).
const log2e = 1.4426950408889634

// exp is e^x for x < 88 as 2^n 2^f; below -87.7 it is 0. The relative error is 1.5e-7 plus 6e-8 |x|. NaN stays NaN.
func exp(x float32) float32 {
	t := x * log2e
	if t < -127 {
		t = -127
	}
	n := float32(math.RoundToEven(float64(t)))
	f := t - n
	p := float32(exp2c6)
	p = p*f + exp2c5
	p = p*f + exp2c4
	p = p*f + exp2c3
	p = p*f + exp2c2
	p = p*f + exp2c1
	p = p*f + 1
	return p * math.Float32frombits(uint32(int32(n)+127)<<23)
}

func genericScaleRows(x unsafe.Pointer, stride int, f unsafe.Pointer, rows int) {
	factor := (*[16]float32)(f)
	for r := range rows {
		row := (*[16]float32)(unsafe.Add(x, r*stride))
		for i := range row {
			row[i] *= factor[i]
		}
	}
}

func genericTranspose16(dst unsafe.Pointer, dstStride int, x unsafe.Pointer, xStride int, rows, cols int, f float32) {
	for r := range rows {
		from := f32s(unsafe.Add(x, r*xStride), cols)
		for c, v := range from {
			*(*float32)(unsafe.Add(dst, c*dstStride+r*4)) = v * f
		}
	}
}

func genericActivate(dst, x unsafe.Pointer, n int, act compute.Activation) {
	d, v := f32s(dst, n), f32s(x, n)
	switch act {
	case compute.None:
		copy(d, v)
	case compute.GELU:
		for i, x := range v {
			// 0.5(1+tanh u) = 1/(1+e^-2u)
			u := 0.7978845608028654 * (float64(x) + 0.044715*float64(x)*float64(x)*float64(x))
			d[i] = float32(float64(x) / (1 + math.Exp(-2*u)))
		}
	case compute.SiLU:
		for i, x := range v {
			d[i] = float32(float64(x) / (1 + math.Exp(-float64(x))))
		}
	case compute.ReLU:
		for i, x := range v {
			if x < 0 {
				x = 0
			}
			d[i] = x
		}
	default:
		panic("cpu: unknown activation")
	}
}

func genericMix(dst, x, y unsafe.Pointer, n int, a, b float32) {
	d, u, v := f32s(dst, n), f32s(x, n), f32s(y, n)
	for i := range d {
		d[i] = a*u[i] + b*v[i]
	}
}

func genericScale(dst, x unsafe.Pointer, n int, a float32) {
	d, u := f32s(dst, n), f32s(x, n)
	for i := range d {
		d[i] = a * u[i]
	}
}

func genericClamp(dst, x unsafe.Pointer, n int, lo, hi float32) {
	d := f32s(dst, n)
	for i, v := range f32s(x, n) {
		if v < lo {
			v = lo
		}
		if v > hi {
			v = hi
		}
		d[i] = v
	}
}

func genericAddGated(dst, x, y, gate unsafe.Pointer, n int) {
	d, u, v, g := f32s(dst, n), f32s(x, n), f32s(y, n), f32s(gate, n)
	for i := range d {
		d[i] = u[i] + v[i]*g[i]
	}
}

func genericAdd(dst, x, y unsafe.Pointer, n int) {
	d, u, v := f32s(dst, n), f32s(x, n), f32s(y, n)
	for i := range d {
		d[i] = u[i] + v[i]
	}
}

func genericWiden(dst, x unsafe.Pointer, n int) {
	d := f32s(dst, n)
	for i, v := range u16s(x, n) {
		d[i] = compute.F32FromBF16(v)
	}
}

func genericNarrow(dst, x unsafe.Pointer, n int) {
	d := u16s(dst, n)
	for i, v := range f32s(x, n) {
		d[i] = compute.BF16FromF32(v)
	}
}

func genericSum(x unsafe.Pointer, n int) float32 {
	var s float64
	for _, v := range f32s(x, n) {
		s += float64(v)
	}
	return float32(s)
}

func genericSquares(x unsafe.Pointer, n int, mean float32) float32 {
	var s float64
	for _, v := range f32s(x, n) {
		d := float64(v - mean)
		s += d * d
	}
	return float32(s)
}

func genericNorm(dst, x, scale, shift unsafe.Pointer, n int, mean, inv float32) {
	d, v, a, b := f32s(dst, n), f32s(x, n), f32s(scale, n), f32s(shift, n)
	for i := range d {
		d[i] = (v[i]-mean)*inv*a[i] + b[i]
	}
}

func genericRotate(dst, x, turn unsafe.Pointer, n int) {
	d, v, t := f32s(dst, n), f32s(x, n), f32s(turn, n)
	for i := 0; i+1 < n; i += 2 {
		a, b, cos, sin := v[i], v[i+1], t[i], t[i+1]
		d[i], d[i+1] = a*cos-b*sin, a*sin+b*cos
	}
}
