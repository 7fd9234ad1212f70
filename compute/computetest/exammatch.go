package computetest

import (
	"encoding/binary"
	"math"
	"slices"

	"longtake/compute"
)

// examMatch looks for nearest keys: odd sizes, widths of every kernel, lengths, equal keys, NaN, nothing to look at.
func examMatch(s *suite) {
	m, ok := s.dq.(compute.Matcher)
	if !ok {
		s.Skip("the queue is no compute.Matcher")
	}
	for _, n := range []struct{ heads, queries, keys, width int }{{2, 1, 1, 16}, {1, 7, 63, 64}, {3, 65, 561, 128}, {2, 63, 130, 32}, {1, 130, 65, 256}, {1, 3, 0, 16}} {
		for _, dt := range []compute.DType{compute.F32, compute.BF16} {
			for _, cut := range []bool{false, true} {
				s.begin("%d heads, %d queries, %d keys of %d, %v, lengths %v", n.heads, n.queries, n.keys, n.width, dt, cut)
				q, k := s.normal(dt, 1, n.heads, n.queries, n.width), s.normal(dt, 1, n.heads, n.keys, n.width)
				for i := 3; i < k.rows(); i += 5 { // equal keys, and some that are no numbers
					copy(k.row(i), k.row(i-2))
					if i%10 == 3 && i+1 < k.rows() {
						k.row(i + 1)[0] = math.NaN()
					}
				}
				lengths, many, raw := compute.Tensor{}, make([]int, n.heads), []byte(nil)
				for h := range many {
					if many[h] = n.keys; cut {
						many[h] = s.rng.IntN(n.keys + 1)
					}
					raw = binary.LittleEndian.AppendUint32(raw, uint32(many[h]))
				}
				if cut {
					lengths = s.arena.Tensor(compute.I32, n.heads)
					s.dq.Upload(lengths, raw)
				}
				best, score := s.out(compute.I32, dense, n.heads, n.queries), s.out(compute.F32, dense, n.heads, n.queries)
				m.Match(best.view, score.view, s.in(q, dt, padded), s.in(k, dt, capacity), lengths)
				s.checkMatch(best, score, q, k, many)
			}
		}
	}
}

// checkMatch compares with products in float64: a key that is as good as the best within rounding, and no equal one before it.
func (s *suite) checkMatch(best, score *placed, q, k array, many []int) {
	raw, scores, at := s.bytes(best), s.values(score), places(best.view)
	queries, keys := q.shape[1], k.shape[1]
	for i := range q.rows() {
		h, got := i/queries, int(int32(binary.LittleEndian.Uint32(raw[4*(at[i]-best.outer.Offset):])))
		top, nearest, size := math.Inf(-1), -1, 1.0
		for j := range many[h] {
			x := k.row(h*keys + j)
			if p := product(q.row(i), x); p > top {
				top, nearest, size = p, j, math.Sqrt(product(q.row(i), q.row(i))*product(x, x))
			}
		}
		if nearest < 0 || got < 0 || got >= many[h] {
			if nearest >= 0 || got != -1 {
				s.fail("query %d finds key %d of %d, want %d", i, got, many[h], nearest)
			}
			continue
		}
		own := product(q.row(i), k.row(h*keys+got))
		first := -1
		for j := range got {
			if slices.Equal(k.row(h*keys+j), k.row(h*keys+got)) {
				first = j
				break
			}
		}
		if !(own >= top-1e-4*size) || !(math.Abs(scores.data[i]-own) <= 1e-4*size) || first >= 0 {
			s.fail("query %d finds key %d with %v, of which the product is %v; the best is key %d with %v; an equal one is %d", i, got, scores.data[i], own, nearest, top, first)
		}
	}
}

func product(a, b []float64) (sum float64) {
	for i, v := range a {
		sum += v * b[i]
	}
	return sum
}
