package world

import "math"

// f32 abbreviates float32. Written as a conversion around a product, f32(a*b) + c,
// it forbids the compiler to fuse the product with the sum: without it a world would
// differ between processors that fuse and those that do not.
type f32 = float32

// tau is a full turn as the trained simulator wrote it.
const tau f32 = 6.2831853

// headingAngle is the angle of one heading step, rounded to float32.
const headingAngle = tau / Headings

// headingSin and headingCos hold the direction of each heading.
var headingSin, headingCos = headingTables()

func headingTables() (sines, cosines [Headings]f32) {
	for h := range Headings {
		angle := f32(f32(h) * headingAngle)
		sines[h], cosines[h] = sin(angle), cos(angle)
	}
	return sines, cosines
}

// The elementary functions go through float64: the float32 result is then rounded
// once, whatever the platform's mathematics library does.

func sin(x f32) f32      { return f32(math.Sin(float64(x))) }
func cos(x f32) f32      { return f32(math.Cos(float64(x))) }
func exp(x f32) f32      { return f32(math.Exp(float64(x))) }
func sqrt(x f32) f32     { return f32(math.Sqrt(float64(x))) }
func atan2(y, x f32) f32 { return f32(math.Atan2(float64(y), float64(x))) }
func abs(x f32) f32      { return math.Float32frombits(math.Float32bits(x) &^ (1 << 31)) }

// floorInt rounds down; math.Floor costs more than this on every platform without
// a rounding instruction in its default feature level.
func floorInt(x f32) int {
	n := int(x)
	if f32(n) > x {
		n--
	}
	return n
}

// frac is the part of x above its floor, in [0, 1].
func frac(x f32) f32 { return x - f32(floorInt(x)) }

// ease is the cubic 3t^2 - 2t^3.
func ease(t f32) f32 { return f32(f32(t*t) * (3 - f32(2*t))) }

// smoothStep rises from 0 at a to 1 at b.
func smoothStep(a, b, x f32) f32 { return ease(clamp01((x - a) / (b - a))) }

func clamp01(t f32) f32 {
	if t < 0 {
		return 0
	}
	if t > 1 {
		return 1
	}
	return t
}
