package tempcache_test

import (
	"testing"

	"longtake/accel/ann"
	"longtake/accel/tempcache"
	"longtake/compute/cpu"
	"longtake/kvcache/kvcachetest"
)

// TestIndexesKeepTheLaws runs the searches of package ann.
func TestIndexesKeepTheLaws(t *testing.T) {
	dev, err := cpu.New(cpu.Options{Threads: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer dev.Close()
	for _, m := range []ann.Maker{ann.Exact{}, ann.LSH{Bits: 64}, ann.Scalar(8), ann.Product{Subspaces: 4}} {
		for i, byQuery := range []bool{false, true} {
			p := tempcache.Default()
			p.Search, p.Matcher, p.ByQuery = tempcache.Approximate, m, byQuery
			e := kvcachetest.Exam{Policy: p, Recent: p.Recent, Shape: kvcachetest.Shapes[i], Complete: true}
			if _, learns := m.(ann.Product); byQuery && !learns {
				p.Budget.Frames = p.Recent + 6
				e.Policy, e.Fixed, e.Complete = p, true, false
			}
			kvcachetest.Run(t, dev, e)
		}
	}
}
