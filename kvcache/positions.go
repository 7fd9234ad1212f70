package kvcache

import (
	"encoding/binary"
	"math"

	"longtake/compute"
)

// Positions holds the rotation tables of a session and the positions of the chunk in work. Angles are computed in float64,
// so that positions have no practical limit (a table of 1024 rows ends Wan's rollouts at 256 s).
type Positions struct {
	shape Shape
	rope  compute.Rope
	chunk compute.Tensor // I32 [tokens, 3]
	ring  int            // rows of the time table
	next  int            // first latent frame without a row
	host  []byte
}

// NewPositions allocates the tables of row and column, and a ring of time rows long enough for the clamp and a chunk.
// The tables of rows and columns are written through dq; with a nil queue (a compute.Meter) nothing is written.
func NewPositions(a compute.Arena, dq compute.Queue, s Shape) *Positions {
	p := &Positions{shape: s, ring: s.Clamp + 2*s.ChunkFrames + 1}
	p.rope.Time = a.Tensor(compute.F32, p.ring, s.Pairs[0], 2)
	p.rope.Row = table(a, dq, s, 1, s.Rows)
	p.rope.Column = table(a, dq, s, 2, s.Columns)
	p.chunk = a.Tensor(compute.I32, s.ChunkFrames*s.Tokens(), 3)
	p.host = make([]byte, max(s.Pairs[0]*8, s.ChunkFrames*s.Tokens()*12))
	p.rope.MinTime = math.MinInt32
	return p
}

// table holds the turns of an axis.
func table(a compute.Arena, dq compute.Queue, s Shape, axis, positions int) compute.Tensor {
	t := a.Tensor(compute.F32, positions, max(s.Pairs[axis], 1), 2)
	if s.Pairs[axis] == 0 {
		return compute.Tensor{}
	}
	if dq != nil && a.Err() == nil {
		b := make([]byte, 0, t.Bytes())
		for p := range positions {
			b = s.appendTurns(b, axis, p)
		}
		dq.Upload(t, b)
	}
	return t
}

// appendTurns appends the turns of all pairs of an axis.
func (s Shape) appendTurns(b []byte, axis, position int) []byte {
	for j := range s.Pairs[axis] {
		cos, sin := s.Turn(axis, position, j)
		b = binary.LittleEndian.AppendUint32(b, math.Float32bits(cos))
		b = binary.LittleEndian.AppendUint32(b, math.Float32bits(sin))
	}
	return b
}

// Begin writes the time rows up to the end of span and the positions of its tokens.
func (p *Positions) Begin(dq compute.Queue, span Span) {
	for ; p.next < span.Start+span.Frames; p.next++ {
		b := p.shape.appendTurns(p.host[:0], 0, p.next)
		dq.Upload(p.rope.Time.Slice(0, p.next%p.ring, p.next%p.ring+1), b)
	}
	b := p.host[:0]
	for f := range span.Frames {
		b = p.appendFrame(b, span.Start+f)
	}
	dq.Upload(p.chunk.Slice(0, 0, span.Frames*p.shape.Tokens()), b)
	p.rope.MinTime = math.MinInt32
	if p.shape.Clamp > 0 {
		p.rope.MinTime = span.Start - p.shape.Clamp
	}
}

func (p *Positions) appendFrame(b []byte, frame int) []byte {
	for row := range p.shape.Rows {
		for column := range p.shape.Columns {
			for _, v := range [3]int{frame, row, column} {
				b = binary.LittleEndian.AppendUint32(b, uint32(int32(v)))
			}
		}
	}
	return b
}

// Rope returns the tables with the clamp of the chunk in work.
func (p *Positions) Rope() compute.Rope { return p.rope }

// Chunk returns the positions of the chunk's first tokens, I32 [tokens, 3].
func (p *Positions) Chunk(tokens int) compute.Tensor { return p.chunk.Slice(0, 0, tokens) }

// Rewind makes frame the next one.
func (p *Positions) Rewind(frame int) { p.next = min(p.next, frame) }

// Reset starts again at frame 0.
func (p *Positions) Reset() { p.next = 0 }
