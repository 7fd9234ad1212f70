//go:build linux && (amd64 || arm64) && !nocuda

package cuda

import (
	"encoding/binary"
	"fmt"
	"testing"

	"longtake/compute"
)

// newPlanRig describes a plan of Wan's queries over so many keys, all of which can be chosen from.
func newPlanRig(r *bench, keys, tile int, share float64) compute.Planning {
	const queryTile, group, d = 128, 16, 128
	tiles, rows := keys/tile, wanHeads*((wanTokens+queryTile-1)/queryTile)
	kinds := make([]int32, tiles)
	for i := range kinds {
		kinds[i] = compute.TileYoung
	}
	p := compute.Planning{Query: r.normal(1, compute.BF16, wanTokens, wanWidth).Heads(wanHeads), Keys: r.normal(1, compute.BF16, wanHeads, keys, d),
		Scale: 0.088, Temper: 0.5, Tile: tile, QueryTile: queryTile, Group: group, Fraction: share, Kinds: r.ints(kinds...),
		Means: r.Tensor(compute.F32, wanHeads, tiles, d), Logs: r.Tensor(compute.F32, wanHeads, tiles), Tokens: r.Tensor(compute.I32, wanHeads, tiles),
		Groups: r.Tensor(compute.F32, 2*rows*8*d), Norms: r.Tensor(compute.F32, rows*8), Scores: r.Tensor(compute.F32, rows*tiles),
		Lists: r.Tensor(compute.I32, rows*tiles), TileKeys: r.Tensor(compute.I32, rows*(int(share*float64(tiles))+2)), TileEnds: r.Tensor(compute.I32, rows),
		Mass: r.Tensor(compute.F32, wanHeads, wanTokens)}
	for i := range kinds {
		kinds[i] = int32(i)
	}
	p.Fresh = r.ints(kinds...)
	return p
}

// BenchmarkPlan times plans at Wan's size, and attention by them.
func BenchmarkPlan(b *testing.B) {
	r := newBench(b)
	for _, c := range []struct {
		keys, tile int
		share      float64
	}{{32768, 128, 0.2}, {32768, 64, 0.2}, {131072, 128, 0.05}, {131072, 64, 0.05}} {
		p := newPlanRig(r, c.keys, c.tile, c.share)
		values, dst := r.normal(1, compute.BF16, wanHeads, c.keys, 128), r.Tensor(compute.BF16, wanTokens, wanWidth).Heads(wanHeads)
		r.Attend(dst, p.Query, p.Keys, values, compute.Attention{Scale: p.Scale, LogSumExp: p.Mass})
		r.Plan(p)
		a := compute.Attention{Scale: p.Scale, Tiles: compute.Tiles{QueryTile: 128, KeyTile: c.tile, Keys: p.TileKeys, Ends: p.TileEnds}}
		raw := make([]byte, p.TileEnds.Bytes())
		r.Download(raw, p.TileEnds)
		flops, before, tiles := 0.0, 0, p.TileEnds.Elems()/wanHeads
		for i := range p.TileEnds.Elems() {
			end := int(binary.LittleEndian.Uint32(raw[4*i:]))
			queries := min(128, wanTokens-i%tiles*128)
			flops += 4 * 128 * float64(queries*(end-before)*c.tile)
			before = end
		}
		seen := p
		seen.Fresh = p.Fresh.Slice(0, 0, wanTokens/c.tile) // a chunk's
		steady := p
		steady.Fresh = compute.Tensor{}
		for name, call := range map[string]func(int){
			"attend":                       func(int) { r.Attend(dst, p.Query, p.Keys, values, a) },
			"plan, all means":              func(int) { r.Plan(p) },
			"plan, a chunk's means":        func(int) { r.Plan(seen) },
			"plan":                         func(int) { r.Plan(steady) },
			"plan and attend, every pass":  func(int) { r.Plan(steady); r.Attend(dst, p.Query, p.Keys, values, a) },
			"plan and attend, four passes": func(i int) { planOnce(r, seen, i); r.Attend(dst, p.Query, p.Keys, values, a) },
		} {
			b.Run(fmt.Sprintf("keys=%d tile=%d share=%g %s", c.keys, c.tile, c.share, name), func(b *testing.B) { measure(b, r, 0, flops, call) })
		}
		if c.tile == 128 {
			r.planOtherwise(b, fmt.Sprintf("keys=%d tile=%d share=%g", c.keys, c.tile, c.share), steady, values, dst, flops, a)
		}
		r.planParts(b, fmt.Sprintf("keys=%d tile=%d", c.keys, c.tile), p)
		r.Arena.Free()
		r.Arena, _ = r.NewArena(0)
	}
}

