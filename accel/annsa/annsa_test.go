package annsa_test

import (
	"testing"

	"longtake/accel/ann"
	"longtake/accel/annsa"
	"longtake/attention"
	"longtake/attention/attentiontest"
	"longtake/compute"
	"longtake/compute/cpu"
	"longtake/internal/devicetest"
)

func TestPoliciesKeepTheLaws(t *testing.T) {
	dev, err := cpu.New(cpu.Options{Threads: 1, Float32: true}) // in bfloat16 another order of keys decides near ties otherwise
	if err != nil {
		t.Fatal(err)
	}
	defer dev.Close()
	keepTheLaws(t, dev)
}

func TestPoliciesKeepTheLawsOnAGPU(t *testing.T) {
	dev := devicetest.Open(t, "cuda-float32")
	defer dev.Close()
	keepTheLaws(t, dev)
}

func keepTheLaws(t *testing.T, dev compute.Device) {
	t.Helper()
	for _, name := range []string{"exact", "lsh64", "lsh8x4+1", "quant8", "quant2", "pq8"} {
		matcher, err := ann.Parse(name)
		if err != nil {
			t.Fatal(err)
		}
		o := annsa.Options{Matcher: matcher, Tile: 4, Group: 8, Fraction: 0.2, Recent: 1, Dense: 0.3}
		whole, noDrop := o, o
		whole.Fraction = 1
		noDrop.NoDrop, noDrop.SecondOrder = true, true
		o.QueryTile, noDrop.QueryTile = 16, 10
		suite := attentiontest.Suite{Kind: attention.Self, Whole: whole, Thin: o, NoDrop: noDrop}
		if name == "lsh8x4+1" {
			suite.Whole = nil // what shares no bucket is left out
		}
		t.Run(name, func(t *testing.T) { attentiontest.Run(t, dev, suite) })
		raster := func(o annsa.Options) annsa.Options { o.Raster, o.Tile = true, 2; return o }
		inPlace := attentiontest.Suite{Kind: attention.Self, Thin: raster(o), NoDrop: raster(noDrop), Ordered: true}
		if suite.Whole != nil {
			inPlace.Whole = raster(whole)
		}
		t.Run(name+" in place", func(t *testing.T) { attentiontest.Run(t, dev, inPlace) })
	}
}
