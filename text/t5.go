package text

import (
	"encoding/binary"
	"fmt"
	"math"

	"longtake/compute"
	"longtake/weights"
)

// T5Config are the numbers of a umT5 encoder.
type T5Config struct {
	Vocabulary, MaxTokens   int // rows of the embedding; the longest prompt
	Dim, Heads, Layers, FFN int
	HeadDim                 int
	Buckets, MaxDistance    int // of the relative position bias
	Eps                     float32
}

// T5XXL is the encoder of google/umt5-xxl, which Wan uses: 5.7 billion numbers.
var T5XXL = T5Config{
	Vocabulary: 256384, MaxTokens: 512, Dim: 4096, Heads: 64, Layers: 24, FFN: 10240, HeadDim: 64,
	Buckets: 32, MaxDistance: 128, Eps: 1e-6,
}

// T5 is the umT5 encoder (wan/modules/t5.py of Wan-2.1 and Self-Forcing, names of models_t5_umt5-xxl-enc-bf16.pth): pre-norm
// with RMSNorm and no biases, attention without a scale but with a bucketed relative bias of every layer's own, a feed-forward
// gated by GELU. Padding is masked upstream; here it is left out, which is the same. It is read-only; T5Work holds what a run
// needs.
type T5 struct {
	T5Config
	// embedding stays where the file is mapped: a prompt needs few of its 256384 rows, which would take 4 GB as float32.
	embedding compute.Host
	layers    []t5Layer
	norm      compute.Tensor
}

type t5Layer struct {
	norm1, norm2                 compute.Tensor
	qkv, out, gate, expand, back compute.Matrix
	relative                     compute.Tensor // F32 [heads, 2*MaxTokens-1]: bias of key minus query, from 1-MaxTokens on
}

// LoadT5 reads the encoder's tensors by their official names. Faults are kept by the placer's Audit and Arena. The embedding is
// not copied: the source must stay open as long as the encoder is used.
func LoadT5(p weights.Placer, c T5Config) *T5 {
	t := &T5{T5Config: c, norm: p.Table("norm.weight", c.Dim)}
	t.embedding = p.Mapped("token_embedding.weight", c.Vocabulary, c.Dim)
	inner := c.Heads * c.HeadDim
	for i := range c.Layers {
		l := p.At(fmt.Sprintf("blocks.%d.", i))
		t.layers = append(t.layers, t5Layer{
			norm1: l.Table("norm1.weight", c.Dim), norm2: l.Table("norm2.weight", c.Dim),
			qkv:  l.Matrix(3*inner, c.Dim, "attn.q.weight", "attn.k.weight", "attn.v.weight"),
			out:  l.Matrix(c.Dim, inner, "attn.o.weight"),
			gate: l.Matrix(c.FFN, c.Dim, "ffn.gate.0.weight"), expand: l.Matrix(c.FFN, c.Dim, "ffn.fc1.weight"),
			back:     l.Matrix(c.Dim, c.FFN, "ffn.fc2.weight"),
			relative: t.loadRelative(l),
		})
	}
	return t
}

// loadRelative spreads a layer's buckets [buckets, heads] over all distances.
func (t *T5) loadRelative(p weights.Placer) compute.Tensor {
	buckets := p.Table("pos_embedding.embedding.weight", t.Buckets, t.Heads)
	wide := 2*t.MaxTokens - 1
	relative := p.Arena.Tensor(compute.F32, t.Heads, wide)
	if p.Queue == nil || p.Arena.Err() != nil {
		return relative
	}
	from, to := make([]byte, buckets.Bytes()), make([]byte, 0, relative.Bytes())
	p.Queue.Download(from, buckets)
	for h := range t.Heads {
		for i := range wide {
			at := 4 * (t.bucket(i-(t.MaxTokens-1))*t.Heads + h)
			to = append(to, from[at:at+4]...)
		}
	}
	p.Queue.Upload(relative, to)
	return relative
}

// bucket returns the bucket of key minus query: half of the buckets for keys behind the query, and of each half one for every
// small distance, then logarithmic ones up to MaxDistance.
func (t *T5) bucket(distance int) int {
	half, first := t.Buckets/2, 0
	if distance > 0 {
		first = half
	} else {
		distance = -distance
	}
	exact := half / 2
	if distance < exact {
		return first + distance
	}
	// In float32 like the original, which decides where a bucket ends.
	log := float32(math.Log(float64(float32(distance)/float32(exact)))) / float32(math.Log(float64(t.MaxDistance)/float64(exact)))
	return first + min(exact+int(log*float32(half-exact)), half-1)
}

