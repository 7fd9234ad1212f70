package compute

import (
	"fmt"
	"math"
)

// DType is the element type of a Tensor.
type DType uint8

// Element types. BF16 is bfloat16 (the upper half of a float32), F16 is IEEE half, F8E4M3 and F8E5M2 are the OCP 8-bit floats.
const (
	F32 DType = iota
	BF16
	F16
	I32
	U8
	F64
	I64
	F8E4M3
	F8E5M2
)

var dtypes = [...]struct {
	name string
	size int
}{F32: {"f32", 4}, BF16: {"bf16", 2}, F16: {"f16", 2}, I32: {"i32", 4}, U8: {"u8", 1}, F64: {"f64", 8}, I64: {"i64", 8}, F8E4M3: {"f8e4m3", 1}, F8E5M2: {"f8e5m2", 1}}

// Size returns the bytes of one element.
func (d DType) Size() int { return dtypes[d].size }

// String returns the lower-case name, "bf16".
func (d DType) String() string {
	if int(d) >= len(dtypes) {
		return fmt.Sprintf("dtype(%d)", d)
	}
	return dtypes[d].name
}

// BF16FromF32 rounds to the nearest bfloat16, ties to even; a NaN stays a (quiet) NaN.
func BF16FromF32(x float32) uint16 {
	u := math.Float32bits(x)
	if u&0x7fffffff > 0x7f800000 {
		return uint16(u>>16) | 0x40
	}
	return uint16((u + 0x7fff + (u >> 16 & 1)) >> 16)
}

// F32FromBF16 widens exactly.
func F32FromBF16(x uint16) float32 { return math.Float32frombits(uint32(x) << 16) }

// F32FromF16 widens an IEEE half exactly.
func F32FromF16(h uint16) float32 {
	sign, exp, frac := uint32(h&0x8000)<<16, uint32(h>>10&0x1f), uint32(h&0x3ff)
	switch exp {
	case 0:
		v := float32(frac) * (1.0 / (1 << 24)) // subnormals: frac * 2^-24, exact in float32
		if sign != 0 {
			return -v
		}
		return v
	case 0x1f:
		return math.Float32frombits(sign | 0x7f800000 | frac<<13)
	}
	return math.Float32frombits(sign | (exp+112)<<23 | frac<<13)
}
