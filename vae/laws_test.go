package vae

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"longtake/compute"
	"longtake/rollout"
	"longtake/video"
	"longtake/weights"
)

var (
	_ rollout.Decoder = (*Decoder)(nil)
	_ rollout.Encoder = (*Encoder)(nil)
)

// frames decodes chunk by chunk into frames.
func (r *rig) frames(d *Decoder, dq compute.Queue, z compute.Tensor, chunk int) (out []video.Frame) {
	r.Helper()
	n := d.tokens.count()
	for first := 0; first < z.Shape[0]/n; first += chunk {
		frames, err := d.Decode(dq, z.Slice(0, first*n, min((first+chunk)*n, z.Shape[0])), first)
		if err != nil {
			r.Fatal(err)
		}
		out = append(out, frames...)
	}
	return out
}

func (r *rig) same(what string, got, want []video.Frame) {
	r.Helper()
	if len(got) != len(want) {
		r.Errorf("%s: %d frames, want %d", what, len(got), len(want))
		return
	}
	for i := range got {
		if got[i].Index != want[i].Index || !slices.Equal(got[i].Pix, want[i].Pix) {
			r.Errorf("%s: frame %d (numbered %d) differs from %d", what, i, got[i].Index, want[i].Index)
			return
		}
	}
}

// kinds runs a test for both decoders, with five latent frames of noise for a small video.
func kinds(t *testing.T, f func(r *rig, make maker, o Options, z compute.Tensor)) {
	run := func(t *testing.T, dir string, load func(r *rig) maker) {
		r := newRig(t, dir, "")
		make := load(r)
		r.loaded()
		z := r.arena.Tensor(compute.F32, 5*4, 64)
		r.dq.Noise(z, compute.NoiseKey{Seed: 1})
		f(r, make, Options{Width: 32, Height: 32, Patches: 100_000}, z)
	}
	t.Run("wan", func(t *testing.T) {
		run(t, wanDir, func(r *rig) maker { return LoadWan(r.placer(), tinyWan()).NewDecoder })
	})
	t.Run("taehv", func(t *testing.T) {
		run(t, taehvDir, func(r *rig) maker { return LoadTAEHV(r.placer(), tinyTAEHV).NewDecoder })
	})
}

type maker = func(compute.Arena, compute.Types, Options) (*Decoder, error)

func TestFrameByFrameIsTheWhole(t *testing.T) {
	kinds(t, func(r *rig, make maker, o Options, z compute.Tensor) {
		d := r.decoder(make, o)
		whole := r.frames(d, r.dq, z, 5)
		for i, f := range whole {
			if f.Index != i {
				r.Fatalf("frame %d is numbered %d", i, f.Index)
			}
		}
		if len(whole) != 17 {
			r.Fatalf("%d frames, want 17", len(whole))
		}
		bytes := r.arena.Bytes()
		for _, chunk := range []int{1, 2, 3} {
			r.same(fmt.Sprint("chunks of ", chunk), r.frames(d, r.dq, z, chunk), whole)
		}
		d.Reset()
		if r.arena.Bytes() != bytes {
			r.Errorf("memory grew from %d to %d", bytes, r.arena.Bytes())
		}
	})
}

func TestStripsAndAbilitiesDoNotMatter(t *testing.T) {
	kinds(t, func(r *rig, make maker, o Options, z compute.Tensor) {
		want := r.frames(r.decoder(make, o), r.dq, z, 3)
		for _, patches := range []int64{1, 9_000, 1 << 30} {
			o.Patches = patches
			r.same(fmt.Sprint("patches of ", patches, " bytes"), r.frames(r.decoder(make, o), r.dq, z, 3), want)
		}
		o.Patches = 0
		bare := struct{ compute.Queue }{r.dq} // hides the abilities
		r.same("without abilities", r.frames(r.decoder(make, o), bare, z, 3), want)
	})
}

