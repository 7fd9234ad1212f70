package model

import (
	"context"
	"fmt"
	"sync"
	"time"

	"longtake/compute"
	"longtake/rollout"
	"longtake/text"
	"longtake/vae"
	"longtake/weights"
)

// Budget is the device memory of a model, in bytes, known before it is loaded.
type Budget struct {
	Network, VAE, Text int64
	// TextLeaves says that the text encoder is on the device only while a prompt is encoded.
	TextLeaves bool
}

// Weights is what stays on the device.
func (b Budget) Weights() int64 {
	if b.TextLeaves {
		return b.Network + b.VAE
	}
	return b.Network + b.VAE + b.Text
}

// count runs the loading code on a meter: it finds every fault of the files and the memory.
func (m *Wan) count() error {
	m.Budget = Budget{TextLeaves: m.Options.OffloadText}
	for _, p := range m.parts {
		if p.load == nil {
			continue
		}
		meter := &compute.Meter{Device: m.dev}
		p.audit = weights.NewAudit(p.src)
		if p.name == "tiny VAE" {
			p.audit.Skip("encoder.")
		}
		p.load(weights.Placer{Audit: p.audit, Arena: meter, Bias: m.dev.Types().Bias})
		if p.name == "network" && m.Options.OffloadText {
			m.allocateSpare(meter)
		}
		if err := p.audit.Err(); err != nil {
			return err
		}
		switch p.bytes = meter.Bytes(); p.name {
		case "network":
			m.Budget.Network = p.bytes
		case "text encoder":
			m.Budget.Text = p.bytes
		default:
			m.Budget.VAE += p.bytes
		}
	}
	free := m.Options.Free
	if free == 0 {
		free = m.dev.Memory().Free
	}
	if need := max(m.Budget.Weights(), m.Budget.Text); free > 0 && need > free {
		return fmt.Errorf("load %s: the weights take %d MiB and %d MiB are free%s: %w", m.Files.Family.Name, need>>20, free>>20, m.advice(), compute.ErrNoMemory)
	}
	return nil
}

func (m *Wan) advice() string {
	if !m.Options.OffloadText && m.Budget.Text > 0 {
		return " (--offload-text takes the text encoder off the device after use)"
	}
	return ""
}

func (m *Wan) allocateSpare(a compute.Arena) {
	m.spare = a.Tensor(compute.F32, wanPrompt, m.config.TextDim)
}

// Check looks for numbers that are not finite, in all files at once. The error names the tensor and where it lies.
func (m *Wan) Check() error {
	for _, p := range m.parts {
		if err := p.file.Check(); err != nil {
			return err
		}
	}
	return nil
}

// Load brings the model to the device and returns its engine, which owns the files from now on.
func (m *Wan) Load() (e *rollout.Engine, err error) {
	held := &holdings{files: m.parts}
	defer func() {
		if err != nil {
			held.Free()
			m.parts = nil
		}
	}()
	if !m.Options.Unchecked {
		began := time.Now()
		if err := m.Check(); err != nil {
			return nil, err
		}
		m.say("numbers checked", began)
	}
	prompts, err := m.loadText(held)
	if err != nil {
		return nil, err
	}
	for _, p := range m.parts {
		if p.load == nil || p.name == "text encoder" {
			continue
		}
		arena, err := m.bring(p)
		if err != nil {
			return nil, err
		}
		held.arenas = append(held.arenas, arena)
	}
	network := m.parts[0]
	m.parts = nil
	return m.engine(held.hash(network.file), held, prompts, parametersOf(network.src)), nil
}

// say tells how long something took.
func (m *Wan) say(what string, began time.Time) {
	if m.Options.Progress != nil {
		m.Options.Progress(fmt.Sprintf("%s in %.2f s", what, time.Since(began).Seconds()))
	}
}

// hash begins to read a file for its SHA-256, which takes seconds, and returns who waits for it.
func (h *holdings) hash(f *weights.File) func() string {
	ctx, stop := context.WithCancel(context.Background())
	h.stop = stop
	var sum string
	h.hashing.Go(func() { sum, _ = f.HashUntil(ctx) })
	return func() string {
		h.hashing.Wait()
		return sum
	}
}

// bring loads a part into an arena of its own.
func (m *Wan) bring(p *part) (compute.Arena, error) {
	began := time.Now()
	dq, err := m.dev.NewQueue()
	if err != nil {
		return nil, err
	}
	defer dq.Close()
	arena, err := m.dev.NewArena(p.bytes)
	if err != nil {
		return nil, fmt.Errorf("load %s: %w", p.name, err)
	}
	p.load(weights.Placer{Audit: p.audit, Arena: arena, Queue: dq, Bias: m.dev.Types().Bias})
	if p.name == "network" && m.Options.OffloadText {
		m.allocateSpare(arena)
	}
	if err = dq.Wait(); err == nil {
		err = arena.Err()
	}
	if err != nil {
		arena.Free()
		return nil, fmt.Errorf("load %s: %w", p.name, err)
	}
	m.say(p.name+" loaded", began)
	return arena, nil
}

