package vae

import (
	"math"

	"longtake/compute"
)

// stage is one layer of a network that is causal in time. Frames go in one at a time; for each the stage gives none, one or
// two to the stage after it, at once, so that only one frame is in work anywhere. Frame by frame is therefore the whole.
type stage interface {
	// push takes frame x of size g, which now belongs to the stage.
	push(c *chain, i int, x compute.Tensor, g grid)
	// memories are the stage's state.
	memories() []*memory
	// restart makes the next frame the first.
	restart()
}

// stateless is a stage that remembers nothing but perhaps some memories.
type stateless struct{}

func (stateless) memories() []*memory { return nil }
func (stateless) restart()            {}

// chain is a network: stages one after the other.
type chain struct {
	*work
	stages []stage
	out    func(x compute.Tensor, g grid) // receives finished frames, which it may read until it returns
}

// next gives frame x to the stage after stage i.
func (c *chain) next(i int, x compute.Tensor, g grid) {
	if i+1 < len(c.stages) {
		c.stages[i+1].push(c, i+1, x, g)
		return
	}
	c.out(x, g)
	c.put(x)
}

// reset forgets all frames.
func (c *chain) reset() {
	for _, s := range c.stages {
		s.restart()
		for _, m := range s.memories() {
			m.reset(c.work)
		}
	}
}

// eachMemory calls f for all state.
func (c *chain) eachMemory(f func(m *memory, w *work)) {
	for _, s := range c.stages {
		for _, m := range s.memories() {
			f(m, c.work)
		}
	}
}

// plain is a convolution of one frame: y = act(f(x)). Out is the type of the result.
type plain struct {
	stateless
	f   *filter
	act compute.Activation
	out compute.DType
}

func (s *plain) push(c *chain, i int, x compute.Tensor, g grid) {
	to := s.f.result(g)
	y := c.take(s.out, to.pixels(), s.f.out)
	c.convolve(y, s.f, [compute.MaxSources]compute.Tensor{x}, g, s.act)
	c.put(x)
	c.next(i, y, to)
}

// overTime is a convolution over three frames.
type overTime struct {
	stateless
	f   *filter
	mem memory
}

func (s *overTime) memories() []*memory { return []*memory{&s.mem} }

func (s *overTime) push(c *chain, i int, x compute.Tensor, g grid) {
	y := c.take(c.dt, g.pixels(), s.f.out)
	c.causal(y, s.f, &s.mem, x, g)
	c.next(i, y, g)
}

// residual holds the weights of y = conv2(SiLU(norm2(conv1(SiLU(norm1(x)))))) + shortcut(x).
type residual struct {
	norm1, norm2 compute.Tensor
	conv1, conv2 *filter
	shortcut     *filter // nil: x itself
}

// inResidual is a residual in use.
type inResidual struct {
	stateless
	*residual
	mem1, mem2 memory
}

func (s *inResidual) memories() []*memory { return []*memory{&s.mem1, &s.mem2} }

func (s *inResidual) push(c *chain, i int, x compute.Tensor, g grid) {
	y := c.take(c.dt, g.pixels(), s.conv1.out)
	c.causal(y, s.conv1, &s.mem1, c.normed(x, s.norm1, compute.SiLU), g)
	c.causal(y, s.conv2, &s.mem2, c.normed(y, s.norm2, compute.SiLU), g)
	if s.shortcut == nil {
		c.dq.AddGated(y, y, x, compute.Tensor{})
	} else {
		z := c.take(c.dt, g.pixels(), s.shortcut.out)
		c.convolve(z, s.shortcut, [compute.MaxSources]compute.Tensor{x}, g, compute.None)
		c.dq.AddGated(y, y, z, compute.Tensor{})
		c.put(z)
	}
	c.put(x)
	c.next(i, y, g)
}

// attention is single-head self-attention among the pixels of a frame.
type attention struct {
	stateless
	norm      compute.Tensor
	qkv, proj *filter
}

