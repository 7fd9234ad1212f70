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

// Guard finds keys that are not finite before they become history. The first one of a chunk counts.
type Guard struct {
	err error

	// Of queues whose memory is elsewhere: attention with queries of zeros over the last layer's keys, [heads, 1, headDim] in the
	// keys' type, which is what matrix units take, is not finite if any of them is not.
	zeros, sums compute.Tensor
	ready       bool
	pending     compute.Queue // holds sums of span
	layer       int
	span        Span
}

// Allocate takes the little memory of a Guard.
func (g *Guard) Allocate(a compute.Arena, s Shape) {
	g.zeros, g.sums = a.Tensor(s.DType, s.Heads, 1, s.HeadDim), a.Tensor(s.DType, s.Heads, 1, s.HeadDim)
}

// Check looks at the clean keys [heads, tokens, headDim] of a layer. In host memory all are looked at. Other queues look at the
// last layer's, without waiting, since whatever is not finite in one layer makes all later ones so; Bad waits for it.
func (g *Guard) Check(dq compute.Queue, keys compute.Tensor, layer int, last bool, span Span) {
	if g.err != nil || keys.Elems() == 0 {
		return
	}
	mapper, ok := dq.(compute.Mapper)
	if !ok {
		if last {
			g.sum(dq, keys)
			g.layer, g.span = layer, span
		}
		return
	}
	size, row := keys.DType.Size(), keys.Dim(2)
	mem := mapper.Map(keys)
	for h := range keys.Dim(0) {
		for i := range keys.Dim(1) {
			if !finite(mem[(h*keys.Stride[0]+i*keys.Stride[1])*size:][:row*size], keys.DType) {
				g.err = fmt.Errorf("latent frames %d to %d, layer %d, head %d, token %d: %w",
					span.Start, span.Start+span.Frames-1, layer, h, i, ErrNotFinite)
				return
			}
		}
	}
}

func (g *Guard) sum(dq compute.Queue, keys compute.Tensor) {
	if !g.ready {
		dq.Upload(g.zeros, make([]byte, g.zeros.Bytes()))
		g.ready = true
	}
	dq.Attend(g.sums, g.zeros, keys, keys, compute.Attention{Scale: 1})
	g.pending = dq
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
func (g *Guard) Bad() bool {
	if g.pending != nil {
		b := make([]byte, g.sums.Bytes())
		g.pending.Download(b, g.sums)
		if g.pending.Err() == nil && !finite(b, g.sums.DType) {
			g.err = fmt.Errorf("latent frames %d to %d, layer %d: %w", g.span.Start, g.span.Start+g.span.Frames-1, g.layer, ErrNotFinite)
		}
		g.pending = nil
	}
	return g.err != nil
}

// Take returns what was found and forgets it.
func (g *Guard) Take() error {
	err := g.err
	g.err, g.pending = nil, nil
	return err
}
