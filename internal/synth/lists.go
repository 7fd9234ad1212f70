package synth

import (
	"fmt"
	"math"
	"strings"
)

// list collects tensors.
type list []Tensor

func (l *list) weight(name string, fanIn int, shape ...int) {
	*l = append(*l, Tensor{Name: name, Shape: shape, Mean: 0, Std: 1 / math.Sqrt(float64(fanIn))})
}

func (l *list) bias(name string, shape ...int) {
	*l = append(*l, Tensor{Name: name, Shape: shape, Mean: 0, Std: 0.05})
}
func (l *list) norm(name string, shape ...int) {
	*l = append(*l, Tensor{Name: name, Shape: shape, Mean: 1, Std: 0.2})
}
func (l *list) modulation(name string, shape ...int) {
	*l = append(*l, Tensor{Name: name, Shape: shape, Mean: 0, Std: 0.3})
}

// linear is a layer with bias.
func (l *list) linear(name string, out, in int) {
	l.weight(name+".weight", in, out, in)
	l.bias(name+".bias", out)
}

// conv is a convolution with bias; kernel has two or three sizes.
func (l *list) conv(name string, out, in int, kernel ...int) {
	fan := in
	for _, k := range kernel {
		fan *= k
	}
	l.weight(name+".weight", fan, append([]int{out, in}, kernel...)...)
	l.bias(name+".bias", out)
}

// Net are the numbers of a Wan network.
type Net struct {
	Dim, Heads, Layers, FFN, FreqDim, TextDim, In int
	// Tied gives self attention's keys the projection of its queries: attention then follows the content, as that of trained networks
	// does. With projections of their own, random networks look everywhere alike.
	Tied bool
	// CLIP adds what looks at an image through CLIP, as Wan-2.1's image-to-video networks have it.
	CLIP bool
}

// Nets of the published sizes, and one for tests.
var (
	Net1B3 = Net{Dim: 1536, Heads: 12, Layers: 30, FFN: 8960, FreqDim: 256, TextDim: 4096, In: 16}
	Net14B = Net{Dim: 5120, Heads: 40, Layers: 40, FFN: 13824, FreqDim: 256, TextDim: 4096, In: 16}
	Tiny   = Net{Dim: 96, Heads: 2, Layers: 2, FFN: 160, FreqDim: 32, TextDim: 48, In: 16}
)

// Tensors lists a network by Wan's names.
func (n Net) Tensors() []Tensor {
	var l list
	d := n.Dim
	l.conv("patch_embedding", d, n.In, 1, 2, 2)
	l.linear("text_embedding.0", d, n.TextDim)
	l.linear("text_embedding.2", d, d)
	l.linear("time_embedding.0", d, n.FreqDim)
	l.linear("time_embedding.2", d, d)
	l.linear("time_projection.1", 6*d, d)
	for i := range n.Layers {
		b := fmt.Sprintf("blocks.%d.", i)
		l.modulation(b+"modulation", 1, 6, d)
		l.norm(b+"norm3.weight", d)
		l.bias(b+"norm3.bias", d)
		for _, kind := range []string{"self_attn.", "cross_attn."} {
			for _, x := range []string{"q", "k", "v", "o"} {
				l.linear(b+kind+x, d, d)
			}
			l.norm(b+kind+"norm_q.weight", d)
			l.norm(b+kind+"norm_k.weight", d)
		}
		l.linear(b+"ffn.0", n.FFN, d)
		l.linear(b+"ffn.2", d, n.FFN)
	}
	l.modulation("head.modulation", 1, 2, d)
	l.linear("head.head", 64, d)
	if n.CLIP {
		n.throughCLIP(&l)
	}
	if n.Tied {
		for i := range l {
			if name := l[i].Name; strings.Contains(name, ".self_attn.k.") {
				l[i].Key = strings.Replace(name, ".self_attn.k.", ".self_attn.q.", 1)
			}
		}
	}
	return l
}

// throughCLIP lists what looks at an image through CLIP.
func (n Net) throughCLIP(l *list) {
	const image = 1280
	d := n.Dim
	l.norm("img_emb.proj.0.weight", image)
	l.bias("img_emb.proj.0.bias", image)
	l.linear("img_emb.proj.1", image, image)
	l.linear("img_emb.proj.3", d, image)
	l.norm("img_emb.proj.4.weight", d)
	l.bias("img_emb.proj.4.bias", d)
	for i := range n.Layers {
		b := fmt.Sprintf("blocks.%d.cross_attn.", i)
		l.linear(b+"k_img", d, d)
		l.linear(b+"v_img", d, d)
		l.norm(b+"norm_k_img.weight", d)
	}
}

// Adapter lists a LoRA of a rank for every linear layer inside the blocks, by the names of PEFT.
func (n Net) Adapter(rank int) []Tensor {
	var l list
	for _, t := range n.Tensors() {
		stem, ok := strings.CutSuffix(t.Name, ".weight")
		if !ok || len(t.Shape) != 2 || !strings.HasPrefix(stem, "blocks.") {
			continue
		}
		l.weight("base_model.model."+stem+".lora_A.weight", t.Shape[1], rank, t.Shape[1])
		l.weight("base_model.model."+stem+".lora_B.weight", 16*rank, t.Shape[0], rank)
	}
	return l
}

// Config is what the config.json of the Wan folder says of a network.
func (n Net) Config() map[string]any {
	return map[string]any{"_class_name": "WanModel", "dim": n.Dim, "eps": 1e-6, "ffn_dim": n.FFN, "freq_dim": n.FreqDim, "in_dim": n.In,
		"model_type": "t2v", "num_heads": n.Heads, "num_layers": n.Layers, "out_dim": 16, "text_len": 512}
}

