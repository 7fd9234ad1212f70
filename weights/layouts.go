package weights

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Listed is a Source that knows what is in it.
type Listed interface {
	Source
	// Names returns all names, sorted.
	Names() []string
	// Path is the file's, for messages.
	Path() string
}

// Official shows a Wan VAE or a umT5 encoder by the official names (Wan2.1_VAE.pth, models_t5_umt5-xxl-enc-bf16.pth) where the file
// has those of diffusers (AutoencoderKLWan) or transformers (UMT5EncoderModel, or the encoder of a whole umT5). Other files stay as they
// are.
func Official(f *File) (Listed, error) {
	translate := func(string) string { return "" }
	for _, name := range f.Names() {
		switch {
		case strings.HasPrefix(name, "decoder.up_blocks."):
			translate = vaeName
		case strings.HasPrefix(name, "encoder.block.0.layer.0.SelfAttention."):
			translate = textName
		}
	}
	r := &Renamed{source: f, path: f.Path(), names: map[string]string{}}
	for _, have := range f.Names() {
		name := translate(have)
		if name == "" {
			continue
		}
		if first, twice := r.names[name]; twice && !slices.Contains(embeddings, have) {
			return nil, fmt.Errorf("read weights %s: tensors %s and %s are both %s", f.Path(), clip(first), clip(have), clip(name))
		}
		r.names[name] = have
	}
	if len(r.names) == 0 {
		return f, nil
	}
	return r, nil
}

// embeddings are the names that transformers has for one and the same table.
var embeddings = []string{"encoder.embed_tokens.weight", "shared.weight"}

// vaeName translates diffusers' name of a tensor of a Wan-2.1 VAE. Diffusers counts the blocks of the encoder as Wan does; in the decoder
// it has three residual blocks and a wider image to a level, which Wan counts through.
func vaeName(name string) string {
	for _, p := range []struct{ diffusers, wan string }{{"quant_conv.", "conv1."}, {"post_quant_conv.", "conv2."}} {
		if rest, ok := strings.CutPrefix(name, p.diffusers); ok {
			return p.wan + rest
		}
	}
	side, rest, _ := strings.Cut(name, ".")
	for _, p := range []struct{ diffusers, wan string }{
		{"conv_in.", "conv1."}, {"norm_out.", "head.0."}, {"conv_out.", "head.2."},
		{"mid_block.resnets.0.", "middle.0."}, {"mid_block.attentions.0.", "middle.1."}, {"mid_block.resnets.1.", "middle.2."},
		{"down_blocks.", "downsamples."},
	} {
		if tail, ok := strings.CutPrefix(rest, p.diffusers); ok {
			return side + "." + p.wan + residualName(tail)
		}
	}
	if tail, ok := strings.CutPrefix(rest, "up_blocks."); ok {
		level, tail, _ := strings.Cut(tail, ".")
		kind, tail, _ := strings.Cut(tail, ".")
		at, tail, _ := strings.Cut(tail, ".")
		l, err1 := strconv.Atoi(level)
		i, err2 := strconv.Atoi(at)
		if err1 == nil && err2 == nil && l < 1<<20 && (kind == "resnets" && i < 3 || kind == "upsamplers" && i == 0) {
			if kind == "upsamplers" {
				i = 3
			}
			return fmt.Sprintf("%s.upsamples.%d.%s", side, 4*l+i, residualName(tail))
		}
	}
	return name
}

// residualName translates the end of a name, behind the number of a residual block where one is in front.
func residualName(name string) string {
	at := ""
	if number, tail, ok := strings.Cut(name, "."); ok {
		if _, err := strconv.Atoi(number); err == nil {
			at, name = number+".", tail
		}
	}
	for _, p := range []struct{ diffusers, wan string }{
		{"norm1.", "residual.0."}, {"conv1.", "residual.2."}, {"norm2.", "residual.3."}, {"conv2.", "residual.6."}, {"conv_shortcut.", "shortcut."},
	} {
		if tail, ok := strings.CutPrefix(name, p.diffusers); ok {
			return at + p.wan + tail
		}
	}
	return at + name
}

// textName translates transformers' name of a tensor of a umT5's encoder; "" for what belongs to its decoder.
func textName(name string) string {
	switch {
	case strings.HasPrefix(name, "decoder.") || strings.HasPrefix(name, "lm_head."):
		return ""
	case slices.Contains(embeddings, name):
		return "token_embedding.weight"
	case name == "encoder.final_layer_norm.weight":
		return "norm.weight"
	}
	rest, ok := strings.CutPrefix(name, "encoder.block.")
	if !ok {
		return name
	}
	number, rest, _ := strings.Cut(rest, ".")
	for _, p := range []struct{ transformers, wan string }{
		{"layer.0.layer_norm.", "norm1."}, {"layer.0.SelfAttention.relative_attention_bias.", "pos_embedding.embedding."},
		{"layer.0.SelfAttention.", "attn."}, {"layer.1.layer_norm.", "norm2."}, {"layer.1.DenseReluDense.wi_0.", "ffn.gate.0."},
		{"layer.1.DenseReluDense.wi_1.", "ffn.fc1."}, {"layer.1.DenseReluDense.wo.", "ffn.fc2."},
	} {
		if tail, ok := strings.CutPrefix(rest, p.transformers); ok {
			return "blocks." + number + "." + p.wan + tail
		}
	}
	return name
}
