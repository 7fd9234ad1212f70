package text

import (
	"encoding/binary"
	"fmt"
	"math"

	"longtake/compute"
	"longtake/weights"
)

// SmallConfig are the numbers of the embedded model's text encoder.
type SmallConfig struct {
	Vocabulary, MaxTokens      int
	Dim, Heads, Layers, FFN    int
	Out                        int // width of the diffusion transformer
	RopeTheta                  float64
	Scale                      float32 // of token embeddings
	NormEps, QKEps             float32
	Stop                       int32 // id that ends a clause
	FirstDirection, Directions int32 // ids of the direction words
}

// Small is the text encoder of the embedded model (train/tw.py, TinyWorld.text): a pre-norm transformer with one-dimensional
// RoPE. Every token also carries the direction word of its clause. Padding is masked upstream; here it is left out, which is
// the same. It is read-only; SmallWork holds what a run needs.
type Small struct {
	SmallConfig
	embedding, position, segment compute.Tensor
	layers                       []smallLayer
	norm, normBias               compute.Tensor
	project                      linear
	rope                         compute.Rope
	pos                          compute.Tensor // I32 [tokens, 3]
}

type linear struct {
	w    compute.Matrix
	bias compute.Tensor
}

type smallLayer struct {
	norm1, bias1, norm2, bias2 compute.Tensor
	qkv, out, ffn1, ffn2       linear
	normQ, normK               compute.Tensor
}

// LoadSmall reads the encoder's tensors. Faults are kept by the placer's Audit and Arena.
func LoadSmall(p weights.Placer, c SmallConfig) *Small {
	d := c.Dim
	s := &Small{
		SmallConfig: c,
		embedding:   p.Scaled(c.Scale, "text_emb.weight", c.Vocabulary, d),
		position:    p.Table("text_pos", c.MaxTokens, d),
		segment:     p.Table("text_seg", int(c.Directions)+1, d),
		norm:        p.Table("text_norm.weight", d),
		normBias:    p.Table("text_norm.bias", d),
		project:     loadLinear(p, c.Out, d, "text_proj"),
	}
	for i := range c.Layers {
		l := p.At(fmt.Sprintf("text_layers.%d.", i))
		s.layers = append(s.layers, smallLayer{
			norm1: l.Table("n1.weight", d), bias1: l.Table("n1.bias", d),
			norm2: l.Table("n2.weight", d), bias2: l.Table("n2.bias", d),
			qkv:   loadLinear(l, 3*d, d, "attn.q", "attn.k", "attn.v"),
			out:   loadLinear(l, d, d, "attn.o"),
			normQ: l.Table("attn.norm_q", d), normK: l.Table("attn.norm_k", d),
			ffn1: loadLinear(l, c.FFN, d, "f1"), ffn2: loadLinear(l, d, c.FFN, "f2"),
		})
	}
	s.positions(p)
	return s
}

func loadLinear(p weights.Placer, out, in int, names ...string) linear {
	w, b := make([]string, len(names)), make([]string, len(names))
	for i, n := range names {
		w[i], b[i] = n+".weight", n+".bias"
	}
	return linear{p.Matrix(out, in, w...), p.Stack(b, out/len(names))}
}

// positions makes the rotation table: the first axis is the place in the prompt, the others have no pairs.
func (s *Small) positions(p weights.Placer) {
	pairs := s.Dim / s.Heads / 2
	s.rope = compute.Rope{Time: p.Arena.Tensor(compute.F32, s.MaxTokens, pairs, 2), MinTime: math.MinInt32}
	s.pos = p.Arena.Tensor(compute.I32, s.MaxTokens, 3)
	if p.Queue == nil || p.Arena.Err() != nil {
		return
	}
	var table, pos []byte
	for t := range s.MaxTokens {
		for j := range pairs {
			sin, cos := math.Sincos(float64(t) * math.Pow(s.RopeTheta, -float64(j)/float64(pairs)))
			table = binary.LittleEndian.AppendUint32(table, math.Float32bits(float32(cos)))
			table = binary.LittleEndian.AppendUint32(table, math.Float32bits(float32(sin)))
		}
		pos = binary.LittleEndian.AppendUint32(pos, uint32(t))
		pos = append(pos, 0, 0, 0, 0, 0, 0, 0, 0)
	}
	p.Queue.Upload(s.rope.Time, table)
	p.Queue.Upload(s.pos, pos)
}

// SmallWork is the memory of a run.
type SmallWork struct {
	x, y, qkv, hidden, out compute.Tensor
	token, place, clause   compute.Tensor
}

