package annsa_test

import (
	"math"
	"testing"

	"longtake/accel/ann"
	"longtake/accel/annca"
	"longtake/accel/annsa"
	"longtake/attention"
	"longtake/compute/cpu"
	"longtake/kvcache"
	"longtake/model/modeltest"
	"longtake/rollout"
	"longtake/world"
)

func TestTheEmbeddedModelHardlyNoticesTheDefault(t *testing.T) {
	e := modeltest.TinyWorld(t, cpu.Options{Threads: 2})
	c := newClip(t, 61000, 15, world.Mixed, 0)
	full := kvcache.Window{Recent: kvcache.Full}
	dense, _ := c.roll(t, e, 12, rollout.Request{Cache: full})
	if held, _ := c.roll(t, e, 12, rollout.Request{Cache: full, Self: annsa.Default()}); !math.IsInf(psnr(t, held, dense), 1) {
		t.Error("a history that is too short to gain from is not attended to as it is")
	}
	for name, least := range map[string]float64{"own": 33, "cross": 25} {
		r := rollout.Request{Cache: full}
		o := annsa.Default()
		o.Least, o.From = 256, 0 // the history is short
		if name == "cross" {
			o.Queries = &ann.Exchange{}
			r.Cross = annca.Options{All: true, Queries: o.Queries}
		}
		probe := &attention.Probe{Inner: o}
		r.Self = probe
		got, _ := c.roll(t, e, 12, r)
		if d := psnr(t, got, dense); !(d > least) {
			t.Errorf("buckets of %s queries: %.1f dB to dense, want %v", name, d, least)
		} else {
			t.Logf("buckets of %s queries: %.1f dB to dense", name, d)
		}
		for _, m := range probe.Results() {
			if m.Thinned == 0 || m.ThinnedDensity >= 1 || !(m.ThinnedRecall > 0.2 && m.ThinnedRecall < 1.001) {
				t.Errorf("%+v", m)
			}
		}
	}
}
