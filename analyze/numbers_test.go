package analyze

import (
	"math"
	"math/rand/v2"
	"testing"

	"longtake/attention"
	"longtake/compute"
	"longtake/compute/cpu"
	"longtake/kvcache"
)

var small = kvcache.Shape{Layers: 1, Heads: 2, HeadDim: 16, Rows: 2, Columns: 3, ChunkFrames: 2,
	Pairs: [3]int{4, 2, 2}, Theta: [3]float64{256, 16, 16}, Clamp: 5, DType: compute.F32}

func near(t *testing.T, what string, got, want, tolerance float64) {
	t.Helper()
	if !(math.Abs(got-want) <= tolerance) {
		t.Errorf("%s is %v, want %v", what, got, want)
	}
}

func random(r *rand.Rand, n int) []float32 {
	out := make([]float32, n)
	for i := range out {
		out[i] = float32(r.NormFloat64())
	}
	return out
}

// invented returns a clip of random keys: frames before now, and a moment of one frame at now.
func invented(now int) (*clip, *moment) {
	s := small
	s.ChunkFrames = 1
	r := rand.New(rand.NewPCG(3, 4))
	c := &clip{geometry: geometryOf(s), keys: map[place][]float32{}, values: map[place][]float32{}, queries: map[place][]float32{}}
	size := s.Heads * s.Tokens() * s.HeadDim
	for f := range now + 1 {
		c.keys[place{0, f}] = random(r, size)
	}
	m := &moment{at: now, span: kvcache.Span{Start: now, Frames: 1}, drafts: map[int][]float32{0: random(r, size)}, asked: map[int][]float32{0: random(r, size)}}
	c.moments = []*moment{m}
	return c, m
}

// turned rotates a token's vector in float64 by absolute positions.
func turned(x []float32, s kvcache.Shape, time, token int, spatial, temporal bool) []float64 {
	out, pair := make([]float64, len(x)), 0
	for axis, p := range [3]int{time, token / s.Columns, token % s.Columns} {
		for j := range s.Pairs[axis] {
			angle := float64(p) * math.Pow(s.Theta[axis], -float64(j)/float64(s.Pairs[axis]))
			if axis == 0 && !temporal || axis > 0 && !spatial {
				angle = 0
			}
			sin, cos := math.Sincos(angle)
			a, b := float64(x[2*pair]), float64(x[2*pair+1])
			out[2*pair], out[2*pair+1] = a*cos-b*sin, a*sin+b*cos
			pair++
		}
	}
	return out
}

func cosine(a, b []float64) float64 { return inner(a, b) / math.Sqrt(inner(a, a)*inner(b, b)) }

func TestRecallEqualsADirectComputation(t *testing.T) {
	const now = 8
	c, m := invented(now)
	n, d := c.tokens(), c.HeadDim
	got := c.recall([]int{0})[0]
	own, previous, top1, top50 := 0.0, 0.0, 0.0, 0.0
	for h := range c.Heads {
		for i := range n {
			q := turned(m.asked[0][(h*n+i)*d:][:d], c.Shape, now, i, true, true)
			var x []float64
			for f := range now + 1 {
				keys, time := c.keys[place{0, f}], max(f, now-c.Clamp)
				if f == now {
					keys = m.drafts[0]
				}
				for j := range n {
					x = append(x, math.Exp(inner(q, turned(keys[(h*n+j)*d:][:d], c.Shape, time, j, true, true))/math.Sqrt(float64(d))))
				}
			}
			past := x[:now*n]
			own += total(x[now*n:]) / total(x)
			previous += total(past[(now-1)*n:]) / total(past)
			// The strongest k of the past by repeated choice.
			used, sum := make([]bool, len(past)), 0.0
			for k := range len(past) / 2 {
				at := -1
				for j, v := range past {
					if !used[j] && (at < 0 || v > past[at]) {
						at = j
					}
				}
				used[at] = true
				sum += past[at] / total(past)
				if k == 0 {
					top1 += sum
				}
			}
			top50 += sum
		}
	}
	all := float64(c.Heads * n)
	near(t, "own share", got.Own, own/all, 1e-5)
	near(t, "previous frame", got.Previous, previous/all, 1e-5)
	near(t, "top 1 %", got.Mass[0], top1/all, 1e-5)
	near(t, "top 50 %", got.Mass[6], top50/all, 1e-5)
}