// T5Work is the memory of a run.
type T5Work struct {
	x, out       compute.Tensor // F32 [tokens, dim]
	y            compute.Tensor // [tokens, dim]
	qkv          compute.Tensor // [tokens, 3*heads*headDim]
	attn         compute.Tensor // [tokens, heads*headDim]
	gate         compute.Tensor // F32 [tokens, ffn]
	hidden, zero compute.Tensor // [tokens, ffn]; zero stays as it is
	host         []byte
}

// NewWork allocates for prompts of MaxTokens tokens.
func (t *T5) NewWork(a compute.Arena, types compute.Types) *T5Work {
	n, inner, act := t.MaxTokens, t.Heads*t.HeadDim, types.Activation
	return &T5Work{
		x: a.Tensor(compute.F32, n, t.Dim), out: a.Tensor(compute.F32, n, t.Dim), y: a.Tensor(act, n, t.Dim),
		qkv: a.Tensor(act, n, 3*inner), attn: a.Tensor(act, n, inner),
		gate: a.Tensor(compute.F32, n, t.FFN), hidden: a.Tensor(act, n, t.FFN), zero: a.Tensor(act, n, t.FFN),
	}
}

// Encode runs the encoder on 1 to MaxTokens ids, the end among them but no padding, and returns F32 [tokens, Dim], valid until
// the next call with the same work. Ids must be below Vocabulary.
func (t *T5) Encode(dq compute.Queue, w *T5Work, ids []int32) compute.Tensor {
	n, inner := len(ids), t.Heads*t.HeadDim
	x, y, qkv, attn := w.x.Slice(0, 0, n), w.y.Slice(0, 0, n), w.qkv.Slice(0, 0, n), w.attn.Slice(0, 0, n)
	gate, hidden, zero := w.gate.Slice(0, 0, n), w.hidden.Slice(0, 0, n), w.zero.Slice(0, 0, n)
	q, k, v := qkv.Slice(1, 0, inner).Heads(t.Heads), qkv.Slice(1, inner, 2*inner).Heads(t.Heads), qkv.Slice(1, 2*inner, 3*inner).Heads(t.Heads)
	t.embed(dq, w, x, ids)
	for i := range t.layers {
		l := &t.layers[i]
		dq.Norm(y, x, compute.Norm{RMS: true, Eps: t.Eps, Weight: l.norm1})
		dq.Linear(qkv, y, l.qkv, compute.Tensor{}, compute.None)
		compute.AttendBiased(dq, attn.Heads(t.Heads), q, k, v, l.bias(n), 1)
		t.add(dq, x, y, attn, l.out)
		dq.Norm(y, x, compute.Norm{RMS: true, Eps: t.Eps, Weight: l.norm2})
		dq.Linear(gate, y, l.gate, compute.Tensor{}, compute.GELU)
		dq.Linear(hidden, y, l.expand, compute.Tensor{}, compute.None)
		dq.AddGated(hidden, zero, hidden, gate)
		t.add(dq, x, y, hidden, l.back)
	}
	out := w.out.Slice(0, 0, n)
	dq.Norm(out, x, compute.Norm{RMS: true, Eps: t.Eps, Weight: t.norm})
	return out
}

// add computes x += from Wᵀ by way of y.
func (t *T5) add(dq compute.Queue, x, y, from compute.Tensor, w compute.Matrix) {
	dq.Linear(y, from, w, compute.Tensor{}, compute.None)
	dq.AddGated(x, x, y, compute.Tensor{})
}

// bias views the relative bias of n tokens as [heads, queries, keys]: a step to the next query is one back in the row.
func (l *t5Layer) bias(n int) compute.Tensor {
	b := l.relative
	b.Rank, b.Offset = 3, b.Offset+b.Shape[1]/2
	b.Shape, b.Stride = [compute.MaxRank]int{b.Shape[0], n, n}, [compute.MaxRank]int{b.Stride[0], -1, 1}
	return b
}

// embed uploads the embedding's rows of the ids.
func (t *T5) embed(dq compute.Queue, w *T5Work, x compute.Tensor, ids []int32) {
	size := t.Dim * t.embedding.DType.Size()
	b := w.host[:0]
	for _, id := range ids {
		row := t.embedding
		row.Shape, row.Data = []int{t.Dim}, row.Data[int(id)*size:][:size]
		f, err := weights.Floats(row)
		if err != nil {
			panic(err) // Audit.Want has seen to the type
		}
		for _, v := range f {
			b = binary.LittleEndian.AppendUint32(b, math.Float32bits(v))
		}
	}
	w.host = b
	dq.Upload(x, b)
}
