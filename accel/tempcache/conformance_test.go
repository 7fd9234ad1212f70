package tempcache_test

import (
	"testing"

	"longtake/accel/ann"
	"longtake/accel/tempcache"
	"longtake/compute"
	"longtake/compute/computetest"
	"longtake/compute/cpu"
	"longtake/kvcache"
	"longtake/kvcache/kvcachetest"
)

// all lists a policy for every option.
func all() map[string]tempcache.Policy {
	with := func(f func(*tempcache.Policy)) tempcache.Policy {
		p := tempcache.Prototype()
		f(&p)
		return p
	}
	return map[string]tempcache.Policy{
		"default":   tempcache.Default(),
		"paper":     tempcache.Paper(),
		"prototype": tempcache.Prototype(),
		"lossless":  with(func(p *tempcache.Policy) { p.Threshold = 1 }),
		"newest":    with(func(p *tempcache.Policy) { p.Keep = tempcache.Newest }),
		"unrotated": with(func(p *tempcache.Policy) { p.Space = tempcache.Unrotated }),
		"rotated, one a frame": with(func(p *tempcache.Policy) {
			p.Space, p.OnePerFrame, p.Keep = tempcache.Rotated, true, tempcache.Newest
		}),
		"shares":           with(func(p *tempcache.Policy) { p.Shares = []float64{1, 2.5} }),
		"shares of heads":  with(func(p *tempcache.Policy) { p.Shares = []float64{1, 2.5, 0.2, 1, 3, 0.7} }),
		"anchors":          with(func(p *tempcache.Policy) { p.Anchor = 2 }),
		"no recent frames": with(func(p *tempcache.Policy) { p.Recent = 0 }),
		"shared":           with(func(p *tempcache.Policy) { p.Shared = true }),
		"neighbours": with(func(p *tempcache.Policy) {
			p.Search, p.Radius, p.Depth, p.Keep = tempcache.Neighbours, 1, 9, tempcache.Newest
		}),
		"index": with(func(p *tempcache.Policy) {
			p.Search, p.Matcher = tempcache.Approximate, scanner{}
		}),
		"hashed": with(func(p *tempcache.Policy) { p.Search, p.Matcher = tempcache.Approximate, ann.LSH{Bits: 128} }),
		"hash tables": with(func(p *tempcache.Policy) {
			p.Search, p.Matcher = tempcache.Approximate, ann.LSH{Bits: 9, Tables: 8, Probes: 1}
		}),
		"quantised":           with(func(p *tempcache.Policy) { p.Search, p.Matcher, p.ByQuery = tempcache.Approximate, ann.Scalar(8), true }),
		"by query, unrotated": with(func(p *tempcache.Policy) { p.ByQuery, p.Space = true, tempcache.Unrotated }),
		"error bound": with(func(p *tempcache.Policy) {
			p.MaxError, p.Retest = 0.5, 3
		}),
		"change bound": with(func(p *tempcache.Policy) {
			p.Threshold, p.MaxChange = 0.7, 0.4
		}),
		"spread": with(func(p *tempcache.Policy) {
			p.Search, p.Radius, p.Depth, p.Threshold, p.Spread = tempcache.Neighbours, 1, 2, 0.6, 1
		}),
		"rest": with(func(p *tempcache.Policy) {
			p.Search, p.Radius, p.Depth, p.Spread, p.Rest, p.Forget = tempcache.Neighbours, 1, 2, 1, true, tempcache.Rarest
		}),
		"local heads":      with(func(p *tempcache.Policy) { p.Local = [][]bool{{true, false, false}, {false, true, true}} }),
		"rarest forgotten": with(func(p *tempcache.Policy) { p.Forget = tempcache.Rarest }),
		"cap and decay":    with(func(p *tempcache.Policy) { p.CountCap, p.Decay = 8, 0.9 }),
	}
}

// scanner makes indexes without an idea.
type scanner struct{}

