package vae

import (
	"encoding/binary"
	"fmt"
	"math"
	"slices"
	"testing"

	"longtake/compute"
	"longtake/internal/devicetest"
	"longtake/internal/golden"
	"longtake/weights"
)

// tinyWan and tinyTAEHV are the networks of testdata/golden.
func tinyWan() WanConfig {
	c := Wan21()
	c.Width = 8
	return c
}

var tinyTAEHV = TAEHVConfig{Latent: 16, Widths: [4]int{32, 16, 8, 8}}

// rig is a device with a queue and an arena for weights and sessions.
type rig struct {
	testing.TB
	dev   compute.Device
	dq    compute.Queue
	arena compute.Arena
	audit *weights.Audit
}

func newRig(t testing.TB, dir, kernel string) *rig {
	t.Helper()
	dev := devicetest.Open(t, kernel)
	dq, _ := dev.NewQueue()
	arena, _ := dev.NewArena(0)
	file, err := weights.Open(dir + "/weights.safetensors")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { dq.Close(); arena.Free(); dev.Close(); file.Close() })
	return &rig{t, dev, dq, arena, weights.NewAudit(file)}
}

func (r *rig) placer() weights.Placer {
	return weights.Placer{Audit: r.audit, Arena: r.arena, Queue: r.dq}
}

// loaded ends the test if the weights are not exactly those that the network asked for.
func (r *rig) loaded() {
	r.Helper()
	if err := r.audit.Err(); err != nil {
		r.Fatal(err)
	}
}

func (r *rig) wan() *Wan {
	m := LoadWan(r.placer(), tinyWan())
	r.loaded()
	return m
}

// tolerance of the kernel class, for float32 and for bfloat16 operands.
func (r *rig) tolerance(half float64) float64 {
	if r.dev.Types().Cache == compute.BF16 {
		return half
	}
	return 1e-5
}

func (r *rig) upload(v []float32, rows int) compute.Tensor {
	t := r.arena.Tensor(compute.F32, rows, len(v)/rows)
	r.dq.Upload(t, floatBytes(v))
	return t
}

func (r *rig) floats(t compute.Tensor) []float32 {
	b, out := make([]byte, t.Bytes()), make([]float32, t.Elems())
	r.dq.Download(b, t)
	for i := range out {
		if t.DType == compute.BF16 {
			out[i] = compute.F32FromBF16(binary.LittleEndian.Uint16(b[2*i:]))
		} else {
			out[i] = math.Float32frombits(binary.LittleEndian.Uint32(b[4*i:]))
		}
	}
	return out
}

// planes says how a reference lies: [channels, frames, rows, columns], or frames first.
type planes struct{ channels, frames, rows, columns int }

// frame returns frame f of a reference as [pixels, channels].
func (p planes) frame(v []float32, f int, framesFirst bool) []float32 {
	n := p.rows * p.columns
	out := make([]float32, 0, n*p.channels)
	for i := range n {
		for c := range p.channels {
			plane := c*p.frames + f
			if framesFirst {
				plane = f*p.channels + c
			}
			out = append(out, v[plane*n+i])
		}
	}
	return out
}

// patched turns an image [rows*columns, channels] into tokens of 2x2 patches in the order (row, column, channel).
func patched(v []float32, rows, columns, channels int) (out []float32) {
	for r := 0; r < rows; r += 2 {
		for c := 0; c < columns; c += 2 {
			for i := range 4 {
				at := ((r+i/2)*columns + c + i%2) * channels
				out = append(out, v[at:at+channels]...)
			}
		}
	}
	return out
}

// latents uploads reference latents as tokens.
func (r *rig) latents(v []float32, p planes, framesFirst bool) compute.Tensor {
	var all []float32
	for f := range p.frames {
		all = append(all, patched(p.frame(v, f, framesFirst), p.rows, p.columns, p.channels)...)
	}
	return r.upload(all, p.frames*p.rows*p.columns/4)
}

// tap collects what stage i gives, as float32 [frames, pixels, channels].
type tap struct {
	stage
	r   *rig
	got [][]float32
}

func (s *tap) push(c *chain, i int, x compute.Tensor, g grid) {
	s.got = append(s.got, s.r.floats(x))
	s.stage.push(c, i, x, g)
}

// tapStage listens to what goes into stage i.
func (r *rig) tapStage(c *chain, i int) *tap {
	t := &tap{stage: c.stages[i], r: r}
	c.stages[i] = t
	return t
}

