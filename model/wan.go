package model

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"longtake/compute"
	"longtake/dit"
	"longtake/text"
	"longtake/vae"
	"longtake/weights"
)

// Wan is a model on Wan-2.1 whose files are open and checked, and whose memory is counted; nothing is on the device yet. It
// belongs to one goroutine. Close it, or hand it to Load.
type Wan struct {
	Files   Files
	Options Options
	Budget  Budget
	// Looks is what the network's file looks like.
	Looks Identity

	dev    compute.Device
	tokens *text.Unigram
	config dit.Config
	parts  []*part // network, VAE, text: as they are loaded
	// What loading makes.
	network *dit.Model
	text    *text.T5
	work    *text.T5Work
	wan     *vae.Wan
	tiny    *vae.TAEHV
	spare   compute.Tensor // F32 [prompt tokens, text width] of an off-loaded encoder's result
}

// part is a weight file on its way to the device.
type part struct {
	name  string
	file  *weights.File
	src   weights.Source
	audit *weights.Audit
	load  func(weights.Placer)
	bytes int64
}

// PrepareWan finds, opens and checks a model's files and counts what it will take on the device. The error names a file that
// is missing (*MissingError), tensors that are missing or wrong (*weights.Report), or what a file looks like instead.
func PrepareWan(dev compute.Device, s Source, o Options) (m *Wan, err error) {
	m = &Wan{dev: dev}
	defer func() {
		if err != nil {
			m.Close()
			m = nil
		}
	}()
	if m.Files, err = s.Find(); err != nil {
		return m, err
	}
	if m.Options, err = o.settle(m.Files.Family); err != nil {
		return m, err
	}
	if err := m.openNetwork(); err != nil {
		return m, err
	}
	if err := m.openVAE(); err != nil {
		return m, err
	}
	if err := m.openText(); err != nil {
		return m, err
	}
	return m, m.count()
}

// Close closes the files. What Load has made needs them: it closes them itself.
func (m *Wan) Close() error {
	var errs []error
	for _, p := range m.parts {
		if p.file != nil {
			errs = append(errs, p.file.Close())
		}
	}
	m.parts = nil
	return errors.Join(errs...)
}

// missing is the error for a file of the Wan folder.
func (m *Wan) missing(what, file, flag string) error {
	return &MissingError{m.Files.Family.Name, what, file, m.Files.looked, "huggingface.co/Wan-AI/" + m.Files.Family.Wan + " (or name it: " + flag + ")"}
}

// openNetwork opens the network, adapters merged in.
func (m *Wan) openNetwork() error {
	file, err := weights.Open(m.Files.Network)
	if err != nil {
		return err
	}
	p := &part{name: "network", file: file}
	m.parts = append(m.parts, p)
	m.Looks = Identify(file)
	if m.Looks.Kind != KindNetwork || !m.Looks.Runs {
		return fmt.Errorf("model %s: %s is a %s%s; wanted is the network of %s", m.Files.Family.Name, m.Files.Network, m.Looks.Text, because(m.Looks.Why), m.Files.Family.Name)
	}
	network, err := weights.Network(file, m.Options.Root)
	if err != nil {
		return err
	}
	p.src = network
	if m.config, err = m.numbers(network); err != nil {
		return err
	}
	if err := m.belongs(); err != nil {
		return err
	}
	adapters := m.Options.Adapters
	if m.Files.Adapter != "" && !m.Options.NoAdapter {
		adapters = append([]Adapter{{Path: m.Files.Adapter}}, adapters...)
	}
	for _, a := range adapters {
		if err := m.adapt(p, a); err != nil {
			return err
		}
	}
	p.load = func(at weights.Placer) { m.network = dit.Load(at, m.config, dit.WanNames) }
	return nil
}

func because(why string) string {
	if why == "" {
		return ""
	}
	return " (" + why + ")"
}

// belongs refuses a network with the numbers of another family than the one that was asked for by name.
func (m *Wan) belongs() error {
	f := &m.Files
	for _, known := range families {
		if known.Dim != m.config.Dim || known.Layers != m.config.Layers || known.Dim == f.Family.Dim {
			continue
		}
		if f.exact {
			return fmt.Errorf("model %s: %s looks like %s: %s", f.Family.Name, f.Network, known.Name, m.Looks.Text)
		}
		steps, wan := f.Family, known
		f.Family = wan
		f.Family.Steps, f.Family.Raw, f.Family.Shift = steps.Steps, steps.Raw, steps.Shift
		return nil
	}
	return nil
}

