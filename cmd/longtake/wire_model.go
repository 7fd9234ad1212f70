package main

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"longtake/compute"
	"longtake/model"
	"longtake/rollout"
	"longtake/weights"
)

// modelFlags choose a model and say how it is opened. All but the first are for models on Wan-2.1.
type modelFlags struct {
	Model string `default:"tinyworld" aliases:"checkpoint-path,generator-ckpt" placeholder:"NAME|PATH" help:"Model: ${models}; or a folder or file with the weights of one of them; or a world model: its .safetensors file, its folder, or its name in the own store (longtake models pull)."`

	Family        string   `group:"model" placeholder:"NAME" help:"Family of a weight file whose name does not tell: ${families}."`
	Wan           string   `group:"model" aliases:"ckpt-dir,model-folder" placeholder:"DIR" help:"Folder of Wan-2.1 with text encoder and VAE. Default: looked for beside the model, in the Hugging Face cache and in the own store (LONGTAKE_MODELS)."`
	TextPath      string   `group:"model" placeholder:"FILE" help:"Text encoder, models_t5_umt5-xxl-enc-bf16.pth."`
	TokenizerPath string   `group:"model" placeholder:"FILE" help:"Tokenizer, tokenizer.json or spiece.model."`
	VAEPath       string   `name:"vae-path" group:"model" placeholder:"FILE" help:"VAE, Wan2.1_VAE.pth."`
	TinyVAEPath   string   `name:"tiny-vae-path" aliases:"taehv-path" group:"model" placeholder:"FILE" help:"Tiny VAE, taew2_1.pth or taew2_1.safetensors."`
	VAE           string   `name:"vae" group:"model" placeholder:"KIND" help:"Decoder of the frames: wan, or tiny (a 25th of the work, a little softer). Default: wan where it is found."`
	UseTAEHV      bool     `name:"use-taehv" hidden:"" help:"The same as --vae tiny."`
	Size          string   `group:"model" placeholder:"WxH" help:"Frame size, such as 832x480 or 832*480: multiples of 16. Default: 832x480."`
	Width         int      `group:"model" placeholder:"N" help:"Frame width."`
	Height        int      `group:"model" placeholder:"N" help:"Frame height."`
	WeightsKey    string   `group:"model" placeholder:"KEY" help:"Dictionary of the checkpoint: generator_ema or generator. Default: the first there is."`
	UseEMA        *bool    `name:"use-ema" hidden:"" negatable:"" help:"--weights-key generator_ema; --no-use-ema: generator."`
	Lora          []string `group:"model" aliases:"lora-path" placeholder:"FILE[=SCALE]" sep:"none" help:"Adapter that is merged into the network as it is loaded; may be repeated. Scale is alpha/rank. Default: 1."`
	NoAdapter     bool     `group:"model" help:"Leave out the adapter that belongs to the family (LongLive's lora.pt)."`
	OffloadText   bool     `group:"model" aliases:"t5-cpu,offload-model" help:"Keep the text encoder off the device but while it encodes."`
	ChunkFrames   int      `group:"model" aliases:"num-frame-per-block" placeholder:"N" help:"Latent frames of a chunk. Default: the model's own."`
	StepList      string   `group:"model" aliases:"denoising-step-list" placeholder:"A,B,..." help:"Denoising steps, such as 1000,750,500,250. Default: the model's own."`
	RawSteps      bool     `group:"model" help:"Use --step-list as timesteps, not as places in the shift table."`
	Shift         float64  `group:"model" aliases:"timestep-shift,sample-shift" placeholder:"X" help:"Shift of the noise levels. Default: the model's own."`
	NoCheck       bool     `group:"model" help:"Load weights without looking for numbers that are not finite."`

	Task           *string  `hidden:"" help:"Accepted from other tools; the files say what a network does."`
	I2V            bool     `name:"i2v" hidden:"" help:"Accepted from other tools; --start says it."`
	GuidanceScale  *float64 `hidden:"" aliases:"sample-guide-scale" help:"Accepted from other tools; these models are distilled and use none."`
	NegativePrompt *string  `hidden:"" help:"Accepted from other tools; these models are distilled and use none."`
	ContextNoise   *float64 `hidden:"" help:"Accepted from other tools; 0 is what all models use."`

	// Set by commands before open.
	Encode  bool              `kong:"-"` // start frames will be given
	Takes   bool              `kong:"-"` // they may be, where the VAE is there
	Prompts []string          `kong:"-"`
	Note    func(line string) `kong:"-"`
}

