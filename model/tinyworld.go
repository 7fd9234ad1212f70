package model

import (
	_ "embed" // the weights are part of the binary
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"longtake/compute"
	"longtake/dit"
	"longtake/kvcache"
	"longtake/rollout"
	"longtake/sampler"
	"longtake/text"
	"longtake/vae"
	"longtake/weights"
)

// The embedded world model; see tinyworld/README.md for where it comes from.
var (
	//go:embed tinyworld/tinyworld.safetensors
	tinyWeights []byte
	//go:embed tinyworld/config.json
	tinyConfig []byte
	//go:embed tinyworld/vocab.json
	tinyVocabulary []byte
)

// TinyWorld is the name of the embedded model.
const TinyWorld = "tinyworld"

// worldFormat is the format of a world model's config.json.
const worldFormat = "tinyworld-v1"

// worldConfig is config.json of that format.
type worldConfig struct {
	Format   string   `json:"format"`
	Dim      int      `json:"d"`
	Layers   int      `json:"layers"`
	Heads    int      `json:"heads"`
	FFN      int      `json:"ffn"`
	Image    [3]int   `json:"image"` // height, width, channels
	Patch    int      `json:"patch"`
	Actions  []string `json:"actions"`
	Headings int      `json:"headings"`
	Step     float64  `json:"step_cells"`
	// Waves and ViewTan are dit.Config's, of networks that are told their place.
	Waves   []float64 `json:"place_waves"`
	ViewTan float64   `json:"view_tan"`
	Rope    struct {
		Split   [3]int  `json:"split_t_h_w"`
		ThetaT  float64 `json:"theta_t"`
		ThetaHW float64 `json:"theta_hw"`
		Unit    float64 `json:"unit_hw"` // 0: 1
		Clamp   int     `json:"temporal_clamp"`
	} `json:"rope"`
	Norm struct {
		LayerNorm float32 `json:"ln_eps"`
		Text      float32 `json:"text_ln_eps"`
		RMS       float32 `json:"rms_eps"`
	} `json:"norm"`
	Time struct {
		Dim       int     `json:"freq_dim"`
		MaxPeriod float64 `json:"max_period"`
	} `json:"time_embed"`
	Text struct {
		Vocabulary int     `json:"vocab"`
		MaxTokens  int     `json:"max_len"`
		Dim        int     `json:"d"`
		Layers     int     `json:"layers"`
		Heads      int     `json:"heads"`
		FFN        int     `json:"ffn"`
		Theta      float64 `json:"rope_theta"`
		Scale      float32 `json:"emb_scale"`
	} `json:"text"`
	Sampler struct {
		Steps int        `json:"steps"`
		Shift float64    `json:"shift"`
		Clamp [2]float32 `json:"clamp_x0"`
	} `json:"sampler"`
}

// worldWindow is the cache that the embedded model is used with by default: 32 frames are one look around (30 headings).
const worldWindow = 32

// tinyNeeds are the entries of the fullest head of every layer of the embedded weights after a look around, merged at 0.9
// without a budget (accel/tempcache/README.md).
var tinyNeeds = []float64{445, 1142, 705, 495, 1554, 965}

// tinyHeadNeeds are the entries of each head of the embedded weights, in units of the mean, merged at 0.92 without a budget: means over two
// true strolls of 161 frames and two dreams of 150 (TestMeasureNeeds of accel/tempcache).
var tinyHeadNeeds = []float64{
	0.143, 1.138, 0.052, 1.255,
	1.564, 1.164, 0.794, 0.576,
	0.627, 0.665, 0.825, 0.865,
	0.615, 0.469, 0.668, 0.593,
	1.449, 4.105, 0.484, 1.369,
	1.365, 1.128, 1.035, 1.053,
}

// worldStill: of 5,899 true steps one in a hundred changes a picture of 64x64 by less than .019, and the one that changed it least by
// .010 (values in [-1, 1]); four in a row change it by .033 or more in 99 of a hundred cases. A dreamt step into a wall changes it by .005,
// or by .015 where a texture flickers, and four of them by no more. A step is .22 cells.
var worldStill = rollout.Still{Enter: 0.012, Leave: 0.017, Slow: 0.03, Known: 0.11}

// WorldFPS is a brisk walk: a turn of 12 degrees a frame, a full circle in two seconds.
const WorldFPS = 15

// maxSide bounds the frames of a world model.
const maxSide = 4096

func parseWorld(raw []byte) (worldConfig, error) {
	var c worldConfig
	if err := json.Unmarshal(raw, &c); err != nil {
		return c, fmt.Errorf("model configuration: %w", err)
	}
	if c.Format != worldFormat {
		return c, fmt.Errorf("model configuration has format %q, this version reads %q", c.Format, worldFormat)
	}
	if side := max(c.Image[0], c.Image[1]); side > maxSide {
		return c, fmt.Errorf("model configuration: an image of %v: sides up to %d pixels are read", c.Image, maxSide)
	}
	if c.Patch <= 0 || c.Image[2] != 3 || c.Image[0]%c.Patch != 0 || c.Image[1]%c.Patch != 0 {
		return c, fmt.Errorf("model configuration: patches of %d do not fill an image of %v", c.Patch, c.Image)
	}
	return c, c.network().Check()
}

