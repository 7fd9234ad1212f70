package model

import (
	"longtake/compute"
	"longtake/dit"
	"longtake/rollout"
	"longtake/text"
	"longtake/vae"
	"longtake/weights"
)

// Examine looks at one weight file: what it is, and for what this program can use, which tensors are missing, unexpected or of
// a wrong shape (nil: none). Dev is only asked for sizes. Root is as in Options.
func Examine(dev compute.Device, f *weights.File, root string) (Identity, *weights.Report) {
	id := Identify(f)
	var src weights.Source = f
	var load func(weights.Placer)
	var skip string
	switch {
	case !id.Runs:
		return id, nil
	case id.Kind == KindNetwork:
		network, err := weights.Network(f, root)
		if err != nil {
			return id, &weights.Report{Path: f.Path(), Failed: []error{err}}
		}
		m := &Wan{Files: Files{Network: f.Path()}, Options: Options{Width: wanWidth, Height: wanHeight, ChunkFrames: 3}}
		c, err := m.numbers(network)
		if err != nil {
			// Which heads there are matters little to names and shapes.
			c.Heads = 1
		}
		src, load = network, func(p weights.Placer) { dit.Load(p, c, dit.WanNames) }
	case id.Kind == KindText || id.Kind == KindVAE:
		named, err := weights.Official(f)
		if err != nil {
			return id, &weights.Report{Path: f.Path(), Failed: []error{err}}
		}
		if src = named; id.Kind == KindVAE {
			c := vaeNumbers(named)
			load = func(p weights.Placer) { vae.LoadWan(p, c) }
			break
		}
		c, err := textNumbers(named)
		if err != nil {
			return id, &weights.Report{Path: f.Path(), Failed: []error{err}}
		}
		load = func(p weights.Placer) { text.LoadT5(p, c) }
	case id.Kind == KindTinyVAE:
		c := tinyNumbers(f)
		load, skip = func(p weights.Placer) { vae.LoadTAEHV(p, c) }, "encoder."
	default:
		return id, nil
	}
	audit := weights.NewAudit(src)
	if skip != "" {
		audit.Skip(skip)
	}
	load(weights.Placer{Audit: audit, Arena: &compute.Meter{Device: dev}})
	report, _ := audit.Err().(*weights.Report)
	return id, report
}

// vaeNumbers reads a VAE's width off its file.
func vaeNumbers(f weights.Listed) vae.WanConfig {
	c := vae.Wan21()
	if h, err := f.Tensor("decoder.head.0.gamma"); err == nil && len(h.Shape) > 0 {
		c.Width = max(h.Shape[0], 1)
	}
	return c
}

// tinyNumbers reads a tiny VAE's widths off its file.
func tinyNumbers(f *weights.File) vae.TAEHVConfig {
	c := vae.Taew21()
	for i, name := range []string{"decoder.1.weight", "decoder.8.weight", "decoder.14.weight", "decoder.20.weight"} {
		if h, err := f.Tensor(name); err == nil && len(h.Shape) > 0 {
			c.Widths[i] = max(h.Shape[0], 1)
		}
	}
	return c
}

// Part is one file of a prepared model.
type Part struct {
	Name string
	File *weights.File
	// Bytes is what it takes on the device; 0 of adapters, which are merged.
	Bytes int64
}

// Parts returns the model's files in the order in which they are loaded. They stay the model's.
func (m *Wan) Parts() (out []Part) {
	for _, p := range m.parts {
		out = append(out, Part{p.name, p.file, p.bytes})
	}
	return out
}

// Network returns the network's tensors by their official names, adapters merged, and its file's path for messages.
func (m *Wan) Network() (src weights.Source, names []string) {
	src = m.parts[0].src
	if l, ok := src.(interface{ Names() []string }); ok {
		names = l.Names()
	}
	return src, names
}

// SessionBytes returns what a session takes beside the weights at the prepared size, the model's own cache among it. Prepared
// means counted: it must come before Load.
func (m *Wan) SessionBytes() (int64, error) {
	return m.engine(nil, nil, &visitor{most: wanPrompt}, 0).SessionBytes(rollout.Request{})
}
