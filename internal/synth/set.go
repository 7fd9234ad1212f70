package synth

import (
	"bufio"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"

	"longtake/compute"
)

// Set is a folder with all that a family needs, laid out as its public repository tells people to: the network's file, the
// Wan folder below wan_models, and the tiny decoder.
type Set struct {
	// Checkpoint is the path of the network in the folder ("checkpoints/self_forcing_dmd.pt"); Root the dictionary it lies in;
	// Prefix stands before every name.
	Checkpoint, Root, Prefix string
	// Wan is the folder of the models that all share.
	Wan string

	Net       Net
	T5        T5
	VAEWidth  int
	TAEWidths [4]int
	// Store is the type of the network's numbers.
	Store compute.DType
	Seed  uint64
	// NoText and NoVAE leave files out.
	NoText, NoVAE bool
}

// SelfForcing is the published layout around a network.
func SelfForcing(n Net, t T5) Set {
	return Set{Checkpoint: "checkpoints/self_forcing_dmd.pt", Root: "generator_ema", Prefix: "model.",
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
	files := []struct {
		path  string
		write func(io.Writer) error
		skip  bool
	}{
		{filepath.Join(dir, s.Checkpoint), func(w io.Writer) error {
			if filepath.Ext(s.Checkpoint) == ".safetensors" {
				return Safetensors(w, s.Net.Tensors(s.Prefix), s.Store, s.Seed)
			}
			return Torch(w, s.Net.Tensors(s.Prefix), s.Store, s.Seed, roots...)
		}, false},
		{filepath.Join(wan, "config.json"), func(w io.Writer) error { return json.NewEncoder(w).Encode(s.Net.Config()) }, false},
		{filepath.Join(wan, "models_t5_umt5-xxl-enc-bf16.pth"), func(w io.Writer) error {
			return Torch(w, s.T5.Tensors(), compute.BF16, s.Seed+1)
		}, s.NoText},
		{filepath.Join(wan, "google/umt5-xxl/spiece.model"), func(w io.Writer) error { _, err := w.Write(Spiece()); return err }, s.NoText},
		{filepath.Join(wan, "Wan2.1_VAE.pth"), func(w io.Writer) error {
			return Torch(w, VAE(s.VAEWidth), compute.F32, s.Seed+2)
		}, s.NoVAE},
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
