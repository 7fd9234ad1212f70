package weights

import "testing"

// Names as huggingface/diffusers (scripts/convert_wan_to_diffusers.py, models/autoencoders/autoencoder_kl_wan.py) and
// huggingface/transformers (models/umt5) write them.
func TestNamesOfOtherLibrariesBecomeOfficial(t *testing.T) {
	for name, want := range map[string]string{
		"quant_conv.weight": "conv1.weight", "post_quant_conv.bias": "conv2.bias", "encoder.conv_in.weight": "encoder.conv1.weight",
		"encoder.down_blocks.0.norm1.gamma": "encoder.downsamples.0.residual.0.gamma", "encoder.down_blocks.2.resample.1.weight": "encoder.downsamples.2.resample.1.weight",
		"encoder.down_blocks.3.conv_shortcut.weight": "encoder.downsamples.3.shortcut.weight", "encoder.down_blocks.5.time_conv.bias": "encoder.downsamples.5.time_conv.bias",
		"encoder.mid_block.resnets.1.conv2.weight": "encoder.middle.2.residual.6.weight", "encoder.norm_out.gamma": "encoder.head.0.gamma",
		"decoder.mid_block.attentions.0.to_qkv.weight": "decoder.middle.1.to_qkv.weight", "decoder.mid_block.resnets.0.norm2.gamma": "decoder.middle.0.residual.3.gamma",
		"decoder.up_blocks.0.resnets.2.conv1.weight": "decoder.upsamples.2.residual.2.weight", "decoder.up_blocks.0.upsamplers.0.time_conv.weight": "decoder.upsamples.3.time_conv.weight",
		"decoder.up_blocks.2.upsamplers.0.resample.1.bias": "decoder.upsamples.11.resample.1.bias", "decoder.up_blocks.3.resnets.0.norm1.gamma": "decoder.upsamples.12.residual.0.gamma",
		"decoder.up_blocks.1.resnets.0.conv_shortcut.bias": "decoder.upsamples.4.shortcut.bias", "decoder.conv_out.weight": "decoder.head.2.weight",
		"decoder.up_blocks.0.resnets.3.conv1.weight": "decoder.up_blocks.0.resnets.3.conv1.weight", // there is no fourth
	} {
		if got := vaeName(name); got != want {
			t.Errorf("VAE: %s becomes %s, want %s", name, got, want)
		}
	}
	for name, want := range map[string]string{
		"shared.weight": "token_embedding.weight", "encoder.embed_tokens.weight": "token_embedding.weight", "encoder.final_layer_norm.weight": "norm.weight",
		"encoder.block.7.layer.0.layer_norm.weight": "blocks.7.norm1.weight", "encoder.block.23.layer.0.SelfAttention.o.weight": "blocks.23.attn.o.weight",
		"encoder.block.1.layer.0.SelfAttention.relative_attention_bias.weight": "blocks.1.pos_embedding.embedding.weight",
		"encoder.block.0.layer.1.layer_norm.weight":                            "blocks.0.norm2.weight", "encoder.block.0.layer.1.DenseReluDense.wi_0.weight": "blocks.0.ffn.gate.0.weight",
		"encoder.block.0.layer.1.DenseReluDense.wi_1.weight": "blocks.0.ffn.fc1.weight", "encoder.block.0.layer.1.DenseReluDense.wo.weight": "blocks.0.ffn.fc2.weight",
		"decoder.block.0.layer.0.SelfAttention.q.weight": "", "lm_head.weight": "",
	} {
		if got := textName(name); got != want {
			t.Errorf("T5: %s becomes %q, want %q", name, got, want)
		}
	}
}
