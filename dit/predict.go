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

// Predict runs the network on the chunk's tokens x F32 [frames*tokens, In] and writes its output to dst F32
// [frames*tokens, Out]. With an absent dst the forward ends as soon as the last block's keys are in the cache: all that a
// clean pass is for (exact: nothing after it is used).
func (w *Work) Predict(dq compute.Queue, dst, x compute.Tensor, pass Pass, cache kvcache.Layers) {
	if b, ok := dq.(compute.Batcher); ok {
		b.BeginBatch()
		defer b.EndBatch()
	}
	m, n := w.m, x.Dim(0)
	h := w.residual.Slice(0, 0, n)
	m.patch.apply(dq, h, x, compute.None)
	if m.control != nil {
		dq.AddGated(h, h, w.added.Slice(0, 0, n), compute.Tensor{})
	}
	for i := range m.blocks {
		keysOnly := dst.IsZero() && i == len(m.blocks)-1
		w.block(dq, h, i, pass, cache, keysOnly)
	}
	if dst.IsZero() {
		return
	}
	y, frames := w.normed.Slice(0, 0, n), n/m.Tokens()
	first := (pass.Index*w.frames + pass.Skip) * 2
	head := w.headModulation.Slice(0, first, first+2*frames).Reshape(frames, 2*m.Dim)
	dq.Norm(y, h, compute.Norm{Eps: m.Eps, Shift: head.Slice(1, 0, m.Dim), Scale: head.Slice(1, m.Dim, 2*m.Dim)})
	m.head.apply(dq, dst, y, compute.None)
}

// block runs block i on the residual h in place: self attention, cross attention, feed-forward.
func (w *Work) block(dq compute.Queue, h compute.Tensor, i int, pass Pass, cache kvcache.Layers, keysOnly bool) {
	m, b, n, d := w.m, &w.m.blocks[i], h.Dim(0), w.m.Dim
	y, attn := w.normed.Slice(0, 0, n), w.attn.Slice(0, 0, n)
	qkv := w.qkv.Slice(0, 0, n)
	q, k, v := qkv.Slice(1, 0, d), qkv.Slice(1, d, 2*d), qkv.Slice(1, 2*d, 3*d)

	dq.Norm(y, h, compute.Norm{Eps: m.Eps, Shift: w.mod(pass, i, 0, n), Scale: w.mod(pass, i, 1, n)})
	b.qkv.apply(dq, qkv, y, compute.None)
	dq.Norm(k, k, compute.Norm{RMS: true, Eps: m.Eps, Weight: b.normK})
	if layer := cache.Layer(i); pass.Clean {
		layer.Commit(dq, k.Heads(m.Heads), v.Heads(m.Heads))
	} else {
		layer.Draft(dq, k.Heads(m.Heads), v.Heads(m.Heads))
	}
	if keysOnly {
		return
	}
	dq.Norm(q, q, compute.Norm{RMS: true, Eps: m.Eps, Weight: b.normQ})
	at := attention.Site{Kind: attention.Self, Layer: i, Chunk: pass.Chunk, Pass: pass.Index, Passes: w.passes, Tokens: m.Tokens()}
	at.Rope, at.Pos = cache.Rope()
	dq.Rope(q.Heads(m.Heads), q.Heads(m.Heads), at.Pos, at.Rope)
	w.self.Attend(dq, at, attn.Heads(m.Heads), q.Heads(m.Heads), cache.Layer(i).View())
	b.selfOut.apply(dq, y, attn, compute.None)
	dq.AddGated(h, h, y, w.mod(pass, i, 2, n))

	dq.Norm(y, h, compute.Norm{Eps: m.Eps, Weight: b.normCross, Bias: b.biasCross})
	b.crossQ.apply(dq, attn, y, compute.None)
	dq.Norm(attn, attn, compute.Norm{RMS: true, Eps: m.Eps, Weight: b.crossNormQ})
	at.Kind = attention.Cross
	w.cross.Attend(dq, at, y.Heads(m.Heads), attn.Heads(m.Heads), w.prompt(i))
	b.crossOut.apply(dq, attn, y, compute.None)
	dq.AddGated(h, h, attn, compute.Tensor{})

	dq.Norm(y, h, compute.Norm{Eps: m.Eps, Shift: w.mod(pass, i, 3, n), Scale: w.mod(pass, i, 4, n)})
	hidden := w.hidden.Slice(0, 0, n)
	b.ffn1.apply(dq, hidden, y, compute.GELU)
	b.ffn2.apply(dq, y, hidden, compute.None)
	dq.AddGated(h, h, y, w.mod(pass, i, 5, n))
}

// mod returns part j of a block's modulation, [frames, dim]: 0 shift, 1 scale, 2 gate of self attention; 3, 4, 5 those of the
// feed-forward (Wan's order).
func (w *Work) mod(pass Pass, layer, j, tokens int) compute.Tensor {
	m := w.m
	row := (pass.Index*m.Layers+layer)*w.frames + pass.Skip
	return w.modulation.Slice(0, row, row+tokens/m.Tokens()).Slice(1, j*m.Dim, (j+1)*m.Dim)
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