// NewWork allocates for prompts of MaxTokens tokens.
func (s *Small) NewWork(a compute.Arena) *SmallWork {
	n := s.MaxTokens
	return &SmallWork{
		x: a.Tensor(compute.F32, n, s.Dim), y: a.Tensor(compute.F32, n, s.Dim), qkv: a.Tensor(compute.F32, n, 3*s.Dim),
		hidden: a.Tensor(compute.F32, n, s.FFN), out: a.Tensor(compute.F32, n, s.Out),
		token: a.Tensor(compute.I32, n), place: a.Tensor(compute.I32, n), clause: a.Tensor(compute.I32, n),
	}
}

// Encode runs the encoder on 1 to MaxTokens ids and returns F32 [tokens, Out], valid until the next call with the same work.
func (s *Small) Encode(dq compute.Queue, w *SmallWork, ids []int32) compute.Tensor {
	n, d := len(ids), s.Dim
	place := make([]int32, n)
	for i := range place {
		place[i] = int32(i)
	}
	token, at, clause := w.token.Slice(0, 0, n), w.place.Slice(0, 0, n), w.clause.Slice(0, 0, n)
	upload(dq, token, ids)
	upload(dq, at, place)
	upload(dq, clause, s.clauses(ids))

	x, y, qkv, hidden := w.x.Slice(0, 0, n), w.y.Slice(0, 0, n), w.qkv.Slice(0, 0, n), w.hidden.Slice(0, 0, n)
	q, k, v := qkv.Slice(1, 0, d), qkv.Slice(1, d, 2*d), qkv.Slice(1, 2*d, 3*d)
	pos := s.pos.Slice(0, 0, n)
	dq.Gather(x, s.embedding, token, false)
	dq.Gather(x, s.position, at, true)
	dq.Gather(x, s.segment, clause, true)
	for i := range s.layers {
		l := &s.layers[i]
		dq.Norm(y, x, compute.Norm{Eps: s.NormEps, Weight: l.norm1, Bias: l.bias1})
		dq.Linear(qkv, y, l.qkv.w, l.qkv.bias, compute.None)
		dq.Norm(q, q, compute.Norm{RMS: true, Eps: s.QKEps, Weight: l.normQ})
		dq.Norm(k, k, compute.Norm{RMS: true, Eps: s.QKEps, Weight: l.normK})
		dq.Rope(q.Heads(s.Heads), q.Heads(s.Heads), pos, s.rope)
		dq.Rope(k.Heads(s.Heads), k.Heads(s.Heads), pos, s.rope)
		dq.Attend(y.Heads(s.Heads), q.Heads(s.Heads), k.Heads(s.Heads), v.Heads(s.Heads),
			compute.Attention{Scale: float32(1 / math.Sqrt(float64(d/s.Heads)))})
		attn := hidden.Slice(1, 0, d)
		dq.Linear(attn, y, l.out.w, l.out.bias, compute.None)
		dq.AddGated(x, x, attn, compute.Tensor{})
		dq.Norm(y, x, compute.Norm{Eps: s.NormEps, Weight: l.norm2, Bias: l.bias2})
		dq.Linear(hidden, y, l.ffn1.w, l.ffn1.bias, compute.GELU)
		dq.Linear(y, hidden, l.ffn2.w, l.ffn2.bias, compute.None)
		dq.AddGated(x, x, y, compute.Tensor{})
	}
	dq.Norm(y, x, compute.Norm{Eps: s.NormEps, Weight: s.norm, Bias: s.normBias})
	out := w.out.Slice(0, 0, n)
	dq.Linear(out, y, s.project.w, s.project.bias, compute.None)
	return out
}

// clauses returns for every token 1 + the index of the direction word in its clause, 0 if it has none; the stop belongs to
// the clause that it ends. Of several directions the last in the vocabulary counts.
func (s *Small) clauses(ids []int32) []int32 {
	out := make([]int32, len(ids))
	for lo := 0; lo < len(ids); {
		hi, direction := lo, int32(0)
		for hi < len(ids) {
			if d := ids[hi] - s.FirstDirection + 1; d >= 1 && d <= s.Directions {
				direction = max(direction, d)
			}
			hi++
			if ids[hi-1] == s.Stop {
				break
			}
		}
		for i := lo; i < hi; i++ {
			out[i] = direction
		}
		lo = hi
	}
	return out
}

func upload(dq compute.Queue, dst compute.Tensor, v []int32) {
	b := make([]byte, 0, 4*len(v))
	for _, x := range v {
		b = binary.LittleEndian.AppendUint32(b, uint32(x))
	}
	dq.Upload(dst, b)
}