func TestSimilarityEqualsADirectComputation(t *testing.T) {
	const at = 8
	c, _ := invented(at)
	n, d := c.tokens(), c.HeadDim
	for k, got := range c.similarity([]int{0}) {
		s := space(k)
		vector := func(f, h, i int) []float64 {
			return turned(c.keys[place{0, f}][(h*n+i)*d:][:d], c.Shape, max(f, at-c.Clamp), i, s >= spatial, s == after)
		}
		same, best, all, pair := 0.0, 0.0, 0.0, 0.0
		for h := range c.Heads {
			for i := range n {
				nearest, nearest2 := -1.0, -1.0
				for f := range at {
					for j := range n {
						cos := cosine(vector(at, h, i), vector(f, h, j))
						nearest = max(nearest, cos)
						pair += cos / float64(at*n)
						if f == at-2 {
							nearest2 = max(nearest2, cos)
						}
					}
				}
				all += nearest
				best += nearest2
				same += cosine(vector(at, h, i), vector(at-2, h, i))
			}
		}
		rows := float64(c.Heads * n)
		near(t, got.Space+": lag", float64(got.Lags[1]), 2, 0)
		near(t, got.Space+": same place", got.Same[1], same/rows, 1e-5)
		near(t, got.Space+": best of a frame", got.Best[1], best/rows, 1e-5)
		near(t, got.Space+": best of all", got.BestAll, all/rows, 1e-5)
		near(t, got.Space+": any pair", got.Pair, pair/rows, 1e-5)
	}
}

