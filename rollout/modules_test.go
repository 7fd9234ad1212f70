package rollout_test

import (
	"testing"

	"longtake/accel/annca"
	"longtake/accel/annsa"
	"longtake/accel/tempcache"
	"longtake/internal/golden"
	"longtake/kvcache"
	"longtake/rollout"
)

// The three modules work on Wan's network, chunks of three latent frames, as on the embedded one: set so that nothing is left
// out they are the dense rollout, and set to save they change it and stay finite.
func TestTheThreeModulesOnWan(t *testing.T) {
	g := golden.Load(t, "../dit/testdata/golden/wan_causal_tiny")
	defer g.Close()
	e := wanEngine(t, g, "float32")
	all := annsa.Default()
	all.Fraction, all.From = 1, 0
	unmerged := tempcache.Default()
	unmerged.Threshold = 1
	dense := rollout.Request{Seed: 9}
	const n = 7 // 21 latent frames
	want := chunks(t, session(t, e, dense), n)
	for _, c := range []struct {
		name  string
		exact bool
		r     rollout.Request
	}{
		{"tempcache that merges nothing", true, rollout.Request{Cache: unmerged}},
		{"annsa that keeps all", true, rollout.Request{Self: all}},
		{"annca that keeps all", true, rollout.Request{Cross: annca.Options{All: true}}},
		{"tempcache", false, rollout.Request{Cache: tempcache.Policy{Recent: 3, Threshold: 0.5, Keep: tempcache.Mean, Radius: 2, Depth: 6, Budget: tempcache.Budget{Frames: 9}}}},
		{"annsa", false, rollout.Request{Self: annsa.Options{Tile: 8, Raster: true, QueryTile: 24, Group: 4, Fraction: 0.2, Recent: 2}}},
		{"annca", false, rollout.Request{Cross: annca.Options{Top: 1}}},
		{"window and anchors", false, rollout.Request{Cache: kvcache.Window{Anchor: 3, Recent: 6}}},
	} {
		c.r.Seed = dense.Seed
		got := chunks(t, session(t, e, c.r), n)
		if d := golden.Compare(got, want, 0); c.exact && !d.Within(1e-4) || !c.exact && !(d.Relative > 1e-3 && d.Relative < 2) {
			t.Errorf("%s: relative difference %v from the dense rollout", c.name, d.Relative)
		}
	}
}
