package annsa_test

import (
	"encoding/json"
	"flag"
	"os"
	"strings"
	"testing"

	"longtake/accel/annsa"
	"longtake/attention"
	"longtake/compute/cpu"
	"longtake/kvcache"
	"longtake/model/modeltest"
	"longtake/rollout"
	"longtake/world"
)

var profile = flag.String("profile", "", "write the embedded model's profile to this file")

// TestCalibrateEmbeddedModel makes the profile that is shipped: go test ./accel/annsa -run Calibrate -profile profiles/tinyworld.json
func TestCalibrateEmbeddedModel(t *testing.T) {
	e := modeltest.TinyWorld(t, cpu.Options{Threads: 2})
	sessions, known, own := 1, 12, 1
	if *profile != "" {
		sessions, known, own = 8, 48, 4
	}
	o := annsa.Default()
	o.Fraction = 0.05
	p, err := annsa.Calibrate(e.Name, e.Hash(), o, 0, func(self attention.Maker) error {
		for i := range sessions {
			c := newClip(t, uint32(81000+i), known+own, world.Mixed, 0)
			c.roll(t, e, known, rollout.Request{Cache: kvcache.Window{Recent: kvcache.Full}, Self: self})
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for l, layer := range p.Recall {
		for h, r := range layer {
			if !(r > 0.05 && r < 1.001) {
				t.Errorf("layer %d head %d: recall %v", l, h, r)
			}
		}
	}
	if share := p.Share(); share < 0.65 || share > 0.8 {
		t.Errorf("%v of the heads are sparse, want 0.7", share)
	}
	if *profile == "" {
		return
	}
	raw, err := json.MarshalIndent(p, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(*profile, append(raw, '\n'), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestProfilesOfOtherModelsAreRefusedByName(t *testing.T) {
	raw := []byte(`{"format":"longtake-annsa-profile-v1","model":"wan","hash":"0123456789abcdef","recall":[[1,0]],"least":0.5}`)
	if _, err := annsa.ParseProfile(raw, "tinyworld", "feedbeef"); err == nil || !strings.Contains(err.Error(), "of model wan") || !strings.Contains(err.Error(), "tinyworld") {
		t.Errorf("another model's profile: %v", err)
	}
	p, err := annsa.ParseProfile(raw, "wan", "0123456789abcdef")
	if err != nil || !p.Sparse(0, 0) || p.Sparse(0, 1) || p.Share() != 0.5 {
		t.Errorf("own profile: %+v, %v", p, err)
	}
	for _, bad := range []string{"", "{", "{}", `{"format":"x"}`, `{"format":"longtake-annsa-profile-v1","recall":3}`} {
		if _, err := annsa.ParseProfile([]byte(bad), "wan", ""); err == nil {
			t.Errorf("%q is accepted", bad)
		}
	}
	o := annsa.Default()
	o.Profile = p
	if err := o.Check(kvcache.Shape{Layers: 6, Heads: 4}); err == nil || !strings.Contains(err.Error(), "wan") {
		t.Errorf("a profile of another shape: %v", err)
	}
}

func TestTheEmbeddedModelShipsItsProfile(t *testing.T) {
	e := modeltest.TinyWorld(t, cpu.Options{Threads: 2})
	p, err := annsa.Shipped(e.Name, e.Hash())
	if err != nil || p == nil {
		t.Fatal(p, err)
	}
	o := annsa.Default()
	o.Profile = p
	if err := o.Check(e.CacheShape); err != nil {
		t.Error(err)
	}
	if p, err := annsa.Shipped("no such model", "0"); p != nil || err != nil {
		t.Errorf("a model without profile: %v, %v", p, err)
	}
}

func TestBadOptionsAreRefused(t *testing.T) {
	for name, change := range map[string]func(o *annsa.Options){
		"tile": func(o *annsa.Options) { o.Tile = 0 }, "group": func(o *annsa.Options) { o.Group = -1 }, "query tile": func(o *annsa.Options) { o.QueryTile = -1 },
		"fraction": func(o *annsa.Options) { o.Fraction = 1.5 }, "missed": func(o *annsa.Options) { o.Missed = 1 }, "dense": func(o *annsa.Options) { o.Dense = -0.1 },
		"recent": func(o *annsa.Options) { o.Recent = -2 }, "second order": func(o *annsa.Options) { o.NoDrop, o.SecondOrder = false, true },
	} {
		o := annsa.Default()
		change(&o)
		if err := o.Check(kvcache.Shape{Layers: 6, Heads: 4}); err == nil {
			t.Errorf("%s: accepted %+v", name, o)
		}
	}
}
