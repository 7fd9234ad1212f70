package cuda

import (
	"encoding/binary"
	"math"
	"testing"

	"longtake/compute"
)

// onBothKernels runs a test with the attention kernel of this GPU, and with the portable one where that is another.
func onBothKernels(t *testing.T, run func(t *testing.T, r *bench)) {
	t.Run("own", func(t *testing.T) { run(t, newBench(t)) })
	r := newBench(t)
	if !r.hopper() {
		return
	}
	r.modules.arch = "sm_90" // without Hopper's own instructions
	t.Run("portable", func(t *testing.T) { run(t, r) })
}

// TestAttentionOfAFewTiles walks every path of the matrix kernels and the plain one on shapes small enough for compute-sanitizer:
// dense, log counts, ragged lengths, lists of both tile sizes, whole and in pieces.
func TestAttentionOfAFewTiles(t *testing.T) { onBothKernels(t, attendFewTiles) }

func attendFewTiles(t *testing.T, r *bench) {
	const heads, queries, keys = 2, 130, 333
	dims := []int{128, 64, 32}
	if testing.Short() {
		dims = []int{128, 32}
	}
	for _, dim := range dims {
		q, dst := r.normal(1, compute.BF16, queries, heads*dim).Heads(heads), r.Tensor(compute.BF16, queries, heads*dim).Heads(heads)
		k, v := r.normal(1, compute.BF16, heads, keys, dim), r.normal(1, compute.BF16, heads, keys, dim)
		logCount, lengths, sums := r.normal(2, compute.F32, heads, keys), r.ints(keys, 70), r.Tensor(compute.F32, heads, queries)
		for _, tile := range []int{0, 64, 128} {
			for way := range 4 {
				a := compute.Attention{Scale: 0.1, LogSumExp: sums}
				if way&1 != 0 {
					a.LogCount = logCount
				}
				if way&2 != 0 {
					a.Lengths = lengths
				}
				var lists [][]int32
				if tile > 0 {
					lists = fewTiles(r, &a, keys, tile)
				}
				r.Attend(dst, q, k, v, a)
				want := attendExactly(r, q, k, v, a, lists, tile)
				if d := distance(r.rows(dst), want); !(d < 1e-2) {
					t.Errorf("heads of %d, tiles of %d, log counts %v, lengths %v: off by %.2g", dim, tile, way&1 != 0, way&2 != 0, d)
				}
			}
		}
	}
}

// TestMoreKeysJoinAnAttention: an attention over some keys and then over the others, with log counts for each tile of queries.
func TestMoreKeysJoinAnAttention(t *testing.T) { onBothKernels(t, attendMoreKeys) }

func attendMoreKeys(t *testing.T, r *bench) {
	const heads, queries, first, keys = 2, 130, 70, 333
	for _, dt := range []compute.DType{compute.BF16, compute.F32} {
		for _, c := range []struct{ dim, tile int }{{64, 128}, {128, 128}, {32, 50}} {
			q, dst := r.normal(1, dt, queries, heads*c.dim).Heads(heads), r.Tensor(dt, queries, heads*c.dim).Heads(heads)
			k, v := r.normal(1, dt, heads, keys, c.dim), r.normal(1, dt, heads, keys, c.dim)
			tiles := (queries + c.tile - 1) / c.tile
			counts, sums := make([]float32, heads*tiles*(keys-first)), r.Tensor(compute.F32, heads, queries)
			for i := range counts {
				counts[i] = float32(r.rng.NormFloat64())
				if i%3 == 0 || i < keys-first { // the first tile sees none
					counts[i] = float32(math.Inf(-1))
				}
			}
			a := compute.Attention{Scale: 0.1, LogSumExp: sums}
			r.Attend(dst, q, k.Slice(1, 0, first), v.Slice(1, 0, first), a)
			a.LogCount = r.upload(counts, heads*tiles, keys-first)
			r.AttendMore(dst, q, k.Slice(1, first, keys), v.Slice(1, first, keys), a, c.tile)
			want := r.Tensor(dt, queries, heads*c.dim).Heads(heads)
			bias := make([]float32, heads*queries*keys)
			for i := range bias {
				if j := i % keys; j >= first {
					row := i / keys
					bias[i] = counts[(row/queries*tiles+row%queries/c.tile)*(keys-first)+j-first]
				}
			}
			r.AttendBiased(want, q, k, v, r.upload(bias, heads, queries, keys), a.Scale)
			if d := distance(r.rows(dst), r.rows(want)); !(d < 1e-2) {
				t.Errorf("%v, heads of %d, tiles of %d queries: off by %.2g", dt, c.dim, c.tile, d)
			}
		}
	}
}