func TestMeterKnowsTheBytes(t *testing.T) {
	kinds(t, func(r *rig, make maker, o Options, z compute.Tensor) {
		for _, again := range []bool{false, true} {
			o.Again = again
			meter := &compute.Meter{Device: r.dev}
			if _, err := make(meter, r.dev.Types(), o); err != nil {
				r.Fatal(err)
			}
			arena, err := r.dev.NewArena(meter.Bytes())
			if err != nil {
				r.Fatal(err)
			}
			d, err := make(arena, r.dev.Types(), o)
			if err != nil || arena.Err() != nil || arena.Bytes() != meter.Bytes() {
				r.Fatalf("%v, %v, %d bytes, the meter said %d", err, arena.Err(), arena.Bytes(), meter.Bytes())
			}
			r.frames(d, r.dq, z, 1)
			arena.Free()
		}
	})
}

func TestALatentFrameFollowsTheOneBefore(t *testing.T) {
	kinds(t, func(r *rig, make maker, o Options, z compute.Tensor) {
		d := r.decoder(make, o)
		n := d.tokens.count()
		want := r.frames(d, r.dq, z, 5)
		part := func(lo, hi int) compute.Tensor { return z.Slice(0, lo*n, hi*n) }
		d.Decode(r.dq, part(0, 2), 0)
		for _, first := range []int{1, 3} {
			if _, err := d.Decode(r.dq, part(2, 3), first); !errors.Is(err, ErrOrder) {
				r.Errorf("latent frame %d after 1: %v", first, err)
			}
		}
		if err := d.Feed(r.dq, part(2, 4), 2); err != nil || d.Next() != 4 {
			r.Fatalf("feed: %v, next %d", err, d.Next())
		}
		last, err := d.Decode(r.dq, part(4, 5), 4)
		if err != nil {
			r.Fatal(err)
		}
		r.same("after feeding", last, want[13:])

		o.Again = true
		d = r.decoder(make, o)
		var got []video.Frame
		for first := range 5 {
			d.Decode(r.dq, z.Slice(0, 0, n), first) // another latent frame, only looked at
			frames, err := d.Decode(r.dq, part(first, first+1), first)
			if err != nil {
				r.Fatal(err)
			}
			got = append(got, frames...)
		}
		r.same("after looking", got, want)
	})
}

func TestDecodingTakesNoMemoryButTheFrames(t *testing.T) {
	kinds(t, func(r *rig, make maker, o Options, z compute.Tensor) {
		d := r.decoder(make, o)
		one := z.Slice(0, 0, d.tokens.count())
		for first := range 4 {
			d.Feed(idle{}, one, first)
		}
		if n := testing.AllocsPerRun(3, func() { d.Feed(idle{}, one, d.Next()) }); n > 0 {
			r.Errorf("%v allocations a latent frame", n)
		}
	})
}

func TestAStartImageIsLatentFrameZero(t *testing.T) {
	r := newRig(t, wanDir, "")
	m := r.wan()
	o := Options{Width: 48, Height: 32, Single: true}
	e, err := m.NewEncoder(r.arena, r.dev.Types(), o)
	if err != nil {
		t.Fatal(err)
	}
	d := r.decoder(m.NewDecoder, o)
	image := video.NewFrame(48, 32)
	for i := range image.Pix {
		image.Pix[i] = uint8(i * 7)
	}
	n := d.tokens.count()
	z := r.arena.Tensor(compute.F32, 2*n, 64)
	r.dq.Noise(z, compute.NoiseKey{Seed: 1})
	if full, err := e.Push(r.dq, z.Slice(0, 0, n), image); !full || err != nil {
		t.Fatal(full, err)
	}
	if err := d.Feed(r.dq, z.Slice(0, 0, n), 0); err != nil {
		t.Fatal(err)
	}
	frames, err := d.Decode(r.dq, z.Slice(0, n, 2*n), 1)
	if err != nil {
		t.Fatal(err)
	}
	r.same("after the image", frames, r.frames(d, r.dq, z, 2)[1:])
	if _, err := e.Push(r.dq, z.Slice(0, 0, n), image); err == nil {
		t.Error("a second image was taken")
	}
	if _, err := e.Push(r.dq, z.Slice(0, 0, n), video.NewFrame(64, 32)); err == nil {
		t.Error("an image of another size was taken")
	}
}

