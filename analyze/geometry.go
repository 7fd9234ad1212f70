package analyze

import (
	"math"
	"runtime"
	"sync"
	"sync/atomic"

	"longtake/kvcache"
)

// geometry is the shape of what was recorded.
type geometry struct{ kvcache.Shape }

func geometryOf(s kvcache.Shape) geometry { return geometry{s} }

func (g geometry) tokens() int { return g.Tokens() }

// part cuts tokens [lo, lo+n) out of [heads, tokens, headDim].
func (g geometry) part(all []float32, tokens, lo, n int) []float32 {
	out := make([]float32, 0, g.Heads*n*g.HeadDim)
	for h := range g.Heads {
		from := (h*tokens + lo) * g.HeadDim
		out = append(out, all[from:from+n*g.HeadDim]...)
	}
	return out
}

// space is a form in which keys are compared.
type space uint8

// The spaces: as the network makes keys, after the rotation by row and column, and after that by time as well.
const (
	before space = iota
	spatial
	after
	spaces
)

// String returns the name that tables use.
func (s space) String() string {
	return [...]string{"before RoPE", "after spatial RoPE", "after RoPE"}[s]
}

// turns are cos and sin of every pair of a head at a time (relative to the chunk in work) and a token.
type turns struct {
	g    geometry
	time map[int][]float32 // by relative time [pairs, 2]
	axes [2][][]float32    // by row and column
}

func newTurns(g geometry) *turns {
	t := &turns{g: g, time: map[int][]float32{}}
	for i, n := range [2]int{g.Rows, g.Columns} {
		for p := range n {
			t.axes[i] = append(t.axes[i], table(g, i+1, p))
		}
	}
	return t
}

func table(g geometry, axis, position int) (out []float32) {
	for j := range g.Pairs[axis] {
		cos, sin := g.Turn(axis, position, j)
		out = append(out, cos, sin)
	}
	return out
}

// at returns the time table of a latent frame seen from now: older ones than the model's clamp are as old as that.
func (t *turns) at(frame, now int) []float32 {
	time := frame - now
	if t.g.Clamp > 0 {
		time = max(time, -t.g.Clamp)
	}
	v, ok := t.time[time]
	if !ok {
		v = table(t.g, 0, time)
		t.time[time] = v
	}
	return v
}

// rotate writes [tokens, headDim] of one head, moved to a space.
func (t *turns) rotate(dst, src []float32, s space, time []float32) {
	copy(dst, src)
	d := t.g.HeadDim
	for i := range len(src) / d {
		t.one(dst[i*d:][:d], i%t.g.tokens(), s, time)
	}
}

// one moves the vector x of a token to a space, in place.
func (t *turns) one(x []float32, token int, s space, time []float32) {
	if s == before {
		return
	}
	if s == after {
		turn(x, time)
	}
	x = x[2*t.g.Pairs[0]:]
	turn(x, t.axes[0][token/t.g.Columns])
	turn(x[2*t.g.Pairs[1]:], t.axes[1][token%t.g.Columns])
}

func turn(x, by []float32) {
	for j := 0; j < len(by); j += 2 {
		a, b := x[j], x[j+1]
		x[j], x[j+1] = a*by[j]-b*by[j+1], a*by[j+1]+b*by[j]
	}
}

// past collects head h's keys of latent frames [lo, hi) as seen from now, [frames*tokens, headDim].
func (c *clip) past(layer, h, lo, hi, now int, s space) []float32 {
	return c.collect(newTurns(c.geometry), c.keys, layer, h, lo, hi, now, s)
}

func (c *clip) collect(t *turns, from map[place][]float32, layer, h, lo, hi, now int, s space) []float32 {
	size := c.tokens() * c.HeadDim
	out := make([]float32, (hi-lo)*size)
	for f := lo; f < hi; f++ {
		t.rotate(out[(f-lo)*size:][:size], from[place{layer, f}][h*size:][:size], s, t.at(f, now))
	}
	return out
}

// query returns head h's queries of a moment, rotated, [chunk tokens, headDim]; own likewise the chunk's draft keys.
func (c *clip) query(m *moment, layer, h int) []float32 {
	return c.inChunk(m, m.asked[layer], h)
}

func (c *clip) own(m *moment, layer, h int) []float32 {
	return c.inChunk(m, m.drafts[layer], h)
}

func (c *clip) inChunk(m *moment, all []float32, h int) []float32 {
	t, size := newTurns(c.geometry), c.tokens()*c.HeadDim
	out := make([]float32, m.span.Frames*size)
	for f := range m.span.Frames {
		src := all[(h*m.span.Frames+f)*size:][:size]
		t.rotate(out[f*size:][:size], src, after, t.at(f, 0))
	}
	return out
}

// dot is a dot product in float32.
func dot(a, b []float32) float32 {
	var s0, s1, s2, s3 float32
	b = b[:len(a)]
	i := 0
	for ; i+4 <= len(a); i += 4 {
		s0 += a[i] * b[i]
		s1 += a[i+1] * b[i+1]
		s2 += a[i+2] * b[i+2]
		s3 += a[i+3] * b[i+3]
	}
	for ; i < len(a); i++ {
		s0 += a[i] * b[i]
	}
	return (s0 + s1) + (s2 + s3)
}

// normalize scales rows of width d to length 1; rows of zeros stay.
func normalize(x []float32, d int) {
	for ; len(x) >= d; x = x[d:] {
		if l := math.Sqrt(float64(dot(x[:d], x[:d]))); l > 0 {
			for i := range x[:d] {
				x[i] = float32(float64(x[i]) / l)
			}
		}
	}
}

// softmax turns logits into shares in place.
func softmax(x []float64) {
	top := math.Inf(-1)
	for _, v := range x {
		top = max(top, v)
	}
	sum := 0.0
	for i, v := range x {
		x[i] = math.Exp(v - top)
		sum += x[i]
	}
	for i := range x {
		x[i] /= sum
	}
}

// logits writes the scaled products of q with rows of keys.
func logits(dst []float64, q, keys []float32) {
	d := len(q)
	scale := 1 / math.Sqrt(float64(d))
	for i := range dst {
		dst[i] = scale * float64(dot(q, keys[i*d:][:d]))
	}
}

// parallel calls do for 0 to n-1 on all cores.
func parallel(n int, do func(i int)) {
	var next atomic.Int64
	var wait sync.WaitGroup
	for range min(runtime.GOMAXPROCS(0), n) {
		wait.Go(func() {
			for {
				i := int(next.Add(1)) - 1
				if i >= n {
					return
				}
				do(i)
			}
		})
	}
	wait.Wait()
}
