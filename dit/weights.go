package dit

import (
	"fmt"

	"longtake/compute"
	"longtake/weights"
)

// Model is a loaded network. It is read-only and shared by all sessions.
type Model struct {
	Config
	patch, time1, time2, timeProj, head linear
	headMod                             compute.Tensor // [2, dim]: shift, scale
	modulation                          compute.Tensor // [layers, 6*dim]
	blocks                              []block
	steered                             *control
	text1, text2                        linear // absent when Config.TextDim is 0
}

// linear is a weight with its bias.
type linear struct {
	w    compute.Matrix
	bias compute.Tensor
}

func (l linear) apply(dq compute.Queue, dst, x compute.Tensor, act compute.Activation) {
	dq.Linear(dst, x, l.w, l.bias, act)
}

// block is one transformer block.
type block struct {
	qkv, selfOut              linear // q, k and v stacked
	normQ, normK              compute.Tensor
	normCross, biasCross      compute.Tensor // norm3, affine
	crossQ, crossKV, crossOut linear         // k and v stacked
	crossNormQ, crossNormK    compute.Tensor
	ffn1, ffn2                linear
	placeQ, placeK            compute.Matrix // [dim, 8*waves], of Config.Waves
}

// control holds the additions of the embedded world model: actions and headings. Its position table belongs to the tokens.
type control struct {
	place                   compute.Tensor // [tokens, dim], added to every frame's tokens
	action                  compute.Tensor // [actions, dim], added to all tokens of a frame
	ray                     compute.Tensor // [headings*columns, dim], added to the tokens of a column
	actionTime, headingTime compute.Tensor // [actions, dim], [headings, dim], added to the time embedding
	placeIn                 compute.Matrix // [dim, 8*waves], of Config.Waves
}

// Load reads the network's tensors. Faults are kept by the placer's Loader and Arena.
func Load(l weights.Placer, c Config, n Names) *Model {
	inside := l
	inside.Coarse = true
	l.Bias = compute.F32 // results of what is outside of the blocks are F32
	m := &Model{Config: c}
	d := c.Dim
	if c.Conv == [3]int{} {
		m.patch = loadLinear(l, d, c.In, n.Patch)
	} else {
		m.patch = linear{l.Conv(d, c.Conv, n.Patch+".weight"), l.Table(n.Patch+".bias", d)}
	}
	if c.TextDim > 0 {
		m.text1, m.text2 = loadLinear(l, d, c.TextDim, n.Text1), loadLinear(l, d, d, n.Text2)
	}
	m.time1 = loadLinear(l, d, c.FreqDim, n.Time1)
	m.time2 = loadLinear(l, d, d, n.Time2)
	m.timeProj = loadLinear(l, 6*d, d, n.TimeProj)
	m.head = loadLinear(l, c.Out, d, n.Head)
	m.headMod = l.Table(n.HeadModulation, 2, d)
	modulation := make([]string, c.Layers)
	for i := range c.Layers {
		modulation[i] = fmt.Sprintf("blocks.%d.%s", i, n.Modulation)
		m.blocks = append(m.blocks, loadBlock(inside.At(fmt.Sprintf("blocks.%d.", i)), c, n))
	}
	m.modulation = l.Stack(modulation, 6, d).Reshape(c.Layers, 6*d)
	if c.Actions > 0 {
		m.steered = &control{
			place:       l.Table("pos", c.Tokens(), d),
			action:      l.Table("act_tok", c.Actions, d),
			ray:         l.Table("ray_tok", c.Headings, c.Columns, d).Reshape(c.Headings*c.Columns, d),
			actionTime:  l.Table("act_e", c.Actions, d),
			headingTime: l.Table("head_e", c.Headings, d),
		}
		if n := 8 * len(c.Waves); n > 0 {
			m.steered.placeIn = l.Matrix(d, n, "place_in")
		}
	}
	return m
}

func loadBlock(l weights.Placer, c Config, n Names) block {
	d := c.Dim
	b := block{
		qkv:        loadLinear(l, 3*d, d, "self_attn.q", "self_attn.k", "self_attn.v"),
		selfOut:    loadLinear(l, d, d, "self_attn.o"),
		normQ:      l.Table("self_attn.norm_q"+n.NormSuffix, d),
		normK:      l.Table("self_attn.norm_k"+n.NormSuffix, d),
		normCross:  l.Table("norm3.weight", d),
		biasCross:  l.Table("norm3.bias", d),
		crossQ:     loadCoarse(l, coarseNormed, d, d, "cross_attn.q"),
		crossKV:    loadLinear(l, 2*d, d, "cross_attn.k", "cross_attn.v"),
		crossOut:   loadLinear(l, d, d, "cross_attn.o"),
		crossNormQ: l.Table("cross_attn.norm_q"+n.NormSuffix, d),
		crossNormK: l.Table("cross_attn.norm_k"+n.NormSuffix, d),
		ffn1:       loadLinear(l, c.FFN, d, n.FFN1),
		ffn2:       loadLinear(l, d, c.FFN, n.FFN2),
	}
	if n := 8 * len(c.Waves); n > 0 {
		b.placeQ, b.placeK = l.Matrix(d, n, "place_q"), l.Matrix(d, n, "place_k")
	}
	return b
}

// coarseLeast is from how many numbers a weight may be coarse: at 4,680 rows an H100 multiplies 1,536 x 1,536 in 33 us in bfloat16 and in
// 35 in e4m3, of which 7 round the operand; three times as many pay. coarseNormed is that of a product whose operand the norm before it
// rounds, which AddNorm does with next to no time of its own.
const (
	coarseLeast  = 4 << 20
	coarseNormed = 2 << 20
)

// loadLinear loads one linear layer, or several of one shape stacked along the outputs.
func loadLinear(l weights.Placer, out, in int, names ...string) linear {
	return loadCoarse(l, coarseLeast, out, in, names...)
}

// loadCoarse is loadLinear with the size from which the layer may be coarse.
func loadCoarse(l weights.Placer, least, out, in int, names ...string) linear {
	w, b := make([]string, len(names)), make([]string, len(names))
	for i, n := range names {
		w[i], b[i] = n+".weight", n+".bias"
	}
	l.Coarse = l.Coarse && out*in >= least
	return linear{l.Matrix(out, in, w...), l.Biases(b, out/len(names))}
}
