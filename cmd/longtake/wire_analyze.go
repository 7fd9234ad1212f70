package main

import (
	"fmt"

	"longtake/accel/ann"
	"longtake/accel/tempcache"
	"longtake/analyze"
)

// triedCaches are the caches that analyze tries, by threshold.
func triedCaches(thresholds []float64) (out []analyze.Trial) {
	for _, p := range []struct {
		group  string
		policy tempcache.Policy
	}{{"TempCache, ours", tempcache.Default()}, {"TempCache, paper", tempcache.Paper()}} {
		for _, threshold := range thresholds {
			p.policy.Threshold, p.policy.MaxChange = threshold, 0
			out = append(out, analyze.Trial{Name: fmt.Sprintf("%s %g", p.group, threshold), Group: p.group, Threshold: threshold, Cache: p.policy})
		}
	}
	return out
}

// triedMatchers are the indexes that analyze asks; bits are those of a key of this width.
func triedMatchers(width int) []analyze.Matcher {
	list := []analyze.Matcher{ranks("exact", 0, ann.Exact{})}
	for _, bits := range []int{16, 32, 64, 128, 256} {
		list = append(list, ranks("LSH", float64(bits), ann.LSH{Bits: bits}))
	}
	for _, bits := range []int{16, 32, 64, 128, 256} {
		list = append(list, ranks("LSH centred", float64(bits), ann.LSH{Bits: bits, Centre: true}))
	}
	for _, bits := range []int{2, 4, 8} {
		list = append(list, ranks("Quant", float64(bits*width), ann.Scalar(bits)))
	}
	for _, subspaces := range []int{2, 4, 8, 16} {
		if width%subspaces == 0 {
			list = append(list, ranks("PQ", float64(8*subspaces), ann.Product{Subspaces: subspaces}))
		}
	}
	return list
}

func ranks(kind string, bits float64, m ann.Maker) analyze.Matcher {
	return analyze.Matcher{Name: m.String(), Kind: kind, Bits: bits, New: func(width, slots int) analyze.Index { return m.New(width, slots) }}
}
