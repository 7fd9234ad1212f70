package main

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"longtake/compute"
	"longtake/compute/cpu"
	"longtake/model"
	"longtake/rollout"
	"longtake/weights"
)

// convertCommand holds the flags of "models convert".
type convertCommand struct {
	File   string   `arg:"" help:"A .pt, .pth or .safetensors file, or the .index.json of a sharded model."`
	Output string   `arg:"" help:"The .safetensors file to write."`
	DType  string   `name:"dtype" default:"keep" help:"Type of the numbers: keep, f32 or bf16. Default ${default}."`
	Key    string   `name:"weights-key" placeholder:"KEY" help:"Dictionary of a checkpoint: generator_ema or generator. Default: the first there is."`
	Lora   []string `aliases:"lora-path" placeholder:"FILE[=SCALE]" sep:"none" help:"Adapter to merge; may be repeated."`
	Force  bool     `help:"Replace a file that exists."`
	Quiet  bool     `short:"q" help:"Print errors only."`
}

// Run converts. Networks get their official names; nothing is left behind after an error.
func (c *convertCommand) Run(out *streams) error {
	kinds := map[string]compute.DType{"keep": 0, "f32": compute.F32, "bf16": compute.BF16}
	dt, err := named("dtype", c.DType, kinds)
	if err != nil {
		return err
	}
	if !strings.EqualFold(filepath.Ext(c.Output), ".safetensors") {
		return usagef("%s: the output is a .safetensors file", c.Output)
	}
	if _, err := os.Stat(c.Output); err == nil && !c.Force {
		return usagef("%s exists: --force replaces it", c.Output)
	}
	f, err := weights.Open(c.File)
	if err != nil {
		return usageError{err}
	}
	defer f.Close()
	id := model.Identify(f)
	src, names := weights.Source(f), f.Names()
	if id.Kind == model.KindNetwork {
		network, err := weights.Network(f, c.Key)
		if err != nil {
			return usageError{err}
		}
		src, names = network, network.Names()
	} else if c.Key != "" || len(c.Lora) > 0 {
		return usagef("--weights-key and --lora are for networks, %s is: %s", c.File, id.Text)
	}
	flags := modelFlags{Lora: c.Lora}
	_, o, err := flags.source()
	if err != nil {
		return err
	}
	for _, a := range o.Adapters {
		file, err := weights.Open(a.Path)
		if err != nil {
			return usageError{err}
		}
		defer file.Close()
		if src, err = weights.Adapt(src, file, a.Scale); err != nil {
			return usageError{err}
		}
	}
	if err := weights.Convert(c.Output, src, names, dt, c.DType == "keep", map[string]string{"format": "pt"}); err != nil {
		return fmt.Errorf("%s: %w", c.Output, err)
	}
	if !c.Quiet {
		fmt.Fprintf(out.err, "%s: %s, %d tensors\n", c.Output, id.Text, len(names))
	}
	return nil
}

// verifyCommand holds the flags of "models verify".
type verifyCommand struct {
	modelFlags
	Path   string `arg:"" help:"Model: a name, a folder, or a network's or world model's file."`
	NoHash bool   `help:"Leave out the SHA-256 of the files."`
	JSON   bool   `name:"json" help:"Print one JSON object."`
}

// verified is what "models verify" found.
type verified struct {
	Model  string         `json:"model"`
	Looks  string         `json:"looks_like"`
	Files  []verifiedFile `json:"files"`
	Memory struct {
		Weights int64 `json:"weights"`
		Session int64 `json:"session"` // at the size and cache that are the model's own
		Peak    int64 `json:"peak"`
	} `json:"memory"`
}

type verifiedFile struct {
	Part    string `json:"part"`
	Path    string `json:"path"`
	Tensors int    `json:"tensors"`
	Hash    string `json:"sha256,omitempty"`
	// Promised is what the Hugging Face cache names the file by.
	Promised string `json:"promised_sha256,omitempty"`
	Bytes    int64  `json:"bytes"` // on the device
}

