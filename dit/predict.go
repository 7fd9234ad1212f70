package dit

import (
	"longtake/attention"
	"longtake/compute"
	"longtake/kvcache"
)

// Pass names one forward of a chunk: which of the scheduled passes it is, and whether its keys stay.
type Pass struct {
	// Index is the row of Work.Schedule.
	Index int
	// Clean commits the chunk's keys; otherwise they are drafts.
	Clean bool
	// Skip is how many of the scheduled frames come before the first one of this forward.
	Skip int
	// Chunk counts the session's chunks, for the attention policies.
	Chunk int
}

// part is a run of a forward's tokens that sees a cache of its own.
type part struct {
	lo, hi   int // tokens
	pass     Pass
	cache    kvcache.Layers
	keysOnly bool // nothing is wanted of the last block but its keys
}

// Predict runs the network on the chunk's tokens x F32 [frames*tokens, In] and writes its output to dst F32
// [frames*tokens, Out]. With an absent dst the forward ends as soon as the last block's keys are in the cache: all that a
// clean pass is for (exact: nothing after it is used).
func (w *Work) Predict(dq compute.Queue, dst, x compute.Tensor, pass Pass, cache kvcache.Layers) {
	w.parts[0] = part{hi: x.Dim(0), pass: pass, cache: cache, keysOnly: dst.IsZero()}
	pass.Skip += w.skip
	w.forward(dq, dst, x, pass, w.parts[:1])
}

// PredictPair runs the clean pass of a chunk and a step of the next in one forward: x holds the tokens of both, as many each,
// dst receives the output for the second. It equals Predict for one and then for the other, because in every layer the
// first chunk's clean keys are in the cache before the second asks for them (kvcache.Paired). The step is the chunk's first.
// Chunk counts the first of the two.
func (w *Work) PredictPair(dq compute.Queue, dst, x compute.Tensor, chunk int, cache kvcache.Paired) {
	n := x.Dim(0) / 2
	w.parts[0] = part{hi: n, pass: Pass{Index: w.size.Passes - 1, Clean: true, Chunk: chunk}, cache: cache.Before(), keysOnly: true}
	w.parts[1] = part{lo: n, hi: 2 * n, pass: Pass{Chunk: chunk + 1}, cache: cache}
	w.forward(dq, dst, x, Pass{Index: w.size.Passes}, w.parts[:2])
}

// forward runs all parts; pass finds their modulation.
func (w *Work) forward(dq compute.Queue, dst, x compute.Tensor, pass Pass, parts []part) {
	if b, ok := dq.(compute.Batcher); ok {
		b.BeginBatch()
		defer b.EndBatch()
	}
	m, n := w.m, x.Dim(0)
	w.first = pass.Skip * m.Tokens()
	h := w.residual.Slice(0, 0, n)
	m.patch.apply(dq, h, w.joined(dq, x, pass), compute.None)
	if m.steered != nil {
		dq.AddGated(h, h, w.added.Slice(0, w.first, w.first+n), compute.Tensor{})
	}
	y := w.normed.Slice(0, 0, n)
	dq.Norm(y, h, w.entry(pass, 0, 0, n))
	for i := range m.blocks {
		w.block(dq, h, y, i, pass, parts)
	}
	if !dst.IsZero() { // before its tokens are parts of which only keys were wanted
		m.head.apply(dq, dst, y.Slice(0, n-dst.Dim(0), n), compute.None)
	}
}

// joined is a forward's tokens with the channels that are given to them.
func (w *Work) joined(dq compute.Queue, x compute.Tensor, pass Pass) compute.Tensor {
	m := w.m
	if m.Given == 0 {
		return x
	}
	lo, n := pass.Skip*m.Tokens(), x.Dim(0)
	noisy, _ := w.channels(lo, lo+n)
	dq.Copy(noisy, x.Reshape(n, noisy.Dim(1), noisy.Dim(2)))
	return w.input.Slice(0, lo, lo+n)
}

// entry is the norm by which block i takes the residual of tokens lo to hi; behind the last block, the head.
func (w *Work) entry(pass Pass, i, lo, hi int) compute.Norm {
	m := w.m
	if i < len(m.blocks) {
		return compute.Norm{Eps: m.Eps, Shift: w.mod(pass, i, 0, lo, hi), Scale: w.mod(pass, i, 1, lo, hi), Coarse: compute.IsCoarse(m.blocks[i].qkv.w)}
	}
	frames := (hi - lo) / m.Tokens()
	first := (pass.Index*w.frames + pass.Skip + lo/m.Tokens()) * 2
	head := w.headModulation.Slice(0, first, first+2*frames).Reshape(frames, 2*m.Dim)
	return compute.Norm{Eps: m.Eps, Shift: head.Slice(1, 0, m.Dim), Scale: head.Slice(1, m.Dim, 2*m.Dim)}
}