// T5 are the numbers of a umT5 encoder.
type T5 struct{ Vocabulary, Dim, Heads, HeadDim, Layers, FFN int }

// T5XXL is umT5-xxl's encoder, T5Tiny one for tests.
var (
	T5XXL  = T5{256384, 4096, 64, 64, 24, 10240}
	T5Tiny = T5{512, 48, 2, 16, 2, 96}
)

// Tensors lists an encoder by the names of models_t5_umt5-xxl-enc-bf16.pth. Attention has no scale of 1/sqrt(HeadDim), so its
// queries are that much smaller.
func (t T5) Tensors() []Tensor {
	var l list
	inner := t.Heads * t.HeadDim
	l = append(l, Tensor{Name: "token_embedding.weight", Shape: []int{t.Vocabulary, t.Dim}, Mean: 0, Std: 1})
	for i := range t.Layers {
		b := fmt.Sprintf("blocks.%d.", i)
		l.norm(b+"norm1.weight", t.Dim)
		l.weight(b+"attn.q.weight", t.Dim*t.HeadDim, inner, t.Dim)
		l.weight(b+"attn.k.weight", t.Dim, inner, t.Dim)
		l.weight(b+"attn.v.weight", t.Dim, inner, t.Dim)
		l.weight(b+"attn.o.weight", inner, t.Dim, inner)
		l.bias(b+"pos_embedding.embedding.weight", 32, t.Heads)
		l.norm(b+"norm2.weight", t.Dim)
		l.weight(b+"ffn.gate.0.weight", t.Dim, t.FFN, t.Dim)
		l.weight(b+"ffn.fc1.weight", t.Dim, t.FFN, t.Dim)
		l.weight(b+"ffn.fc2.weight", t.FFN, t.Dim, t.FFN)
	}
	l.norm("norm.weight", t.Dim)
	return l
}

// VAE lists a Wan-2.1 VAE of a base width (96 in the published one) by the names of Wan2.1_VAE.pth.
func VAE(width int) []Tensor {
	var l list
	const z = 16
	levels := []int{width, 2 * width, 4 * width, 4 * width}
	top := levels[3]
	residual := func(name string, in, out int) {
		l.norm(name+".residual.0.gamma", in, 1, 1, 1)
		l.conv(name+".residual.2", out, in, 3, 3, 3)
		l.norm(name+".residual.3.gamma", out, 1, 1, 1)
		l.conv(name+".residual.6", out, out, 3, 3, 3)
		if in != out {
			l.conv(name+".shortcut", out, in, 1, 1, 1)
		}
	}
	middle := func(name string) {
		residual(name+".middle.0", top, top)
		l.norm(name+".middle.1.norm.gamma", top, 1, 1)
		l.conv(name+".middle.1.to_qkv", 3*top, top, 1, 1)
		l.conv(name+".middle.1.proj", top, top, 1, 1)
		residual(name+".middle.2", top, top)
	}
	head := func(name string, in, out int) {
		l.norm(name+".head.0.gamma", in, 1, 1, 1)
		l.conv(name+".head.2", out, in, 3, 3, 3)
	}
	l.conv("encoder.conv1", width, 3, 3, 3, 3)
	at, in := 0, width
	for k, w := range levels {
		for range 2 {
			residual(fmt.Sprintf("encoder.downsamples.%d", at), in, w)
			at, in = at+1, w
		}
		if k < 3 {
			name := fmt.Sprintf("encoder.downsamples.%d", at)
			l.conv(name+".resample.1", w, w, 3, 3)
			if k > 0 {
				l.conv(name+".time_conv", w, w, 3, 1, 1)
			}
			at++
		}
	}
	middle("encoder")
	head("encoder", top, 2*z)
	l.conv("conv1", 2*z, 2*z, 1, 1, 1)
	l.conv("conv2", z, z, 1, 1, 1)
	l.conv("decoder.conv1", top, z, 3, 3, 3)
	middle("decoder")
	at, in = 0, top
	for k := 3; k >= 0; k-- {
		w := levels[k]
		for range 3 {
			residual(fmt.Sprintf("decoder.upsamples.%d", at), in, w)
			at, in = at+1, w
		}
		if k > 0 {
			name := fmt.Sprintf("decoder.upsamples.%d", at)
			l.conv(name+".resample.1", w/2, w, 3, 3)
			if k > 1 {
				l.conv(name+".time_conv", 2*w, w, 3, 1, 1)
			}
			at, in = at+1, w/2
		}
	}
	head("decoder", width, 3)
	return l
}

// TAEHV lists a tiny decoder of four widths (256, 128, 64, 64 in the published taew2_1) by its names.
func TAEHV(widths [4]int) []Tensor {
	var l list
	plain := func(name string, out, in, size int) { l.weight(name+".weight", in*size*size, out, in, size, size) }
	l.conv("decoder.1", widths[0], 16, 3, 3)
	w := widths[0]
	for k, grow := range []int{1, 2, 2} {
		at := 3 + 6*k
		for b := range 3 {
			name := fmt.Sprintf("decoder.%d.conv.", at+b)
			l.conv(name+"0", w, 2*w, 3, 3)
			l.conv(name+"2", w, w, 3, 3)
			l.conv(name+"4", w, w, 3, 3)
		}
		plain(fmt.Sprintf("decoder.%d.conv", at+4), grow*w, w, 1)
		plain(fmt.Sprintf("decoder.%d", at+5), widths[k+1], w, 3)
		w = widths[k+1]
	}
	// The last layer is small, so that most pixels lie inside [0, 1].
	l = append(l, Tensor{Name: "decoder.22.weight", Shape: []int{3, w, 3, 3}, Mean: 0, Std: 0.02}, Tensor{Name: "decoder.22.bias", Shape: []int{3}, Mean: 0.5, Std: 0.05})
	return l
}
