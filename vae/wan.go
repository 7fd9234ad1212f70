package vae

import (
	"encoding/binary"
	"fmt"
	"math"

	"longtake/compute"
	"longtake/weights"
)

// WanConfig holds the numbers of a Wan-2.1 VAE.
type WanConfig struct {
	// Width is the channels of the full-size images; Multipliers give those of each level, largest image first.
	Width       int
	Multipliers []int
	// Blocks is the residual blocks of a level in the encoder; the decoder has one more.
	Blocks int
	// Halves says after which level of the encoder time is halved too; one for each level but the last.
	Halves []bool
	// Mean and Std normalise the latents: what a denoiser works on is (z-Mean)/Std. Their length is the latent channels.
	Mean, Std []float32
	// DecodeOnly leaves the encoder's weights in the file.
	DecodeOnly bool
}

// Wan21 is the published VAE: 126.9 million parameters, of which the decoder has 73.3.
func Wan21() WanConfig {
	return WanConfig{Width: 96, Multipliers: []int{1, 2, 4, 4}, Blocks: 2, Halves: []bool{false, true, true},
		Mean: []float32{-0.7571, -0.7089, -0.9113, 0.1075, -0.1745, 0.9653, -0.1517, 1.5508, 0.4134, -0.0715, 0.5517, -0.3632, -0.1922, -0.9497, 0.2503, -0.2921},
		Std:  []float32{2.8184, 1.4541, 2.3275, 2.6558, 1.2196, 1.7708, 2.6052, 2.0743, 3.2687, 2.1526, 2.8652, 1.5579, 1.6382, 1.1253, 2.8251, 1.9160}}
}

// Wan is a loaded Wan-2.1 VAE (Wan-Video, wan/modules/vae.py; checked against the copy in guandeh17/Self-Forcing @ 33593df3).
// It is read-only and may be shared by sessions.
type Wan struct {
	config  WanConfig
	decoder []layer
	encoder []layer // nil without
	// An affine map of latents, F32 [1, channels] each: z = latent*scale + shift on the way in, the inverse on the way out.
	scale, shift, unscale, unshift compute.Tensor
}

// layer makes a stage with fresh state; depth is the frames that convolutions over time remember.
type layer func(dt compute.DType, depth int) stage

// loader loads convolutions by the official names.
type loader struct {
	p weights.Placer
}

func (l loader) bias(name string, out int) compute.Tensor { return l.p.Table(name+".bias", out) }

// conv3 is a convolution of size x size pixels and some frames.
func (l loader) conv3(name string, in, out, frames, size int) *filter {
	return &filter{w: l.p.Conv3(out, in, frames, size, name+".weight"), bias: l.bias(name, out), in: in, out: out, frames: frames,
		size: size, stride: 1, pad: size / 2, grow: 1}
}

// conv2 is a convolution of one frame.
func (l loader) conv2(name string, in, out, size int) *filter {
	f := l.bare(name, in, out, size, 1)
	f.bias = l.bias(name, out)
	return f
}

// bare is a convolution without bias of one image, or of several whose channels follow each other.
func (l loader) bare(name string, in, out, size, images int) *filter {
	return &filter{w: l.p.Conv2(out, images, in, size, name+".weight"), in: in, out: out, frames: images, size: size, stride: 1,
		pad: size / 2, grow: 1}
}

// gamma is a norm's factor, stored as [width, 1, 1, 1] or with one 1 less.
func (l loader) gamma(name string, width, ones int) compute.Tensor {
	dims := []int{width, 1, 1, 1}[:1+ones]
	t := l.p.Table(name+".gamma", dims...)
	if t.IsZero() {
		return t // the arena has failed and says so
	}
	return t.Reshape(width)
}

func (l loader) residual(name string, in, out int) layer {
	r := &residual{norm1: l.gamma(name+".residual.0", in, 3), conv1: l.conv3(name+".residual.2", in, out, 3, 3),
		norm2: l.gamma(name+".residual.3", out, 3), conv2: l.conv3(name+".residual.6", out, out, 3, 3)}
	if in != out {
		r.shortcut = l.conv3(name+".shortcut", in, out, 1, 1)
	}
	return func(_ compute.DType, depth int) stage {
		return &inResidual{residual: r, mem1: memory{depth: depth}, mem2: memory{depth: depth}}
	}
}

func (l loader) attention(name string, width int) layer {
	a := &attention{norm: l.gamma(name+".norm", width, 2), qkv: l.conv2(name+".to_qkv", width, 3*width, 1), proj: l.conv2(name+".proj", width, width, 1)}
	return func(compute.DType, int) stage { return a }
}

func (l loader) overTime(name string, in, out int) layer {
	f := l.conv3(name, in, out, 3, 3)
	return func(_ compute.DType, depth int) stage { return &overTime{f: f, mem: memory{depth: depth}} }
}

// point is a 1x1x1 convolution; its result is F32 when final.
func (l loader) point(name string, in, out int, final bool) layer {
	f := l.conv3(name, in, out, 1, 1)
	return func(dt compute.DType, _ int) stage {
		if final {
			dt = compute.F32
		}
		return &plain{f: f, out: dt}
	}
}

