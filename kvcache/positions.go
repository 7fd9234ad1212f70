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
	p.rope.Row = axis(a, dq, s.Rows, s.Pairs[1], s.Theta[1])
	p.rope.Column = axis(a, dq, s.Columns, s.Pairs[2], s.Theta[2])
	p.chunk = a.Tensor(compute.I32, s.ChunkFrames*s.Tokens(), 3)
	p.host = make([]byte, max(s.Pairs[0]*8, s.ChunkFrames*s.Tokens()*12))
	p.rope.MinTime = math.MinInt32
	return p
}

func axis(a compute.Arena, dq compute.Queue, positions, pairs int, theta float64) compute.Tensor {
	t := a.Tensor(compute.F32, positions, max(pairs, 1), 2)
	if pairs == 0 {
		return compute.Tensor{}
	}
	if dq != nil && a.Err() == nil {
		b := make([]byte, 0, t.Bytes())
		for p := range positions {
			b = appendAngles(b, p, pairs, theta)
		}
		dq.Upload(t, b)
	}
	return t
}

// Turn returns cos and sin of position*theta^(-j/pairs), by which pair j of a key at that position is rotated.
func Turn(position, j, pairs int, theta float64) (cos, sin float32) {
	s, c := math.Sincos(float64(position) * math.Pow(theta, -float64(j)/float64(pairs)))
	return float32(c), float32(s)
}

// appendAngles appends the turns of all pairs.
func appendAngles(b []byte, position, pairs int, theta float64) []byte {
	for j := range pairs {
		c, s := Turn(position, j, pairs, theta)
		b = binary.LittleEndian.AppendUint32(b, math.Float32bits(c))
		b = binary.LittleEndian.AppendUint32(b, math.Float32bits(s))
	}
	return b
}

// Begin writes the time rows up to the end of span and the positions of its tokens.
func (p *Positions) Begin(dq compute.Queue, span Span) {
	for ; p.next < span.Start+span.Frames; p.next++ {
		b := appendAngles(p.host[:0], p.next, p.shape.Pairs[0], p.shape.Theta[0])
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
