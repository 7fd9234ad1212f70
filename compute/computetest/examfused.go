package computetest

import (
	"bytes"
	"math"

	"longtake/compute"
)

// examAddNorm examines compute.AddNorm, fused or composed.
func examAddNorm(s *suite) {
	for i, types := range [][2]compute.DType{{compute.F32, compute.F32}, {compute.BF16, compute.BF16}, {compute.F32, compute.BF16}, {compute.BF16, compute.F32}} {
		for j, size := range few([][2]int{{12, 1536}, {12, 7}, {1026, 64}, {12, 257}, {12, 8200}}) {
			rows, width := size[0], size[1]
			for _, groups := range []int{0, 3, rows} {
				s.begin("%v after adding %v, %d rows of %d, %d groups", types[0], types[1], rows, width, groups)
				x, y := s.normal(compute.F32, 1, rows, width), s.normal(types[1], 1, rows, width)
				var gate array
				n := normal{rms: j%2 == 1, eps: 1e-6}
				if groups > 0 {
					gate, n.scale, n.shift = s.normal(compute.F32, 1, groups, width), s.normal(compute.F32, 1, groups, width), s.normal(compute.F32, 1, groups, width)
				} else {
					n.weight, n.bias = s.normal(compute.F32, 1, width), s.normal(compute.F32, 1, width)
				}
				rough := odd
				if width > 4096 { // devices may want such rows to be aligned
					rough = padded
				}
				in := func(a array) compute.Tensor { return s.in(a, compute.F32, pick(s, dense, padded)) }
				vector := func(a array) compute.Tensor { return s.in(a, compute.F32, dense) }
				dn := compute.Norm{RMS: n.rms, Eps: float32(n.eps), Weight: vector(n.weight), Bias: vector(n.bias), Scale: in(n.scale), Shift: in(n.shift)}
				sum, tg := s.inout(x, compute.F32, pick(s, dense, padded, rough)), in(gate)
				dst, ty := s.out(types[0], pick(s, dense, padded, rough), rows, width), compute.Tensor{}
				tx := sum.view
				if i == j%4 { // apart
					tx, sum = s.in(x, compute.F32, pick(s, dense, padded)), s.out(compute.F32, pick(s, dense, padded), rows, width)
				}
				if groups == 3 && types[0] == types[1] { // over y
					dst = s.inout(y, types[0], pick(s, dense, padded))
					ty = dst.view
				} else {
					ty = s.in(y, types[1], pick(s, dense, padded, rough))
				}
				compute.AddNorm(s.dq, dst.view, sum.view, tx, ty, tg, dn)
				truth := addGated(x, y, gate)
				s.near(sum, truth, s.tol.F32)
				s.near(dst, norm(truth, n), s.tol.F32.times(2))
			}
		}
	}
}

// examNormRope examines compute.NormRope, fused or composed.
func examNormRope(s *suite) {
	const ring, numHeads = 37, 3
	for i, split := range few(ropeSplits) {
		r := rotation{tables: [3]array{turning(ring, split[0]), turning(9, split[1]), turning(13, split[2])}, minTime: math.MinInt32}
		dim := 2 * (split[0] + split[1] + split[2])
		for j, types := range pairs {
			for _, tokens := range few([]int{65, 1, 7}) {
				if tokens == 1 && i == 0 { // many at once
					tokens = 1024
				}
				r.inverse = (i+j)%2 == 1
				shape := []int{tokens}
				if j%2 == 0 {
					shape = []int{numHeads, tokens}
				}
				pos := s.positions(r, 0, 500, shape...)
				s.begin("%v of %v, pairs %v, %d tokens, positions %v", types[0], types[1], split, tokens, pos.shape)
				x, n := s.normal(types[1], 1, tokens, numHeads*dim), normal{rms: true, eps: 1e-6, weight: s.normal(compute.F32, 1, numHeads*dim)}
				dn := compute.Norm{RMS: true, Eps: 1e-6, Weight: s.in(n.weight, compute.F32, dense)}
				if (i+j)%2 == 0 { // one for each token
					n.shift = s.normal(compute.F32, 1, tokens, numHeads*dim)
					dn.Shift = s.in(n.shift, compute.F32, dense)
				}
				truth, row := newArray(numHeads, tokens, dim), norm(x, n)
				for h := range numHeads {
					for k := range tokens {
						copy(truth.row(h*tokens+k), row.row(k)[h*dim:])
					}
				}
				truth = rope(truth, pos, r)
				tp := s.in(pos, compute.I32, dense)
				from := s.inout(x, types[1], pick(s, dense, padded, odd))
				bound := s.tol.F32
				if types[1] == compute.BF16 { // composed, the norm is rounded
					bound = s.tol.BF16
				}
				if types[0] == types[1] && i%2 == 0 {
					compute.NormRope(s.dq, from.view.Heads(numHeads), from.view, dn, tp, s.deviceRope(r))
					from.view = from.view.Heads(numHeads)
					s.near(from, truth, bound)
					continue
				}
				dst := s.out(types[0], []layout{dense, heads, capacity}[(i+j)%3], numHeads, tokens, dim)
				to := dst.view
				if tokens%5 == 0 { // five frames, in the order of their tokens
					to.Rank = 4
					to.Shape = [compute.MaxRank]int{numHeads, 5, tokens / 5, dim}
					to.Stride = [compute.MaxRank]int{to.Stride[0], tokens / 5 * to.Stride[1], to.Stride[1], 1}
					if j%2 == 1 { // the last one first
						to.Offset, to.Stride[1] = to.Offset+4*to.Stride[1], -to.Stride[1]
						truth = lastFirst(truth, 5)
					}
				}
				compute.NormRope(s.dq, to, from.view, dn, tp, s.deviceRope(r))
				s.near(dst, truth, bound)
			}
		}
	}
}

