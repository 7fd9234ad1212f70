package computetest

import (
	"fmt"
	"slices"

	"longtake/compute"
)

// queue runs everything at once, in the calling goroutine. Arrays leave a tensor by load and return by store.
type queue struct{ err error }

// Fail makes err the queue's first failure, as if the device had broken.
func (q *queue) Fail(err error) {
	if q.err == nil {
		q.err = err
	}
}

func (q *queue) Err() error  { return q.err }
func (q *queue) Wait() error { return q.err }
func (q *queue) Close()      {}

// want panics with the operation and all shapes unless ok.
func want(ok bool, op string, shapes ...any) {
	if !ok {
		panic(fmt.Sprintf("compute: %s: shapes or types do not fit: %v", op, shapes))
	}
}

func float(ts ...compute.Tensor) bool {
	return !slices.ContainsFunc(ts, func(t compute.Tensor) bool { return t.DType != compute.F32 && t.DType != compute.BF16 })
}

func is(t compute.Tensor, dt compute.DType, shape ...int) bool {
	return t.DType == dt && slices.Equal(t.Shape[:t.Rank], shape)
}

func same(ts ...compute.Tensor) bool {
	for _, t := range ts {
		if t.Rank == 0 || t.Rank != ts[0].Rank || t.Shape != ts[0].Shape {
			return false
		}
	}
	return float(ts...)
}

// grouped reports whether g is absent or [groups, width] for x.
func grouped(g, x compute.Tensor) bool {
	return g.IsZero() || g.DType == compute.F32 && g.Rank == 2 && g.Shape[1] == x.Shape[1] && g.Shape[0] > 0 && x.Shape[0]%g.Shape[0] == 0
}

func param(p compute.Tensor, n int) bool { return p.IsZero() || is(p, compute.F32, n) }

func load(t compute.Tensor) array {
	if t.IsZero() {
		return array{}
	}
	a, all := newArray(t.Shape[:t.Rank]...), t.Buffer.(storage)
	size := t.DType.Size()
	for i, p := range places(t) {
		a.data[i] = decode(all[p*size:(p+1)*size], t.DType)[0]
	}
	return a
}

func store(t compute.Tensor, a array) {
	b, size := encode(a.data, t.DType), t.DType.Size()
	for i, p := range places(t) {
		copy(t.Buffer.(storage)[p*size:], b[i*size:(i+1)*size])
	}
}

// run stores what f computes, unless the queue has failed.
func (q *queue) run(dst compute.Tensor, f func() array) {
	if q.err == nil {
		store(dst, f())
	}
}

func (q *queue) Upload(dst compute.Tensor, src []byte) {
	want(dst.Contiguous() && dst.Bytes() == int64(len(src)), "upload", dst, len(src))
	if q.err == nil {
		copy(dst.Buffer.(storage)[dst.Offset*dst.DType.Size():], src)
	}
}

func (q *queue) Download(dst []byte, src compute.Tensor) {
	want(src.Contiguous() && src.Bytes() == int64(len(dst)), "download", src, len(dst))
	if q.err == nil {
		copy(dst, src.Buffer.(storage)[src.Offset*src.DType.Size():])
	}
}

func (q *queue) Copy(dst, src compute.Tensor) {
	want(same(dst, src), "copy", dst, src)
	q.run(dst, func() array { return load(src) })
}

func (q *queue) Linear(dst, x compute.Tensor, w compute.Matrix, bias compute.Tensor, act compute.Activation) {
	out, in := w.Dims()
	want(float(dst, x) && x.Rank == 2 && x.Shape[1] == in && is(dst, dst.DType, x.Shape[0], out) && param(bias, out), "linear", dst, x, []int{out, in}, bias)
	q.run(dst, func() array { return linear(load(x), array(w.(matrix)), load(bias), act) })
}

func (q *queue) Norm(dst, x compute.Tensor, n compute.Norm) {
	want(same(dst, x) && x.Rank == 2, "norm", dst, x)
	want(param(n.Weight, x.Shape[1]) && param(n.Bias, x.Shape[1]) && grouped(n.Scale, x) && grouped(n.Shift, x), "norm", x, n.Weight, n.Bias, n.Scale, n.Shift)
	q.run(dst, func() array {
		return norm(load(x), normal{n.RMS, float64(n.Eps), load(n.Weight), load(n.Bias), load(n.Scale), load(n.Shift)})
	})
}

func (q *queue) Rope(dst, x, pos compute.Tensor, r compute.Rope) {
	want(same(dst, x) && x.Rank == 3, "rope", dst, x)
	heads, tokens, pairs := x.Shape[0], x.Shape[1], 0
	for _, t := range []compute.Tensor{r.Time, r.Row, r.Column} {
		if !t.IsZero() {
			want(is(t, compute.F32, t.Shape[0], t.Shape[1], 2), "rope", x, t)
			pairs += t.Shape[1]
		}
	}
	want(2*pairs == x.Shape[2], "rope", x, r.Time, r.Row, r.Column)
	want(is(pos, compute.I32, tokens, 3) || is(pos, compute.I32, heads, tokens, 3), "rope", x, pos)
	q.run(dst, func() array {
		return rope(load(x), load(pos), rotation{[3]array{load(r.Time), load(r.Row), load(r.Column)}, r.MinTime, r.Inverse})
	})
}

