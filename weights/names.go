package weights

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"longtake/compute"
)

// Renamed is a Source that shows the tensors of another under other names.
type Renamed struct {
	source Source
	names  map[string]string // shown name -> name in source
	path   string
}

// Tensor returns the tensor shown as name.
func (r *Renamed) Tensor(name string) (compute.Host, error) {
	have, ok := r.names[name]
	if !ok {
		return compute.Host{}, fmt.Errorf("read weights %s: tensor %s: %w", r.path, clip(name), ErrMissing)
	}
	return r.source.Tensor(have)
}

// Names returns all names shown, sorted.
func (r *Renamed) Names() []string { return slices.Sorted(maps.Keys(r.names)) }

// Offset is the file's.
func (r *Renamed) Offset(name string) int64 {
	if f, ok := r.source.(*File); ok {
		return f.Offset(r.names[name])
	}
	return -1
}

// Path returns the file's path, for messages.
func (r *Renamed) Path() string { return r.path }

// checkpointRoots are the dictionaries that training programs put a network's weights into, the preferred first: averaged
// weights before those of the last step.
var checkpointRoots = []string{"generator_ema.", "generator.", "state_dict.", "model_state_dict.", ""}

// Network shows the weights of a causal Wan network by their official names ("blocks.0.self_attn.q.weight"), whatever they are
// called in the file: nested under generator_ema or generator (Self-Forcing, Rolling-Forcing, LongLive), behind "model.", with
// "_fsdp_wrapped_module." anywhere, or named as diffusers does. Root chooses the dictionary; "" takes the first that is there.
func Network(f *File, root string) (*Renamed, error) {
	r := &Renamed{source: f, path: f.Path()}
	roots := checkpointRoots
	if root != "" {
		roots = []string{root + "."}
	}
	for _, prefix := range roots {
		r.names = map[string]string{}
		for _, have := range f.Names() {
			rest, ok := strings.CutPrefix(have, prefix)
			if !ok {
				continue
			}
			name := officialName(rest)
			if first, twice := r.names[name]; twice {
				return nil, fmt.Errorf("read weights %s: tensors %s and %s are both %s", f.Path(), clip(first), clip(have), clip(name))
			}
			r.names[name] = have
		}
		if _, ok := r.names["patch_embedding.weight"]; ok {
			return r, nil
		}
	}
	if root != "" {
		return nil, fmt.Errorf("read weights %s: no network under %q; it holds %s", f.Path(), root, clip(strings.Join(topNames(f), ", ")))
	}
	return nil, fmt.Errorf("read weights %s: no Wan network in it (no patch_embedding.weight); it holds %s", f.Path(), clip(strings.Join(topNames(f), ", ")))
}

// topNames are the different first parts of a file's names.
func topNames(f *File) []string {
	var out []string
	for _, n := range f.Names() {
		top, _, _ := strings.Cut(n, ".")
		if len(out) == 0 || out[len(out)-1] != top {
			out = append(out, top)
		}
	}
	return out
}

func officialName(name string) string {
	name = strings.ReplaceAll(name, "_fsdp_wrapped_module.", "")
	name = strings.TrimPrefix(name, "module.")
	name = strings.TrimPrefix(name, "model.")
	return fromDiffusers(name)
}

// diffusersParts are the parts of diffusers' names of Wan networks (WanTransformer3DModel) and what Wan calls them. Diffusers
// counts the norms of a block by their order, so that its norm2 is Wan's norm3.
var diffusersParts = []struct{ diffusers, wan string }{
	{"condition_embedder.time_embedder.linear_1.", "time_embedding.0."},
	{"condition_embedder.time_embedder.linear_2.", "time_embedding.2."},
	{"condition_embedder.text_embedder.linear_1.", "text_embedding.0."},
	{"condition_embedder.text_embedder.linear_2.", "text_embedding.2."},
	{"condition_embedder.time_proj.", "time_projection.1."},
	{"proj_out.", "head.head."},
	{".attn1.to_q.", ".self_attn.q."}, {".attn1.to_k.", ".self_attn.k."}, {".attn1.to_v.", ".self_attn.v."},
	{".attn1.to_out.0.", ".self_attn.o."}, {".attn1.norm_", ".self_attn.norm_"},
	{".attn2.to_q.", ".cross_attn.q."}, {".attn2.to_k.", ".cross_attn.k."}, {".attn2.to_v.", ".cross_attn.v."},
	{".attn2.to_out.0.", ".cross_attn.o."}, {".attn2.norm_", ".cross_attn.norm_"},
	{".attn2.add_k_proj.", ".cross_attn.k_img."}, {".attn2.add_v_proj.", ".cross_attn.v_img."},
	{".ffn.net.0.proj.", ".ffn.0."}, {".ffn.net.2.", ".ffn.2."},
	{".norm2.", ".norm3."},
}

// fromDiffusers translates a name; official names stay as they are.
func fromDiffusers(name string) string {
	if name == "scale_shift_table" {
		return "head.modulation"
	}
	if block, ok := strings.CutSuffix(name, ".scale_shift_table"); ok {
		return block + ".modulation"
	}
	for _, p := range diffusersParts {
		if strings.HasPrefix(name, strings.TrimPrefix(p.diffusers, ".")) || strings.Contains(name, p.diffusers) {
			return strings.Replace(name, p.diffusers, p.wan, 1)
		}
	}
	return name
}
