package cuda_test

import (
	"encoding/binary"
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"longtake/compute"
	"longtake/compute/cuda"
	"longtake/internal/devicetest"
	"longtake/vae"
	"longtake/weights"
)

// missing is a file without tensors.
type missing struct{}

func (missing) Tensor(string) (compute.Host, error) { return compute.Host{}, weights.ErrMissing }

// randomly is an arena whose matrices and parameters are random, so that activations keep their size.
type randomly struct {
	compute.Arena
	dq  compute.Queue
	rng *rand.Rand
}

func (r randomly) Matrix(h compute.Host) compute.Matrix {
	h.DType = compute.BF16
	h.Data = make([]byte, 0, 2*h.Elems())
	scale := math.Sqrt(2 / float64(h.Shape[1]))
	for range h.Elems() {
		h.Data = binary.LittleEndian.AppendUint16(h.Data, compute.BF16FromF32(float32(r.rng.NormFloat64()*scale)))
	}
	return r.Arena.Matrix(h)
}

func (r randomly) Tensor(dt compute.DType, dims ...int) compute.Tensor {
	t := r.Arena.Tensor(dt, dims...)
	if dt == compute.F32 && r.Err() == nil {
		r.dq.Noise(t, compute.NoiseKey{Seed: r.rng.Uint64()})
	}
	return t
}

// BenchmarkDecode times a latent frame of 832x480, four frames of video, without bringing them to the host.
func BenchmarkDecode(b *testing.B) {
	dev := devicetest.GPU(b, cuda.Options{Weights: compute.BF16})
	defer dev.Close()
	dq, err := dev.NewQueue()
	if err != nil {
		b.Fatal(err)
	}
	defer dq.Close()
	for _, c := range []struct {
		name  string
		flops float64
		load  func(p weights.Placer) func(compute.Arena, compute.Types, vae.Options) (*vae.Decoder, error)
	}{
		{"taehv", 0.527e12, func(p weights.Placer) func(compute.Arena, compute.Types, vae.Options) (*vae.Decoder, error) {
			return vae.LoadTAEHV(p, vae.Taew21()).NewDecoder
		}},
		{"wan", 13.55e12, func(p weights.Placer) func(compute.Arena, compute.Types, vae.Options) (*vae.Decoder, error) {
			config := vae.Wan21()
			config.DecodeOnly = true
			return vae.LoadWan(p, config).NewDecoder
		}},
	} {
		b.Run(c.name, func(b *testing.B) {
			arena, err := dev.NewArena(0)
			if err != nil {
				b.Fatal(err)
			}
			defer arena.Free()
			make := c.load(weights.Placer{Audit: weights.NewAudit(missing{}), Arena: randomly{arena, dq, rand.New(rand.NewPCG(1, 2))}})
			d, err := make(arena, dev.Types(), vae.Options{Width: 832, Height: 480})
			if err != nil {
				b.Fatal(err)
			}
			z := arena.Tensor(compute.F32, 1560, 64)
			dq.Noise(z, compute.NoiseKey{Seed: 1})
			best := time.Hour
			for range 8 {
				start := time.Now()
				if err := d.Feed(dq, z, d.Next()); err != nil {
					b.Fatal(err)
				}
				if err := dq.Wait(); err != nil {
					b.Fatal(err)
				}
				if d.Next() > 3 {
					best = min(best, time.Since(start))
				}
			}
			b.ReportMetric(best.Seconds()*1e3, "ms/latent-frame")
			b.ReportMetric(c.flops/best.Seconds()/1e12, "TFLOP/s")
			b.ReportMetric(0, "ns/op")
		})
	}
}