func (c worldConfig) network() dit.Config {
	return dit.Config{
		Dim: c.Dim, Heads: c.Heads, Layers: c.Layers, FFN: c.FFN,
		In: c.Patch * c.Patch * 3, Out: c.Patch * c.Patch * 3,
		Rows: c.Image[0] / c.Patch, Columns: c.Image[1] / c.Patch, ChunkFrames: 1,
		FreqDim: c.Time.Dim, MaxPeriod: c.Time.MaxPeriod,
		Pairs: [3]int{c.Rope.Split[0] / 2, c.Rope.Split[1] / 2, c.Rope.Split[2] / 2},
		Theta: [3]float64{c.Rope.ThetaT, c.Rope.ThetaHW, c.Rope.ThetaHW},
		Unit:  c.Rope.Unit, Clamp: c.Rope.Clamp, Eps: c.Norm.LayerNorm,
		Actions: len(c.Actions), Headings: c.Headings, Waves: c.Waves, ViewTan: c.ViewTan,
	}
}

func (c worldConfig) text(words *text.Words) text.SmallConfig {
	id := func(s string) int32 {
		ids, _ := words.Encode(s, 1)
		return ids[0]
	}
	return text.SmallConfig{
		Vocabulary: c.Text.Vocabulary, MaxTokens: c.Text.MaxTokens,
		Dim: c.Text.Dim, Heads: c.Text.Heads, Layers: c.Text.Layers, FFN: c.Text.FFN, Out: c.Dim,
		RopeTheta: c.Text.Theta, Scale: c.Text.Scale, NormEps: c.Norm.Text, QKEps: c.Norm.RMS,
		Stop: id("."), FirstDirection: id("north-west"), Directions: id("south-east") - id("north-west") + 1,
	}
}

// turns returns the change of heading of every action; turn_right is +1.
func (c worldConfig) turns() []int {
	change := map[string]int{"turn_left": -1, "forward_left": -1, "turn_right": 1, "forward_right": 1}
	out := make([]int, len(c.Actions))
	for i, a := range c.Actions {
		out[i] = change[a]
	}
	return out
}

// advance returns the dead reckoning of the model's actions: a turn first, then a step at the new heading, north at heading 0
// and y growing to the south; walls are not known. It equals world.Pose.Advance.
func (c worldConfig) advance() func(kvcache.Pose, int) kvcache.Pose {
	turns, ahead, aside := c.turns(), make([]float64, len(c.Actions)), make([]float64, len(c.Actions))
	for i, a := range c.Actions {
		ahead[i] = map[string]float64{"forward": c.Step, "forward_left": c.Step, "forward_right": c.Step, "back": -c.Step}[a]
		aside[i] = map[string]float64{"strafe_left": -c.Step, "strafe_right": c.Step}[a]
	}
	return func(p kvcache.Pose, action int) kvcache.Pose {
		p.Heading = math.Mod(p.Heading+float64(turns[action])+p.Period, p.Period)
		sin, cos := math.Sincos(2 * math.Pi * p.Heading / p.Period)
		p.X += ahead[action]*sin + aside[action]*cos
		p.Y += aside[action]*sin - ahead[action]*cos
		return p
	}
}

// OpenTinyWorld loads the embedded model onto a device. The error wraps compute.ErrNoMemory when it does not fit.
func OpenTinyWorld(dev compute.Device) (*rollout.Engine, error) {
	file, err := weights.Parse(tinyWeights)
	if err != nil {
		return nil, fmt.Errorf("embedded weights: %w", err)
	}
	e, err := openWorld(dev, TinyWorld, file, sync.OnceValue(file.Hash), tinyConfig, tinyVocabulary)
	if err != nil {
		return nil, err
	}
	e.LayerNeeds, e.HeadNeeds = tinyNeeds, tinyHeadNeeds
	return e, nil
}

// OpenWorld loads a world model from a .safetensors file. The config.json and vocab.json beside it are used; where there is
// none, the embedded model's.
func OpenWorld(dev compute.Device, path string) (*rollout.Engine, error) {
	file, err := weights.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close() // everything is copied to the device
	dir := filepath.Dir(path)
	config, err := beside(dir, "config.json", tinyConfig)
	if err != nil {
		return nil, err
	}
	vocabulary, err := beside(dir, "vocab.json", tinyVocabulary)
	if err != nil {
		return nil, err
	}
	name := strings.TrimSuffix(filepath.Base(path), ".safetensors")
	if full, err := filepath.Abs(dir); name == "weights" && err == nil {
		name = filepath.Base(full) // the folder is the model
	}
	hash := file.Hash() // while the file is open
	return openWorld(dev, name, file, func() string { return hash }, config, vocabulary)
}