// raw decodes tokens into float frames [pixels, 3], chunk by chunk.
func (r *rig) raw(d *Decoder, z compute.Tensor, chunk int) (out [][]float32) {
	r.Helper()
	d.out = func(x compute.Tensor, g grid) { out = append(out, r.floats(x)) }
	n := d.tokens.count()
	for first := 0; first < z.Shape[0]/n; first += chunk {
		if _, err := d.Decode(r.dq, z.Slice(0, first*n, min((first+chunk)*n, z.Shape[0])), first); err != nil {
			r.Fatal(err)
		}
	}
	d.out = d.frame
	return out
}

func (r *rig) decoder(new func(compute.Arena, compute.Types, Options) (*Decoder, error), o Options) *Decoder {
	r.Helper()
	d, err := new(r.arena, r.dev.Types(), o)
	if err != nil {
		r.Fatal(err)
	}
	return d
}

const (
	wanDir   = "testdata/golden/wan_vae_tiny"
	taehvDir = "testdata/golden/taehv_tiny"
)

var (
	wanSize    = Options{Width: 64, Height: 48, Patches: 100_000}
	wanLatent  = planes{16, 5, 6, 8}
	wanVideo   = planes{3, 17, 48, 64}
	tinySize   = Options{Width: 48, Height: 32, Patches: 100_000}
	tinyLatent = planes{16, 5, 4, 6}
)

func TestDecodeEqualsWan(t *testing.T) {
	g := golden.Load(t, wanDir)
	want := g.Floats(t, "video.safetensors", "out.full")
	for _, kernel := range devicetest.Kernels() {
		t.Run("kernel="+kernel, func(t *testing.T) {
			r := newRig(t, wanDir, kernel)
			d := r.decoder(r.wan().NewDecoder, wanSize)
			conv1, middle, up := r.tapStage(&d.chain, 2), r.tapStage(&d.chain, 4), r.tapStage(&d.chain, 9)
			z, frames := r.latents(g.Floats(t, "video.safetensors", "in.z"), wanLatent, false), wanVideo.frames
			if kernel == "generic" { // slow
				z, frames = z.Slice(0, 0, 3*d.tokens.count()), 9
			}
			got := r.raw(d, z, 1)
			for _, c := range []struct {
				name string
				got  []float32
				p    planes
				f    int
			}{
				{"conv1.f1", conv1.got[1], planes{32, 1, 6, 8}, 0},
				{"middle1.f1", middle.got[1], planes{32, 1, 6, 8}, 0},
				{"up03.f2", up.got[3], planes{16, 2, 12, 16}, 0},
				{"up03.f2", up.got[4], planes{16, 2, 12, 16}, 1},
			} {
				golden.Near(t, c.name, c.got, c.p.frame(g.Floats(t, "video.safetensors", "trace.dec."+c.name), c.f, false), r.tolerance(3e-2))
			}
			if len(got) != frames {
				t.Fatalf("%d frames, want %d", len(got), frames)
			}
			for f := range got {
				golden.Near(t, fmt.Sprint("frame ", f), got[f], wanVideo.frame(want, f, false), r.tolerance(3e-2))
			}
		})
	}
}

func TestEncodeEqualsWan(t *testing.T) {
	g := golden.Load(t, wanDir)
	pixels, want := g.Floats(t, "video.safetensors", "in.pixels"), g.Floats(t, "video.safetensors", "out.encoded")
	in, out := planes{3, 9, 32, 48}, planes{16, 3, 4, 6}
	for _, kernel := range []string{"", "cuda", "cuda-float32"} {
		t.Run("kernel="+kernel, func(t *testing.T) {
			encodes(newRig(t, wanDir, kernel), pixels, want, in, out)
		})
	}
}

// encodes compares an encoder of the tiny VAE with the reference.
func encodes(r *rig, pixels, want []float32, in, out planes) {
	m := r.wan()
	for _, single := range []bool{false, true} {
		e, err := m.NewEncoder(r.arena, r.dev.Types(), Options{Width: in.columns, Height: in.rows, Patches: 100_000, Single: single})
		if err != nil {
			r.Fatal(err)
		}
		latent := r.arena.Tensor(compute.F32, out.rows*out.columns/4, 64)
		n := 0
		for f := range in.frames {
			full, err := e.push(r.dq, latent, floatBytes(in.frame(pixels, f, false)))
			if err != nil || full != (f%4 == 0) {
				r.Fatalf("frame %d: full %v, %v", f, full, err)
			}
			if !full {
				continue
			}
			golden.Near(r, fmt.Sprint("latent frame ", n), r.floats(latent), patched(out.frame(want, n, false), out.rows, out.columns, 16), r.tolerance(3e-2))
			if n++; single {
				break
			}
		}
	}
}