func (m *Wan) adapt(p *part, a Adapter) error {
	file, err := weights.Open(a.Path)
	if err != nil {
		return err
	}
	m.parts = append(m.parts, &part{name: "adapter", file: file})
	if a.Scale == 0 {
		a.Scale = 1
	}
	p.src, err = weights.Adapt(p.src, file, a.Scale)
	return err
}

// numbers reads the network's numbers off its tensors; how many heads there are only a config.json says, and without one they
// are 128 wide, as in all published networks.
func (m *Wan) numbers(n *weights.Renamed) (dit.Config, error) {
	shape := func(name string, rank int) []int {
		h, err := n.Tensor(name)
		if err != nil || len(h.Shape) != rank {
			return make([]int, rank)
		}
		return h.Shape
	}
	patch, ffn, text, time := shape("patch_embedding.weight", 5), shape("blocks.0.ffn.0.weight", 2), shape("text_embedding.0.weight", 2), shape("time_embedding.0.weight", 2)
	c := dit.Config{
		Dim: patch[0], FFN: ffn[0], Layers: countLayers(n.Names()), In: 4 * min(patch[1], wanLatents), Given: max(patch[1]-wanLatents, 0), Out: 4 * wanLatents,
		Conv: [3]int{patch[1], 2, 2}, TextDim: text[1], TextTokens: wanPrompt,
		Rows: m.Options.Height / 16, Columns: m.Options.Width / 16, ChunkFrames: m.Options.ChunkFrames,
		FreqDim: time[1], MaxPeriod: 10000, Theta: [3]float64{10000, 10000, 10000}, Eps: 1e-6,
	}
	var err error
	if c.Heads, err = m.heads(c.Dim); err != nil {
		return c, err
	}
	half := c.Dim / c.Heads / 2
	c.Pairs = [3]int{half - half/3*2, half / 3, half / 3}
	if err := c.Check(); err != nil {
		return c, fmt.Errorf("read weights %s: %w", m.Files.Network, err)
	}
	return c, nil
}

// heads is num_heads of the config.json beside the network or in the Wan folder, if it speaks of this width.
func (m *Wan) heads(dim int) (int, error) {
	for _, path := range []string{filepath.Join(filepath.Dir(m.Files.Network), "config.json"), m.Files.Config} {
		raw, err := beside(filepath.Dir(path), filepath.Base(path), nil)
		if path == "" || err != nil || raw == nil {
			continue
		}
		var c struct {
			Dim   int `json:"dim"`
			Heads int `json:"num_heads"`
			// As diffusers says it.
			Attention int `json:"num_attention_heads"`
			HeadDim   int `json:"attention_head_dim"`
		}
		err = json.Unmarshal(raw, &c)
		if c.Dim == 0 {
			c.Dim, c.Heads = c.Attention*c.HeadDim, c.Attention
		}
		if err == nil && c.Dim == dim && c.Heads > 0 && dim%c.Heads == 0 {
			return c.Heads, nil
		}
	}
	if dim < 128 || dim%128 != 0 {
		return 0, fmt.Errorf("read weights %s: a network of width %d has no heads of 128, and no config.json with its num_heads lies beside it", m.Files.Network, dim)
	}
	return dim / 128, nil
}

// openVAE opens the decoder that the options ask for, and the encoder for start frames.
func (m *Wan) openVAE() error {
	o, f := m.Options, m.Files
	if o.VAE == "" {
		if o.VAE = "wan"; f.VAE == "" && f.TinyVAE != "" {
			o.VAE = "tiny"
		}
		m.Options.VAE = o.VAE
	}
	if o.VAE == "tiny" {
		if f.TinyVAE == "" {
			return &MissingError{f.Family.Name, "the tiny VAE", tinyFiles[0], f.looked, "github.com/madebyollin/taehv (or name it: --tiny-vae-path)"}
		}
		if err := m.openTiny(f.TinyVAE); err != nil {
			return err
		}
		if !o.Encode {
			return nil
		}
	}
	if f.VAE == "" {
		return m.missing("the VAE", vaeFile, "--vae-path")
	}
	file, err := weights.Open(f.VAE)
	if err != nil {
		return err
	}
	p := &part{name: "VAE", file: file}
	m.parts = append(m.parts, p)
	if id := Identify(file); id.Kind != KindVAE || !id.Runs {
		return fmt.Errorf("%s is a %s%s; wanted is the Wan-2.1 VAE", f.VAE, id.Text, because(id.Why))
	}
	named, err := weights.Official(file)
	if err != nil {
		return err
	}
	p.src = named
	c := vaeNumbers(named)
	c.DecodeOnly = !o.Encode
	p.load = func(at weights.Placer) { m.wan = vae.LoadWan(at, c) }
	return nil
}

