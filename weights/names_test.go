package weights

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math"
	"slices"
	"strings"
	"testing"

	"longtake/compute"
)

// fileOf makes a file in memory of one F32 element a tensor, or of the given tensors.
func fileOf(t *testing.T, tensors map[string]compute.Host) *File {
	t.Helper()
	var b bytes.Buffer
	if err := Write(&b, tensors, nil); err != nil {
		t.Fatal(err)
	}
	f, err := Parse(b.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func f32(shape []int, values ...float32) compute.Host {
	h := compute.Host{DType: compute.F32, Shape: shape}
	for _, v := range values {
		h.Data = binary.LittleEndian.AppendUint32(h.Data, math.Float32bits(v))
	}
	return h
}

func TestNetworksAreFoundUnderAnyOfTheirNames(t *testing.T) {
	official := []string{"blocks.0.cross_attn.norm_k.weight", "blocks.0.ffn.0.bias", "blocks.0.ffn.2.weight", "blocks.0.modulation",
		"blocks.0.norm3.weight", "blocks.0.self_attn.o.weight", "blocks.0.self_attn.q.weight", "head.head.weight", "head.modulation",
		"patch_embedding.weight", "text_embedding.2.bias", "time_embedding.0.weight", "time_projection.1.weight"}
	for what, names := range map[string][]string{
		"official":     official,
		"self-forcing": prefixed("generator_ema.model.", official),
		"rolling":      prefixed("generator.model._fsdp_wrapped_module.", official),
		"diffusers": {"blocks.0.attn2.norm_k.weight", "blocks.0.ffn.net.0.proj.bias", "blocks.0.ffn.net.2.weight", "blocks.0.scale_shift_table",
			"blocks.0.norm2.weight", "blocks.0.attn1.to_out.0.weight", "blocks.0.attn1.to_q.weight", "proj_out.weight", "scale_shift_table",
			"patch_embedding.weight", "condition_embedder.text_embedder.linear_2.bias", "condition_embedder.time_embedder.linear_1.weight",
			"condition_embedder.time_proj.weight"},
	} {
		tensors := map[string]compute.Host{}
		for i, n := range names {
			tensors[n] = f32([]int{1}, float32(i))
		}
		net, err := Network(fileOf(t, tensors), "")
		if err != nil {
			t.Errorf("%s: %v", what, err)
			continue
		}
		if !slices.Equal(net.Names(), official) {
			t.Errorf("%s: names %v", what, net.Names())
		}
		for i, n := range official {
			if h, err := net.Tensor(n); err != nil || math.Float32frombits(binary.LittleEndian.Uint32(h.Data)) != float32(i) {
				t.Errorf("%s: %s is another tensor (%v)", what, n, err)
			}
		}
	}
}

func prefixed(prefix string, names []string) []string {
	var out []string
	for _, n := range names {
		out = append(out, prefix+n)
	}
	return out
}

func TestTheAveragedWeightsArePreferredAndCanBeChosen(t *testing.T) {
	f := fileOf(t, map[string]compute.Host{"generator.model.patch_embedding.weight": f32([]int{1}, 1), "generator_ema.model.patch_embedding.weight": f32([]int{1}, 2)})
	for root, want := range map[string]float32{"": 2, "generator": 1, "generator_ema": 2} {
		net, err := Network(f, root)
		if err != nil {
			t.Fatal(err)
		}
		if h, _ := net.Tensor("patch_embedding.weight"); math.Float32frombits(binary.LittleEndian.Uint32(h.Data)) != want {
			t.Errorf("root %q gives other weights", root)
		}
	}
	if _, err := Network(f, "critic"); err == nil || !strings.Contains(err.Error(), "generator") {
		t.Errorf("an absent root: %v", err)
	}
	if net, _ := Network(f, ""); net != nil {
		if _, err := net.Tensor("no.such"); !errors.Is(err, ErrMissing) {
			t.Errorf("a missing tensor: %v", err)
		}
	}
}

func TestAdaptersAreMerged(t *testing.T) {
	frozen := fileOf(t, map[string]compute.Host{
		"blocks.0.self_attn.q.weight": f32([]int{2, 3}, 1, 2, 3, 4, 5, 6), "blocks.0.self_attn.q.bias": f32([]int{2}, 1, 1)})
	lora := fileOf(t, map[string]compute.Host{
		"base_model.model.blocks.0.self_attn.q.lora_A.weight": f32([]int{1, 3}, 1, 0, -1),
		"base_model.model.blocks.0.self_attn.q.lora_B.weight": f32([]int{2, 1}, 10, 100)})
	a, err := Adapt(frozen, lora, 0.5)
	if err != nil {
		t.Fatal(err)
	}
	h, err := a.Tensor("blocks.0.self_attn.q.weight")
	if err != nil {
		t.Fatal(err)
	}
	if got, _ := Floats(h); !slices.Equal(got, []float32{6, 2, -2, 54, 5, -44}) {
		t.Errorf("merged weight is %v", got)
	}
	if h, _ := a.Tensor("blocks.0.self_attn.q.bias"); !bytes.Equal(h.Data, f32(nil, 1, 1).Data) {
		t.Error("a tensor without adapter changed")
	}
	for what, bad := range map[string]map[string]compute.Host{
		"other shape": {"blocks.0.self_attn.q.lora_A.weight": f32([]int{1, 2}, 1, 1), "blocks.0.self_attn.q.lora_B.weight": f32([]int{2, 1}, 1, 1)},
		"no weight":   {"blocks.9.self_attn.q.lora_A.weight": f32([]int{1, 3}, 1, 1, 1), "blocks.9.self_attn.q.lora_B.weight": f32([]int{2, 1}, 1, 1)},
		"half a pair": {"blocks.0.self_attn.q.lora_A.weight": f32([]int{1, 3}, 1, 1, 1)},
		"no adapters": {"something": f32([]int{1}, 1)},
	} {
		if _, err := Adapt(frozen, fileOf(t, bad), 1); err == nil || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v", what, err)
		}
	}
}
