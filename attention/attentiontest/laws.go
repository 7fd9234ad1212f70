package attentiontest

import (
	"encoding/binary"
	"math"
	"slices"

	"longtake/attention"
	"longtake/compute"
	"longtake/kvcache"
)

// chunks of a test: enough for histories beyond the clamp.
const chunks = 10

// distance returns the relative error of got against want.
func distance(got, want []float32) float64 {
	var diff, norm float64
	for i := range want {
		d := float64(got[i]) - float64(want[i])
		diff, norm = diff+d*d, norm+float64(want[i])*float64(want[i])
	}
	if diff == 0 {
		return 0
	}
	return math.Sqrt(diff / norm)
}

// dense attends to everything.
func (r *rig) dense(view kvcache.View) []float32 {
	attention.Dense{}.Attend(r.dq, attention.Site{}, r.want.Heads(r.shape.Heads), r.q.Heads(r.shape.Heads), view)
	return r.download(r.want)
}

// equalsDense compares every call with dense attention.
func (r *rig) equalsDense(m attention.Maker, c content, tolerance float64) {
	if c == alike {
		r.shape = flat(r.shape)
	}
	p := r.begin(m)
	for i := range chunks {
		r.chunk(p, i, c, func(pass, layer int, view kvcache.View) {
			if d := distance(r.download(r.got), r.dense(view)); !(d <= tolerance) {
				r.t.Fatalf("chunk %d, pass %d, layer %d: relative error %.3g against dense attention, at most %.0e", i, pass, layer, d, tolerance)
			}
		})
	}
}

// run returns all outputs of a rollout.
func (r *rig) run(m attention.Maker) (all [][]float32) {
	p := r.begin(m)
	for i := range chunks {
		r.chunk(p, i, random, func(int, int, kvcache.View) { all = append(all, r.download(r.got)) })
	}
	return all
}

// repeats runs twice and wants the same bits, all of them finite, and no more work than dense attention with a key for each tile.
func (r *rig) repeats(m attention.Maker) {
	first, second := r.run(m), r.run(m)
	for i := range first {
		for j, v := range first[i] {
			if math.IsNaN(float64(v)) || math.IsInf(float64(v), 0) {
				r.t.Fatalf("call %d, element %d: %v", i, j, v)
			}
			if v != second[i][j] {
				r.t.Fatalf("call %d, element %d: %v, then %v", i, j, v, second[i][j])
			}
		}
	}
}

// permuted gives the tokens of every frame in another order, unrotated by place, so that keys are the same.
func (r *rig) permuted(m attention.Maker, tolerance float64) {
	r.shape = flat(r.shape)
	first := r.run(m)
	r.order = r.rng.Perm(r.shape.Tokens())
	for i, got := range r.run(m) {
		if d := distance(got, first[i]); !(d <= 10*tolerance) {
			r.t.Fatalf("call %d: relative error %.3g when keys and values are permuted together", i, d)
		}
	}
}

// allocates repeats a chunk that does not grow the history.
func (r *rig) allocates(m attention.Maker) {
	if _, ok := r.dq.(compute.Mapper); !ok {
		r.t.Skip("a queue without host memory has transfers and launches of its own, which package cuda counts")
	}
	p := r.begin(m)
	for i := range chunks {
		r.chunk(p, i, random, func(int, int, kvcache.View) {})
	}
	if err := r.cache.Begin(r.dq, kvcache.Span{Start: r.frames, Frames: r.shape.ChunkFrames}); err != nil {
		r.t.Fatal(err)
	}
	view := r.cache.Layer(0).View()
	if r.kind == attention.Cross {
		view = r.prompt
	}
	at := attention.Site{Kind: r.kind, Chunk: chunks, Passes: passes, Tokens: r.shape.Tokens()}
	at.Rope, at.Pos = r.cache.Rope()
	pass := func() {
		for at.Pass = 0; at.Pass < passes; at.Pass++ {
			p.Attend(r.dq, at, r.got.Heads(r.shape.Heads), r.q.Heads(r.shape.Heads), view)
		}
		at.Chunk++
	}
	pass()
	least := math.Inf(1) // the device's own pool may start a goroutine now and then
	for range 3 {
		least = min(least, allocations(pass))
	}
	if least > 0 {
		r.t.Errorf("%v allocations a chunk in steady state", least)
	}
}

