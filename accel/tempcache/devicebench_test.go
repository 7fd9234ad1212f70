package tempcache_test

import (
	"fmt"
	"testing"
	"time"

	"longtake/accel/tempcache"
	"longtake/compute"
	"longtake/compute/cuda"
	"longtake/internal/devicetest"
	"longtake/kvcache"
)

// wanShape is the cache of Wan 2.1 1.3B at 832 x 480.
var wanShape = kvcache.Shape{Layers: 30, Heads: 12, HeadDim: 128, Rows: 30, Columns: 52, ChunkFrames: 3,
	Pairs: [3]int{22, 21, 21}, Theta: [3]float64{1e4, 1e4, 1e4}, Clamp: 21, DType: compute.BF16}

// BenchmarkBeginOnAGPU is what Begin costs a chunk of three frames at Wan's size with full stores, all 30 layers: three frames are
// merged and every key beyond the clamp is turned. A share of the tokens is new in every frame.
func BenchmarkBeginOnAGPU(b *testing.B) {
	dev := devicetest.GPU(b, cuda.Options{})
	defer dev.Close()
	for _, c := range []struct {
		name   string
		search tempcache.Search
		frames int // of entries
		fresh  int // per cent
	}{
		{"neighbours", tempcache.Neighbours, 12, 20},
		{"neighbours", tempcache.Neighbours, 6, 20},
		{"neighbours", tempcache.Neighbours, 12, 0},
		{"neighbours", tempcache.Neighbours, 12, 100},
		{"exact", tempcache.Exact, 12, 20},
		{"exact", tempcache.Exact, 6, 20},
	} {
		b.Run(fmt.Sprintf("search=%s/entries=%d/new=%d", c.name, c.frames*wanShape.Tokens(), c.fresh), func(b *testing.B) {
			p := tempcache.Default()
			p.Search, p.Budget.Frames = c.search, p.Recent+wanShape.ChunkFrames+c.frames
			beginWan(b, dev, p, c.fresh)
		})
	}
}

func beginWan(b *testing.B, dev compute.Device, p tempcache.Policy, fresh int) {
	dq, err := dev.NewQueue()
	if err != nil {
		b.Fatal(err)
	}
	defer dq.Close()
	s := wanShape
	cache, err := p.New(dev, dq, s)
	if err != nil {
		b.Fatal(err)
	}
	defer cache.Close()
	arena, _ := dev.NewArena(0)
	defer arena.Free()
	n, d := s.Tokens(), s.Heads*s.HeadDim
	old, x := arena.Tensor(compute.F32, n, d), arena.Tensor(compute.BF16, s.ChunkFrames*n, d)
	noise := arena.Tensor(compute.F32, n, d)
	dq.Noise(old, compute.NoiseKey{Seed: 1})
	var spent []time.Duration
	for chunk := range p.Budget.Frames/s.ChunkFrames + 5 + 100/(fresh+10) {
		span := kvcache.Span{Start: chunk * s.ChunkFrames, Frames: s.ChunkFrames}
		if err := dq.Wait(); err != nil {
			b.Fatal(err)
		}
		began := time.Now()
		if err := cache.Begin(dq, span); err != nil {
			b.Fatal(err)
		}
		enqueued := time.Since(began)
		if err := dq.Wait(); err != nil {
			b.Fatal(err)
		}
		spent = append(spent, time.Since(began))
		b.ReportMetric(float64(enqueued.Microseconds())/1e3, "ms-host")
		for f := range s.ChunkFrames {
			dq.Noise(noise, compute.NoiseKey{Seed: 2, Chunk: uint32(chunk), Step: uint32(f)})
			row := x.Slice(0, f*n, (f+1)*n)
			seen := n - n*fresh/100
			if seen > 0 {
				dq.Mix(row.Slice(0, 0, seen), 1, old.Slice(0, 0, seen), 0.2, noise.Slice(0, 0, seen))
			}
			dq.Copy(row.Slice(0, seen, n), noise.Slice(0, seen, n))
		}
		for i := range s.Layers {
			cache.Layer(i).Commit(dq, x.Heads(s.Heads), x.Heads(s.Heads))
		}
		cache.End()
	}
	last := spent[len(spent)-3:]
	stats := cache.Stats()
	h := stats.Heads[0]
	b.ReportMetric(float64((last[0]+last[1]+last[2]).Microseconds())/3e3, "ms/chunk")
	b.ReportMetric(float64(h.Kept), "entries")
	b.ReportMetric(float64(h.Merged), "merged")
	b.ReportMetric(float64(h.Evicted), "evicted")
	b.ReportMetric(float64(stats.Bytes>>20), "MiB")
	b.ReportMetric(0, "ns/op")
}
