package tempcache

import (
	"math"
	"unsafe"

	"longtake/compute"
	"longtake/kvcache"
)

// turns holds the rotations of the tokens of one latent frame, (cos, sin) for every pair of a head, as compute.Rope has them.
type turns struct {
	shape  kvcache.Shape
	do     compute.Vectors
	frame  int
	freq   []float64 // of the temporal pairs
	time   []float32 // [temporal pairs, 2]
	places []float32 // [tokens, spatial pairs, 2]
}

func newTurns(s kvcache.Shape, do compute.Vectors) turns {
	t := turns{shape: s, do: do, frame: -1, time: make([]float32, 2*s.Pairs[0])}
	for j := range s.Pairs[0] {
		t.freq = append(t.freq, math.Pow(s.Theta[0], -float64(j)/float64(s.Pairs[0])))
	}
	for i := range s.Tokens() {
		for axis, at := range [3]int{0, i / s.Columns, i % s.Columns} {
			for j := range s.Pairs[axis] {
				if cos, sin := s.Turn(axis, at, j); axis > 0 {
					t.places = append(t.places, cos, sin)
				}
			}
		}
	}
	return t
}

// at sets the time.
func (t *turns) at(frame int) {
	if frame == t.frame {
		return
	}
	t.frame = frame
	for j, f := range t.freq {
		sin, cos := math.Sincos(float64(frame) * f)
		t.time[2*j], t.time[2*j+1] = float32(cos), float32(sin)
	}
}

// place returns the spatial turns of a token.
func (t *turns) place(token int) []float32 {
	n := t.shape.HeadDim - len(t.time)
	return t.places[token*n:][:n]
}

// whole rotates a head's vector in time and place, spatial in place alone, unturn backwards in time, and in place if asked.
func (t *turns) whole(x []float32, token int) {
	t.do.Turn(x, t.time)
	t.spatial(x, token)
}

func (t *turns) spatial(x []float32, token int) { t.do.Turn(x[len(t.time):], t.place(token)) }

func (t *turns) unturn(x []float32, token int, place bool) {
	turnBack(x, t.time)
	if place {
		turnBack(x[len(t.time):], t.place(token))
	}
}

// turnBack rotates pairs of adjacent elements backwards.
func turnBack(x, by []float32) {
	x = x[:len(by)]
	for i := 0; i+1 < len(by); i += 2 {
		a, b, cos, sin := x[i], x[i+1], by[i], -by[i+1]
		x[i], x[i+1] = a*cos-b*sin, a*sin+b*cos
	}
}

// floats views bytes as float32, ints as int32, words as bfloat16. The memory of tensors is aligned.
func floats(b []byte) []float32 {
	if len(b) == 0 {
		return nil
	}
	return unsafe.Slice((*float32)(unsafe.Pointer(unsafe.SliceData(b))), len(b)/4)
}

func words(b []byte) []uint16 {
	if len(b) == 0 {
		return nil
	}
	return unsafe.Slice((*uint16)(unsafe.Pointer(unsafe.SliceData(b))), len(b)/2)
}

func ints(b []byte) []int32 {
	if len(b) == 0 {
		return nil
	}
	return unsafe.Slice((*int32)(unsafe.Pointer(unsafe.SliceData(b))), len(b)/4)
}