// Behind an image and grey frames, latent frames are all the same sooner than rollout takes them to be (steadyLatents: 32).
func TestGreyFramesGiveSteadyLatents(t *testing.T) {
	r := newRig(t, wanDir, "float32")
	m := r.wan()
	e, err := m.NewEncoder(r.arena, r.dev.Types(), Options{Width: 16, Height: 16})
	if err != nil {
		t.Fatal(err)
	}
	frame := video.NewFrame(16, 16)
	for i := range frame.Pix {
		frame.Pix[i] = byte(37 * i)
	}
	latent := r.arena.Tensor(compute.F32, e.tokens.count(), e.tokens.width())
	var last []float32
	same := 0 // latent frames equal to the one before, at the end
	for n := 0; n < 40; {
		full, err := e.Push(r.dq, latent, frame)
		if err != nil {
			t.Fatal(err)
		}
		if frame.Pix = nil; !full {
			continue
		}
		now := r.floats(latent)
		if same++; !slices.Equal(now, last) {
			same = 0
		}
		last, n = now, n+1
	}
	if steady := 40 - same; steady > 32 || steady < 3 {
		t.Errorf("latent frames are the same from %d on", steady)
	} else {
		t.Logf("the same from latent frame %d on", steady)
	}
}

func TestBadSizesAndNumbersAreErrors(t *testing.T) {
	r := newRig(t, wanDir, "")
	c := tinyWan()
	c.DecodeOnly = true
	m := LoadWan(r.placer(), c)
	r.loaded() // the encoder's tensors are not unexpected
	for _, o := range []Options{{}, {Width: 64, Height: 40}, {Width: -16, Height: 16}, {Width: 64, Height: 48, Patches: -1}} {
		if _, err := m.NewDecoder(r.arena, r.dev.Types(), o); err == nil {
			t.Errorf("%+v: no error", o)
		}
	}
	if _, err := m.NewEncoder(r.arena, r.dev.Types(), wanSize); !errors.Is(err, compute.ErrUnsupported) {
		t.Errorf("encoder of a VAE for decoding only: %v", err)
	}
	small, err := r.dev.NewArena(10_000)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := m.NewDecoder(small, r.dev.Types(), wanSize); !errors.Is(err, compute.ErrNoMemory) {
		t.Errorf("decoder in 10 KB: %v", err)
	}
	small.Free()
	d := r.decoder(m.NewDecoder, Options{Width: 16, Height: 16})
	nan := r.arena.Tensor(compute.F32, 1, 64)
	r.dq.Upload(nan, floatBytes(slices.Repeat([]float32{float32(math.NaN())}, 64)))
	if _, err := d.Decode(r.dq, nan, 0); err == nil {
		t.Error("NaN became pixels")
	}
}

func TestLevelsRoundAndLimit(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for _, l := range []levels{{127.5, 127.5}, {255, 0}} {
		values := []float32{0, -1, 1, 2, -2, float32(math.Inf(1)), float32(math.Inf(-1)), 0.5 / 255, 1.5 / 255, 2.5 / 255, 1e30, -1e30}
		for range 10000 {
			values = append(values, float32(rng.NormFloat64()))
		}
		got := make([]byte, len(values))
		if bad := l.bytes(got, floatBytes(values)); bad >= 0 {
			t.Fatalf("%v is not a number", values[bad])
		}
		for i, v := range values {
			if want := uint8(math.RoundToEven(min(max(float64(v)*l.scale+l.shift, 0), 255))); got[i] != want {
				t.Errorf("%+v of %v: %d, want %d", l, v, got[i], want)
			}
		}
		values[77] = float32(math.NaN())
		if bad := l.bytes(got, floatBytes(values)); bad != 77 {
			t.Errorf("the number that is none is at 77, not %d", bad)
		}
	}
}

// One frame of 832x480.
func BenchmarkLevels(b *testing.B) {
	values, frame := make([]byte, 4*832*480*3), make([]byte, 832*480*3)
	for b.Loop() {
		levels{255, 0}.bytes(frame, values)
	}
}

// nothing is a file without tensors.
type nothing struct{}

func (nothing) Tensor(string) (compute.Host, error) { return compute.Host{}, weights.ErrMissing }

