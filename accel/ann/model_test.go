package ann_test

import (
	"math"
	"testing"

	"longtake/accel/ann"
	"longtake/attention"
	"longtake/compute"
	"longtake/compute/cpu"
	"longtake/kvcache"
	"longtake/model/modeltest"
	"longtake/rollout"
	"longtake/video"
	"longtake/world"
)

// taking keeps the queries and past keys of a chunk's last step, layer by layer and head by head.
type taking struct {
	attention.Dense
	chunk         int
	keys, queries [][][]float32
}

func (p *taking) New(compute.Device, compute.Queue, kvcache.Shape) (attention.Policy, error) {
	return p, nil
}

func (p *taking) Attend(dq compute.Queue, at attention.Site, dst, query compute.Tensor, kv kvcache.View) {
	p.Dense.Attend(dq, at, dst, query, kv)
	if at.Chunk != p.chunk || at.Pass != at.Passes-2 {
		return
	}
	past := kv.Parts[len(kv.Parts)-1].Lo
	for h := range query.Dim(0) {
		p.keys = append(p.keys, rows(dq, kv.Keys.Index(h).Slice(0, 0, past)))
		p.queries = append(p.queries, rows(dq, query.Index(h)))
	}
}

func rows(dq compute.Queue, t compute.Tensor) (out [][]float32) {
	for i := range t.Dim(0) {
		row := make([]float32, t.Dim(1))
		ann.Load(dq, row, t.Slice(0, i, i+1), compute.Tensor{}, nil)
		out = append(out, row)
	}
	return out
}

// take runs the embedded model on true frames of a mixed walk and one of its own.
func take(t *testing.T, frames int) *taking {
	e := modeltest.TinyWorld(t, cpu.Options{Threads: 2})
	c, err := world.NewEpisode(51000, frames+1, world.Mixed, 0)
	if err != nil {
		t.Fatal(err)
	}
	p := &taking{chunk: frames}
	r := rollout.Request{Prompt: c.Prompt(), Heading: c.Poses[0].Heading, Self: p, Cache: kvcache.Window{Recent: kvcache.Full}}
	for i, pose := range c.Poses[:frames] {
		f := video.NewFrame(64, 64)
		c.World.Render(f.Pix, pose, 64, 64)
		r.Start, r.StartActions = append(r.Start, f), append(r.StartActions, int(c.Actions[i]))
	}
	s, err := e.NewSession(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if _, err := s.Next(t.Context(), int(c.Actions[frames])); err != nil {
		t.Fatal(err)
	}
	return p
}

// mass returns how much of the attention over the past lies on the share of keys that rank first, and how often the first of all
// is the true one; means over queries.
func mass(m ann.Maker, keys, queries [][]float32, share float64) (kept, first float64) {
	exact, x := ann.Exact{}.New(len(keys[0]), len(keys)), m.New(len(keys[0]), len(keys))
	for i, k := range keys {
		exact.Put(i, k)
		x.Put(i, k)
	}
	truth, guess := make([]float32, len(keys)), make([]float32, len(keys))
	scale := 1 / math.Sqrt(float64(len(keys[0])))
	for _, q := range queries {
		exact.Score(truth, q, 0)
		x.Score(guess, q, 0)
		if x.Nearest(q, len(keys)) == exact.Nearest(q, len(keys)) {
			first += 1 / float64(len(queries))
		}
		all, part := 0.0, 0.0
		for _, v := range truth {
			all += math.Exp(scale * float64(v))
		}
		for range int(share * float64(len(keys))) {
			if at := drain(guess); !math.IsInf(float64(truth[at]), -1) {
				part += math.Exp(scale * float64(truth[at]))
				truth[at] = float32(math.Inf(-1))
			}
		}
		kept += part / all / float64(len(queries))
	}
	return kept, first
}

// TestRecallOnTheModelsOwnKeys prints README.md's table: go test ./accel/ann -run Own -v
func TestRecallOnTheModelsOwnKeys(t *testing.T) {
	p := take(t, 20)
	if len(p.keys) != 24 {
		t.Fatalf("%d heads were seen", len(p.keys))
	}
	got := map[string]float64{}
	for _, name := range names {
		kept, first := 0.0, 0.0
		heads := 0
		for h := 0; h < len(p.keys); h += 5 { // heads of all layers
			k, f := mass(maker(t, name), p.keys[h], p.queries[h][:16], 0.05)
			kept, first, heads = kept+k, first+f, heads+1
		}
		got[name] = kept / float64(heads)
		t.Logf("| %s | %.3f | %.3f |", name, got[name], first/float64(heads))
	}
	for _, order := range [][2]string{{"lsh16", "lsh64"}, {"lsh64", "lsh256"}, {"quant2", "quant4"}, {"quant4", "exact"}, {"quant8", "exact"}} {
		if got[order[0]] > got[order[1]]+1e-3 {
			t.Errorf("%s keeps %.3f, %s only %.3f", order[0], got[order[0]], order[1], got[order[1]])
		}
	}
}
