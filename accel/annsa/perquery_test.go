package annsa_test

import (
	"encoding/binary"
	"fmt"
	"math"
	"slices"

	"longtake/accel/ann"
	"longtake/attention"
	"longtake/compute"
	"longtake/kvcache"
)

// perQuery is the prototype's AnnSA (train/infer.py): every query has its own keys, the Fraction of the past that ranks first by a
// matcher, and its own frame; no tiles, no plan. It is slow: the ceiling of what a selection of that size can do.
type perQuery struct {
	matcher  ann.Maker
	fraction float64
	dense    float64
	recent   int
}

func (m perQuery) New(dev compute.Device, _ compute.Queue, s kvcache.Shape) (attention.Policy, error) {
	a, err := dev.NewArena(0)
	p := &perQueryPolicy{perQuery: m, arena: a, index: make([][]ann.Index, s.Layers), put: make([]map[int]int, s.Layers)}
	for i := range p.index {
		p.put[i] = map[int]int{}
		for range s.Heads {
			p.index[i] = append(p.index[i], m.matcher.New(s.HeadDim, 0))
		}
	}
	return p, err
}

func (perQuery) Bytes(compute.Device, kvcache.Shape) int64 { return 0 }
func (m perQuery) String() string                          { return fmt.Sprintf("%v %g a query", m.matcher, m.fraction) }

type perQueryPolicy struct {
	perQuery
	arena      compute.Arena
	index      [][]ann.Index
	put        []map[int]int // frame in each place
	keys, ends compute.Tensor
}

func (p *perQueryPolicy) Attend(dq compute.Queue, at attention.Site, dst, query compute.Tensor, kv kvcache.View) {
	steps := at.Passes - 1
	if at.Pass < steps && (float64(at.Pass)+0.5)/float64(steps) < p.dense || len(kv.Parts) < 2 {
		attention.Dense{}.Attend(dq, at, dst, query, kv)
		return
	}
	now, past := 0, 0
	for _, part := range kv.Parts {
		if part.Kind == kvcache.Current {
			now = part.Frame
		}
	}
	key := make([]float32, query.Dim(2))
	var sure []int32
	for _, part := range kv.Parts {
		if part.Frame >= now-p.recent {
			for k := part.Lo; k < part.Hi; k++ {
				sure = append(sure, int32(k))
			}
			continue
		}
		past = max(past, part.Hi)
		if f, ok := p.put[at.Layer][part.Lo]; ok && f == part.Frame && f >= at.Rope.MinTime {
			continue
		}
		p.put[at.Layer][part.Lo] = part.Frame
		for h, x := range p.index[at.Layer] {
			for k := part.Lo; k < part.Hi; k++ {
				ann.Load(dq, key, kv.Keys.Index(h).Slice(0, k, k+1), compute.Tensor{}, nil)
				x.Put(k, key)
			}
		}
	}
	var list, ends []byte
	entries := 0
	score, order := make([]float32, past), make([]int32, past)
	take := min(max(1, int(p.fraction*float64(past))), past)
	for h := range query.Dim(0) {
		for q := range query.Dim(1) {
			ann.Load(dq, key, query.Index(h).Slice(0, q, q+1), compute.Tensor{}, nil)
			p.index[at.Layer][h].Score(score, key, 0)
			for i := range order {
				order[i] = int32(i)
			}
			first(order, take, score)
			mine := slices.Concat(order[:take], sure)
			slices.Sort(mine)
			for _, k := range mine {
				list = binary.LittleEndian.AppendUint32(list, uint32(k))
			}
			entries += len(mine)
			ends = binary.LittleEndian.AppendUint32(ends, uint32(entries))
		}
	}
	if p.keys.Elems() < entries {
		p.keys = p.arena.Tensor(compute.I32, 2*entries)
		p.ends = p.arena.Tensor(compute.I32, query.Dim(0)*query.Dim(1))
	}
	tiles := compute.Tiles{QueryTile: 1, KeyTile: 1, Keys: p.keys.Slice(0, 0, entries), Ends: p.ends}
	dq.Upload(tiles.Keys, list)
	dq.Upload(tiles.Ends, ends)
	dq.Attend(dst, query, kv.Keys, kv.Values, compute.Attention{Scale: float32(1 / math.Sqrt(float64(query.Dim(2)))), Tiles: tiles})
}

func (p *perQueryPolicy) Close() { p.arena.Free() }

// first moves the n elements with the largest scores to the front (quickselect).
func first(order []int32, n int, score []float32) {
	for len(order) > 1 && n > 0 && n < len(order) {
		pivot := score[order[len(order)/2]]
		lo, mid, hi := 0, 0, len(order)
		for mid < hi {
			switch s := score[order[mid]]; {
			case s > pivot:
				order[lo], order[mid] = order[mid], order[lo]
				lo++
				mid++
			case s < pivot:
				hi--
				order[hi], order[mid] = order[mid], order[hi]
			default:
				mid++
			}
		}
		switch {
		case n <= lo:
			order = order[:lo]
		case n <= hi:
			return
		default:
			order, n = order[hi:], n-hi
		}
	}
}
