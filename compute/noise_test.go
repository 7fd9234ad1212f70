package compute

import (
	"math"
	"math/rand/v2"
	"testing"
)

func TestPhiloxGivesTheKnownAnswersOfRandom123(t *testing.T) {
	for _, c := range []struct {
		ctr  [4]uint32
		key  [2]uint32
		want [4]uint32
	}{
		{want: [4]uint32{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
		{[4]uint32{1<<32 - 1, 1<<32 - 1, 1<<32 - 1, 1<<32 - 1}, [2]uint32{1<<32 - 1, 1<<32 - 1}, [4]uint32{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
		{[4]uint32{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, [2]uint32{0xa4093822, 0x299f31d0}, [4]uint32{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
	} {
		if got := philox(c.ctr, c.key); got != c.want {
			t.Errorf("philox(%x, %x) = %x, want %x", c.ctr, c.key, got, c.want)
		}
	}
}

func TestNoiseFunctionsAgreeWithTheMathPackage(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for range 200000 {
		x := (float64(rng.Uint32()) + 0.5) * 0x1p-32
		if got, want := logUniform(x), math.Log(x); math.Abs(got-want) > 4e-15*math.Max(1, math.Abs(want)) {
			t.Fatalf("logUniform(%v) = %v, want %v", x, got, want)
		}
		s, c := sinCosTurn(x)
		ws, wc := math.Sincos(2 * math.Pi * x)
		if math.Abs(s-ws) > 2e-15 || math.Abs(c-wc) > 2e-15 {
			t.Fatalf("sinCosTurn(%v) = %v %v, want %v %v", x, s, c, ws, wc)
		}
	}
}

func TestNoiseDoesNotDependOnHowItIsCut(t *testing.T) {
	key := NoiseKey{Seed: 1<<40 + 7, Chunk: 3, Step: 2}
	whole := make([]float32, 1001)
	FillNoise(whole, key, 0)
	parts := make([]float32, 1001)
	for lo := 0; lo < len(parts); {
		hi := min(lo+1+lo%7, len(parts))
		FillNoise(parts[lo:hi], key, uint64(lo))
		lo = hi
	}
	for i := range whole {
		if whole[i] != parts[i] {
			t.Fatalf("element %d: %v whole, %v in parts", i, whole[i], parts[i])
		}
	}
}

func TestNoiseHasTheMomentsOfAStandardNormal(t *testing.T) {
	x := make([]float32, 1<<20)
	FillNoise(x, NoiseKey{Seed: 5}, 0)
	var m1, m2, m3, m4 float64
	for _, v := range x {
		f := float64(v)
		m1, m2, m3, m4 = m1+f, m2+f*f, m3+f*f*f, m4+f*f*f*f
	}
	n := float64(len(x))
	for i, d := range []float64{m1 / n, m2/n - 1, m3 / n, m4/n - 3} {
		if math.Abs(d) > 0.02 {
			t.Errorf("moment %d is off by %v", i+1, d)
		}
	}
}

func TestHalfTypesRoundAndWiden(t *testing.T) {
	for _, c := range []struct {
		in  float32
		out uint16
	}{{1, 0x3f80}, {-2, 0xc000}, {1.00390625, 0x3f80}, {1.01171875, 0x3f82}, {float32(math.Inf(1)), 0x7f80}, {3.4028235e38, 0x7f80}} {
		if got := BF16FromF32(c.in); got != c.out {
			t.Errorf("BF16FromF32(%v) = %#x, want %#x", c.in, got, c.out)
		}
	}
	if n := F32FromBF16(BF16FromF32(float32(math.NaN()))); n == n {
		t.Errorf("NaN became %v", n)
	}
	for h, want := range map[uint16]float32{0x3c00: 1, 0xc000: -2, 0x0001: 0x1p-24, 0x03ff: 1023 * 0x1p-24, 0x0400: 0x1p-14, 0x7bff: 65504, 0x8000: 0} {
		if got := F32FromF16(h); got != want {
			t.Errorf("F32FromF16(%#x) = %v, want %v", h, got, want)
		}
	}
}

func TestTensorViews(t *testing.T) {
	x := NewTensor(nil, 0, F32, 6, 8)
	h := x.Heads(2)
	if h.Shape != [MaxRank]int{2, 6, 4} || h.Stride != [MaxRank]int{4, 8, 1} {
		t.Errorf("heads: %v", h)
	}
	s := h.Slice(1, 2, 5).Index(1)
	if s.Rank != 2 || s.Shape[0] != 3 || s.Offset != 2*8+4 || s.Contiguous() {
		t.Errorf("slice and index: %v offset %d", s, s.Offset)
	}
	if r := x.Slice(0, 1, 3).Reshape(4, 4); r.Offset != 8 || r.Elems() != 16 {
		t.Errorf("reshape: %v", r)
	}
	defer func() {
		if recover() == nil {
			t.Error("reshape of a strided view did not panic")
		}
	}()
	x.Slice(1, 0, 4).Reshape(24)
}
