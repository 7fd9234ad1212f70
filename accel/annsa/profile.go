package annsa

import (
	"embed"
	"encoding/json"
	"fmt"
	"slices"

	"longtake/kvcache"
)

// Profile says which heads of a model's self attention are sparse: the calibration that the paper's "70 % of the blocks that were
// found sparse" asks for. It belongs to the weights whose hash it names.
type Profile struct {
	Format string `json:"format"` // "longtake-annsa-profile-v1"
	Model  string `json:"model"`
	Hash   string `json:"hash"`
	// Density is the share of the history that was kept, chosen by its true mass, in tiles of Tile tokens; Recall the share of
	// all mass that was kept then, by layer and head.
	Density float64     `json:"density"`
	Tile    int         `json:"tile"`
	Samples int         `json:"samples"`
	Recall  [][]float64 `json:"recall"`
	// Least is the recall from which on a head counts as sparse.
	Least float64 `json:"least"`
}

// profileFormat names the version.
const profileFormat = "longtake-annsa-profile-v1"

// ParseProfile reads a profile as json.Marshal writes it. It must be the profile of the model with this name and hash.
func ParseProfile(raw []byte, model, hash string) (*Profile, error) {
	var p Profile
	if err := json.Unmarshal(raw, &p); err != nil {
		return nil, fmt.Errorf("annsa profile: %w", err)
	}
	if p.Format != profileFormat {
		return nil, fmt.Errorf("annsa profile has format %q, this version reads %q", p.Format, profileFormat)
	}
	if p.Hash != hash {
		return nil, fmt.Errorf("annsa profile is of model %s (%.12s), not of %s (%.12s)", p.Model, p.Hash, model, hash)
	}
	return &p, nil
}

// fits reports a profile of another shape.
func (p *Profile) fits(s kvcache.Shape) error {
	heads := 0
	for _, layer := range p.Recall {
		heads = len(layer)
	}
	if len(p.Recall) != s.Layers || heads != s.Heads {
		return fmt.Errorf("annsa profile of model %s has %d layers of %d heads, the model has %d of %d", p.Model, len(p.Recall), heads, s.Layers, s.Heads)
	}
	return nil
}

// Sparse reports whether a head may be thinned.
func (p *Profile) Sparse(layer, head int) bool { return p.Recall[layer][head] >= p.Least }

// Share returns the share of heads that are sparse.
func (p *Profile) Share() float64 {
	sparse, all := 0, 0
	for _, layer := range p.Recall {
		for _, r := range layer {
			all++
			if r >= p.Least {
				sparse++
			}
		}
	}
	return float64(sparse) / float64(max(all, 1))
}

// quantile returns the recall that a share of the heads lies below.
func (p *Profile) quantile(share float64) float64 {
	var all []float64
	for _, layer := range p.Recall {
		all = append(all, layer...)
	}
	slices.Sort(all)
	return all[min(int(share*float64(len(all))), len(all)-1)]
}

//go:embed profiles/*.json
var shipped embed.FS

// Shipped returns the profile that comes with this version for the weights of a hash; nil if there is none.
func Shipped(model, hash string) (*Profile, error) {
	raw, err := shipped.ReadFile("profiles/" + model + ".json")
	if err != nil {
		return nil, nil // no profile: every head counts as sparse
	}
	return ParseProfile(raw, model, hash)
}
