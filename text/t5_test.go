package text

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"longtake/compute"
	"longtake/compute/cpu"
	"longtake/internal/devicetest"
	"longtake/internal/golden"
	"longtake/weights"
)

// tinyT5 is umT5 in the sizes of testdata/golden/umt5_tiny, with prompts of up to 160 tokens.
var tinyT5 = T5Config{Vocabulary: 100, MaxTokens: 160, Dim: 64, Heads: 4, Layers: 2, FFN: 160, HeadDim: 16, Buckets: 32, MaxDistance: 128, Eps: 1e-6}

const umt5 = "testdata/golden/umt5_tiny"

// loadTiny loads the encoder on a class of kernels, with activations of a type.
func loadTiny(t *testing.T, kernel string, act compute.DType) (compute.Device, compute.Queue, *T5, *T5Work) {
	t.Helper()
	dev := devicetest.Open(t, kernel)
	dq, err := dev.NewQueue()
	if err != nil {
		t.Fatal(err)
	}
	file, err := weights.Open(umt5 + "/weights.safetensors")
	if err != nil {
		t.Fatal(err)
	}
	load := func(p weights.Placer) (*T5, *T5Work) {
		m := LoadT5(p, tinyT5)
		return m, m.NewWork(p.Arena, compute.Types{Activation: act})
	}
	audit, meter := weights.NewAudit(file), &compute.Meter{Device: dev}
	load(weights.Placer{Audit: audit, Arena: meter})
	if err := audit.Err(); err != nil {
		t.Fatal(err)
	}
	arena, err := dev.NewArena(meter.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { dq.Close(); arena.Free(); dev.Close(); file.Close() })
	m, w := load(weights.Placer{Audit: audit, Arena: arena, Queue: dq})
	if err := arena.Err(); err != nil {
		t.Fatal(err)
	}
	return dev, dq, m, w
}

// plainQueue has the contract of a queue and no more.
type plainQueue struct{ compute.Queue }

func TestT5AgreesWithTheOriginal(t *testing.T) {
	g := golden.Load(t, umt5)
	ids, mask := g.Ints(t, "reference.safetensors", "in.ids"), g.Ints(t, "reference.safetensors", "in.mask")
	want := g.Floats(t, "reference.safetensors", "out.zeroed")
	for _, c := range []struct {
		kernel    string
		act       compute.DType
		composed  bool
		tolerance float64
	}{
		{"", compute.F32, false, 1e-5}, {"", compute.F32, true, 1e-5}, {"", compute.BF16, false, 3e-2}, {"generic", compute.F32, false, 1e-5},
		{"cuda", compute.BF16, false, 3e-2}, {"cuda", compute.F32, false, 3e-2}, {"cuda-float32", compute.F32, false, 1e-5},
	} {
		t.Run(fmt.Sprintf("kernel=%s/activation=%v/composed=%v", c.kernel, c.act, c.composed), func(t *testing.T) {
			dev, dq, m, w := loadTiny(t, c.kernel, c.act)
			if dev.Types().Cache == compute.BF16 { // multiplies in it, too
				c.tolerance = 3e-2
			}
			if c.composed {
				dq = plainQueue{dq}
			}
			for b := range 2 {
				tokens := 0
				for _, m := range mask[b*160:][:160] {
					tokens += int(m)
				}
				out := m.Encode(dq, w, ids[b*160:][:tokens])
				host, got := make([]byte, out.Bytes()), make([]float32, out.Elems())
				dq.Download(host, out)
				for i := range got {
					got[i] = math.Float32frombits(binary.LittleEndian.Uint32(host[4*i:]))
				}
				if err := dq.Err(); err != nil {
					t.Fatal(err)
				}
				golden.Near(t, fmt.Sprint(tokens, " tokens"), got, want[b*160*64:][:tokens*64], c.tolerance)
			}
		})
	}
}

func TestT5BucketsAreTheOriginals(t *testing.T) {
	g := golden.Load(t, umt5)
	for i, want := range g.Ints(t, "reference.safetensors", "trace.buckets") {
		for _, c := range []T5Config{tinyT5, T5XXL} {
			if got := (&T5{T5Config: c}).bucket(i - 200); got != int(want) {
				t.Errorf("bucket of %d is %d, want %d", i-200, got, want)
			}
		}
	}
	dev, dq, m, _ := loadTiny(t, "", compute.F32)
	arena, err := dev.NewArena(0)
	if err != nil {
		t.Fatal(err)
	}
	defer arena.Free()
	bias := arena.Tensor(compute.F32, 4, 40, 40)
	dq.Copy(bias, m.layers[0].bias(40))
	g.Near(t, "reference.safetensors", "trace.block0.pos_bias", cpu.F32(bias), 0)
}

