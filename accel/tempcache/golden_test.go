package tempcache_test

import (
	"encoding/binary"
	"encoding/json"
	"math"
	"os"
	"testing"

	"longtake/accel/tempcache"
	"longtake/compute"
	"longtake/compute/cpu"
	"longtake/internal/golden"
	"longtake/kvcache"
	"longtake/model/modeltest"
	"longtake/rollout"
	"longtake/text"
	"longtake/video"
)

const goldenDir = "../../model/testdata/golden/tinyworld"

func upload(dq compute.Queue, dst compute.Tensor, v []float32) {
	var b []byte
	for _, x := range v {
		b = binary.LittleEndian.AppendUint32(b, math.Float32bits(x))
	}
	dq.Upload(dst, b)
}

func download(t testing.TB, dq compute.Queue, x compute.Tensor) []float32 {
	t.Helper()
	b := make([]byte, x.Bytes())
	dq.Download(b, x)
	if err := dq.Err(); err != nil {
		t.Fatal(err)
	}
	out := make([]float32, x.Elems())
	for i := range out {
		out[i] = math.Float32frombits(binary.LittleEndian.Uint32(b[4*i:]))
	}
	return out
}

// TestRolloutWithMergedHistoryEqualsPyTorch runs the prototype's policy: the numbers of entries are exact, the frames equal.
func TestRolloutWithMergedHistoryEqualsPyTorch(t *testing.T) {
	g := golden.Load(t, goldenDir)
	e := modeltest.TinyWorld(t, cpu.Options{Float32: true, Threads: 2})
	raw, err := os.ReadFile("../../model/tinyworld/vocab.json")
	if err != nil {
		t.Fatal(err)
	}
	var list []string
	if err := json.Unmarshal(raw, &list); err != nil {
		t.Fatal(err)
	}
	start := video.NewFrame(64, 64)
	for i, v := range g.Ints(t, "rollout.safetensors", "start_frame") {
		start.Pix[i] = byte(v)
	}
	eps, actions := g.Floats(t, "rollout.safetensors", "eps"), g.Ints(t, "rollout.safetensors", "actions")
	session, err := e.NewSession(t.Context(), rollout.Request{
		Prompt: text.NewWords(list).Decode(g.Ints(t, "rollout.safetensors", "tokens")), Cache: tempcache.Prototype(),
		Start: []video.Frame{start}, Heading: int(g.Ints(t, "rollout.safetensors", "headings")[0]),
		Noise: func(dq compute.Queue, dst compute.Tensor, key compute.NoiseKey) {
			upload(dq, dst, eps[(int(key.Chunk)-1)*dst.Elems():][:dst.Elems()])
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer session.Close()
	dq, _ := e.Device.NewQueue()
	defer dq.Close()
	kept := g.Ints(t, "rollout.safetensors", "temp_kept") // [frames][layers][heads], after the frame was pushed
	dense, temp := g.Floats(t, "rollout.safetensors", "x0"), g.Floats(t, "rollout.safetensors", "temp")
	at := map[int]int{4: 0, 5: 1, 9: 2, 15: 3}
	const values = 64 * 192
	for f := 1; f < 16; f++ {
		if _, err := session.Next(t.Context(), int(actions[f])); err != nil {
			t.Fatal(err)
		}
		got := download(t, dq, session.Latent())
		if i, ok := at[f]; ok {
			golden.Near(t, "frame "+string(rune('a'+f)), got, temp[i*values:][:values], 1e-4)
		} else if f < 4 {
			golden.Near(t, "frame before the first merge", got, dense[(f-1)*values:][:values], 1e-4)
		}
		// A frame is merged when the next chunk begins: what PyTorch counts after frame f-1 is here now.
		heads := session.Stats().Heads
		for i, h := range heads {
			if want := kept[(f-1)*len(heads)+i]; h.Kept != int(want) {
				t.Errorf("frame %d, layer %d, head %d: %d entries, want %d", f-1, i/4, i%4, h.Kept, want)
			}
		}
	}
	stats := session.Stats()
	t.Logf("%.1f tokens a head, %v for %d frames", stats.Tokens, stats.Compacting, stats.Frames)
}

var _ kvcache.Policy = tempcache.Policy{}
