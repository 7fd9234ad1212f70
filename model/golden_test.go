package model

import (
	"encoding/binary"
	"fmt"
	"math"
	"strings"
	"testing"

	"longtake/compute"
	"longtake/compute/cpu"
	"longtake/internal/golden"
	"longtake/kvcache"
	"longtake/rollout"
	"longtake/sampler"
	"longtake/video"
)

const goldenDir = "testdata/golden/tinyworld"

// eachKernel runs a test on every kernel class of this machine with the tolerance of its arithmetic: of one forward, and of
// a 16-frame rollout. The portable class runs the first frames only, it makes about one a second.
func eachKernel(t *testing.T, test func(t *testing.T, dev compute.Device, forward, roll float64)) {
	for _, kernel := range cpu.Kernels() {
		t.Run("kernel="+kernel, func(t *testing.T) {
			dev, err := cpu.New(cpu.Options{Kernel: kernel, Threads: 2})
			if err != nil {
				t.Fatal(err)
			}
			defer dev.Close()
			if dev.Types().Cache == compute.BF16 {
				test(t, dev, 1.5e-2, 3e-2)
				return
			}
			test(t, dev, 1e-5, 1e-4)
		})
	}
}

func floats(t *testing.T, dq compute.Queue, x compute.Tensor) []float32 {
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

func uploadFloats(dq compute.Queue, dst compute.Tensor, v []float32) {
	var b []byte
	for _, x := range v {
		b = binary.LittleEndian.AppendUint32(b, math.Float32bits(x))
	}
	dq.Upload(dst, b)
}

func TestTextEncoderEqualsPyTorch(t *testing.T) {
	g := golden.Load(t, goldenDir)
	eachKernel(t, func(t *testing.T, dev compute.Device, forward, _ float64) {
		e := openForTest(t, dev)
		dq, _ := dev.NewQueue()
		defer dq.Close()
		for _, n := range []string{"0", "1", "2"} {
			length := g.Ints(t, "text.safetensors", "length."+n)[0]
			ids := g.Ints(t, "text.safetensors", "tokens."+n)[:length]
			prompts := e.Text.(*prompter)
			encoded, _, unknown, err := prompts.Encode(dq, prompts.words.Decode(ids))
			if err != nil || len(unknown) > 0 {
				t.Fatal(err, unknown)
			}
			golden.Near(t, "context of prompt "+n, floats(t, dq, encoded), g.Floats(t, "text.safetensors", "context."+n)[:int(length)*256], forward)
		}
	})
}

func openForTest(t *testing.T, dev compute.Device) *rollout.Engine {
	t.Helper()
	e, err := OpenTinyWorld(dev)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.Close)
	return e
}

// script is a golden rollout's request: prompt, controls, start frame and the noise of every generated frame.
type script struct {
	prompt  []int32
	actions []int
	heading int
	start   []video.Frame
	eps     []float32
}

func loadScript(t *testing.T, g *golden.Case) script {
	s := script{prompt: g.Ints(t, "rollout.safetensors", "tokens"), eps: g.Floats(t, "rollout.safetensors", "eps")}
	for _, a := range g.Ints(t, "rollout.safetensors", "actions") {
		s.actions = append(s.actions, int(a))
	}
	s.heading = int(g.Ints(t, "rollout.safetensors", "headings")[0])
	frame := video.NewFrame(64, 64)
	for i, v := range g.Ints(t, "rollout.safetensors", "start_frame") {
		frame.Pix[i] = byte(v)
	}
	s.start = []video.Frame{frame}
	return s
}

// roll generates n frames and returns their latents.
func (s script) roll(t *testing.T, e *rollout.Engine, start []video.Frame, policy kvcache.Window, n int) [][]float32 {
	t.Helper()
	var noise sampler.Noise = func(dq compute.Queue, dst compute.Tensor, key compute.NoiseKey) {
		at := (int(key.Chunk) - len(start)) * dst.Elems()
		uploadFloats(dq, dst, s.eps[at:at+dst.Elems()])
	}
	session, err := e.NewSession(t.Context(), rollout.Request{
		Prompt: e.Text.(*prompter).words.Decode(s.prompt), Cache: policy, Start: start, Heading: s.heading, Noise: noise,
	})
	if err != nil {
		t.Fatal(err)
	}
	defer session.Close()
	dq, _ := e.Device.NewQueue()
	defer dq.Close()
	var out [][]float32
	for i := range n {
		if _, err := session.Next(t.Context(), s.actions[len(start)+i]); err != nil {
			t.Fatal(err)
		}
		out = append(out, floats(t, dq, session.Latent()))
	}
	return out
}

func TestRolloutEqualsPyTorch(t *testing.T) {
	g := golden.Load(t, goldenDir)
	s := loadScript(t, g)
	const values = 64 * 192
	eachKernel(t, func(t *testing.T, dev compute.Device, forward, roll float64) {
		e := openForTest(t, dev)
		want, frames := g.Floats(t, "rollout.safetensors", "x0"), 15
		if strings.Contains(dev.Name(), "generic") || testing.Short() {
			frames = 5
		} else if dev.Types().Cache == compute.BF16 {
			frames = 6 // a dream doubles what rounding has changed every two frames: later ones say nothing of the arithmetic
		}
		for i, got := range s.roll(t, e, s.start, kvcache.Window{Recent: kvcache.Full}, frames) {
			tolerance := roll
			if i == 0 {
				tolerance = forward
			}
			golden.Near(t, fmt.Sprint("full cache, frame ", i+1), got, want[i*values:(i+1)*values], tolerance)
		}
		window := s.roll(t, e, s.start, kvcache.Window{Anchor: 1, Recent: 3}, frames)
		for i, frame := range []int{5, 6, 9, 15} {
			if frame > frames {
				break
			}
			golden.Near(t, "window 3 + 1 anchor", window[frame-1], g.Floats(t, "rollout.safetensors", "window")[i*values:(i+1)*values], roll)
		}
		for i, got := range s.roll(t, e, nil, kvcache.Window{Recent: kvcache.Full}, min(frames-3, 4)) {
			golden.Near(t, "from text only", got, g.Floats(t, "rollout.safetensors", "text_only")[i*values:(i+1)*values], roll)
		}
	})
}