func TestT5XXLHasThePublishedNumbers(t *testing.T) {
	c, inner := T5XXL, T5XXL.Heads*T5XXL.HeadDim
	layer := 2*c.Dim + 4*inner*c.Dim + 3*c.FFN*c.Dim + c.Buckets*c.Heads
	if n := c.Vocabulary*c.Dim + c.Layers*layer + c.Dim; n != 5_680_910_336 {
		t.Errorf("%d parameters, want 5680910336", n)
	}
}

// vocabulary is a tokenizer with 100 pieces: letters and what a model needs.
func vocabulary(t *testing.T) *Unigram {
	pieces := []any{1, message(1, "<pad>", 3, 3), 1, message(1, "</s>", 3, 3), 1, message(1, "<unk>", 3, 2)}
	for _, s := range "▁abcdefghijklmnopqrstuvwxyz.,:;" {
		pieces = append(pieces, 1, message(1, string(s), 2, float32(-3)))
	}
	u, err := ReadSpiece(message(pieces...))
	if err != nil {
		t.Fatal(err)
	}
	return u
}

func TestPrompterAddsOneRowOfPadding(t *testing.T) {
	_, dq, m, w := loadTiny(t, "", compute.F32)
	tokens := vocabulary(t)
	p, err := NewPrompter(tokens, m, w)
	if err != nil {
		t.Fatal(err)
	}
	if p.MaxTokens() != 160 {
		t.Errorf("at most %d tokens, want 160", p.MaxTokens())
	}
	for _, c := range []struct {
		prompt         string
		tokens, padded int
	}{
		{" a &amp;amp;  cat\n", 9, 151}, // ▁ a ▁, the unknown &, ▁ c a t, and the end
		{"", 1, 159},
		{strings.Repeat("a", 157), 159, 1},
		{strings.Repeat("a", 158), 160, 0},
		{strings.Repeat("a", 500), 160, 0},
	} {
		got, padded, unknown, err := p.Encode(dq, c.prompt)
		if err != nil || unknown != nil {
			t.Fatal(err, unknown)
		}
		if rows := c.tokens + min(c.padded, 1); padded != c.padded || got.Dim(0) != rows || got.Dim(1) != 64 {
			t.Errorf("%.10q: %v with %d rows of padding, want %d rows with %d", c.prompt, got, padded, rows, c.padded)
			continue
		}
		rows := slices.Clone(cpu.F32(got))
		golden.Near(t, "tokens", rows[:c.tokens*64], cpu.F32(m.Encode(dq, w, tokens.EncodePrompt(Clean(c.prompt), 160))), 0)
		if padded > 0 {
			golden.Near(t, "padding", rows[c.tokens*64:], make([]float32, 64), 0)
		}
	}
	if _, _, _, err := p.Encode(dq, strings.Repeat("a", MaxPrompt+1)); !errors.Is(err, ErrLongPrompt) {
		t.Errorf("a very long prompt: %v", err)
	}
	if _, err := NewPrompter(spiece(t, "wan.model.gz"), m, w); err == nil || !strings.Contains(err.Error(), "2600 pieces") {
		t.Errorf("a tokenizer of another model: %v", err)
	}
}

func TestT5OfOtherSizesIsAnError(t *testing.T) {
	file, err := weights.Open(umt5 + "/weights.safetensors")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	dev, err := cpu.New(cpu.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer dev.Close()
	for _, change := range []func(*T5Config){
		func(c *T5Config) { c.Vocabulary = 99 }, func(c *T5Config) { c.Layers = 3 }, func(c *T5Config) { c.Layers = 1 },
		func(c *T5Config) { c.FFN = 128 }, func(c *T5Config) { c.Buckets = 16 },
	} {
		c, audit := tinyT5, weights.NewAudit(file)
		change(&c)
		LoadT5(weights.Placer{Audit: audit, Arena: &compute.Meter{Device: dev}}, c)
		if audit.Err() == nil {
			t.Errorf("%+v loads", c)
		}
	}
}
