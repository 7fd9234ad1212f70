package dit

import (
	"encoding/binary"
	"math"

	"longtake/attention"
	"longtake/compute"
)

// Work is the memory of one session's forwards, and what stays the same over a chunk: the modulation of every pass, the
// controls, the prompt's keys and values. It belongs to one queue.
type Work struct {
	m           *Model
	size        Size
	frames      int // latent frames of a forward at most
	skip        int // frames of the chunk before, which come first in a pair
	first       int // token of all frames that the forward in work begins with
	self, cross attention.Policy
	host        []byte // of uploads
	parts       [2]part
	controls    [2][]spot // of each frame: of the chunk before, and of the one in work
	places      *places   // of networks that are told them

	// Between operations, for up to that many frames of tokens.
	residual     compute.Tensor // [tokens, dim]
	normed, attn compute.Tensor // Operand [tokens, dim]: what Linear reads
	mixed        compute.Tensor // [tokens, dim]: what it writes
	qkv          compute.Tensor // [tokens, 3*dim]
	hidden       compute.Tensor // Operand [tokens, ffn]

	input compute.Tensor // F32 [tokens, In and given values], with Config.Given

	// Per pass and frame.
	timesteps, sinusoids                        compute.Tensor // F32 [passes*frames], [passes*frames, freqDim]
	timeHidden, timeSiLU                        compute.Tensor // [passes*frames, dim]
	timeAlone, timeSum                          compute.Tensor // F32 [passes*frames, dim]: from the timestep alone; with the controls
	timeProj                                    compute.Tensor // F32 [passes*frames, 6*dim]
	modulation                                  compute.Tensor // F32 [passes*layers*frames, 6*dim]
	headModulation                              compute.Tensor // F32 [passes*frames*2, dim]
	rowOfPass, rowOfLayer, rowOfHead, rowOfPart compute.Tensor // I32, which rows the modulations sum

	// Controls of the chunk in work.
	added                       compute.Tensor // F32 [tokens, dim], added to the patch embedding
	position, action, ray       compute.Tensor // I32 [tokens]
	actionOfPass, headingOfPass compute.Tensor // I32 [passes*frames]

	// Cross attention.
	promptKeys, promptValues []compute.Tensor // per block [prompt tokens, dim]
	promptKV                 compute.Tensor   // [prompt tokens, 2*dim]
	promptTokens             int
	embedded, embeddedHidden compute.Tensor // [prompt tokens, dim], with Config.TextDim
	promptCount              compute.Tensor // F32 [1, prompt tokens]: ln of the padding rows that the last token stands for
}

// Size says what a Work is for.
type Size struct {
	// Frames is the most latent frames of a forward, Passes the different forwards of a chunk, PromptTokens the longest prompt.
	Frames, Passes, PromptTokens int
	// Pair makes room for PredictPair, a forward of twice as many frames.
	Pair bool
	// Wide, if more than Frames, is how many frames some other forwards have.
	Wide int
}

// NewWork allocates a session's memory. Faults are kept by the arena.
func (m *Model) NewWork(a compute.Arena, types compute.Types, s Size) *Work {
	frames, passes, skip, promptTokens := max(s.Frames, s.Wide), s.Passes, 0, s.PromptTokens
	if s.Pair {
		frames, passes, skip = s.Frames+frames, passes+1, s.Frames
	}
	n, d, act := frames*m.Tokens(), m.Dim, types.Activation
	rows := passes * frames
	w := &Work{
		m: m, size: s, frames: frames, skip: skip, self: attention.Dense{}, cross: attention.Dense{},
		residual: a.Tensor(types.Residual, n, d), normed: a.Tensor(types.Operand, n, d), attn: a.Tensor(types.Operand, n, d),
		mixed: a.Tensor(act, n, d), qkv: a.Tensor(act, n, 3*d), hidden: a.Tensor(types.Operand, n, m.FFN),
		timesteps: a.Tensor(compute.F32, rows), sinusoids: a.Tensor(compute.F32, rows, m.FreqDim),
		timeHidden: a.Tensor(compute.F32, rows, d), timeSiLU: a.Tensor(compute.F32, rows, d),
		timeAlone: a.Tensor(compute.F32, rows, d), timeSum: a.Tensor(compute.F32, rows, d),
		timeProj: a.Tensor(compute.F32, rows, 6*d), modulation: a.Tensor(compute.F32, rows*m.Layers, 6*d),
		headModulation: a.Tensor(compute.F32, rows*2, d),
		rowOfPass:      a.Tensor(compute.I32, rows*m.Layers), rowOfLayer: a.Tensor(compute.I32, rows*m.Layers),
		rowOfHead: a.Tensor(compute.I32, rows*2), rowOfPart: a.Tensor(compute.I32, rows*2),
		promptKV: a.Tensor(act, promptTokens, 2*d),
	}
	if m.steered != nil {
		w.places = m.newPlaces(a, frames)
		w.added = a.Tensor(compute.F32, n, d)
		w.position, w.action, w.ray = a.Tensor(compute.I32, n), a.Tensor(compute.I32, n), a.Tensor(compute.I32, n)
		w.actionOfPass, w.headingOfPass = a.Tensor(compute.I32, rows), a.Tensor(compute.I32, rows)
	}
	if m.Given > 0 {
		w.input = a.Tensor(compute.F32, n, m.Conv[0]*m.Conv[1]*m.Conv[2])
	}
	if m.TextDim > 0 {
		w.embedded, w.embeddedHidden = a.Tensor(act, promptTokens, d), a.Tensor(act, promptTokens, d)
	}
	if m.TextTokens > 0 {
		w.promptCount = a.Tensor(compute.F32, 1, promptTokens)
	}
	for range m.Layers {
		w.promptKeys = append(w.promptKeys, a.Tensor(types.Cache, promptTokens, d))
		w.promptValues = append(w.promptValues, a.Tensor(types.Cache, promptTokens, d))
	}
	return w
}