// maxSideFile bounds what is read beside a weight file.
const maxSideFile = 1 << 20

func beside(dir, name string, otherwise []byte) ([]byte, error) {
	f, err := os.Open(filepath.Join(dir, name))
	if errors.Is(err, fs.ErrNotExist) {
		return otherwise, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxSideFile+1))
	if err == nil && len(b) > maxSideFile {
		err = fmt.Errorf("%s is larger than %d bytes", f.Name(), maxSideFile)
	}
	return b, err
}

func openWorld(dev compute.Device, name string, file *weights.File, sum func() string, config, vocabulary []byte) (*rollout.Engine, error) {
	c, err := parseWorld(config)
	if err != nil {
		return nil, err
	}
	var list []string
	if err := json.Unmarshal(vocabulary, &list); err != nil {
		return nil, fmt.Errorf("vocabulary: %w", err)
	}
	for _, w := range []string{".", "north-west", "south-east"} {
		if !slices.Contains(list, w) {
			return nil, fmt.Errorf("vocabulary lacks %q", w)
		}
	}
	if err := file.Check(); err != nil {
		return nil, err
	}
	words := text.NewWords(list)
	load := func(p weights.Placer) (*dit.Model, *prompter) {
		enc := text.LoadSmall(p, c.text(words))
		return dit.Load(p, c.network(), dit.TinyNames), &prompter{words, enc, enc.NewWork(p.Arena)}
	}
	network, prompts, arena, err := place(dev, file, load)
	if err != nil {
		return nil, err
	}
	pixels := vae.Pixels{Rows: network.Rows, Columns: network.Columns, Patch: c.Patch}
	return rollout.NewEngine(dev, arena, rollout.Parts{
		Name: name, Sum: sum, Parameters: parameters(file),
		Network: network, Text: prompts,
		Width: pixels.Width(), Height: pixels.Height(),
		NewDecoder: func(compute.Arena, bool) (rollout.Decoder, error) { p := pixels; return &p, nil },
		NewEncoder: func(compute.Arena, int) (rollout.Encoder, error) { p := pixels; return &p, nil },
		NewSolver: func(steps int) (*sampler.Solver, error) {
			if steps == 0 {
				steps = c.Sampler.Steps
			}
			return sampler.New(steps, c.Sampler.Shift, sampler.Clean, c.Sampler.Clamp[1])
		},
		Turns: c.turns(), Advance: c.advance(), Still: worldStill, FPS: WorldFPS,
		Cache: kvcache.Window{Recent: worldWindow}, CacheShape: network.CacheShape(),
	}), nil
}

// place counts, checks, and then loads: a file that does not fit the model or the device fails before anything is read.
func place[M, T any](dev compute.Device, file *weights.File, load func(weights.Placer) (M, T)) (m M, t T, arena compute.Arena, err error) {
	audit, meter := weights.NewAudit(file), &compute.Meter{Device: dev}
	load(weights.Placer{Audit: audit, Arena: meter, Bias: dev.Types().Bias})
	if err := audit.Err(); err != nil {
		return m, t, nil, err
	}
	dq, err := dev.NewQueue()
	if err != nil {
		return m, t, nil, err
	}
	defer dq.Close()
	if arena, err = dev.NewArena(meter.Bytes()); err != nil {
		return m, t, nil, fmt.Errorf("load weights: %w", err)
	}
	m, t = load(weights.Placer{Audit: audit, Arena: arena, Queue: dq, Bias: dev.Types().Bias})
	if err = dq.Wait(); err == nil {
		err = arena.Err()
	}
	if err != nil {
		arena.Free()
		return m, t, nil, fmt.Errorf("load weights: %w", err)
	}
	return m, t, arena, nil
}

func parameters(file *weights.File) int {
	n := 0
	for _, name := range file.Names() {
		if h, err := file.Tensor(name); err == nil {
			n += h.Elems()
		}
	}
	return n
}

// prompter joins tokenizer and encoder.
type prompter struct {
	words   *text.Words
	encoder *text.Small
	work    *text.SmallWork
}

// MaxTokens is the longest prompt.
func (p *prompter) MaxTokens() int { return p.encoder.MaxTokens }

// Encode encodes the words that the model knows; a prompt without any is encoded as a single full stop.
func (p *prompter) Encode(dq compute.Queue, prompt string) (compute.Tensor, int, []text.Unknown, error) {
	ids, unknown := p.words.Encode(prompt, p.encoder.MaxTokens)
	if len(ids) == 0 {
		ids = []int32{p.encoder.Stop}
	}
	return p.encoder.Encode(dq, p.work, ids), 0, unknown, dq.Err()
}