// lastFirst is a [heads, tokens, width] with its frames in reverse order.
func lastFirst(a array, frames int) array {
	out, tokens := newArray(a.shape...), a.shape[1]
	n := tokens / frames
	for h := range a.shape[0] {
		for i := range tokens {
			copy(out.row(h*tokens+(frames-1-i/n)*n+i%n), a.row(h*tokens+i))
		}
	}
	return out
}

// examBiased examines compute.AttendBiased, also with the views of relative positions.
func examBiased(s *suite) {
	for _, c := range few([][4]int{{2, 20, 33, 64}, {1, 1, 1, 16}, {3, 65, 97, 64}, {2, 70, 130, 128}, {2, 3, 0, 32}}) {
		for _, types := range pairs {
			numHeads, queries, n, dim := c[0], c[1], c[2], c[3]
			for _, relative := range []bool{false, true} {
				s.begin("%d heads, %d queries, %d keys of %d, %v of %v, relative %v", numHeads, queries, n, dim, types[0], types[1], relative)
				query, keys, values := s.normal(types[0], 1, numHeads, queries, dim), s.normal(types[1], 1, numHeads, n, dim), s.normal(types[1], 1, numHeads, n, dim)
				bias, view := newArray(numHeads, queries, n), compute.Tensor{}
				if relative {
					row := s.normal(compute.F32, 2, numHeads, queries+n)
					for k := range bias.data {
						h, q, j := k/(queries*n), k/n%queries, k%n
						bias.data[k] = row.row(h)[queries-1-q+j]
					}
					view = s.in(row, compute.F32, pick(s, dense, padded))
					view.Rank, view.Offset = 3, view.Offset+queries-1
					view.Shape, view.Stride = [compute.MaxRank]int{numHeads, queries, n}, [compute.MaxRank]int{view.Stride[0], -1, 1}
				} else {
					bias = s.normal(compute.F32, 2, numHeads, queries, n)
					if n > 1 {
						bias.data[1] = math.Inf(-1)
					}
					view = s.in(bias, compute.F32, pick(s, dense, capacity))
				}
				dst := s.out(types[0], pick(s, dense, heads, capacity), numHeads, queries, dim)
				compute.AttendBiased(s.dq, dst.view, s.in(query, types[0], pick(s, dense, heads)), s.in(keys, types[1], pick(s, dense, heads)),
					s.in(values, types[1], pick(s, dense, capacity)), view, 0.125)
				truth := newArray(numHeads, queries, dim)
				for h := range numHeads {
					for q := range queries { // one query at a time, its bias as the counts of the keys
						one := attention{scale: 0.125, logCount: array{shape: []int{1, n}, data: bias.data[(h*queries+q)*n:][:n]}}
						part := func(a array, lo, rows int) array {
							return array{shape: []int{1, rows, dim}, data: a.data[lo*dim : (lo+rows)*dim]}
						}
						out, _ := attend(part(query, h*queries+q, 1), part(keys, h*n, n), part(values, h*n, n), one)
						copy(truth.data[(h*queries+q)*dim:], out.data)
					}
				}
				s.near(dst, truth, s.tol.Attention)
			}
		}
	}
}

// examBatch: what a batch computes is what its operations compute, when it is new, comes again, has other tensors, or is
// interrupted.
func examBatch(s *suite) {
	b, ok := s.dq.(compute.Batcher)
	if !ok {
		return
	}
	const rows, width = 24, 64
	s.begin("batch")
	w := s.matrix(s.normal(compute.BF16, 0.1, width, width), compute.BF16)
	a, c := s.inout(s.normal(compute.F32, 1, rows, width), compute.F32, dense), s.inout(s.normal(compute.F32, 1, rows, width), compute.F32, padded)
	h := s.inout(s.normal(compute.BF16, 1, rows, width), compute.BF16, dense)
	run := func(x, y *placed, scale float32, stop bool) {
		for range 3 {
			s.dq.Norm(h.view, x.view, compute.Norm{Eps: 1e-6})
			s.dq.Linear(h.view, h.view, w, compute.Tensor{}, compute.GELU)
			if stop {
				s.dq.Download(make([]byte, h.view.Bytes()), h.view)
			}
			s.dq.Attend(h.view.Heads(4), h.view.Heads(4), h.view.Heads(4), h.view.Heads(4), compute.Attention{Scale: 0.25})
			s.dq.Mix(y.view, scale, x.view, 0.5, y.view)
			s.dq.AddGated(y.view, y.view, h.view, compute.Tensor{})
		}
	}
	var fresh [2][]byte
	for i, p := range []*placed{a, c} {
		fresh[i] = bytes.Clone(p.before)
	}
	for k, step := range []struct {
		swap  bool
		scale float32
		stop  bool
	}{{}, {}, {}, {swap: true}, {}, {swap: true}, {scale: 2}, {scale: 3}, {scale: 2}, {stop: true}, {stop: true}, {scale: 3}} {
		x, y := a, c
		if step.swap {
			x, y = c, a
		}
		var got [2][]byte
		for j, batched := range []bool{false, true} {
			for i, p := range []*placed{a, c} {
				s.dq.Upload(p.outer, fresh[i])
			}
			if batched {
				b.BeginBatch()
			}
			run(x, y, step.scale, step.stop && batched)
			if batched {
				b.EndBatch()
			}
			got[j] = append(s.bytes(a), s.bytes(c)...)
		}
		if !bytes.Equal(got[0], got[1]) {
			s.fail("batch %d gives other bytes than its operations", k)
		}
		fresh[0][4*(64+k)] ^= 1 // other numbers next time
	}
}