// Attend sets the policies of self and cross attention; without it both are dense.
func (w *Work) Attend(self, cross attention.Policy) { w.self, w.cross = self, cross }

// Schedule sets the timesteps (0 to 1000) of every pass, Size.Frames each, the clean pass last, and computes what depends on
// them alone. Wide forwards go on with the last one. Call it once before the first chunk.
func (w *Work) Schedule(dq compute.Queue, timesteps [][]float32) {
	m, frames := w.m, w.frames
	var t []byte
	row := func(before, pass []float32) {
		for i := range frames {
			v := pass[max(0, min(i-w.skip, len(pass)-1))]
			if i < w.skip { // the chunk before, which only the pair's forward has
				v = before[i]
			}
			t = binary.LittleEndian.AppendUint32(t, math.Float32bits(v))
		}
	}
	clean := timesteps[len(timesteps)-1]
	for _, pass := range timesteps {
		row(clean, pass)
	}
	if w.size.Pair {
		row(clean, timesteps[0])
	}
	dq.Upload(w.timesteps, t)
	// Rows of modulation are (pass, layer, frame), those of headModulation (pass, frame, part).
	w.index(dq, w.rowOfPass, func(i int) int { return i/(m.Layers*frames)*frames + i%frames })
	w.index(dq, w.rowOfLayer, func(i int) int { return i / frames % m.Layers })
	w.index(dq, w.rowOfHead, func(i int) int { return i / 2 })
	w.index(dq, w.rowOfPart, func(i int) int { return i % 2 })
	dq.TimeEmbed(w.sinusoids, w.timesteps, m.MaxPeriod)
	m.time1.apply(dq, w.timeHidden, w.sinusoids, compute.SiLU)
	m.time2.apply(dq, w.timeAlone, w.timeHidden, compute.None)
	if m.steered == nil {
		dq.Copy(w.timeSum, w.timeAlone)
		w.modulate(dq)
	}
}

// modulate computes every pass' modulation from timeSum: e0 plus the block's table, and e plus the head's.
func (w *Work) modulate(dq compute.Queue) {
	m := w.m
	dq.Activate(w.timeSiLU, w.timeSum, compute.SiLU)
	m.timeProj.apply(dq, w.timeProj, w.timeSiLU, compute.None)
	dq.Gather(w.modulation, w.timeProj, w.rowOfPass, false)
	dq.Gather(w.modulation, m.modulation, w.rowOfLayer, true)
	dq.Gather(w.headModulation, w.timeSum, w.rowOfHead, false)
	dq.Gather(w.headModulation, m.headMod, w.rowOfPart, true)
}

// Control sets action, heading and place (x, y) of each latent frame of the chunk; it must come before the chunk's first Predict in
// networks with Config.Actions, and does nothing in others. Values must be in range; only networks with Config.Waves look
// at places. In a Work for pairs those of the call before stay for the chunk before.
func (w *Work) Control(dq compute.Queue, actions, headings []int, places [][2]float64) {
	if w.m.steered == nil {
		return
	}
	last := len(actions) - 1
	w.controls[0], w.controls[1] = w.controls[1], w.controls[0][:0]
	for i := range w.frames - w.skip {
		i = min(i, last)
		w.controls[1] = append(w.controls[1], spot{actions[i], headings[i], places[i][0], places[i][1]})
	}
	w.control(dq)
}

// spotOf returns what is known of a frame of a forward.
func (w *Work) spotOf(frame int) spot {
	if frame >= w.skip {
		return w.controls[1][frame-w.skip]
	}
	if len(w.controls[0]) == 0 {
		return spot{} // there is no chunk before
	}
	return w.controls[0][frame]
}