func TestDecodeEqualsTAEHV(t *testing.T) {
	g := golden.Load(t, taehvDir)
	want := g.Floats(t, "video.safetensors", "out.raw")
	for _, kernel := range devicetest.Kernels() {
		t.Run("kernel="+kernel, func(t *testing.T) {
			r := newRig(t, taehvDir, kernel)
			m := LoadTAEHV(r.placer(), tinyTAEHV)
			r.loaded()
			d := r.decoder(m.NewDecoder, tinySize)
			squashed, blocks := r.tapStage(&d.chain, 0), r.tapStage(&d.chain, 4)
			got := r.raw(d, r.latents(g.Floats(t, "video.safetensors", "in.z"), tinyLatent, true), 1)
			if len(got) != 20 {
				t.Fatalf("%d frames, want 20", len(got))
			}
			rounded := 1e-5
			if r.dev.Types().Activation == compute.BF16 {
				rounded = 4e-3 // one rounding to 8 bits
			}
			for f := range 5 {
				golden.Near(t, fmt.Sprint("squashed latent frame ", f), squashed.got[f], tinyLatent.frame(g.Floats(t, "video.safetensors", "trace.dec00"), f, true), rounded)
				golden.Near(t, fmt.Sprint("blocks, latent frame ", f), blocks.got[f], planes{32, 5, 4, 6}.frame(g.Floats(t, "video.safetensors", "trace.dec05"), f, true), r.tolerance(2e-2))
			}
			for f := range got {
				golden.Near(t, fmt.Sprint("frame ", f), got[f], planes{3, 20, 32, 48}.frame(want, f, true), r.tolerance(2e-2))
			}
		})
	}
}

// Devices that keep activations in bfloat16 stay within what the public code loses in it, about twice.
func TestBFloat16Activations(t *testing.T) {
	half := compute.Types{Activation: compute.BF16, Cache: compute.BF16}
	g := golden.Load(t, wanDir)
	r := newRig(t, wanDir, "")
	m := r.wan()
	d, err := m.NewDecoder(r.arena, half, wanSize)
	if err != nil {
		t.Fatal(err)
	}
	z := r.latents(g.Floats(t, "video.safetensors", "in.z"), wanLatent, false)
	got, want := r.raw(d, z.Slice(0, 0, 3*d.tokens.count()), 1), []float32(nil)
	for f := range got {
		want = append(want, wanVideo.frame(g.Floats(t, "video.safetensors", "out.full"), f, false)...)
	}
	golden.Near(t, "wan decode", slices.Concat(got...), want, 3e-2)

	in, out := planes{3, 9, 32, 48}, planes{16, 3, 4, 6}
	e, err := m.NewEncoder(r.arena, half, Options{Width: in.columns, Height: in.rows})
	if err != nil {
		t.Fatal(err)
	}
	latent := r.arena.Tensor(compute.F32, out.rows*out.columns/4, 64)
	for f := range 5 {
		if _, err := e.push(r.dq, latent, floatBytes(in.frame(g.Floats(t, "video.safetensors", "in.pixels"), f, false))); err != nil {
			t.Fatal(err)
		}
	}
	golden.Near(t, "wan encode", r.floats(latent), patched(out.frame(g.Floats(t, "video.safetensors", "out.encoded"), 1, false), out.rows, out.columns, 16), 3e-2)

	g = golden.Load(t, taehvDir)
	r = newRig(t, taehvDir, "")
	tiny := LoadTAEHV(r.placer(), tinyTAEHV)
	r.loaded()
	if d, err = tiny.NewDecoder(r.arena, half, tinySize); err != nil {
		t.Fatal(err)
	}
	got, want = r.raw(d, r.latents(g.Floats(t, "video.safetensors", "in.z"), tinyLatent, true), 1), nil
	for f := range got {
		want = append(want, planes{3, 20, 32, 48}.frame(g.Floats(t, "video.safetensors", "out.raw"), f, true)...)
	}
	golden.Near(t, "taehv decode", slices.Concat(got...), want, 2e-2)
}