// loadText makes the model's prompter: with the encoder on the device, or with one that comes and goes.
func (m *Wan) loadText(held *holdings) (rollout.Prompter, error) {
	var p *part
	for _, q := range m.parts {
		if q.name == "text encoder" {
			p = q
		}
	}
	if !m.Options.OffloadText {
		arena, err := m.bring(p)
		if err != nil {
			return nil, err
		}
		held.arenas = append(held.arenas, arena)
		return text.NewPrompter(m.tokens, m.text, m.work)
	}
	visits := &visitor{most: wanPrompt, kept: map[string]encoding{}, load: func() (*text.Prompter, compute.Arena, error) {
		arena, err := m.bring(p)
		if err != nil {
			return nil, nil, err
		}
		prompter, err := text.NewPrompter(m.tokens, m.text, m.work)
		if err != nil {
			arena.Free()
		}
		m.text, m.work = nil, nil
		return prompter, arena, err
	}, out: func() compute.Tensor { return m.spare }}
	if len(m.Options.Prompts) == 0 {
		return visits, nil
	}
	dq, err := m.dev.NewQueue()
	if err != nil {
		return nil, err
	}
	defer dq.Close()
	return visits, visits.encode(dq, m.Options.Prompts...)
}

// engine puts the parts together; held may be nil for an engine that only counts.
func (m *Wan) engine(sum func() string, held *holdings, prompts rollout.Prompter, parameters int) *rollout.Engine {
	o, f, types := m.Options, m.Files.Family, m.dev.Types()
	frames := func(again, single bool) vae.Options {
		return vae.Options{Width: o.Width, Height: o.Height, Again: again, Single: single}
	}
	wan, tiny := m.wan, m.tiny
	p := rollout.Parts{
		Name: f.Name, Sum: sum, Parameters: parameters, Network: m.network, Text: prompts,
		Width: o.Width, Height: o.Height, Stride: 4, FPS: wanFPS, Loop: f.Loop, Refresh: f.Refresh,
		NewSolver: o.solver, Cache: f.Cache, CacheShape: m.config.CacheShape(),
		NewDecoder: func(a compute.Arena, again bool) (rollout.Decoder, error) {
			if tiny != nil {
				return tiny.NewDecoder(a, types, frames(again, false))
			}
			return wan.NewDecoder(a, types, frames(again, false))
		},
	}
	if o.Encode {
		p.NewEncoder = func(a compute.Arena, n int) (rollout.Encoder, error) {
			return wan.NewEncoder(a, types, frames(false, n == 1))
		}
	}
	return rollout.NewEngine(m.dev, held, p)
}

func parametersOf(s weights.Source) (n int) {
	lister, ok := s.(interface{ Names() []string })
	if !ok {
		return 0
	}
	for _, name := range lister.Names() {
		if h, err := shapeOf(s, name); err == nil {
			n += h.Elems()
		}
	}
	return n
}

// shapeOf asks below adapters, which would merge.
func shapeOf(s weights.Source, name string) (compute.Host, error) {
	if a, ok := s.(*weights.Adapted); ok {
		return a.Plain(name)
	}
	return s.Tensor(name)
}

// holdings is all that an engine of several files owns, as the arena that rollout gives back.
type holdings struct {
	arenas []compute.Arena
	files  []*part

	hashing sync.WaitGroup // of the network's file, until stop
	stop    context.CancelFunc
}

// Tensor is not for holdings: they are full.
func (h *holdings) Tensor(compute.DType, ...int) compute.Tensor { panic("model: a full arena") }

// Matrix is not for holdings.
func (h *holdings) Matrix(compute.Host) compute.Matrix { panic("model: a full arena") }

// Bytes is the sum of all arenas.
func (h *holdings) Bytes() (n int64) {
	for _, a := range h.arenas {
		n += a.Bytes()
	}
	return n
}

// Err is nil: what failed was given back before.
func (h *holdings) Err() error { return nil }

// Free gives the memory back and closes the files.
func (h *holdings) Free() {
	if h.stop != nil {
		h.stop()
		h.hashing.Wait()
	}
	for _, a := range h.arenas {
		a.Free()
	}
	for _, p := range h.files {
		if p.file != nil {
			p.file.Close()
		}
	}
	h.arenas, h.files = nil, nil
}

// OpenWan prepares and loads a model on Wan-2.1.
func OpenWan(dev compute.Device, s Source, o Options) (*rollout.Engine, error) {
	m, err := PrepareWan(dev, s, o)
	if err != nil {
		return nil, err
	}
	return m.Load()
}
