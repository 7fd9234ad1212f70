package cpu

import "unsafe"

// scratch is one goroutine's working memory. It only grows, so that nothing is allocated in steady state.
type scratch struct {
	slots [numSlots][]byte
	gemm  gemmArgs
	soft  softmaxArgs
	tile  tileArgs
	parts []part
}

// slot names one piece of a scratch; pieces with different names never overlap.
type slot int

const (
	slotX slot = iota // operands widened to float32
	slotY
	slotWhole // an operand widened as a whole, by the caller
	slotOut   // results before they are narrowed or cut
	slotScale // folded parameters of Norm, rotation factors of Rope
	slotShift
	slotQuery // attention: scaled queries, one column each
	slotLogit // attention: logits, then probabilities
	slotAcc   // attention: weighted sums
	slotStat  // attention: running maximum, sum and rescaling of each query
	slotCount // attention: LogCount of the block
	slotKey   // attention: keys widened to float32
	slotValue
	slotPairs  // class amx: queries as words
	slotTurned // class amx: values transposed
	slotProb   // class amx: probabilities as words
	numSlots
)

func newScratch() *scratch { return &scratch{} }

// bytes returns at least n bytes, 64-byte aligned, with whatever was there before.
func (s *scratch) bytes(k slot, n int) unsafe.Pointer {
	if len(s.slots[k]) < n {
		s.slots[k] = alignedBytes(n + n/4)
	}
	return unsafe.Pointer(unsafe.SliceData(s.slots[k]))
}

// floats returns room for n float32.
func (s *scratch) floats(k slot, n int) unsafe.Pointer { return s.bytes(k, 4*n) }

// alignedBytes returns n zeroed bytes of the Go heap that start 64-byte aligned.
func alignedBytes(n int) []byte {
	b := make([]byte, n+64)
	skip := -int(uintptr(unsafe.Pointer(unsafe.SliceData(b)))) & 63
	return b[skip : skip+n : skip+n]
}

// f32s views memory as float32.
func f32s(p unsafe.Pointer, n int) []float32 { return unsafe.Slice((*float32)(p), n) }

// u16s views memory as bfloat16 bits.
func u16s(p unsafe.Pointer, n int) []uint16 { return unsafe.Slice((*uint16)(p), n) }

// i32s views memory as int32.
func i32s(p unsafe.Pointer, n int) []int32 { return unsafe.Slice((*int32)(p), n) }