func (q *queue) AddGated(dst, x, y, gate compute.Tensor) {
	want(same(dst, x, y) && x.Rank == 2 && grouped(gate, x), "add gated", dst, x, y, gate)
	q.run(dst, func() array { return addGated(load(x), load(y), load(gate)) })
}

func (q *queue) Activate(dst, x compute.Tensor, act compute.Activation) {
	want(same(dst, x), "activate", dst, x)
	q.run(dst, func() array {
		return each(load(x), array{}, func(x, _ float64) float64 { return activate(x, act) })
	})
}

func (q *queue) Gather(dst, table, index compute.Tensor, accumulate bool) {
	want(float(dst) && table.Rank == 2 && dst.Rank == 2 && is(table, compute.F32, table.Shape[0], dst.Shape[1]) && is(index, compute.I32, dst.Shape[0]), "gather", dst, table, index)
	q.run(dst, func() array {
		var sum array
		if accumulate {
			sum = load(dst)
		}
		return gather(sum, load(table), load(index))
	})
}

func (q *queue) TimeEmbed(dst, t compute.Tensor, maxPeriod float64) {
	want(float(dst) && dst.Rank == 2 && is(t, compute.F32, dst.Shape[0]), "time embed", dst, t)
	q.run(dst, func() array { return timeEmbed(load(t), dst.Shape[1], maxPeriod) })
}

func (q *queue) Noise(dst compute.Tensor, key compute.NoiseKey) {
	want(float(dst) && dst.Contiguous(), "noise", dst)
	q.run(dst, func() array {
		x, a := make([]float32, dst.Elems()), newArray(dst.Shape[:dst.Rank]...)
		compute.FillNoise(x, key, 0)
		for i, v := range x {
			a.data[i] = float64(v)
		}
		return a
	})
}

func (q *queue) Mix(dst compute.Tensor, a float32, x compute.Tensor, b float32, y compute.Tensor) {
	want(same(dst, x) && (y.IsZero() || same(dst, y)), "mix", dst, x, y)
	q.run(dst, func() array {
		if y.IsZero() {
			b = 0
		}
		return each(load(x), load(y), func(x, y float64) float64 { return float64(a)*x + float64(b)*y })
	})
}

func (q *queue) Clamp(dst, x compute.Tensor, lo, hi float32) {
	want(same(dst, x), "clamp", dst, x)
	q.run(dst, func() array {
		return each(load(x), array{}, func(x, _ float64) float64 { return clamp(x, float64(lo), float64(hi)) })
	})
}

func (q *queue) Attend(dst, query, keys, values compute.Tensor, a compute.Attention) {
	want(same(dst, query) && query.Rank == 3, "attend", dst, query)
	want(same(keys, values) && keys.DType == values.DType, "attend", keys, values)
	heads, queries, dim := query.Shape[0], query.Shape[1], query.Shape[2]
	want(keys.Rank == 3 && keys.Shape[0] == heads && keys.Shape[2] == dim && dim%16 == 0, "attend", query, keys)
	n := keys.Shape[1]
	want(a.LogCount.IsZero() || is(a.LogCount, compute.F32, heads, n), "attend: log counts", keys, a.LogCount)
	want(a.Lengths.IsZero() || is(a.Lengths, compute.I32, heads), "attend: lengths", keys, a.Lengths)
	want(a.LogSumExp.IsZero() || is(a.LogSumExp, compute.F32, heads, queries), "attend: logsumexp", query, a.LogSumExp)
	if q.err != nil {
		return
	}
	at := attention{scale: float64(a.Scale), logCount: load(a.LogCount)}
	for _, n := range load(a.Lengths).data {
		at.lengths = append(at.lengths, int(n))
	}
	if !a.Tiles.Ends.IsZero() {
		at.queryTile, at.keyTile = a.Tiles.QueryTile, a.Tiles.KeyTile
		want(is(a.Tiles.Ends, compute.I32, heads*((queries+at.queryTile-1)/at.queryTile)), "attend: tiles", query, a.Tiles.Ends)
		ids, from := load(a.Tiles.Keys).data, 0
		for _, end := range load(a.Tiles.Ends).data {
			var list []int
			for _, id := range ids[from:int(end)] {
				list = append(list, int(id))
			}
			at.tiles, from = append(at.tiles, list), int(end)
		}
	}
	out, logSumExp := attend(load(query), load(keys), load(values), at)
	store(dst, out)
	if !a.LogSumExp.IsZero() {
		store(a.LogSumExp, logSumExp)
	}
}