func (scanner) String() string                 { return "scan" }
func (scanner) New(width, slots int) ann.Index { return &scan{width, make([]float32, width*slots)} }

// scan is the index without an idea.
type scan struct {
	width int
	keys  []float32
}

func (s *scan) Score(dst, query []float32, lo int) {
	for i := range dst {
		dst[i] = ann.Dot(query, s.keys[(lo+i)*s.width:][:s.width])
	}
}
func (s *scan) Put(slot int, key []float32) { copy(s.keys[slot*s.width:], key) }
func (s *scan) Reset()                      {}
func (s *scan) Bytes() int64                { return int64(4 * len(s.keys)) }
func (s *scan) Nearest(query []float32, slots int) int {
	at, top := -1, float32(-2)
	for i := range slots {
		var sum float32
		for j, x := range s.keys[i*s.width:][:s.width] {
			sum += x * query[j]
		}
		if sum > top {
			at, top = i, sum
		}
	}
	return at
}

// counted reports whether the view of a policy stands for every token: it does not if counts are changed.
func counted(p tempcache.Policy) bool {
	return p.CountCap == 0 && p.Decay == 0 && !p.NoLogCount && p.Local == nil
}

// shaped gives a policy with local heads, or with shares of heads, as many as a model has.
func shaped(p tempcache.Policy, s kvcache.Shape) tempcache.Policy {
	for i, layer := range p.Local {
		if i == 0 {
			p.Local = nil
		}
		p.Local = append(p.Local, layer[:s.Heads])
	}
	if len(p.Shares) > s.Layers {
		p.Shares = p.Shares[:s.Layers*s.Heads]
	}
	return p
}

func TestEveryPolicyKeepsTheLaws(t *testing.T) {
	dev, err := cpu.New(cpu.Options{Threads: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer dev.Close()
	// Every policy runs without a budget on one shape and with one on the other; the default one on both.
	for name, p := range all() {
		t.Run(name, func(t *testing.T) {
			for i, s := range kvcachetest.Shapes {
				p, budget := shaped(p, s), (i+len(name))%2 == 0
				e := kvcachetest.Exam{Anchor: p.Anchor, Recent: p.Recent, Shape: s, Complete: counted(p) && !budget, Fixed: budget}
				if budget {
					p.Budget.Frames = p.Anchor + p.Recent + 5
				}
				e.Policy = p
				kvcachetest.Run(t, dev, e)
			}
		})
	}
	p := tempcache.Default()
	p.Budget.Frames = p.Recent + 5
	kvcachetest.Run(t, dev, kvcachetest.Exam{Policy: p, Recent: p.Recent, Fixed: true})
	p.Budget.Frames = p.Recent + 3 // no room for any entry in chunks of three
	kvcachetest.Run(t, dev, kvcachetest.Exam{Policy: p, Recent: p.Recent, Fixed: true})
}

// TestCachesOfBFloat16KeepTheLaws runs the way with means beside rounded keys and values.
func TestCachesOfBFloat16KeepTheLaws(t *testing.T) {
	dev, err := cpu.New(cpu.Options{Threads: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer dev.Close()
	for _, p := range []tempcache.Policy{tempcache.Default(), tempcache.Paper()} {
		p.Budget.Frames = p.Recent + 6
		s := kvcachetest.Shapes[0]
		s.DType = compute.BF16
		kvcachetest.Run(t, dev, kvcachetest.Exam{Policy: p, Recent: p.Recent, Fixed: true, Shape: s})
	}
}

// TestDevicesWithoutHostMemory runs the way over downloads.
func TestDevicesWithoutHostMemory(t *testing.T) {
	for _, p := range []tempcache.Policy{tempcache.Default(), tempcache.Paper()} {
		p.Budget.Frames = p.Recent + 6
		kvcachetest.Run(t, computetest.Reference(), kvcachetest.Exam{Policy: p, Recent: p.Recent, Fixed: true, Shape: kvcachetest.Shapes[0]})
	}
}