// block runs block i on the residual h in place: self attention, cross attention, feed-forward. y is h after the block's
// norm, and afterwards after that of what comes next.
func (w *Work) block(dq compute.Queue, h, y compute.Tensor, i int, pass Pass, parts []part) {
	m, b, n, d := w.m, &w.m.blocks[i], h.Dim(0), w.m.Dim
	attn, mixed := w.attn.Slice(0, 0, n), w.mixed.Slice(0, 0, n)
	qkv := w.qkv.Slice(0, 0, n)
	q, k, v := qkv.Slice(1, 0, d), qkv.Slice(1, d, 2*d), qkv.Slice(1, 2*d, 3*d)

	b.qkv.apply(dq, qkv, y, compute.None)
	lo := 0 // the first token that goes on behind the keys
	for _, p := range parts {
		if w.store(dq, i, p, k, v); p.keysOnly && i == m.Layers-1 {
			lo = p.hi
			continue
		}
		w.selfAttend(dq, i, p, attn, q)
	}
	if lo == n {
		return
	}
	h, y, attn, mixed = h.Slice(0, lo, n), y.Slice(0, lo, n), attn.Slice(0, lo, n), mixed.Slice(0, lo, n)
	b.selfOut.apply(dq, mixed, attn, compute.None)
	compute.AddNorm(dq, y, h, h, mixed, w.mod(pass, i, 2, lo, n), compute.Norm{Eps: m.Eps, Weight: b.normCross, Bias: b.biasCross, Coarse: compute.IsCoarse(b.crossQ.w)})

	b.crossQ.apply(dq, mixed, y, compute.None)
	dq.Norm(mixed, mixed, compute.Norm{RMS: true, Eps: m.Eps, Weight: b.crossNormQ})
	for _, p := range parts {
		if p.lo < lo {
			continue
		}
		at := w.site(attention.Cross, i, p)
		w.cross.Attend(dq, at, attn.Slice(0, p.lo-lo, p.hi-lo).Heads(m.Heads), mixed.Slice(0, p.lo-lo, p.hi-lo).Heads(m.Heads), w.prompt(i))
	}
	b.crossOut.apply(dq, mixed, attn, compute.None)
	compute.AddNorm(dq, y, h, h, mixed, compute.Tensor{}, compute.Norm{Eps: m.Eps, Shift: w.mod(pass, i, 3, lo, n), Scale: w.mod(pass, i, 4, lo, n),
		Coarse: compute.IsCoarse(b.ffn1.w)})

	compute.FeedForward(dq, mixed, w.hidden.Slice(0, lo, n), y, b.ffn1.w, b.ffn2.w, b.ffn1.bias, b.ffn2.bias, compute.GELU)
	compute.AddNorm(dq, y, h, h, mixed, w.mod(pass, i, 5, lo, n), w.entry(pass, i+1, lo, n))
}

// store normalises a part's keys and gives them and its values, [tokens, dim], to its cache.
func (w *Work) store(dq compute.Queue, layer int, p part, k, v compute.Tensor) {
	k, n := k.Slice(0, p.lo, p.hi), compute.Norm{RMS: true, Eps: w.m.Eps, Weight: w.m.blocks[layer].normK}
	if w.places != nil {
		n.Shift = w.shown(w.places.k[layer], p)
	}
	keys, values, l := k.Heads(w.m.Heads), v.Slice(0, p.lo, p.hi).Heads(w.m.Heads), p.cache.Layer(layer)
	if f, ok := l.(kvcache.NormDrafter); ok && !p.pass.Clean {
		f.DraftNorm(dq, k, n, values)
		return
	}
	dq.Norm(k, k, n)
	if p.pass.Clean {
		l.Commit(dq, keys, values)
	} else {
		l.Draft(dq, keys, values)
	}
}

// selfAttend lets a part's queries, rows of q [tokens, dim], attend to its cache; the result goes to the same rows of dst.
func (w *Work) selfAttend(dq compute.Queue, layer int, p part, dst, q compute.Tensor) {
	heads := w.m.Heads
	dst, q = dst.Slice(0, p.lo, p.hi), q.Slice(0, p.lo, p.hi)
	at := w.site(attention.Self, layer, p)
	norm := compute.Norm{RMS: true, Eps: w.m.Eps, Weight: w.m.blocks[layer].normQ}
	if w.places != nil {
		norm.Shift = w.shown(w.places.q[layer], p)
	}
	compute.NormRope(dq, q.Heads(heads), q, norm, at.Pos, at.Rope)
	w.self.Attend(dq, at, dst.Heads(heads), q.Heads(heads), p.cache.Layer(layer).View())
}

// shown returns a part's rows of what is added per token of all frames.
func (w *Work) shown(rows compute.Tensor, p part) compute.Tensor {
	return rows.Slice(0, w.first+p.lo, w.first+p.hi)
}

// site tells an attention policy where it is.
func (w *Work) site(kind attention.Kind, layer int, p part) attention.Site {
	at := attention.Site{Kind: kind, Layer: layer, Chunk: p.pass.Chunk, Pass: p.pass.Index, Passes: w.size.Passes, Tokens: w.m.Tokens()}
	at.Rope, at.Pos = p.cache.Rope()
	return at
}

// mod returns part j of a block's modulation for tokens lo to hi of a forward, [frames, dim]: 0 shift, 1 scale, 2 gate of self
// attention; 3, 4, 5 those of the feed-forward (Wan's order).
func (w *Work) mod(pass Pass, layer, j, lo, hi int) compute.Tensor {
	m := w.m
	row := (pass.Index*m.Layers+layer)*w.frames + pass.Skip
	return w.modulation.Slice(0, row+lo/m.Tokens(), row+hi/m.Tokens()).Slice(1, j*m.Dim, (j+1)*m.Dim)
}

// prompt returns block i's prompt as a view for attention.
func (w *Work) prompt(i int) kvcache.View {
	n, heads := w.promptTokens, w.m.Heads
	view := kvcache.View{Keys: w.promptKeys[i].Slice(0, 0, n).Heads(heads), Values: w.promptValues[i].Slice(0, 0, n).Heads(heads)}
	if !w.promptCount.IsZero() {
		view.LogCount = w.promptCount.Slice(1, 0, n)
		view.LogCount.Shape[0], view.LogCount.Stride[0] = heads, 0 // one row for all heads
	}
	return view
}
