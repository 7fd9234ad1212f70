package kvcache

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"

	"longtake/compute"
)

// ErrNotFinite is wrapped by the error that Cache.Begin returns after a chunk with NaN or infinite keys.
var ErrNotFinite = errors.New("key is not a finite number")

// Guard finds keys that are not finite before they become history. The first one of a chunk counts. The zero value is ready.
type Guard struct{ err error }

// Check looks at the clean keys [heads, tokens, headDim] of a layer. Keys in host memory are all looked at. From other queues
// only the last layer's are fetched, since whatever is not finite in one layer makes all later ones so.
func (g *Guard) Check(dq compute.Queue, keys compute.Tensor, layer int, last bool, span Span) {
	if g.err != nil || keys.Elems() == 0 {
		return
	}
	mapper, ok := dq.(compute.Mapper)
	if !ok && !last {
		return
	}
	size, row := keys.DType.Size(), keys.Dim(2)
	var mem []byte
	if ok {
		mem = mapper.Map(keys)
	} else {
		mem = make([]byte, row*size)
	}
	for h := range keys.Dim(0) {
		for i := range keys.Dim(1) {
			b := mem
			if ok {
				b = mem[(h*keys.Stride[0]+i*keys.Stride[1])*size:][:row*size]
			} else {
				dq.Download(b, keys.Index(h).Index(i))
			}
			if !finite(b, keys.DType) {
				g.err = fmt.Errorf("latent frames %d to %d, layer %d, head %d, token %d: %w",
					span.Start, span.Start+span.Frames-1, layer, h, i, ErrNotFinite)
				return
			}
		}
	}
}

// finite multiplies by zero: only what is not finite leaves a NaN.
func finite(b []byte, dt compute.DType) bool {
	var sum float32
	if dt == compute.BF16 {
		for ; len(b) >= 2; b = b[2:] {
			sum += 0 * compute.F32FromBF16(binary.LittleEndian.Uint16(b))
		}
		return sum == 0
	}
	var other float32
	for ; len(b) >= 8; b = b[8:] {
		sum += 0 * math.Float32frombits(binary.LittleEndian.Uint32(b))
		other += 0 * math.Float32frombits(binary.LittleEndian.Uint32(b[4:]))
	}
	return sum+other == 0
}

// Bad reports whether the chunk must not become history.
func (g *Guard) Bad() bool { return g.err != nil }

// Take returns what was found and forgets it.
func (g *Guard) Take() error {
	err := g.err
	g.err = nil
	return err
}