// control computes what the controls add to tokens and modulation.
func (w *Work) control(dq compute.Queue) {
	c, m := w.m.steered, w.m
	w.index(dq, w.position, func(i int) int { return i % m.Tokens() })
	w.index(dq, w.action, func(i int) int { return w.spotOf(i / m.Tokens()).action })
	w.index(dq, w.ray, func(i int) int { return w.spotOf(i/m.Tokens()).heading*m.Columns + i%m.Columns })
	w.index(dq, w.actionOfPass, func(i int) int { return w.spotOf(i % w.frames).action })
	w.index(dq, w.headingOfPass, func(i int) int { return w.spotOf(i % w.frames).heading })
	dq.Gather(w.added, c.place, w.position, false)
	dq.Gather(w.added, c.action, w.action, true)
	dq.Gather(w.added, c.ray, w.ray, true)
	w.place(dq)
	dq.Copy(w.timeSum, w.timeAlone)
	dq.Gather(w.timeSum, c.actionTime, w.actionOfPass, true)
	dq.Gather(w.timeSum, c.headingTime, w.headingOfPass, true)
	w.modulate(dq)
}

// Given sets the given channels of a chunk's tokens, F32 [tokens, places*Given] in the order (row, column, channel) of a
// patch; it must come before the chunk's first Predict in networks with Config.Given. Wan from an image has 4 channels of mask,
// 1 where the latent frame is given and else 0, then the 16 of the VAE's latents of the image followed by grey frames. In a
// Work for pairs those of the call before stay for the chunk before.
func (w *Work) Given(dq compute.Queue, given compute.Tensor) {
	n, lo := given.Dim(0), w.skip*w.m.Tokens()
	_, to := w.channels(lo, lo+n)
	if lo > 0 {
		_, before := w.channels(0, lo)
		_, last := w.channels(lo, 2*lo)
		dq.Copy(before, last)
	}
	dq.Copy(to, given.Reshape(n, given.Dim(1)/w.m.Given, w.m.Given))
}

// channels views rows lo to hi of the input by place in the patch, [rows, places, channels]: what is denoised, and what is given.
func (w *Work) channels(lo, hi int) (noisy, given compute.Tensor) {
	c := w.m.Conv
	t := w.input.Slice(0, lo, hi).Reshape(hi-lo, c[1]*c[2], c[0])
	return t.Slice(2, 0, c[0]-w.m.Given), t.Slice(2, c[0]-w.m.Given, c[0])
}

// index fills dst with row(i) for every element i, by way of a buffer that is kept.
func (w *Work) index(dq compute.Queue, dst compute.Tensor, row func(i int) int) {
	b := w.host[:0]
	for i := range dst.Elems() {
		b = binary.LittleEndian.AppendUint32(b, uint32(int32(row(i))))
	}
	w.host = b
	dq.Upload(dst, b)
}

// Prompt computes the cross-attention keys and values of an encoded prompt, F32 [prompt tokens, TextDim or Dim].
//
// Where prompts are padded with zero rows (Config.TextTokens), all the padding has the same key and value, so that one token
// with ln(rows) on its logit gives exactly the same attention (the merge lemma, arXiv:2602.01801 lemma 5.1): pass the prompt
// with one zero row behind it, padded tells how many it stands for; 0 for none.
func (w *Work) Prompt(dq compute.Queue, encoded compute.Tensor, padded int) {
	m, n, d := w.m, encoded.Dim(0), w.m.Dim
	w.promptTokens = n
	if m.TextDim > 0 {
		hidden, out := w.embeddedHidden.Slice(0, 0, n), w.embedded.Slice(0, 0, n)
		m.text1.apply(dq, hidden, encoded, compute.GELU)
		m.text2.apply(dq, out, hidden, compute.None)
		encoded = out
	}
	if !w.promptCount.IsZero() {
		counts := make([]byte, 4*n)
		if padded > 0 {
			binary.LittleEndian.PutUint32(counts[4*n-4:], math.Float32bits(float32(math.Log(float64(padded)))))
		}
		dq.Upload(w.promptCount.Slice(1, 0, n), counts)
	}
	kv := w.promptKV.Slice(0, 0, n)
	for i := range m.blocks {
		b := &m.blocks[i]
		b.crossKV.apply(dq, kv, encoded, compute.None)
		dq.Norm(kv.Slice(1, 0, d), kv.Slice(1, 0, d), compute.Norm{RMS: true, Eps: m.Eps, Weight: b.crossNormK})
		dq.Copy(w.promptKeys[i].Slice(0, 0, n), kv.Slice(1, 0, d))
		dq.Copy(w.promptValues[i].Slice(0, 0, n), kv.Slice(1, d, 2*d))
	}
}
