package vae

import (
	"fmt"

	"longtake/compute"
	"longtake/weights"
)

// TAEHVConfig holds the numbers of a TAEHV decoder.
type TAEHVConfig struct {
	// Latent is the latent channels, Widths the channels of each level, smallest image first.
	Latent int
	Widths [4]int
}

// Taew21 is the published tiny decoder for Wan-2.1 latents, taew2_1: 9.84 million parameters.
func Taew21() TAEHVConfig { return TAEHVConfig{Latent: 16, Widths: [4]int{256, 128, 64, 64}} }

// squashLimit is where the latents are limited.
const squashLimit = 3

// TAEHV is a loaded tiny decoder (github.com/madebyollin/taehv @ 1f14a568, taehv.py). It is read-only and may be shared by
// sessions.
type TAEHV struct {
	config TAEHVConfig
	layers []layer
}

// LoadTAEHV loads the decoder by the official names, decoder.1.weight and on; the file's encoder is not asked for.
// Faults are in the placer's audit.
func LoadTAEHV(p weights.Placer, c TAEHVConfig) *TAEHV {
	for _, w := range append(c.Widths[:], c.Latent) {
		if w < 1 {
			panic(fmt.Sprintf("vae: not a config: %+v", c))
		}
	}
	l, m := loader{p}, &TAEHV{config: c}
	last := func(f *filter) layer {
		return func(compute.DType, int) stage { return &plain{f: f, out: compute.F32} }
	}
	conv := func(f *filter, act compute.Activation) layer {
		return func(dt compute.DType, _ int) stage { return &plain{f: f, act: act, out: dt} }
	}
	width := c.Widths[0]
	m.layers = []layer{conv(l.conv2("decoder.1", c.Latent, width, 3), compute.ReLU)}
	// Each level: three blocks, then twice the size, in the second and third with two frames for one, then a convolution.
	for k, doubles := range []bool{false, true, true} {
		at := 3 + 6*k
		for b := range 3 {
			m.layers = append(m.layers, l.remember(fmt.Sprintf("decoder.%d", at+b), width))
		}
		to, act := c.Widths[k+1], compute.None
		if k == 2 {
			act = compute.ReLU // the layer after
		}
		m.layers = append(m.layers, l.split(at+4, width, to, doubles, act))
		width = to
	}
	m.layers = append(m.layers, last(l.conv2("decoder.22", width, 3, 3)))
	return m
}

// remember is a MemBlock: y = ReLU(conv(ReLU(conv(ReLU(conv([x, x one time step ago]))))) + x).
type remember struct {
	stateless
	conv [3]*filter
	mem  memory
}

func (s *remember) memories() []*memory { return []*memory{&s.mem} }

func (l loader) remember(name string, width int) layer {
	first := l.bare(name+".conv.0", width, width, 3, 2)
	first.bias = l.bias(name+".conv.0", width)
	second, third := l.conv2(name+".conv.2", width, width, 3), l.conv2(name+".conv.4", width, width, 3)
	return func(_ compute.DType, depth int) stage {
		return &remember{conv: [3]*filter{first, second, third}, mem: memory{depth: depth}}
	}
}

func (s *remember) push(c *chain, i int, x compute.Tensor, g grid) {
	type sources = [compute.MaxSources]compute.Tensor
	y, z := c.take(c.dt, g.pixels(), s.conv[0].out), c.take(c.dt, g.pixels(), s.conv[0].out)
	c.convolve(y, s.conv[0], sources{x, s.mem.past[1]}, g, compute.ReLU)
	c.convolve(z, s.conv[1], sources{y}, g, compute.ReLU)
	c.convolve(y, s.conv[2], sources{z}, g, compute.None)
	c.put(z)
	c.dq.AddGated(y, y, x, compute.Tensor{})
	c.dq.Activate(y, y, compute.ReLU)
	s.mem.push(c.work, x)
	c.next(i, y, g)
}

// split is a TGrow between an enlargement and a convolution. The 1x1 convolution of TGrow acts on pixels alone, so it goes
// before the enlargement, where there are four times fewer.
type split struct {
	stateless
	point, conv *filter
	act         compute.Activation
}

func (l loader) split(at, width, to int, doubles bool, act compute.Activation) layer {
	frames := 1
	if doubles {
		frames = 2
	}
	s := &split{point: l.bare(fmt.Sprintf("decoder.%d.conv", at), width, frames*width, 1, 1), conv: l.bare(fmt.Sprintf("decoder.%d", at+1), width, to, 3, 1), act: act}
	s.conv.grow = 2
	return func(compute.DType, int) stage { return s }
}

func (s *split) push(c *chain, i int, x compute.Tensor, g grid) {
	all := c.take(c.dt, g.pixels(), s.point.out)
	c.convolve(all, s.point, [compute.MaxSources]compute.Tensor{x}, g, compute.None)
	c.put(x)
	to := s.conv.result(g)
	for at := 0; at < s.point.out; at += s.conv.in { // the earlier frame's channels come first
		y := c.take(c.dt, to.pixels(), s.conv.out)
		c.convolve(y, s.conv, [compute.MaxSources]compute.Tensor{all.Slice(1, at, at+s.conv.in)}, g, s.act)
		c.next(i, y, to)
	}
	c.put(all)
}

// NewDecoder makes a session's decoder; with a compute.Meter it only counts. A latent frame costs 527 GFLOP at 832x480, the
// first as much as the others: its first three frames are made and dropped. One input frame of every block is kept; with
// images in work that is 0.46 GB in F32.
func (m *TAEHV) NewDecoder(a compute.Arena, t compute.Types, o Options) (*Decoder, error) {
	if err := o.check(); err != nil {
		return nil, err
	}
	d := &Decoder{levels: levels{scale: 255}, trim: 3}
	d.work, d.stages = newWork(a, t, o.Patches), stages(m.layers, t.Activation, 1)
	d.enter = func(z compute.Tensor) {
		d.squash(z, squashLimit)
		if d.dt != compute.F32 {
			y := d.take(d.dt, z.Shape[0], z.Shape[1])
			d.dq.Copy(y, z)
			d.put(z)
			z = y
		}
		d.stages[0].push(&d.chain, 0, z, d.tokens.grid)
	}
	return d, d.rehearse(a, o, m.config.Latent)
}
