package cuda

import (
	"encoding/binary"
	"math"
	"testing"

	"longtake/compute"
)

func TestNarrowRoundsAsBF16FromF32(t *testing.T) {
	const n = 1 << 16
	src, dst := make([]byte, 4*n), make([]byte, 2*n)
	for i := range n { // over all exponents, with NaN and infinity among them
		binary.LittleEndian.PutUint32(src[4*i:], uint32(i)<<16+uint32(i)*40503&0xffff)
	}
	fillPinned(dst, src, 4, 2, narrow)
	for i := range n {
		v := math.Float32frombits(binary.LittleEndian.Uint32(src[4*i:]))
		if got, want := binary.LittleEndian.Uint16(dst[2*i:]), compute.BF16FromF32(v); got != want {
			t.Fatalf("%v: %x, want %x", v, got, want)
		}
	}
}

func BenchmarkNarrow(b *testing.B) {
	src, dst := make([]byte, 4<<20), make([]byte, 2<<20)
	b.SetBytes(int64(len(src)))
	for range b.N {
		narrow(dst, src)
	}
}