// planOtherwise times plans by hashes of 64 bits, and attention that adds what is not listed by its means.
func (r *bench) planOtherwise(b *testing.B, name string, p compute.Planning, values, dst compute.Tensor, flops float64, a compute.Attention) {
	room, groups := p.Means.Dim(1), p.Groups.Elems()/128
	hashed := p
	hashed.Planes, hashed.Codes, hashed.CodeLengths = r.normal(1, compute.F32, 64, 128), r.Tensor(compute.I64, wanHeads, room, 1), r.Tensor(compute.F32, wanHeads, room)
	hashed.GroupCodes, hashed.GroupLengths = r.Tensor(compute.I64, groups, 1), r.Tensor(compute.F32, groups)
	r.Hash(hashed.Codes, compute.Tensor{}, hashed.CodeLengths, p.Means, hashed.Planes, compute.Tensor{}, compute.Tables{})
	whole := p
	whole.Values, whole.RestKeys, whole.RestValues = values, r.Tensor(compute.BF16, wanHeads, room, 128), r.Tensor(compute.BF16, wanHeads, room, 128)
	whole.Rest = r.Tensor(compute.F32, p.TileEnds.Elems(), room)
	sums := r.Tensor(compute.F32, wanHeads, wanTokens)
	more, first := compute.Attention{Scale: p.Scale, LogCount: whole.Rest, LogSumExp: sums}, a
	first.LogSumExp = sums
	add := func() { r.AttendMore(dst, p.Query, whole.RestKeys, whole.RestValues, more, 128) }
	for part, call := range map[string]func(int){
		"plan hashed":                          func(int) { r.Plan(hashed) },
		"plan hashed and attend, every pass":   func(int) { r.Plan(hashed); r.Attend(dst, p.Query, p.Keys, values, a) },
		"attend more, the means":               func(int) { add() },
		"plan and attend, no-drop, every pass": func(int) { r.Plan(whole); r.Attend(dst, p.Query, p.Keys, values, first); add() },
	} {
		b.Run(name+" "+part, func(b *testing.B) { measure(b, r, 0, flops, call) })
	}
	r.Plan(p)
}

// planOnce plans in every fourth pass, as a chunk of four sparse passes does.
func planOnce(r *bench, p compute.Planning, pass int) {
	if pass%4 == 0 {
		r.Plan(p)
	}
}

// planParts times the kernels of a plan.
func (r *bench) planParts(b *testing.B, name string, p compute.Planning) {
	r.Plan(p)
	a, k, rows := &r.planArgs, &r.device.kernels.plan, [3]uint32{uint32((wanTokens + 127) / 128), wanHeads, 1}
	some, large := [3]uint32{128, 1, 1}, [3]uint32{256, 1, 1}
	for part, call := range map[string]func(int){
		"groups": func(int) { r.launch("plan", k[1], rows, large, planGroupsShared(128, 128, 1), argument(a)) },
		"norms": func(int) {
			r.launch("plan", k[2], [3]uint32{(rows[0]*8 + 15) / 16, wanHeads, 1}, large, 0, argument(a))
		},
		"scores": func(int) { r.launch("plan", k[3], planScores(a), some, planScoresShared, argument(a)) },
		"pick":   func(int) { r.launch("plan", k[4], rows, large, 0, argument(a)) },
		"keys":   func(int) { r.launch("plan", k[5], [3]uint32{rows[0] * wanHeads, 1, 1}, large, 0, argument(a)) },
	} {
		b.Run(name+" part "+part, func(b *testing.B) { measure(b, r, 0, 0, call) })
	}
	r.Plan(p)
}

// BenchmarkSelect times the choice of prompt tokens at Wan's size.
func BenchmarkSelect(b *testing.B) {
	r := newBench(b)
	for _, tokens := range []int{121, 512} {
		query := r.normal(1, compute.BF16, wanTokens, wanWidth).Heads(wanHeads)
		keys, values := r.normal(1, compute.BF16, tokens, wanWidth).Heads(wanHeads), r.normal(1, compute.BF16, tokens, wanWidth).Heads(wanHeads)
		s := compute.Selection{Query: query, Keys: keys, Values: values, Top: 4, Last: 2, Planes: r.normal(1, compute.F32, 64, 128),
			Codes: r.Tensor(compute.I64, wanHeads, wanTokens+tokens), Norms: r.Tensor(compute.F32, wanHeads, tokens), Keep: r.Tensor(compute.I32, tokens),
			ToKeys: r.Tensor(compute.BF16, wanHeads, tokens, 128), ToValues: r.Tensor(compute.BF16, wanHeads, tokens, 128),
			ToCount: r.Tensor(compute.F32, 1, tokens), Lengths: r.Tensor(compute.I32, wanHeads)}
		b.Run(fmt.Sprintf("tokens=%d lsh64", tokens), func(b *testing.B) { measure(b, r, 0, 0, func(int) { r.Select(s) }) })
		s.Planes = compute.Tensor{}
		b.Run(fmt.Sprintf("tokens=%d exact", tokens), func(b *testing.B) { measure(b, r, 0, 0, func(int) { r.Select(s) }) })
		s.Bits, s.Step, s.Known = 8, 0.0308, r.Tensor(compute.BF16, wanHeads, tokens, 128)
		b.Run(fmt.Sprintf("tokens=%d quant8", tokens), func(b *testing.B) { measure(b, r, 0, 0, func(int) { r.Select(s) }) })
	}
}

