package synth

import (
	"encoding/json"
	"fmt"
	"io"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	"longtake/compute"
)

// rename is one step from Wan's name to another library's.
type rename struct {
	from *regexp.Regexp
	to   string
}

func renames(pairs ...string) (out []rename) {
	for i := 0; i < len(pairs); i += 2 {
		out = append(out, rename{regexp.MustCompile(pairs[i]), pairs[i+1]})
	}
	return out
}

func apply(steps []rename, name string) string {
	for _, r := range steps {
		name = r.from.ReplaceAllString(name, r.to)
	}
	return name
}

// DiffusersNet is the name of a network's tensor in diffusers (WanTransformer3DModel).
func DiffusersNet(name string) string {
	return apply(renames(
		`^text_embedding\.0\.`, "condition_embedder.text_embedder.linear_1.", `^text_embedding\.2\.`, "condition_embedder.text_embedder.linear_2.",
		`^time_embedding\.0\.`, "condition_embedder.time_embedder.linear_1.", `^time_embedding\.2\.`, "condition_embedder.time_embedder.linear_2.",
		`^time_projection\.1\.`, "condition_embedder.time_proj.", `^head\.head\.`, "proj_out.", `^head\.modulation$`, "scale_shift_table",
		`\.modulation$`, ".scale_shift_table", `\.norm3\.`, ".norm2.", `\.ffn\.0\.`, ".ffn.net.0.proj.", `\.ffn\.2\.`, ".ffn.net.2.",
		`\.self_attn\.([qkv])\.`, ".attn1.to_$1.", `\.self_attn\.o\.`, ".attn1.to_out.0.", `\.self_attn\.norm_`, ".attn1.norm_",
		`\.cross_attn\.([qkv])\.`, ".attn2.to_$1.", `\.cross_attn\.o\.`, ".attn2.to_out.0.", `\.cross_attn\.norm_`, ".attn2.norm_",
	), name)
}

// DiffusersVAE is the name of a VAE's tensor in diffusers (AutoencoderKLWan).
func DiffusersVAE(name string) string {
	name = regexp.MustCompile(`^decoder\.upsamples\.(\d+)\.`).ReplaceAllStringFunc(name, func(s string) string {
		n, _ := strconv.Atoi(strings.Split(s, ".")[2])
		if n%4 == 3 {
			return fmt.Sprintf("decoder.up_blocks.%d.upsamplers.0.", n/4)
		}
		return fmt.Sprintf("decoder.up_blocks.%d.resnets.%d.", n/4, n%4)
	})
	return apply(renames(
		`^conv1\.`, "quant_conv.", `^conv2\.`, "post_quant_conv.", `^(encoder|decoder)\.conv1\.`, "$1.conv_in.",
		`^encoder\.downsamples\.`, "encoder.down_blocks.", `\.head\.0\.`, ".norm_out.", `\.head\.2\.`, ".conv_out.",
		`\.middle\.0\.`, ".mid_block.resnets.0.", `\.middle\.1\.`, ".mid_block.attentions.0.", `\.middle\.2\.`, ".mid_block.resnets.1.",
		`\.residual\.0\.`, ".norm1.", `\.residual\.2\.`, ".conv1.", `\.residual\.3\.`, ".norm2.", `\.residual\.6\.`, ".conv2.", `\.shortcut\.`, ".conv_shortcut.",
	), name)
}

// TransformersT5 is the name of an encoder's tensor in transformers (UMT5EncoderModel).
func TransformersT5(name string) string {
	return apply(renames(
		`^token_embedding\.`, "shared.", `^norm\.`, "encoder.final_layer_norm.", `^blocks\.(\d+)\.`, "encoder.block.$1.",
		`\.norm1\.`, ".layer.0.layer_norm.", `\.attn\.`, ".layer.0.SelfAttention.", `\.pos_embedding\.embedding\.`, ".layer.0.SelfAttention.relative_attention_bias.",
		`\.norm2\.`, ".layer.1.layer_norm.", `\.ffn\.gate\.0\.`, ".layer.1.DenseReluDense.wi_0.", `\.ffn\.fc1\.`, ".layer.1.DenseReluDense.wi_1.",
		`\.ffn\.fc2\.`, ".layer.1.DenseReluDense.wo.",
	), name)
}

// WriteDiffusers writes the set as a folder of diffusers: transformer, vae, text_encoder and tokenizer, large ones in shards.
func (s Set) WriteDiffusers(dir string) error {
	index := func(folder, stem string, tensors []Tensor, dt compute.DType, seed uint64) error {
		return sharded(filepath.Join(dir, folder, stem+".safetensors.index.json"), tensors, 3, dt, seed)
	}
	if err := index("transformer", "diffusion_pytorch_model", Renamed(s.Net.Tensors(), DiffusersNet), s.Store, s.Seed); err != nil {
		return err
	}
	if err := index("text_encoder", "model", Renamed(s.T5.Tensors(), TransformersT5), compute.BF16, s.Seed+1); err != nil {
		return err
	}
	object := func(v any) func(io.Writer) error {
		return func(w io.Writer) error { return json.NewEncoder(w).Encode(v) }
	}
	for path, write := range map[string]func(io.Writer) error{
		"model_index.json": object(map[string]any{"_class_name": "WanPipeline"}),
		"transformer/config.json": object(map[string]any{"_class_name": "WanTransformer3DModel", "num_attention_heads": s.Net.Heads,
			"attention_head_dim": s.Net.Dim / s.Net.Heads, "num_layers": s.Net.Layers}),
		"vae/diffusion_pytorch_model.safetensors": func(w io.Writer) error {
			return Safetensors(w, Renamed(VAE(s.VAEWidth), DiffusersVAE), compute.F32, s.Seed+2)
		},
		"tokenizer/spiece.model": func(w io.Writer) error { _, err := w.Write(Spiece()); return err },
	} {
		if err := WriteFile(filepath.Join(dir, path), write); err != nil {
			return err
		}
	}
	return nil
}
