//go:build unix

package annsa_test

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"syscall"
	"testing"
	"time"

	"longtake/accel/ann"
	"longtake/accel/annsa"
	"longtake/attention"
	"longtake/compute"
	"longtake/compute/cpu"
	"longtake/kvcache"
)

// BenchmarkChunk is the self attention of a chunk of the embedded model, 4 steps and the clean pass, on a full cache of random keys.
// The time that counts on a busy machine is cpu-ms, of all threads.
func BenchmarkChunk(b *testing.B) {
	with := func(f func(o *annsa.Options)) annsa.Options {
		o := annsa.Default()
		o.From = 0
		f(&o)
		return o
	}
	for _, frames := range []int{30, 90, 300} {
		for _, v := range []struct {
			name  string
			maker attention.Maker
		}{
			{"dense", attention.Dense{}}, {"default", with(func(*annsa.Options) {})},
			{"clean", with(func(o *annsa.Options) { o.Clean = true })},
			{"fine", with(func(o *annsa.Options) { o.Tile, o.Group, o.Fraction = 4, 2, 0.25 })},
			{"fine-lsh256", with(func(o *annsa.Options) { o.Tile, o.Group, o.Fraction, o.Matcher = 4, 2, 0.25, ann.LSH{Bits: 256} })},
			{"lsh64", with(func(o *annsa.Options) { o.Matcher = ann.LSH{Bits: 64} })},
			{"quant4", with(func(o *annsa.Options) { o.Matcher = ann.Scalar(4) })},
			{"no-drop", with(func(o *annsa.Options) { o.NoDrop = true })},
		} {
			b.Run(fmt.Sprintf("frames=%d/policy=%s", frames, v.name), func(b *testing.B) { benchmarkChunk(b, v.maker, frames) })
		}
	}
}

func benchmarkChunk(b *testing.B, m attention.Maker, frames int) {
	dev, err := cpu.New(cpu.Options{Threads: 1})
	if err != nil {
		b.Fatal(err)
	}
	defer dev.Close()
	dq, _ := dev.NewQueue()
	defer dq.Close()
	arena, _ := dev.NewArena(0)
	defer arena.Free()
	s := kvcache.Shape{Layers: 6, Heads: 4, HeadDim: 64, Rows: 8, Columns: 8, ChunkFrames: 1, Pairs: [3]int{12, 10, 10},
		Theta: [3]float64{256, 16, 16}, Clamp: 88, DType: dev.Types().Cache}
	cache, err := kvcache.Window{Recent: kvcache.Full}.New(dev, dq, s)
	if err != nil {
		b.Fatal(err)
	}
	defer cache.Close()
	p, err := m.New(dev, dq, s)
	if err != nil {
		b.Fatal(err)
	}
	defer p.Close()
	rows, out := arena.Tensor(compute.F32, 64, 256), arena.Tensor(compute.F32, 64, 256)
	rng, raw := rand.New(rand.NewPCG(1, 2)), make([]byte, 0, 64*256*4)
	var took time.Duration
	for i := range frames + 2 + b.N {
		if err := cache.Begin(dq, kvcache.Span{Start: i, Frames: 1}); err != nil {
			b.Fatal(err)
		}
		raw = raw[:0]
		for range 64 * 256 {
			raw = binary.LittleEndian.AppendUint32(raw, math.Float32bits(float32(rng.NormFloat64())))
		}
		dq.Upload(rows, raw)
		at := attention.Site{Chunk: i, Passes: 5, Tokens: 64}
		at.Rope, at.Pos = cache.Rope()
		for at.Layer = range s.Layers {
			cache.Layer(at.Layer).Commit(dq, rows.Heads(4), rows.Heads(4))
		}
		before := cpuTime()
		for at.Pass = range 5 {
			if i < frames {
				break
			}
			for at.Layer = range s.Layers {
				p.Attend(dq, at, out.Heads(4), rows.Heads(4), cache.Layer(at.Layer).View())
			}
		}
		if i >= frames+2 {
			took += cpuTime() - before
		}
		cache.End()
	}
	b.ReportMetric(took.Seconds()*1e3/float64(b.N), "cpu-ms/chunk")
}

// cpuTime is the processor time of the process.
func cpuTime() time.Duration {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