// catalogued is a model that can be opened.
type catalogued struct {
	open    func(compute.Device) (*rollout.Engine, error)
	licence string
	about   string
	// world says that the simulator goes with it; stride is the frames of a latent frame.
	world  bool
	stride int
	// small says that the network cannot keep a GPU busy, which therefore computes it in float32.
	small bool
	// rolls says that the model's loop has a cache of its own.
	rolls bool
	// budget is filled when the model is opened; nil of world models.
	budget *model.Budget
	files  *model.Files
}

// models are the models by name that need no files.
var models = map[string]catalogued{
	model.TinyWorld: {open: model.OpenTinyWorld, licence: "Apache-2.0", about: "embedded; first-person walks through a maze, steered by 9 actions", world: true, stride: 1, small: true},
}

// modelNamed returns the model of the flags: one by name, or of the path of a weight file or folder.
func modelNamed(f *modelFlags) (catalogued, error) {
	if known, ok := models[f.Model]; ok {
		return known, f.onlyWan(f.Model)
	}
	path, isWorld, err := f.worldFile()
	if err != nil {
		return catalogued{}, usageError{err}
	}
	if isWorld {
		open := func(d compute.Device) (*rollout.Engine, error) { return openWorldFile(d, path) }
		return catalogued{open: open, about: "world model from a file", world: true, stride: 1}, f.onlyWan(f.Model)
	}
	if r, released := model.ReleaseNamed(f.Model); released {
		return catalogued{}, usagef("model %s is not in the own store: longtake models pull %s brings it from a folder or URL that you name", r.Name, r.Name)
	}
	c := catalogued{about: "model on Wan-2.1", stride: 4, budget: &model.Budget{}, files: &model.Files{}}
	s, o, err := f.source()
	if err != nil {
		return c, err
	}
	found, err := s.Find()
	if err != nil {
		return c, usageError{err}
	}
	c.about, c.licence, c.rolls = found.Family.About, found.Family.Licence, found.Family.Loop == rollout.RollingWindow
	c.open = func(d compute.Device) (*rollout.Engine, error) {
		o.Encode, o.Prompts = f.Encode || f.Takes && found.VAE != "", f.Prompts
		e, err := f.openWan(d, s, o, &c)
		if err != nil && !errors.Is(err, compute.ErrNoMemory) {
			err = usageError{err}
		}
		return e, err
	}
	return c, nil
}

// worldFile finds the weights of a world model that the flags name by its file, folder, or name in the own store.
func (f *modelFlags) worldFile() (path string, ok bool, err error) {
	if _, family := model.FamilyNamed(f.Model); family {
		return "", false, nil
	}
	if path, ok = model.UsualPlaces(os.Getenv).World(f.Model); ok || !strings.HasSuffix(f.Model, ".safetensors") {
		return path, ok, nil
	}
	file, err := weights.Open(f.Model)
	if err != nil {
		return "", false, err
	}
	defer file.Close()
	kind := model.Identify(file).Kind
	return f.Model, kind == model.KindTinyWorld || kind == model.KindUnknown && f.Family == "", nil
}

func openWorldFile(d compute.Device, path string) (*rollout.Engine, error) {
	e, err := model.OpenWorld(d, path)
	if err != nil && !errors.Is(err, compute.ErrNoMemory) {
		err = usageError{err}
	}
	return e, err
}

// openWan loads a model on Wan-2.1 and says beforehand what it takes.
func (f *modelFlags) openWan(d compute.Device, s model.Source, o model.Options, c *catalogued) (*rollout.Engine, error) {
	m, err := model.PrepareWan(d, s, o)
	if err != nil {
		return nil, err
	}
	*c.budget, *c.files = m.Budget, m.Files
	m.Options.Progress = f.Note
	if f.Note != nil {
		b, leaves := m.Budget, ""
		if b.TextLeaves {
			leaves = " (leaves after use)"
		}
		f.Note(fmt.Sprintf("%s from %s: network %s, VAE %s (%s), text encoder %s%s", m.Files.Family.Name, m.Files.Network,
			bytesText(b.Network), bytesText(b.VAE), m.Options.VAE, bytesText(b.Text), leaves))
	}
	return m.Load()
}

