package compute

import (
	"math"
	"math/bits"
)

// NoiseKey names one draw of noise. Elements of a draw are numbered from 0, and each depends on the key and its number alone:
// not on threads, device or tensor shape.
type NoiseKey struct {
	Seed  uint64
	Chunk uint32 // which chunk of the session
	Step  uint32 // which draw within the chunk
}

// FillNoise writes the standard normal numbers first, first+1, ... of a draw. This is the definition that devices follow bit
// for bit: Philox4x32-10 (Salmon et al., SC 2011) with counter (n/4 low, n/4 high, Chunk, Step) and key Seed, each pair of
// 32-bit words turned into two normals by Box-Muller in float64, using only + - * / and sqrt of IEEE 754 in the written
// order, then rounded to float32. Products are rounded before they are added (no fused multiply-add).
func FillNoise(dst []float32, key NoiseKey, first uint64) {
	for len(dst) > 0 {
		n := first / 4
		w := philox([4]uint32{uint32(n), uint32(n >> 32), key.Chunk, key.Step}, [2]uint32{uint32(key.Seed), uint32(key.Seed >> 32)})
		a, b := boxMuller(w[0], w[1])
		c, d := boxMuller(w[2], w[3])
		four := [4]float32{a, b, c, d}
		k := copy(dst, four[first%4:])
		dst, first = dst[k:], first+uint64(k)
	}
}

// philox is Philox4x32 with 10 rounds; checked against the known answers of Random123.
func philox(c [4]uint32, k [2]uint32) [4]uint32 {
	for range 10 {
		h0, l0 := bits.Mul32(0xD2511F53, c[0])
		h1, l1 := bits.Mul32(0xCD9E8D57, c[2])
		c = [4]uint32{h1 ^ c[1] ^ k[0], l1, h0 ^ c[3] ^ k[1], l0}
		k[0] += 0x9E3779B9
		k[1] += 0xBB67AE85
	}
	return c
}

// boxMuller maps two words to two independent standard normals.
func boxMuller(u, v uint32) (float32, float32) {
	r := math.Sqrt(-2 * logUniform((float64(u)+0.5)*0x1p-32))
	s, c := sinCosTurn(float64(v) * 0x1p-32)
	return float32(r * c), float32(r * s)
}

// logUniform is ln(x) for normal x in (0, 1), within 1e-15 of the truth, by ln m = 2 atanh((m-1)/(m+1)), m in [sqrt(1/2), sqrt(2)).
func logUniform(x float64) float64 {
	u := math.Float64bits(x)
	e := int(u>>52) - 1022
	m := math.Float64frombits(u&(1<<52-1) | 1022<<52) // [0.5, 1)
	if m < 0.7071067811865476 {
		m *= 2
		e--
	}
	f := (m - 1) / (m + 1)
	s := f * f
	p := 1.0 / 21
	for _, c := range [...]float64{1.0 / 19, 1.0 / 17, 1.0 / 15, 1.0 / 13, 1.0 / 11, 1.0 / 9, 1.0 / 7, 1.0 / 5, 1.0 / 3, 1} {
		p = float64(p*s) + c
	}
	return float64(float64(e)*0.6931471805599453) + float64(2*float64(f*p))
}

// sinCosTurn returns sine and cosine of x turns, x in [0, 1), within 1e-15.
func sinCosTurn(x float64) (float64, float64) {
	q := math.Floor(float64(4*x) + 0.5)
	a := (float64(4*x) - q) * 1.5707963267948966 // [-pi/4, pi/4]
	z := a * a
	s := -1.0 / 1307674368000
	for _, c := range [...]float64{1.0 / 6227020800, -1.0 / 39916800, 1.0 / 362880, -1.0 / 5040, 1.0 / 120, -1.0 / 6, 1} {
		s = float64(s*z) + c
	}
	s *= a
	c := 1.0 / 20922789888000
	for _, k := range [...]float64{-1.0 / 87178291200, 1.0 / 479001600, -1.0 / 3628800, 1.0 / 40320, -1.0 / 720, 1.0 / 24, -1.0 / 2, 1} {
		c = float64(c*z) + k
	}
	switch int(q) & 3 {
	case 1:
		return c, -s
	case 2:
		return -s, -c
	case 3:
		return -c, s
	}
	return s, c
}
