package model

import (
	"fmt"
	"strings"

	"longtake/weights"
)

// Kind is what a weight file holds.
type Kind string

// Kinds of weight file.
const (
	KindNetwork   Kind = "network"
	KindText      Kind = "text encoder"
	KindVAE       Kind = "VAE"
	KindTinyVAE   Kind = "tiny VAE"
	KindAdapter   Kind = "adapter (LoRA)"
	KindTinyWorld Kind = "world model"
	KindUnknown   Kind = "unknown"
)

// Identity is what a weight file looks like, by the names and shapes in it.
type Identity struct {
	Kind Kind
	// Text says it for people: "Wan 1.3B text-to-video network (30 blocks of width 1536)".
	Text string
	// Families are the catalogue's families whose network has these numbers.
	Families []string
	// Runs says that this program can use the file; Why says what stands against it.
	Runs bool
	Why  string
}

// Identify looks at the names and shapes of a file's tensors.
func Identify(f *weights.File) Identity {
	names := f.Names()
	has := func(parts ...string) bool {
		for _, n := range names {
			for _, p := range parts {
				if strings.Contains(n, p) {
					return true
				}
			}
		}
		return false
	}
	shape := func(name string) []int {
		h, err := f.Tensor(name)
		if err != nil {
			return nil
		}
		return h.Shape
	}
	switch {
	case has(".lora_A.", ".lora_down."):
		return Identity{KindAdapter, "adapter (LoRA) of a network", nil, true, ""}
	case has("text_emb.weight") && has("act_tok"):
		return Identity{KindTinyWorld, "world model of this project", nil, true, ""}
	case has("decoder.upsamples.") && has("encoder.downsamples."):
		return identifyVAE(shape("conv2.weight"))
	case has("decoder.3.conv.0.weight") && has("decoder.22.weight"):
		return Identity{KindTinyVAE, "tiny VAE (TAEHV for Wan-2.1 latents)", nil, true, ""}
	case has("token_embedding.weight") && has("pos_embedding.embedding.weight"):
		return Identity{KindText, fmt.Sprintf("umT5 text encoder (%v)", shape("token_embedding.weight")), nil, true, ""}
	case has("encoder.block.0.layer.0.SelfAttention"):
		return identifyText(shape("shared.weight"), shape("encoder.embed_tokens.weight"), has("encoder.block.1.") && !has("encoder.block.1.layer.0.SelfAttention.relative_attention_bias"))
	case has("visual.transformer.resblocks"):
		return Identity{KindUnknown, "CLIP", nil, false, "this program does not use it"}
	case has("post_quant_conv", "decoder.up_blocks"):
		latents := shape("post_quant_conv.weight")
		if len(latents) != 5 {
			return Identity{KindVAE, "VAE of images, under the names of diffusers", nil, false, "Wan's is one of videos, with convolutions over frames"}
		}
		id := identifyVAE(latents)
		id.Text += ", under the names of diffusers"
		return id
	}
	network, err := weights.Network(f, "")
	if err != nil {
		return Identity{KindUnknown, "none of the formats that this program knows", nil, false, "it has tensors such as " + sample(names)}
	}
	return identifyNetwork(network)
}

// identifyText describes an encoder under the names of transformers, whose table of words may have two names.
func identifyText(shared, embedded []int, first bool) Identity {
	if first {
		return Identity{KindText, "T5 text encoder", nil, false, "it has positions in its first block only; Wan's umT5 has them in all"}
	}
	if shared == nil {
		shared = embedded
	}
	return Identity{KindText, fmt.Sprintf("umT5 text encoder (%v), under the names of transformers", shared), nil, true, ""}
}

func identifyVAE(latents []int) Identity {
	if len(latents) > 0 && latents[0] != wanLatents {
		return Identity{KindVAE, fmt.Sprintf("VAE of %d latent channels (Wan-2.2)", latents[0]), nil, false, "models on Wan-2.1 have 16"}
	}
	return Identity{KindVAE, "Wan-2.1 VAE", nil, true, ""}
}

// wanLatents are the channels of Wan-2.1's latents; imagedChannels those of a network that makes videos from an image: 4 of mask and as
// many latents of the image come behind them.
const (
	wanLatents     = 16
	imagedChannels = wanLatents + 4 + wanLatents
)

// identifyNetwork tells Wan networks apart.
func identifyNetwork(n *weights.Renamed) Identity {
	patch, err := n.Tensor("patch_embedding.weight")
	if err != nil || len(patch.Shape) != 5 {
		return Identity{KindUnknown, "a network without a Wan patch embedding", nil, false, "its patch embedding is no convolution over frames"}
	}
	dim, in, layers := patch.Shape[0], patch.Shape[1], countLayers(n.Names())
	id := Identity{Kind: KindNetwork, Runs: true}
	size := fmt.Sprintf("%d blocks of width %d", layers, dim)
	for _, f := range families {
		if f.Dim == dim && f.Layers == layers {
			id.Families = append(id.Families, f.Name)
		}
	}
	actions, looks := false, false
	for _, name := range n.Names() {
		actions = actions || strings.Contains(name, ".action_model.")
		looks = looks || strings.HasPrefix(name, "img_emb.") || strings.HasPrefix(name, "condition_embedder.image_embedder.") || strings.Contains(name, ".cross_attn.k_img.")
	}
	switch {
	case actions:
		id.Text, id.Runs, id.Why = "Matrix-Game 2 world model ("+size+")", false, "its action modules are not supported"
		id.Families = nil
	case looks:
		id.Text, id.Runs = fmt.Sprintf("Wan image-to-video network (%s, %d input channels) that also looks at the image through CLIP", size, in), false
		id.Why = "its tensors img_emb and cross_attn.k_img need CLIP's vision network, which this program does not have; image-to-video networks without them run, and others start from an image as a given frame (--image)"
		id.Families = nil
	case in == imagedChannels:
		id.Text = "Wan image-to-video network (" + size + ", 36 input channels)"
	case in == 48:
		id.Text, id.Runs, id.Why = "Wan-2.2 5B network ("+size+", 48 input channels)", false, "it works on the latents of another VAE"
		id.Families = nil
	case in != wanLatents:
		id.Text, id.Runs, id.Why = fmt.Sprintf("Wan network of %d input channels (%s)", in, size), false, "networks with 16 input channels, and with 36 from an image, are supported"
		id.Families = nil
	case len(id.Families) > 0:
		id.Text = "Wan-2.1 text-to-video network (" + size + ")"
	default:
		id.Text = "Wan text-to-video network of a size of its own (" + size + ")"
	}
	return id
}

// countLayers counts blocks.N of the names.
func countLayers(names []string) int {
	n := 0
	for _, name := range names {
		var i int
		if _, err := fmt.Sscanf(name, "blocks.%d.", &i); err == nil {
			n = max(n, i+1)
		}
	}
	return n
}

func sample(names []string) string {
	if len(names) == 0 {
		return "none"
	}
	text := strings.Join(names[:min(len(names), 3)], ", ")
	if len(text) > 200 {
		text = text[:200] + "..."
	}
	return text
}