func (s *attention) push(c *chain, i int, x compute.Tensor, g grid) {
	n, width := g.pixels(), s.proj.in
	y := c.normed(x, s.norm, compute.None)
	qkv := c.take(c.dt, n, 3*width)
	c.convolve(qkv, s.qkv, [compute.MaxSources]compute.Tensor{y}, g, compute.None)
	part := func(k int) compute.Tensor { return qkv.Slice(1, k*width, (k+1)*width).Heads(1) }
	c.dq.Attend(y.Heads(1), part(0), part(1), part(2), compute.Attention{Scale: float32(1 / math.Sqrt(float64(width)))})
	c.flops += 4 * int64(n) * int64(n) * int64(width)
	c.put(qkv)
	z := c.take(c.dt, n, width)
	c.convolve(z, s.proj, [compute.MaxSources]compute.Tensor{y}, g, compute.None)
	c.dq.AddGated(z, z, x, compute.Tensor{})
	c.put(x)
	c.put(y)
	c.next(i, z, g)
}

// widen doubles the sides of a frame (nearest neighbour, then a convolution to half the channels), and after the first frame
// of a video makes two of each before.
type widen struct {
	time    *filter // to twice the channels, the earlier frame's first; nil: one frame stays one
	conv    *filter
	mem     memory
	started bool
}

func (s *widen) memories() []*memory { return []*memory{&s.mem} }
func (s *widen) restart()            { s.started = false }

func (s *widen) push(c *chain, i int, x compute.Tensor, g grid) {
	if s.time == nil || !s.started {
		// The first frame stays one, and is not remembered: at the second the time convolution sees zeros before it.
		s.started = true
		s.enlarge(c, i, x, g)
		c.put(x)
		return
	}
	pair := c.take(c.dt, g.pixels(), 2*s.conv.in)
	c.causal(pair, s.time, &s.mem, x, g)
	s.enlarge(c, i, pair.Slice(1, 0, s.conv.in), g)
	s.enlarge(c, i, pair.Slice(1, s.conv.in, 2*s.conv.in), g)
	c.put(pair)
}

func (s *widen) enlarge(c *chain, i int, x compute.Tensor, g grid) {
	to := s.conv.result(g)
	y := c.take(c.dt, to.pixels(), s.conv.out)
	c.convolve(y, s.conv, [compute.MaxSources]compute.Tensor{x}, g, compute.None)
	c.next(i, y, to)
}

// narrow halves the sides of a frame, and after the first frame of a video makes one of two.
type narrow struct {
	conv *filter // stride 2, zeros to the right and below
	time *filter // nil: every frame stays
	mem  memory
	seen int
}

func (s *narrow) memories() []*memory { return []*memory{&s.mem} }
func (s *narrow) restart()            { s.seen = 0 }

func (s *narrow) push(c *chain, i int, x compute.Tensor, g grid) {
	to := s.conv.result(g)
	y := c.take(c.dt, to.pixels(), s.conv.out)
	c.convolve(y, s.conv, [compute.MaxSources]compute.Tensor{x}, g, compute.None)
	c.put(x)
	if s.time == nil {
		c.next(i, y, to)
		return
	}
	n := s.seen
	s.seen++
	if n%2 == 1 {
		s.mem.push(c.work, y)
		return
	}
	z := c.take(c.dt, to.pixels(), s.conv.out)
	if n == 0 {
		c.dq.Copy(z, y)
		s.mem.push(c.work, y)
	} else {
		c.causal(z, s.time, &s.mem, y, to)
	}
	c.next(i, z, to)
}

// head is the last norm and convolution; its result is F32.
type head struct {
	stateless
	norm compute.Tensor
	f    *filter
	mem  memory
}

func (s *head) memories() []*memory { return []*memory{&s.mem} }

func (s *head) push(c *chain, i int, x compute.Tensor, g grid) {
	y := c.normed(x, s.norm, compute.SiLU)
	c.put(x)
	z := c.take(compute.F32, g.pixels(), s.f.out)
	c.causal(z, s.f, &s.mem, y, g)
	c.next(i, z, g)
}
