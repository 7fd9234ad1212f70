package synth

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"longtake/compute"
)

// Set is a folder with all that a family needs, laid out as its public repository tells people to: the network's file, the
// Wan folder below wan_models, and the tiny decoder.
type Set struct {
	// Checkpoint is the path of the network in the folder ("checkpoints/self_forcing_dmd.pt"), Root the dictionary it lies in,
	// Rename what the names of Wan become; nil keeps them.
	Checkpoint, Root string
	Rename           func(string) string
	// Adapter is the path of a LoRA; "" without. Rank is its rank.
	Adapter string
	Rank    int
	// Shards splits a network in safetensors; Checkpoint is then the index (".index.json").
	Shards int
	// Wan is the folder of the models that all share.
	Wan string

	Net       Net
	T5        T5
	VAEWidth  int
	TAEWidths [4]int
	// Store is the type of the network's numbers.
	Store compute.DType
	Seed  uint64
	// NoNetwork, NoText and NoVAE leave files out.
	NoNetwork, NoText, NoVAE bool
}

// SelfForcing is the published layout around a network.
func SelfForcing(n Net, t T5) Set {
	return Set{Checkpoint: "checkpoints/self_forcing_dmd.pt", Root: "generator_ema", Rename: Wrapped,
		Wan: "wan_models/Wan2.1-T2V-1.3B", Net: n, T5: t, VAEWidth: 96, TAEWidths: [4]int{256, 128, 64, 64}, Store: compute.F32}
}

// FewLayers is an encoder of the same widths with two layers and a small vocabulary, for what is not about it.
func (t T5) FewLayers() T5 {
	t.Layers, t.Vocabulary = 2, 1024
	return t
}

// TinySet is a set for tests, a second's work for a CPU.
func TinySet() Set {
	s := SelfForcing(Tiny, T5Tiny)
	s.VAEWidth, s.TAEWidths = 8, [4]int{16, 8, 8, 8}
	return s
}

// Write writes the set into a folder, which is made.
func (s Set) Write(dir string) error {
	wan := filepath.Join(dir, s.Wan)
	roots := []string{}
	if s.Root != "" {
		roots = append(roots, s.Root)
	}
	network := s.Net.Tensors()
	if s.Rename != nil {
		network = Renamed(network, s.Rename)
	}
	if s.Shards > 0 {
		if err := sharded(filepath.Join(dir, s.Checkpoint), network, s.Shards, s.Store, s.Seed); err != nil {
			return err
		}
	}
	files := []struct {
		path  string
		write func(io.Writer) error
		skip  bool
	}{
		{filepath.Join(dir, s.Checkpoint), func(w io.Writer) error {
			if filepath.Ext(s.Checkpoint) == ".safetensors" {
				return Safetensors(w, network, s.Store, s.Seed)
			}
			return Torch(w, network, s.Store, s.Seed, roots...)
		}, s.Shards > 0 || s.NoNetwork},
		{filepath.Join(wan, "config.json"), func(w io.Writer) error { return json.NewEncoder(w).Encode(s.Net.Config()) }, false},
		{filepath.Join(wan, "models_t5_umt5-xxl-enc-bf16.pth"), func(w io.Writer) error {
			return Torch(w, s.T5.Tensors(), compute.BF16, s.Seed+1)
		}, s.NoText},
		{filepath.Join(wan, "google/umt5-xxl/spiece.model"), func(w io.Writer) error { _, err := w.Write(Spiece()); return err }, s.NoText},
		{filepath.Join(wan, "Wan2.1_VAE.pth"), func(w io.Writer) error {
			return Torch(w, VAE(s.VAEWidth), compute.F32, s.Seed+2)
		}, s.NoVAE},
		{filepath.Join(dir, s.Adapter), func(w io.Writer) error {
			return Torch(w, s.Net.Adapter(s.Rank), compute.F32, s.Seed+4, "generator_lora")
		}, s.Adapter == ""},
		{filepath.Join(dir, "taew2_1.pth"), func(w io.Writer) error {
			return Torch(w, TAEHV(s.TAEWidths), compute.BF16, s.Seed+3)
		}, s.NoVAE},
	}
	for _, f := range files {
		if f.skip {
			continue
		}
		if err := WriteFile(f.path, f.write); err != nil {
			return err
		}
	}
	return nil
}

// Wrapped is the name that training programs give a network's tensors.
func Wrapped(name string) string { return "model." + name }

// Family is a family's published layout around a network: the name is the catalogue's.
func (s Set) Family(name string) (Set, bool) {
	switch name {
	case "self-forcing":
	case "rolling-forcing":
		s.Checkpoint = "checkpoints/rolling_forcing_dmd.pt"
		s.Rename = func(n string) string { // as FSDP leaves it
			return "model._fsdp_wrapped_module." + strings.Replace(n, "blocks.", "blocks._fsdp_wrapped_module.", 1)
		}
	case "longlive":
		s.Checkpoint, s.Root, s.Adapter, s.Rank = "models/longlive_base.pt", "generator", "models/lora.pt", 4
	case "causvid":
		s.Checkpoint, s.Root = "autoregressive_checkpoint/model.pt", "generator"
	case "wan-causal-14b":
		s.Checkpoint, s.Root, s.Rename = "krea-realtime-video-14b.safetensors", "", nil
		s.Wan = "wan_models/Wan2.1-T2V-14B"
	default:
		return s, false
	}
	return s, true
}

// sharded writes an index and so many files.
func sharded(index string, tensors []Tensor, shards int, dt compute.DType, seed uint64) error {
	stem := strings.TrimSuffix(filepath.Base(index), ".safetensors.index.json")
	where := map[string]string{}
	for i := range shards {
		lo, hi := i*len(tensors)/shards, (i+1)*len(tensors)/shards
		name := fmt.Sprintf("%s-%05d-of-%05d.safetensors", stem, i+1, shards)
		for _, t := range tensors[lo:hi] {
			where[t.Name] = name
		}
		if err := WriteFile(filepath.Join(filepath.Dir(index), name), func(w io.Writer) error {
			return Safetensors(w, tensors[lo:hi], dt, seed)
		}); err != nil {
			return err
		}
	}
	return WriteFile(index, func(w io.Writer) error {
		return json.NewEncoder(w).Encode(map[string]any{"metadata": map[string]any{"total_size": 0}, "weight_map": where})
	})
}

// WriteFile makes a file and the folders above it.
func WriteFile(path string, write func(io.Writer) error) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	w := bufio.NewWriterSize(f, 1<<20)
	if err = write(w); err == nil {
		err = w.Flush()
	}
	return errors.Join(err, f.Close())
}