// TestRecordedCopiesGiveTheScoresOfTheDevice feeds a recorder as a session does, chunks of two frames beyond the clamp, and
// compares the products that the device's keys and queries have with those of the copies.
func TestRecordedCopiesGiveTheScoresOfTheDevice(t *testing.T) {
	dev, err := cpu.New(cpu.Options{Kernel: "generic", Threads: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer dev.Close()
	dq, _ := dev.NewQueue()
	defer dq.Close()
	o := &Options{At: []int{9}, Layers: []int{0}, Frames: 10, Pass: 0}
	r := &recorder{Window: kvcache.Window{Recent: kvcache.Full}, o: o, drafted: map[int][]float32{},
		clip: &clip{geometry: geometryOf(small), keys: map[place][]float32{}, values: map[place][]float32{}, queries: map[place][]float32{}}}
	cache, err := r.New(dev, dq, small)
	if err != nil {
		t.Fatal(err)
	}
	defer cache.Close()
	arena, _ := dev.NewArena(0)
	defer arena.Free()
	n, d := small.Tokens(), small.HeadDim
	x, query := arena.Tensor(compute.F32, 2*n, small.Heads*d), arena.Tensor(compute.F32, small.Heads, 2*n, d)
	out := arena.Tensor(compute.F32, small.Heads, 2*n, d)
	var keys, asked []float32
	for start := 0; start < 10; start += 2 {
		if err := cache.Begin(dq, kvcache.Span{Start: start, Frames: 2}); err != nil {
			t.Fatal(err)
		}
		at := attention.Site{Passes: 2, Tokens: n}
		at.Rope, at.Pos = cache.Rope()
		for pass := range 2 {
			at.Pass = pass
			dq.Noise(x, compute.NoiseKey{Seed: 1, Chunk: uint32(start), Step: uint32(pass)})
			if pass == 1 {
				cache.Layer(0).Commit(dq, x.Heads(small.Heads), x.Heads(small.Heads))
				break
			}
			cache.Layer(0).Draft(dq, x.Heads(small.Heads), x.Heads(small.Heads))
			dq.Noise(query, compute.NoiseKey{Seed: 2, Chunk: uint32(start)})
			dq.Rope(query, query, at.Pos, at.Rope)
			view := cache.Layer(0).View()
			eyes{r: r}.Attend(dq, at, out, query, view)
			keys, asked = r.scrap.fetch(dq, view.Keys), r.scrap.fetch(dq, query)
		}
		cache.End()
	}
	m := r.clip.moments[0]
	if m.span.Start != 8 || len(r.clip.moments) != 1 {
		t.Fatalf("moments %+v", r.clip.moments)
	}
	for h := range small.Heads {
		host := append(r.clip.past(0, h, 0, 8, 8, after), r.clip.own(m, 0, h)...)
		q := r.clip.query(m, 0, h)
		for i := range 2 * n {
			for j := range 10 * n {
				want := dot(asked[(h*2*n+i)*d:][:d], keys[(h*10*n+j)*d:][:d])
				got := dot(q[i*d:][:d], host[j*d:][:d])
				if math.Abs(float64(got-want)) > 2e-5*float64(d) {
					t.Fatalf("head %d, query %d, key %d: the copies give %v, the device %v", h, i, j, got, want)
				}
			}
		}
	}
}

func TestEqualKeysMergeWithoutLoss(t *testing.T) {
	const d, tokens = 8, 12
	r := rand.New(rand.NewPCG(1, 1))
	kinds := random(r, 3*d)
	var keys []float32
	for i := range tokens {
		keys = append(keys, kinds[i%3*d:][:d]...)
	}
	unit := append([]float32{}, keys...)
	normalize(unit, d)
	for _, mean := range []bool{false, true} {
		e := merge(keys, unit, d, tokens, 0.999, mean)
		if len(e.counts) != 3 || e.counts[0] != 4 || e.newest[0] != 9 || e.of[10] != 1 {
			t.Fatalf("entries %+v", e)
		}
		near(t, "recall", overlap(random(r, 5*d), keys, e.keys, e.counts, e.of, d), 1, 1e-6)
	}
	e := merge(keys, unit, d, tokens, 1.5, false)
	if len(e.counts) != tokens {
		t.Errorf("%d entries above a threshold that nothing reaches", len(e.counts))
	}
}

func TestComponentsAreTheAxesOfLargestVariance(t *testing.T) {
	const d = 10
	r := rand.New(rand.NewPCG(5, 6))
	var rows [][]float32
	for range 4000 {
		row := make([]float32, d)
		for i := range row {
			row[i] = 3 + 0.1*float32(r.NormFloat64())
		}
		row[2], row[7], row[4] = 5*float32(r.NormFloat64()), 3*float32(r.NormFloat64()), 2*float32(r.NormFloat64())
		rows = append(rows, row)
	}
	c := analyse(rows, d)
	for k, at := range [3]int{2, 7, 4} {
		if c.axes[k][at] < 0.99 {
			t.Errorf("component %d is %v, want axis %d", k, c.axes[k], at)
		}
	}
	near(t, "explained variance", c.explained, 1, 0.01)
}

func TestCorrespondenceFindsMovedTokens(t *testing.T) {
	c, m := invented(4)
	n, d := c.tokens(), c.HeadDim
	turns := newTurns(c.geometry)
	for h := range c.Heads {
		for i := range n {
			// The query, rotated at its place, shall point where the next token's key, rotated at its own, does.
			to := (i + 1) % n
			key := append([]float32{}, c.keys[place{0, 3}][(h*n+to)*d:][:d]...)
			normalize(key, d)
			copy(c.keys[place{0, 3}][(h*n+to)*d:], key)
			turns.one(key, to, after, turns.at(3, 4))
			back := turned(key, kvcache.Shape{Columns: c.Columns, Pairs: c.Pairs, Theta: c.Theta}, 0, 0, false, false)
			inverse(back, c.Shape, i)
			for j, v := range back {
				m.asked[0][(h*n+i)*d+j] = float32(50 * v)
			}
		}
	}
	got := c.match(m, 0)
	for i, to := range got.To {
		if to != (i+1)%n {
			t.Fatalf("matches %v", got.To)
		}
	}
	near(t, "own place", got.Same, 0, 0)
}

// inverse undoes the rotation by row and column.
func inverse(x []float64, s kvcache.Shape, token int) {
	pair := s.Pairs[0]
	for axis, p := range [2]int{token / s.Columns, token % s.Columns} {
		for j := range s.Pairs[axis+1] {
			sin, cos := math.Sincos(-float64(p) * math.Pow(s.Theta[axis+1], -float64(j)/float64(s.Pairs[axis+1])))
			a, b := x[2*pair], x[2*pair+1]
			x[2*pair], x[2*pair+1] = a*cos-b*sin, a*sin+b*cos
			pair++
		}
	}
}

func TestNeededCountsTheLargestEntries(t *testing.T) {
	x := []float64{0.1, 0.4, 0.2, 0.3}
	for share, want := range map[float64]float64{0.3: 0.25, 0.65: 0.5, 0.89: 0.75, 0.95: 1, 2: 1} {
		near(t, "share", needed(x, share), want, 0)
	}
}