func (l loader) widen(name string, width int, doubles bool) layer {
	conv := l.conv2(name+".resample.1", width, width/2, 3)
	conv.grow = 2
	var time *filter
	if doubles {
		time = l.conv3(name+".time_conv", width, 2*width, 3, 1)
	}
	return func(_ compute.DType, depth int) stage {
		return &widen{time: time, conv: conv, mem: memory{depth: depth}}
	}
}

func (l loader) narrow(name string, width int, halves bool) layer {
	conv := l.conv2(name+".resample.1", width, width, 3)
	conv.stride, conv.pad = 2, 0
	var time *filter
	if halves {
		time = l.conv3(name+".time_conv", width, width, 3, 1)
	}
	return func(_ compute.DType, depth int) stage {
		return &narrow{time: time, conv: conv, mem: memory{depth: depth}}
	}
}

func (l loader) head(name string, in, out int) layer {
	norm, f := l.gamma(name+".0", in, 3), l.conv3(name+".2", in, out, 3, 3)
	return func(_ compute.DType, depth int) stage { return &head{norm: norm, f: f, mem: memory{depth: depth}} }
}

// middle is the smallest level of either side.
func (l loader) middle(side string, width int) []layer {
	return []layer{l.residual(side+".middle.0", width, width), l.attention(side+".middle.1", width), l.residual(side+".middle.2", width, width)}
}

// LoadWan loads a VAE by the official names (Wan2.1_VAE.pth): weights of any floating type. Faults are in the placer's audit.
// It panics on a config that is none.
func LoadWan(p weights.Placer, c WanConfig) *Wan {
	levels := len(c.Multipliers)
	if c.Width < 1 || levels < 2 || len(c.Halves) != levels-1 || c.Blocks < 1 || len(c.Mean) == 0 || len(c.Mean) != len(c.Std) {
		panic(fmt.Sprintf("vae: not a config: %+v", c))
	}
	m := &Wan{config: c}
	m.decoder = loader{p}.decoder(c)
	if c.DecodeOnly {
		asked := p // for, so that nobody finds it unexpected
		asked.Arena, asked.Queue = nowhere{}, nil
		loader{asked}.encoder(c)
	} else {
		m.encoder = loader{p}.encoder(c)
	}
	n := len(c.Mean)
	rows := make([][]float32, 4)
	for i, mean := range c.Mean {
		std := c.Std[i]
		for k, v := range []float32{std, mean, 1 / std, -mean / std} {
			rows[k] = append(rows[k], v)
		}
	}
	for k, to := range []*compute.Tensor{&m.scale, &m.shift, &m.unscale, &m.unshift} {
		*to = p.Arena.Tensor(compute.F32, 1, n)
		if p.Queue != nil && p.Arena.Err() == nil {
			p.Queue.Upload(*to, floatBytes(rows[k]))
		}
	}
	return m
}

// decoder loads, in order: conv2, conv1, the middle, the levels from the smallest image to the largest, the head.
func (l loader) decoder(c WanConfig) []layer {
	latent, levels := len(c.Mean), len(c.Multipliers)
	width := c.Width * c.Multipliers[levels-1]
	out := append([]layer{l.point("conv2", latent, latent, false), l.overTime("decoder.conv1", latent, width)}, l.middle("decoder", width)...)
	n := 0
	name := func() string { n++; return fmt.Sprintf("decoder.upsamples.%d", n-1) }
	for k := levels - 1; k >= 0; k-- {
		to := c.Width * c.Multipliers[k]
		for range c.Blocks + 1 {
			out = append(out, l.residual(name(), width, to))
			width = to
		}
		if k > 0 {
			out = append(out, l.widen(name(), width, c.Halves[k-1]))
			width /= 2
		}
	}
	return append(out, l.head("decoder.head", width, 3))
}

// encoder loads, in order: conv1, the levels from the largest image to the smallest, the middle, the head, the last conv1.
func (l loader) encoder(c WanConfig) []layer {
	latent, width := len(c.Mean), c.Width
	out := []layer{l.overTime("encoder.conv1", 3, width)}
	n := 0
	name := func() string { n++; return fmt.Sprintf("encoder.downsamples.%d", n-1) }
	for k, times := range c.Multipliers {
		for range c.Blocks {
			out = append(out, l.residual(name(), width, c.Width*times))
			width = c.Width * times
		}
		if k < len(c.Multipliers)-1 {
			out = append(out, l.narrow(name(), width, c.Halves[k]))
		}
	}
	out = append(out, l.middle("encoder", width)...)
	return append(out, l.head("encoder.head", width, 2*latent), l.point("conv1", 2*latent, 2*latent, true))
}

// stages makes stages of layers.
func stages(layers []layer, dt compute.DType, depth int) []stage {
	out := make([]stage, len(layers))
	for i, l := range layers {
		out[i] = l(dt, depth)
	}
	return out
}

// nowhere is an arena for weights that are only asked for.
type nowhere struct{}

func (nowhere) Tensor(dt compute.DType, dims ...int) compute.Tensor {
	return compute.NewTensor(nil, 0, dt, dims...)
}
func (nowhere) Matrix(compute.Host) compute.Matrix { return nil }
func (nowhere) Bytes() int64                       { return 0 }
func (nowhere) Err() error                         { return nil }
func (nowhere) Free()                              {}

func floatBytes(v []float32) []byte {
	b := make([]byte, 0, 4*len(v))
	for _, x := range v {
		b = binary.LittleEndian.AppendUint32(b, math.Float32bits(x))
	}
	return b
}
