package model

import (
	"slices"

	"longtake/kvcache"
	"longtake/rollout"
)

// Family is a causal model on Wan-2.1: the numbers that its public code runs it with, and how its files are called.
type Family struct {
	Name, About, Licence string
	// Dim and Layers are the network's published size; files of other sizes are run as they are.
	Dim, Layers int
	// Files are the network's file, as its repository lays it out, the preferred first; Hub the Hugging Face repositories that
	// have it. Adapter is a LoRA that belongs to the network and lies beside it.
	Files   []string
	Hub     []string
	Adapter string
	// Wan is the folder, and the Hugging Face repository under Wan-AI/, with the text encoder and the VAE.
	Wan string
	// Steps are the denoising steps: nominal ones, moved by the table of Shift, unless Raw.
	Steps []float64
	Raw   bool
	Shift float64
	// ChunkFrames is the latent frames of a chunk.
	ChunkFrames int
	Cache       kvcache.Window
	Loop        rollout.Loop
	Refresh     rollout.Refresh
}

// wanFPS is what Wan-2.1 was trained at.
const wanFPS = 16

// wanPrompt is the tokens that prompts are padded to.
const wanPrompt = 512

// families are the models on Wan-2.1. Upstream's window counts the chunk in work, ours does not: local_attn_size 12 with a
// sink of 3 and chunks of 3 is 3 anchors and 6 recent frames. Self-Forcing sees all of its 21 latent frames; longer videos are
// our choice: 21 frames stay visible, the first chunk among them.
var families = []Family{
	{
		Name: "self-forcing", About: "Wan-2.1 1.3B, chunks of 3 latent frames in 4 steps (guandeh17/Self-Forcing)", Licence: "Apache-2.0",
		Dim: 1536, Layers: 30, Files: []string{"checkpoints/self_forcing_dmd.pt", "checkpoints/self_forcing_sid.pt", "self_forcing_10s.pt"},
		Hub: []string{"gdhe17/Self-Forcing"}, Wan: "Wan2.1-T2V-1.3B",
		Steps: []float64{1000, 750, 500, 250}, Shift: 5, ChunkFrames: 3, Cache: kvcache.Window{Anchor: 3, Recent: 15},
	},
	{
		Name: "rolling-forcing", About: "Wan-2.1 1.3B, five chunks at five noise levels together (TencentARC/RollingForcing)", Licence: "academic use only",
		Dim: 1536, Layers: 30, Files: []string{"checkpoints/rolling_forcing_dmd.pt"},
		Hub: []string{"TencentARC/RollingForcing"}, Wan: "Wan2.1-T2V-1.3B",
		Steps: []float64{1000, 800, 600, 400, 200}, Shift: 5, ChunkFrames: 3, Cache: kvcache.Window{Anchor: 3, Recent: 15}, Loop: rollout.RollingWindow,
	},
	{
		Name: "longlive", About: "Wan-2.1 1.3B with a LoRA, window of 12 latent frames, prompts may change (NVlabs/LongLive 1.0)", Licence: "see its repository",
		Dim: 1536, Layers: 30, Files: []string{"models/longlive_base.pt", "longlive_models/models/longlive_base.pt"}, Adapter: "lora.pt",
		Hub: []string{"Efficient-Large-Model/LongLive-1.3B", "Efficient-Large-Model/LongLive"}, Wan: "Wan2.1-T2V-1.3B",
		Steps: []float64{1000, 750, 500, 250}, Shift: 5, ChunkFrames: 3, Cache: kvcache.Window{Anchor: 3, Recent: 6}, Refresh: rollout.RefreshWindow,
	},
	{
		Name: "causvid", About: "Wan-2.1 1.3B in CausVid's way, raw timesteps (tianweiy/CausVid, StreamDiffusionV2)", Licence: "see its repository",
		Dim: 1536, Layers: 30, Files: []string{"autoregressive_checkpoint/model.pt", "wan_causal_dmd_v2v/model.pt"},
		Hub: []string{"tianweiy/CausVid", "jerryfeng/StreamDiffusionV2"}, Wan: "Wan2.1-T2V-1.3B",
		Steps: []float64{1000, 757, 522}, Raw: true, Shift: 8, ChunkFrames: 3, Cache: kvcache.Window{Anchor: 3, Recent: 15},
	},
	{
		Name: "wan-causal-14b", About: "Wan-2.1 14B by Self-Forcing's recipe (krea-ai/realtime-video)", Licence: "CC-BY-NC-SA-4.0",
		Dim: 5120, Layers: 40, Files: []string{"krea-realtime-video-14b.safetensors", "checkpoints/krea-realtime-video-14b.safetensors"},
		Hub: []string{"krea/krea-realtime-video"}, Wan: "Wan2.1-T2V-14B",
		Steps: []float64{1000, 937, 833, 625}, Raw: true, Shift: 5, ChunkFrames: 3, Cache: kvcache.Window{Anchor: 3, Recent: 6},
	},
}

// Families returns the models on Wan-2.1 that the catalogue knows.
func Families() []Family { return slices.Clone(families) }

// FamilyNamed returns a family by its name.
func FamilyNamed(name string) (Family, bool) {
	i := slices.IndexFunc(families, func(f Family) bool { return f.Name == name })
	if i < 0 {
		return Family{}, false
	}
	return families[i], true
}