// Run verifies a model's files.
func (c *verifyCommand) Run(out *streams) error {
	c.Model = c.Path
	if known, ok := models[c.Model]; ok {
		return usagef("%s (%s) is part of the program: longtake doctor tests it", c.Model, known.about)
	}
	dev, err := openCPU(deviceFlags{Options: cpu.Options{}})
	if err != nil {
		return err
	}
	defer dev.Device.Close()
	if path, isWorld, err := c.worldFile(); err != nil {
		return usageError{err}
	} else if isWorld {
		v, err := verifyWorld(dev.Device, path)
		if err != nil {
			return usageError{err}
		}
		return v.print(out, c.JSON, dev.Device)
	}
	s, o, err := c.source()
	if err != nil {
		return err
	}
	o.Free = 1 << 60 // nothing is loaded
	m, err := model.PrepareWan(dev.Device, s, o)
	if err != nil {
		return usageError{err}
	}
	defer m.Close()
	if err := m.Check(); err != nil {
		return usageError{err}
	}
	v := verified{Model: m.Files.Family.Name, Looks: m.Looks.Text}
	for _, p := range m.Parts() {
		f := verifiedFile{Part: p.Name, Path: p.File.Path(), Tensors: len(p.File.Names()), Bytes: p.Bytes, Promised: promised(p.File.Path())}
		if !c.NoHash {
			f.Hash = p.File.Hash()
			if f.Promised != "" && f.Promised != f.Hash {
				return usagef("%s: its SHA-256 is %s, the cache it lies in promises %s: download it again", f.Path, f.Hash, f.Promised)
			}
		}
		v.Files = append(v.Files, f)
	}
	if v.Memory.Session, err = m.SessionBytes(); err != nil {
		return err
	}
	v.Memory.Weights = m.Budget.Weights()
	v.Memory.Peak = max(v.Memory.Weights+v.Memory.Session, m.Budget.Text)
	return v.print(out, c.JSON, dev.Device)
}

// print writes what was found.
func (v *verified) print(out *streams, asJSON bool, dev compute.Device) error {
	if asJSON {
		_, err := out.out.Write(jsonText(v))
		return err
	}
	for _, f := range v.Files {
		fmt.Fprintf(out.out, "%s: %s: %d tensors, %s on this device %s\n", f.Part, f.Path, f.Tensors, bytesText(f.Bytes), f.Hash)
	}
	_, err := fmt.Fprintf(out.out, "%s is whole: %s; weights %s + session %s = %s at most, on %s\n", v.Model, v.Looks,
		bytesText(v.Memory.Weights), bytesText(v.Memory.Session), bytesText(v.Memory.Peak), dev.Name())
	return err
}

// promised is the SHA-256 that a file's name in a Hugging Face cache is (blobs/SHA256), "" of others.
func promised(path string) string {
	at, err := filepath.EvalSymlinks(path)
	if err != nil || filepath.Base(filepath.Dir(at)) != "blobs" || len(filepath.Base(at)) != 64 {
		return ""
	}
	return strings.ToLower(filepath.Base(at))
}

// verifyWorld loads a world model and, if it has the name of a released one, compares its files with the release.
func verifyWorld(dev compute.Device, path string) (*verified, error) {
	e, err := model.OpenWorld(dev, path)
	if err != nil {
		return nil, err
	}
	defer e.Close()
	v := &verified{Model: e.Name, Looks: fmt.Sprintf("world model of %dx%d pixels, %.1f M parameters", e.Width, e.Height, float64(e.Parameters)/1e6)}
	file, err := weights.Open(path)
	if err != nil {
		return nil, err
	}
	v.Files = []verifiedFile{{Part: "world model", Path: path, Tensors: len(file.Names()), Hash: e.Hash(), Bytes: e.WeightBytes()}}
	file.Close()
	if r, known := model.ReleaseNamed(e.Name); known {
		for _, f := range r.Files {
			if same, err := hasSum(filepath.Join(filepath.Dir(path), f.Name), f.SHA256); err != nil || !same {
				return nil, fmt.Errorf("%s is not the released %s (%w): longtake models pull %s --force brings it again", filepath.Join(filepath.Dir(path), f.Name), r.Name, orOther(err), r.Name)
			}
		}
	}
	if v.Memory.Session, err = e.SessionBytes(rollout.Request{}); err != nil {
		return nil, err
	}
	v.Memory.Weights = e.WeightBytes()
	v.Memory.Peak = v.Memory.Weights + v.Memory.Session
	return v, nil
}

// hasSum reports whether a file has a SHA-256.
func hasSum(path, want string) (bool, error) {
	f, err := os.Open(path)
	if err != nil {
		return false, err
	}
	defer f.Close()
	sum := sha256.New()
	_, err = io.Copy(sum, f)
	return fmt.Sprintf("%x", sum.Sum(nil)) == want, err
}

func orOther(err error) error {
	if err == nil {
		return errors.New("another SHA-256")
	}
	return cause(err)
}