// BenchmarkSplit times the order of three frames at Wan's size, and its copies; BenchmarkHash codes of queries and of entries.
func BenchmarkSplit(b *testing.B) {
	r := newBench(b)
	const tokens, frames, tile = 1560, 3, 128
	padded := (tokens + tile - 1) / tile * tile
	s := compute.Splitting{Keys: r.normal(1, compute.BF16, wanHeads, frames*tokens, 128), Values: r.normal(1, compute.BF16, wanHeads, frames*tokens, 128), Tokens: tokens, Tile: tile,
		Order: r.Tensor(compute.I32, wanHeads, frames*tokens), ToKeys: r.Tensor(compute.BF16, wanHeads, frames*padded, 128), ToValues: r.Tensor(compute.BF16, wanHeads, frames*padded, 128)}
	order, copies := s, s
	order.Fresh, copies.Moved = r.ints(0, 2, 4), r.ints(0, 1, 2)
	b.Run("order", func(b *testing.B) { measure(b, r, 0, 0, func(int) { r.Split(order) }) })
	b.Run("copies", func(b *testing.B) {
		measure(b, r, 2*4*wanHeads*frames*tokens*128, 0, func(int) { r.Split(copies) })
	})
}

func BenchmarkHash(b *testing.B) {
	r := newBench(b)
	const entries = 12 * 1560
	x, planes := r.normal(0.09, compute.F32, wanHeads, entries, 128), r.normal(1, compute.F32, 64, 128)
	codes, lengths := r.Tensor(compute.I64, wanHeads, entries, 1), r.Tensor(compute.F32, wanHeads, entries)
	known := r.Tensor(compute.F32, wanHeads, entries, 128)
	best, score := r.Tensor(compute.I32, wanHeads, 1560), r.Tensor(compute.F32, wanHeads, 1560)
	query := r.Tensor(compute.I64, wanHeads, 1560, 1)
	b.Run("signs of 64 bits", func(b *testing.B) {
		measure(b, r, 4*float64(x.Elems()), 2*64*float64(x.Elems()), func(int) { r.Hash(codes, compute.Tensor{}, lengths, x, planes, compute.Tensor{}, compute.Tables{}) })
	})
	b.Run("levels of 8 bits", func(b *testing.B) {
		measure(b, r, 8*float64(x.Elems()), 0, func(int) {
			r.Quantise(compute.Tensor{}, compute.Tensor{}, known, x, compute.Tensor{}, 8, 0.0308)
		})
	})
	b.Run("nearest of 18,720 by 64 bits", func(b *testing.B) {
		measure(b, r, 0, 0, func(int) { r.MatchCodes(best, score, query, codes, lengths, compute.Tensor{}, 64) })
	})
	t := compute.Tables{Count: 4, Bits: 10, Probes: 1}
	weak, asked, order, ends := r.Tensor(compute.I64, wanHeads, 1560, 1), r.Tensor(compute.F32, wanHeads, 1560), r.Tensor(compute.I32, wanHeads, 4, entries), r.Tensor(compute.I32, wanHeads, 4, 1<<10)
	r.Hash(codes, compute.Tensor{}, lengths, x, planes.Slice(0, 0, 40), compute.Tensor{}, compute.Tables{})
	b.Run("signs and uncertain bits of 1,560 queries", func(b *testing.B) {
		measure(b, r, 0, 0, func(int) {
			r.Hash(query, weak, asked, x.Slice(1, 0, 1560), planes.Slice(0, 0, 40), compute.Tensor{}, t)
		})
	})
	b.Run("nearest of 18,720 by 4 tables of 10 bits", func(b *testing.B) {
		measure(b, r, 0, 0, func(int) {
			r.MatchTables(best, score, query, weak, codes, lengths, compute.Tensor{}, order, ends, t)
		})
	})
}
