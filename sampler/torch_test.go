package sampler

import (
	"encoding/json"
	"fmt"
	"math"
	"os"
	"testing"

	"longtake/compute"
	"longtake/compute/cpu"
)

func TestTorchNoiseIsPyTorchsStream(t *testing.T) {
	b, err := os.ReadFile("testdata/torch_randn.json")
	if err != nil {
		t.Fatal(err)
	}
	var golden struct {
		Draws map[string]struct {
			Index         []int
			First, Second []float32
		}
	}
	if err := json.Unmarshal(b, &golden); err != nil {
		t.Fatal(err)
	}
	for name, want := range golden.Draws {
		var seed uint64
		var n int
		if _, err := fmt.Sscanf(name, "%d/%d", &seed, &n); err != nil {
			t.Fatal(err)
		}
		stream := NewTorch(seed)
		for call, values := range [][]float32{want.First, want.Second} {
			got := make([]float32, n)
			stream.Randn(got)
			for i, at := range want.Index {
				if math.Abs(float64(got[at]-values[i])) > 1e-6 {
					t.Errorf("%s call %d: element %d is %v, want %v", name, call, at, got[at], values[i])
				}
			}
		}
	}
}

// The draws of Self-Forcing's program: the whole video at first, then a chunk for every step, as [frames, channels, rows, columns].
func TestVideoNoiseIsDrawnAsSelfForcingDoes(t *testing.T) {
	dq, arena := device(t)
	l := Latent{Channels: 3, Rows: 4, Columns: 6}
	const frames, each = 2, 3 * 4 * 6
	stream, draw := NewTorch(7), NewTorch(7).Video(2*frames, l)
	video, again := make([]float32, 2*frames*each), make([]float32, frames*each)
	stream.Randn(video)
	stream.Randn(again)
	dst := arena.Tensor(compute.F32, frames*6, 12)
	for i, c := range []struct {
		key  compute.NoiseKey
		want []float32
	}{{compute.NoiseKey{}, video[:frames*each]}, {compute.NoiseKey{Step: 1}, again}, {compute.NoiseKey{Chunk: 1}, video[frames*each:]}} {
		draw(dq, dst, c.key)
		got := cpu.F32(dst)
		for f := range frames {
			for ch := range 3 {
				for y := range 4 {
					for x := range 6 {
						token := f*6 + y/2*3 + x/2
						if at := token*12 + (y%2*2+x%2)*3 + ch; got[at] != c.want[((f*3+ch)*4+y)*6+x] {
							t.Fatalf("draw %d: frame %d channel %d row %d column %d is %v", i, f, ch, y, x, got[at])
						}
					}
				}
			}
		}
	}
}

// The draws of Rolling-Forcing's program for 3 chunks and 3 steps, in the order of its windows: chunk 0 alone, chunks 0 and 1, all three,
// then 1 and 2. A chunk at the last level is done and draws nothing.
func TestRollingNoiseIsDrawnForWholeWindows(t *testing.T) {
	dq, arena := device(t)
	l := Latent{Channels: 3, Rows: 4, Columns: 6}
	const first, frames, each = 5, 2, 2 * 3 * 4 * 6
	stream, draw := NewTorch(7), NewTorch(7).Rolling(first, 3, frames, 3, l)
	video := make([]float32, 3*each)
	stream.Randn(video)
	dst := arena.Tensor(compute.F32, frames*6, 12)
	for _, d := range []struct{ chunk, step, window, index int }{
		{0, 0, 0, 0}, {0, 1, 1, 0}, {1, 0, 0, 1}, {0, 2, 2, 0}, {1, 1, 2, 1}, {2, 0, 0, 2}, {1, 2, 3, 1}, {2, 1, 3, 2}, {2, 2, 2, 1},
	} {
		want := video
		if d.step > 0 {
			want = make([]float32, d.window*each)
			stream.Randn(want)
		}
		draw(dq, dst, compute.NoiseKey{Chunk: uint32(first + d.chunk), Step: uint32(d.step)})
		got := cpu.F32(dst)
		for i, v := range want[d.index*each:][:each] {
			if at := l.place(i); got[at] != v {
				t.Fatalf("chunk %d to step %d: number %d is %v, want %v", d.chunk, d.step, i, got[at], v)
			}
		}
	}
}
