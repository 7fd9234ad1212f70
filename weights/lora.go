package weights

import (
	"encoding/binary"
	"fmt"
	"math"
	"slices"
	"strings"

	"longtake/compute"
)

// Adapted is a Source whose weights have low-rank adapters (LoRA, arXiv:2106.09685) merged in: W + scale * B A, in float32,
// stored in the weight's own type. The sum is made anew each time a tensor is asked for.
type Adapted struct {
	source   Source
	adapters map[string]adapter // by weight name
	scale    float64
}

// adapter is a pair: down A [rank, in], up B [out, rank].
type adapter struct{ down, up compute.Host }

// adapterEnds are how PEFT, and diffusers, end the names of a pair.
var adapterEnds = [][2]string{
	{".lora_A.weight", ".lora_B.weight"},
	{".lora_A.default.weight", ".lora_B.default.weight"},
	{".lora_down.weight", ".lora_up.weight"},
}

// Adapt merges the adapters of a file into source, times scale (alpha/rank, as the adapter's configuration says). Names may
// carry PEFT's "base_model.model." and whatever Network understands. Every adapter must belong to a weight of its shape.
func Adapt(source Source, f *File, scale float64) (*Adapted, error) {
	a := &Adapted{source: source, adapters: map[string]adapter{}, scale: scale}
	for _, name := range f.Names() {
		for _, end := range adapterEnds {
			stem, ok := strings.CutSuffix(name, end[0])
			if !ok {
				continue
			}
			down, err := f.Tensor(name)
			if err != nil {
				return nil, err
			}
			up, err := f.Tensor(stem + end[1])
			if err != nil {
				return nil, fmt.Errorf("adapter %s has no second half: %w", clip(stem), err)
			}
			weight := officialName(adapterStem(stem)) + ".weight"
			if err := a.fit(f, weight, down, up); err != nil {
				return nil, err
			}
			a.adapters[weight] = adapter{down, up}
		}
	}
	if len(a.adapters) == 0 {
		return nil, fmt.Errorf("read adapter %s: it holds no pairs lora_A and lora_B", f.Path())
	}
	return a, nil
}

func adapterStem(stem string) string {
	for _, prefix := range []string{"generator_lora.", "base_model.model.", "diffusion_model.", "transformer."} {
		stem = strings.TrimPrefix(stem, prefix)
	}
	// PEFT wraps the adapted layer itself when only some are adapted.
	return strings.ReplaceAll(stem, ".base_layer", "")
}

func (a *Adapted) fit(f *File, name string, down, up compute.Host) error {
	w, err := a.Plain(name)
	if err != nil {
		return fmt.Errorf("read adapter %s: it adapts %s: %w", f.Path(), clip(name), err)
	}
	if len(w.Shape) != 2 || len(down.Shape) != 2 || len(up.Shape) != 2 ||
		up.Shape[0] != w.Shape[0] || down.Shape[1] != w.Shape[1] || up.Shape[1] != down.Shape[0] {
		return fmt.Errorf("read adapter %s: %v x %v does not fit %s of %v", f.Path(), up.Shape, down.Shape, clip(name), w.Shape)
	}
	return nil
}

// Tensor returns a tensor, adapted if there is an adapter for it.
func (a *Adapted) Tensor(name string) (compute.Host, error) {
	w, err := a.source.Tensor(name)
	pair, ok := a.adapters[name]
	if err != nil || !ok {
		return w, err
	}
	return merge(w, pair, a.scale)
}

// Offset is the source's.
func (a *Adapted) Offset(name string) int64 {
	if p, ok := a.source.(interface{ Offset(string) int64 }); ok {
		return p.Offset(name)
	}
	return -1
}

// Path returns the file's path, for messages.
func (a *Adapted) Path() string {
	if p, ok := a.source.(interface{ Path() string }); ok {
		return p.Path()
	}
	return ""
}

// Plain returns a tensor without its adapter.
func (a *Adapted) Plain(name string) (compute.Host, error) {
	if below, ok := a.source.(*Adapted); ok {
		return below.Plain(name)
	}
	return a.source.Tensor(name)
}

// Names returns the source's names, if it lists them.
func (a *Adapted) Names() []string {
	if l, ok := a.source.(interface{ Names() []string }); ok {
		return l.Names()
	}
	return nil
}

// merge returns w + scale * up down.
func merge(w compute.Host, p adapter, scale float64) (compute.Host, error) {
	sum, err := Floats(w)
	if err != nil {
		return w, err
	}
	down, err := Floats(p.down)
	if err != nil {
		return w, err
	}
	up, err := Floats(p.up)
	if err != nil {
		return w, err
	}
	in, rank := w.Shape[1], p.down.Shape[0]
	for o := range w.Shape[0] {
		row := sum[o*in : (o+1)*in]
		for r := range rank {
			factor := float32(scale) * up[o*rank+r]
			for i, v := range down[r*in : (r+1)*in] {
				row[i] += factor * v
			}
		}
	}
	out := compute.Host{DType: w.DType, Shape: slices.Clone(w.Shape), Data: make([]byte, 0, len(w.Data))}
	if w.DType == compute.F16 {
		out.DType = compute.F32 // halves are widened rather than rounded again
	}
	for _, v := range sum {
		if out.DType == compute.BF16 {
			out.Data = binary.LittleEndian.AppendUint16(out.Data, compute.BF16FromF32(v))
		} else {
			out.Data = binary.LittleEndian.AppendUint32(out.Data, math.Float32bits(v))
		}
	}
	return out, nil
}