func (m *Wan) openTiny(path string) error {
	file, err := weights.Open(path)
	if err != nil {
		return err
	}
	p := &part{name: "tiny VAE", file: file, src: file}
	m.parts = append(m.parts, p)
	if id := Identify(file); id.Kind != KindTinyVAE {
		return fmt.Errorf("%s is a %s%s; wanted is a tiny VAE (TAEHV)", path, id.Text, because(id.Why))
	}
	c := tinyNumbers(file)
	p.load = func(at weights.Placer) { m.tiny = vae.LoadTAEHV(at, c) }
	return nil
}

// openText opens tokenizer and encoder.
func (m *Wan) openText() (err error) {
	f := m.Files
	switch {
	case f.Text == "":
		return m.missing("the text encoder", textFile, "--text-path")
	case f.Tokenizer == "":
		return m.missing("the tokenizer", tokenizerFiles[0]+" or spiece.model", "--tokenizer-path")
	}
	if m.tokens, err = readTokenizer(f.Tokenizer); err != nil {
		return err
	}
	file, err := weights.Open(f.Text)
	if err != nil {
		return err
	}
	p := &part{name: "text encoder", file: file}
	m.parts = append(m.parts, p)
	if id := Identify(file); id.Kind != KindText || !id.Runs {
		return fmt.Errorf("%s is a %s%s; wanted is Wan's umT5 encoder", f.Text, id.Text, because(id.Why))
	}
	named, err := weights.Official(file)
	if err != nil {
		return err
	}
	p.src = named
	c, err := textNumbers(named)
	if err != nil {
		return err
	}
	if c.Dim != m.config.TextDim {
		return fmt.Errorf("text encoder %s gives rows of %d, the network %s takes rows of %d: they belong to different models", f.Text, c.Dim, f.Network, m.config.TextDim)
	}
	if m.tokens.Pieces() > c.Vocabulary {
		return fmt.Errorf("tokenizer %s has %d pieces, the text encoder %s knows %d: they belong to different models", f.Tokenizer, m.tokens.Pieces(), f.Text, c.Vocabulary)
	}
	p.load = func(at weights.Placer) {
		m.text = text.LoadT5(at, c)
		m.work = m.text.NewWork(at.Arena, m.dev.Types())
	}
	return nil
}

// textNumbers reads an encoder's numbers off its tensors.
func textNumbers(f weights.Listed) (text.T5Config, error) {
	c := text.T5XXL
	shape := func(name string) (a, b int) {
		if h, err := f.Tensor(name); err == nil && len(h.Shape) == 2 {
			return h.Shape[0], h.Shape[1]
		}
		return 0, 0
	}
	var inner int
	c.Vocabulary, c.Dim = shape("token_embedding.weight")
	c.Buckets, c.Heads = shape("blocks.0.pos_embedding.embedding.weight")
	inner, _ = shape("blocks.0.attn.q.weight")
	c.FFN, _ = shape("blocks.0.ffn.fc1.weight")
	c.Layers, c.MaxTokens = countLayers(f.Names()), wanPrompt
	if min(c.Vocabulary, c.Dim, c.Heads, inner, c.FFN, c.Layers) < 1 || c.Buckets < 4 || c.Buckets%2 != 0 || inner%c.Heads != 0 {
		return c, fmt.Errorf("read weights %s: the shapes of blocks.0 are not those of a umT5 encoder", f.Path())
	}
	c.HeadDim = inner / c.Heads
	return c, nil
}

// maxTokenizer is the most bytes of a tokenizer's file; umT5's have 4 and 17 million.
const maxTokenizer = 64 << 20

func readTokenizer(path string) (*text.Unigram, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("read tokenizer: %w", err)
	}
	if info.IsDir() || info.Size() > maxTokenizer {
		return nil, fmt.Errorf("read tokenizer %s: not a file of at most %d bytes", path, maxTokenizer)
	}
	raw, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read tokenizer: %w", err)
	}
	read := text.ReadSpiece
	if filepath.Ext(path) == ".json" {
		read = text.ReadTokenizerJSON
	}
	u, err := read(raw)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return u, nil
}