// counted shows a view with a merged part, counts, hidden keys and lengths that differ by head.
func (r *rig) counted(m attention.Maker, tolerance float64) {
	s, p := r.shape, r.begin(m)
	if r.kind == attention.Cross {
		r.countedPrompt(p, tolerance)
		return
	}
	n, extra := s.Tokens(), 3*s.Tokens()+5
	frames := 4 + s.ChunkFrames
	keys := frames*n + extra
	view := kvcache.View{Keys: r.arena.Tensor(s.DType, s.Heads, keys, s.HeadDim), Values: r.arena.Tensor(s.DType, s.Heads, keys, s.HeadDim),
		LogCount: r.arena.Tensor(compute.F32, s.Heads, keys), Lengths: r.arena.Tensor(compute.I32, s.Heads)}
	for _, t := range [...]compute.Tensor{view.Keys, view.Values} {
		whole := r.arena.Tensor(compute.F32, s.Heads, keys, s.HeadDim)
		r.upload(whole, r.numbers(whole.Elems()))
		r.dq.Copy(t, whole)
	}
	for f := range frames {
		part := kvcache.Part{Kind: kvcache.Recent, Lo: f * n, Hi: (f + 1) * n, Frame: 10 + f}
		if f >= 4 {
			part.Kind = kvcache.Current
		}
		view.Parts = append(view.Parts, part)
	}
	view.Parts = append(view.Parts, kvcache.Part{Kind: kvcache.History, Lo: frames * n, Hi: keys, Frame: -1})
	counts, lengths := make([]float32, s.Heads*keys), []byte{}
	for i := range counts {
		if key := i % keys; key >= frames*n {
			counts[i] = float32(math.Log(1 + 30*r.rng.Float64()))
		} else if key/n == 1 {
			counts[i] = float32(math.Inf(-1)) // a hidden frame
		}
	}
	for h := range s.Heads {
		lengths = binary.LittleEndian.AppendUint32(lengths, uint32(keys-h*n-h))
	}
	r.upload(view.LogCount, counts)
	r.dq.Upload(view.Lengths, lengths)
	r.fill(random)
	at := attention.Site{Kind: attention.Self, Chunk: 9, Passes: passes, Tokens: n, Rope: compute.Rope{MinTime: math.MinInt32}}
	for at.Pass = range passes {
		p.Attend(r.dq, at, r.got.Heads(s.Heads), r.q.Heads(s.Heads), view)
		if d := distance(r.download(r.got), r.dense(view)); !(d <= tolerance) {
			r.t.Fatalf("pass %d: relative error %.3g", at.Pass, d)
		}
	}
}

// countedPrompt gives the last token of the prompt a count, in one row for all heads.
func (r *rig) countedPrompt(p attention.Policy, tolerance float64) {
	view, words := r.prompt, r.prompt.Keys.Dim(1)
	view.LogCount = r.arena.Tensor(compute.F32, 1, words)
	counts := make([]float32, words)
	counts[words-1] = float32(math.Log(475))
	r.upload(view.LogCount, counts)
	view.LogCount.Shape[0], view.LogCount.Stride[0] = r.shape.Heads, 0
	r.fill(random)
	for pass := range passes {
		at := attention.Site{Kind: attention.Cross, Pass: pass, Passes: passes, Tokens: r.shape.Tokens()}
		p.Attend(r.dq, at, r.got.Heads(r.shape.Heads), r.q.Heads(r.shape.Heads), view)
		if d := distance(r.download(r.got), r.dense(view)); !(d <= tolerance) {
			r.t.Fatalf("pass %d: relative error %.3g", pass, d)
		}
	}
	if slices.Max(counts) == 0 {
		r.t.Fatal("no count")
	}
}