// full makes the published networks without weights, to count.
func full(r *rig) (*Wan, *TAEHV) {
	p := weights.Placer{Audit: weights.NewAudit(nothing{}), Arena: &compute.Meter{Device: r.dev}}
	return LoadWan(p, Wan21()), LoadTAEHV(p, Taew21())
}

// count rehearses some latent frames and returns the operations of the last one.
func count(d *Decoder, frames int) float64 {
	d.dq, d.feeding = idle{}, true
	for range frames {
		d.flops = 0
		d.one(compute.NewTensor(nil, 0, compute.F32, d.tokens.count(), d.tokens.width()))
	}
	return float64(d.flops)
}

// The numbers that doc comments give.
func TestCostAtFullSize(t *testing.T) {
	r := newRig(t, wanDir, "")
	wan, tiny := full(r)
	for _, c := range []struct {
		name        string
		make        maker
		first, each float64 // TFLOP
		bytes       float64 // GB
	}{{"wan", wan.NewDecoder, 4.35, 13.55, 4.8}, {"taehv", tiny.NewDecoder, 0.527, 0.527, 0.46}} {
		meter := &compute.Meter{Device: r.dev}
		d, err := c.make(meter, compute.Types{Activation: compute.F32}, Options{Width: 832, Height: 480})
		if err != nil {
			t.Fatal(err)
		}
		first, each, bytes := count(d, 1)/1e12, count(d, 3)/1e12, float64(meter.Bytes())/1e9
		t.Logf("%s: %.3f TFLOP, then %.3f; %.3f GB", c.name, first, each, bytes)
		if math.Abs(first-c.first) > 0.005*c.first || math.Abs(each-c.each) > 0.005*c.each || bytes > c.bytes {
			t.Errorf("%s: %.3f TFLOP for the first latent frame, then %.3f, and %.2f GB; want %v, %v, %v", c.name, first, each, bytes, c.first, c.each, c.bytes)
		}
	}
	for _, single := range []bool{true, false} {
		meter := &compute.Meter{Device: r.dev}
		if _, err := wan.NewEncoder(meter, compute.Types{Activation: compute.F32}, Options{Width: 832, Height: 480, Single: single}); err != nil {
			t.Fatal(err)
		}
		t.Logf("encoder, single %v: %.3f GB", single, float64(meter.Bytes())/1e9)
	}
}

// zeros is an arena that makes weights of nothing.
type zeros struct{ compute.Arena }

func (z zeros) Matrix(h compute.Host) compute.Matrix {
	h.Data = make([]byte, h.Elems()*h.DType.Size())
	return z.Arena.Matrix(h)
}

// Counted: the multiply-adds of convolutions, twice.
func BenchmarkDecode(b *testing.B) {
	for _, patches := range []int64{1 << 18, 1 << 20, 1 << 21, 1 << 22, 1 << 24} {
		for _, c := range []struct {
			name, dir string
			width     int
		}{{"wan", wanDir, 32}, {"taehv", taehvDir, 0}} {
			b.Run(fmt.Sprintf("vae=%s/patches=%d", c.name, patches), func(b *testing.B) {
				r := newRig(b, c.dir, "")
				p := weights.Placer{Audit: weights.NewAudit(nothing{}), Arena: zeros{r.arena}}
				var d *Decoder
				if c.name == "wan" {
					config := Wan21()
					config.Width, config.DecodeOnly = c.width, true
					d = r.decoder(LoadWan(p, config).NewDecoder, Options{Width: 64, Height: 64, Patches: patches})
				} else {
					d = r.decoder(LoadTAEHV(p, Taew21()).NewDecoder, Options{Width: 64, Height: 64, Patches: patches})
				}
				z := r.arena.Tensor(compute.F32, d.tokens.count(), 64)
				r.dq.Noise(z, compute.NoiseKey{Seed: 1})
				for first := range 3 {
					d.Feed(r.dq, z, first)
				}
				best := time.Hour
				for b.Loop() {
					d.flops = 0
					start := time.Now()
					d.Feed(r.dq, z, d.Next())
					best = min(best, time.Since(start))
				}
				b.ReportMetric(float64(d.flops)/1e9/best.Seconds(), "best-GFLOP/s")
			})
		}
	}
}