// onlyWan refuses flags that a world model has no use for.
func (f *modelFlags) onlyWan(name string) error {
	for flag, given := range map[string]bool{
		"family": f.Family != "", "wan": f.Wan != "", "vae": f.VAE != "" || f.UseTAEHV, "size": f.Size != "" || f.Width != 0 || f.Height != 0,
		"lora": len(f.Lora) > 0, "offload-text": f.OffloadText, "chunk-frames": f.ChunkFrames != 0, "step-list": f.StepList != "", "shift": f.Shift != 0,
	} {
		if given {
			return usagef("--%s has no meaning with --model %s, only with models on Wan-2.1", flag, name)
		}
	}
	return nil
}

// source turns the flags into what package model takes.
func (f *modelFlags) source() (s model.Source, o model.Options, err error) {
	s = model.Source{Model: f.Model, Family: f.Family, Wan: f.Wan, Text: f.TextPath, Tokenizer: f.TokenizerPath, VAE: f.VAEPath,
		TinyVAE: f.TinyVAEPath, Places: model.UsualPlaces(os.Getenv)}
	o = model.Options{Width: f.Width, Height: f.Height, VAE: f.VAE, Root: f.WeightsKey, NoAdapter: f.NoAdapter, OffloadText: f.OffloadText,
		ChunkFrames: f.ChunkFrames, Raw: f.RawSteps, Shift: f.Shift, Unchecked: f.NoCheck}
	if f.UseTAEHV {
		o.VAE = "tiny"
	}
	if f.UseEMA != nil && o.Root == "" {
		if o.Root = "generator"; *f.UseEMA {
			o.Root = "generator_ema"
		}
	}
	if f.ContextNoise != nil && *f.ContextNoise != 0 {
		return s, o, usagef("--context-noise %v: only 0 is supported", *f.ContextNoise)
	}
	if f.Shift < 0 || f.ChunkFrames < 0 {
		return s, o, usagef("--shift %v --chunk-frames %d: must be positive", f.Shift, f.ChunkFrames)
	}
	if f.Size != "" {
		if o.Width, o.Height, err = parseSize(f.Size); err != nil {
			return s, o, err
		}
	}
	if o.Width != 0 && o.Height == 0 || o.Height != 0 && o.Width == 0 {
		return s, o, usagef("--width and --height go together")
	}
	if o.Steps, err = parseSteps(f.StepList); err != nil {
		return s, o, err
	}
	if f.RawSteps && len(o.Steps) == 0 {
		return s, o, usagef("--raw-steps goes with --step-list")
	}
	for _, item := range f.Lora {
		a := model.Adapter{Path: item, Scale: 1}
		if path, scale, ok := cutLast(item, "="); ok {
			if a.Scale, err = strconv.ParseFloat(scale, 64); err != nil {
				return s, o, usagef("--lora %q: the scale must be a number", item)
			}
			a.Path = path
		}
		o.Adapters = append(o.Adapters, a)
	}
	return s, o, nil
}

func cutLast(s, sep string) (before, after string, found bool) {
	i := strings.LastIndex(s, sep)
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+len(sep):], true
}

// parseSize reads 832x480 or 832*480.
func parseSize(s string) (width, height int, err error) {
	w, h, ok := strings.Cut(strings.NewReplacer("*", "x", "X", "x").Replace(s), "x")
	width, err1 := strconv.Atoi(strings.TrimSpace(w))
	height, err2 := strconv.Atoi(strings.TrimSpace(h))
	if !ok || err1 != nil || err2 != nil || width < 1 || height < 1 {
		return 0, 0, usagef("--size %q: write width and height as 832x480", s)
	}
	return width, height, nil
}

// parseSteps reads 1000,750,500,250, in brackets or not; a 0 at the end is left out, as CausVid does.
func parseSteps(list string) (out []float64, err error) {
	for part := range strings.SplitSeq(strings.Trim(list, "[] "), ",") {
		if part = strings.TrimSpace(part); part == "" {
			continue
		}
		v, err := strconv.ParseFloat(part, 64)
		if err != nil || len(out) >= 1000 {
			return nil, usagef("--step-list %q: write falling numbers as 1000,750,500,250", list)
		}
		out = append(out, v)
	}
	if n := len(out); n > 1 && out[n-1] == 0 {
		out = out[:n-1]
	}
	return out, nil
}