func (b *bench) upload(v []float32, dims ...int) compute.Tensor {
	t := b.Tensor(compute.F32, dims...)
	raw, err := binary.Append(nil, binary.LittleEndian, v)
	if err != nil {
		b.Fatal(err)
	}
	b.Upload(t, raw)
	return t
}

// fewTiles gives every tile of queries of two heads a list of tiles: all, the first, all, the last two: with lengths some begin beyond them.
func fewTiles(r *bench, a *compute.Attention, keys, tile int) (lists [][]int32) {
	var all []int32
	for i := range int32((keys + tile - 1) / tile) {
		all = append(all, i)
	}
	lists = [][]int32{all, all[:1], all, all[len(all)-2:]}
	var ids, ends []int32
	for _, l := range lists {
		ids = append(ids, l...)
		ends = append(ends, int32(len(ids)))
	}
	a.Tiles = compute.Tiles{QueryTile: attendRows, KeyTile: tile, Keys: r.ints(ids...), Ends: r.ints(ends...)}
	return lists
}

// rows are the elements of a tensor of any strides.
func (b *bench) rows(t compute.Tensor) []float32 {
	flat := b.Tensor(compute.F32, t.Shape[0], t.Shape[1], t.Shape[2])
	b.Copy(flat, t)
	return b.floats(flat)
}

// attendExactly is attention in float64.
func attendExactly(r *bench, query, keys, values compute.Tensor, a compute.Attention, lists [][]int32, tile int) []float32 {
	q, k, v := r.rows(query), r.rows(keys), r.rows(values)
	heads, queries, count, dim := query.Shape[0], query.Shape[1], keys.Shape[1], query.Shape[2]
	var logCount []float32
	if !a.LogCount.IsZero() {
		logCount = r.floats(a.LogCount)
	}
	out := make([]float32, len(q))
	for h := range heads {
		n := count
		if !a.Lengths.IsZero() {
			raw := make([]byte, 4*heads)
			r.Download(raw, a.Lengths)
			n = int(binary.LittleEndian.Uint32(raw[4*h:]))
		}
		for i := range queries {
			seen := make([]bool, n)
			for j := range seen {
				seen[j] = lists == nil
			}
			if lists != nil {
				for _, t := range lists[h*((queries+attendRows-1)/attendRows)+i/attendRows] {
					for j := int(t) * tile; j < min(n, (int(t)+1)*tile); j++ {
						seen[j] = true
					}
				}
			}
			var sum float64
			row := make([]float64, dim)
			for j, yes := range seen {
				if !yes {
					continue
				}
				var x float64
				for d := range dim {
					x += float64(q[(h*queries+i)*dim+d]) * float64(k[(h*count+j)*dim+d])
				}
				x *= float64(a.Scale)
				if logCount != nil {
					x += float64(logCount[h*count+j])
				}
				w := math.Exp(x)
				sum += w
				for d := range dim {
					row[d] += w * float64(v[(h*count+j)*dim+d])
				}
			}
			for d := range dim {
				if sum > 0 {
					out[(h*queries+i)*dim+d] = float32(row[d] / sum)
				}
			}
		}
	}
	return out
}
