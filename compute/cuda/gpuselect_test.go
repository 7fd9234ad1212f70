package cuda

import (
	"fmt"
	"math"
	"slices"
	"testing"

	"longtake/accel/ann"
	"longtake/compute"
)

// TestQuantisedTokensAreChosenByTheMatrixUnits: products of bfloat16 queries with levels, which bfloat16 holds exactly, choose the tokens that an
// index of accel/ann ranks first.
func TestQuantisedTokensAreChosenByTheMatrixUnits(t *testing.T) {
	b := newBench(t)
	const heads, queries, dim, top = 3, 9, 64, 2
	for _, bits := range []ann.Scalar{2, 4, 8} {
		for _, tokens := range []int{7, 121} {
			t.Run(fmt.Sprintf("%d bits, %d tokens", bits, tokens), func(t *testing.T) {
				query, keys := b.normal(1, compute.BF16, queries, heads*dim), b.normal(1, compute.BF16, tokens, heads*dim)
				s := compute.Selection{Query: query.Heads(heads), Keys: keys.Heads(heads), Values: keys.Heads(heads), Top: top, Last: 1, Bits: int(bits), Step: bits.Step(),
					Codes: b.Tensor(compute.I64, heads, queries+tokens), Norms: b.Tensor(compute.F32, heads*tokens), Keep: b.Tensor(compute.I32, tokens),
					Known: b.Tensor(compute.BF16, heads*tokens*dim), ToKeys: b.Tensor(compute.BF16, heads, tokens, dim), ToValues: b.Tensor(compute.BF16, heads, tokens, dim),
					ToCount: b.Tensor(compute.F32, 1, tokens), Lengths: b.Tensor(compute.I32, heads)}
				b.Select(s)
				x, k := b.floats(query), b.floats(keys)
				want, got := make([]bool, tokens), make([]bool, tokens)
				want[tokens-1] = true
				for h := range heads {
					index := bits.New(dim, tokens)
					for i := range tokens {
						index.Put(i, k[(i*heads+h)*dim:][:dim])
					}
					scores := make([]float32, tokens)
					for i := range queries {
						index.Score(scores, x[(i*heads+h)*dim:][:dim], 0)
						for range min(top, tokens) {
							at := slices.Index(scores, slices.Max(scores))
							want[at], scores[at] = true, float32(math.Inf(-1))
						}
					}
				}
				for i, v := range b.floats(s.Keep) { // their bits are those of integers
					got[i] = v != 0
				}
				if !slices.Equal(got, want) {
					t.Errorf("kept %v, want %v", got, want)
				}
			})
		}
	}
}
