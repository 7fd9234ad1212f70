package kvcachetest

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"longtake/compute"
	"longtake/kvcache"
)

// long is how many frames a test feeds: several times what a small budget holds, and the clamp of Shapes.
const long = 36

// Run examines a policy on a device.
func Run(t *testing.T, dev compute.Device, e Exam) {
	shapes := Shapes
	if e.Shape.Layers > 0 {
		shapes = []kvcache.Shape{e.Shape}
	}
	for _, s := range shapes {
		e.Shape = s
		t.Run(fmt.Sprintf("%v, chunks of %d", e.Policy, s.ChunkFrames), func(t *testing.T) {
			for _, law := range []struct {
				name string
				test func(*testing.T, compute.Device, Exam)
			}{
				{"a draft is overwritten by the next forward", drafts},
				{"an interrupted chunk leaves no trace", interruptions},
				{"a shorter chunk after an interrupted one sees no frame twice", shorter},
				{"reset is as good as new", resets},
				{"bytes are known beforehand", bytesKnown},
				{"keys that are not finite are reported and kept out", notFinite},
				{"anchors and recent frames are never lost", recentFrames},
				{"attention over a cache with nothing merged is dense", dense},
				{"tokens are conserved", conserved},
				{"a gap in the frames is refused", gaps},
				{"steady chunks allocate nothing", steady},
			} {
				t.Run(law.name, func(t *testing.T) { law.test(t, dev, e) })
			}
		})
	}
}

// kinds of content that most laws are tried on.
var kinds = map[string]content{"motion": motion, "rest": rest, "still": still}

func drafts(t *testing.T, dev compute.Device, e Exam) {
	a, b := newRig(t, dev, e, rest), newRig(t, dev, e, rest)
	a.feed(20)
	b.feed(20)
	span := a.next()
	a.begin(span)
	b.begin(span)
	a.pass(span, 3)
	a.pass(span, 2)
	a.pass(span, 1)
	b.pass(span, 1)
	same(t, "after other drafts", a, b)
}

func interruptions(t *testing.T, dev compute.Device, e Exam) {
	for name, kind := range kinds {
		a, b := newRig(t, dev, e, kind), newRig(t, dev, e, kind)
		for a.frames < 20 {
			span := a.next()
			a.begin(span)
			a.pass(span, 3) // and then the user lost patience
			a.chunk()
			b.chunk()
			a.begin(a.next())
			b.begin(b.next())
			a.pass(a.next(), 1)
			b.pass(b.next(), 1)
			same(t, name+" after an interruption", a, b)
		}
	}
}

func shorter(t *testing.T, dev compute.Device, e Exam) {
	r := newRig(t, dev, e, motion)
	r.feed(21)
	r.begin(r.next())
	r.pass(r.next(), 1)
	span := kvcache.Span{Start: r.frames, Frames: 1}
	r.begin(span)
	r.pass(span, 1)
	view := r.look(0)
	var seen []int
	for _, p := range view.parts {
		hidden := len(view.counts) > 0 && math.IsInf(float64(view.counts[p.Lo]), -1)
		if p.Frame >= 0 && !hidden {
			seen = append(seen, p.Frame)
		}
	}
	slices.Sort(seen)
	if len(seen) == 0 || seen[len(seen)-1] != span.Start || len(slices.Compact(slices.Clone(seen))) != len(seen) {
		t.Errorf("in view are frames %v while frame %d is in work", seen, span.Start)
	}
	if e.Complete {
		if got, want := mass(view), float64((span.Start+1)*e.Shape.Tokens()); math.Abs(got-want) > 1e-3*want {
			t.Errorf("the view stands for %v tokens, %v have been fed", got, want)
		}
	}
}

// mass is how many tokens the view of head 0 stands for.
func mass(v visible) float64 {
	sum := 0.0
	for i := range int(v.lengths[0]) {
		if len(v.counts) == 0 {
			sum++
		} else {
			sum += math.Exp(float64(v.counts[i]))
		}
	}
	return sum
}

func resets(t *testing.T, dev compute.Device, e Exam) {
	a, b := newRig(t, dev, e, rest), newRig(t, dev, e, rest)
	a.feed(20)
	a.begin(a.next())
	a.cache.Reset()
	a.frames = 0
	if s := a.cache.Stats(); s.Frames != 0 || s.Tokens != 0 {
		t.Errorf("after a reset the cache holds %+v", s)
	}
	for b.frames < 20 {
		a.chunk()
		b.chunk()
		a.begin(a.next())
		b.begin(b.next())
		a.pass(a.next(), 1)
		b.pass(b.next(), 1)
		same(t, "after a reset", a, b)
	}
}

func same(t *testing.T, what string, a, b *rig) {
	t.Helper()
	want := b.lookAll()
	for l, got := range a.lookAll() {
		if err := got.equal(want[l]); err != nil {
			t.Fatalf("%s, frame %d, layer %d: %v", what, a.frames, l, err)
		}
	}
}

func bytesKnown(t *testing.T, dev compute.Device, e Exam) {
	for name, kind := range kinds {
		r := newRig(t, dev, e, kind)
		known, first := e.Policy.Bytes(dev, r.shape), r.cache.Stats().Bytes
		if first > known || first < known*9/10 {
			t.Errorf("%s: the cache takes %d bytes, Bytes says %d", name, first, known)
		}
		for e.Fixed && r.frames < long {
			r.chunk()
			if b := r.cache.Stats().Bytes; b != first {
				t.Fatalf("%s: %d bytes after %d frames, %d at the start", name, b, r.frames, first)
			}
		}
	}
}

func notFinite(t *testing.T, dev compute.Device, e Exam) {
	for _, bad := range []float32{float32(math.NaN()), float32(math.Inf(1))} {
		a, b := newRig(t, dev, e, motion), newRig(t, dev, e, motion)
		a.feed(12)
		b.feed(12)
		span := a.next()
		a.begin(span)
		a.pass(span, 1)
		a.pass(span, 0)
		// The clean pass again, with a fault in the last layer.
		last, n := a.shape.Layers-1, span.Frames*a.shape.Tokens()
		numbers := slices.Repeat(a.numbers(0, last, span.Start, 0), span.Frames)
		numbers[a.shape.HeadDim+3] = bad // token 0, head 1
		keys := a.keys.Slice(0, 0, n)
		upload(a.dq, keys, numbers)
		a.cache.Layer(last).Commit(a.dq, keys.Heads(a.shape.Heads), a.values.Slice(0, 0, n).Heads(a.shape.Heads))
		a.cache.End()
		if got := a.cache.Stats().Frames; got != span.Start {
			t.Errorf("%v became history: %d frames, want %d", bad, got, span.Start)
		}
		a.setPoses(span)
		err := a.cache.Begin(a.dq, span)
		if !errors.Is(err, kvcache.ErrNotFinite) {
			t.Fatalf("%v in a key: Begin returned %v", bad, err)
		}
		for _, part := range []string{fmt.Sprintf("layer %d", last), fmt.Sprintf("frames %d", span.Start)} {
			if !strings.Contains(err.Error(), part) {
				t.Errorf("%q does not say %q", err, part)
			}
		}
		// The session may go on.
		a.chunk()
		b.chunk()
		a.begin(a.next())
		b.begin(b.next())
		a.pass(a.next(), 1)
		b.pass(b.next(), 1)
		same(t, "after a chunk that was kept out", a, b)
	}
}

func recentFrames(t *testing.T, dev compute.Device, e Exam) {
	for name, kind := range kinds {
		r := newRig(t, dev, e, kind)
		for r.frames < long {
			span := r.next()
			r.begin(span)
			r.pass(span, 1)
			for l, v := range r.lookAll() {
				if span.Start > 20 && l != span.Start%r.shape.Layers {
					continue
				}
				if err := r.check(e, span, l, v); err != nil {
					t.Fatalf("%s, frame %d, layer %d: %v", name, span.Start, l, err)
				}
			}
			r.chunk()
		}
	}
}

// check looks at the shape of a view, and at the keys of all frames that are in it as they are.
func (r *rig) check(e Exam, span kvcache.Span, layer int, v visible) error {
	at, seen := 0, map[int]bool{}
	for i, p := range v.parts {
		if p.Lo != at || p.Hi < p.Lo {
			return fmt.Errorf("part %d is %+v, want it to begin at %d", i, p, at)
		}
		at = p.Hi
		for h, n := range v.lengths {
			if int(n) < p.Hi && i < len(v.parts)-1 {
				return fmt.Errorf("head %d has %d keys, part %d of %d ends at %d", h, n, i, len(v.parts), p.Hi)
			}
		}
		if p.Frame < 0 {
			continue
		}
		seen[p.Frame] = true
		if err := r.checkFrame(span, layer, v, p); err != nil {
			return err
		}
	}
	for h, n := range v.lengths {
		if n < 0 || int(n) > v.n || at != v.n {
			return fmt.Errorf("head %d has %d keys of %d, parts end at %d", h, n, v.n, at)
		}
	}
	for i, c := range v.counts {
		if h, k := i/v.n, i%v.n; k < int(v.lengths[h]) && (math.IsNaN(float64(c)) || c < 0 && !math.IsInf(float64(c), -1)) {
			return fmt.Errorf("log count of key %d of head %d is %v", k, h, c)
		}
	}
	for f := range span.Start + span.Frames {
		if (f < e.Anchor || f >= span.Start-e.Recent) && !seen[f] {
			return fmt.Errorf("frame %d is not in view", f)
		}
	}
	return nil
}

// checkFrame compares a frame that is in view as it is with keys rotated in float64.
func (r *rig) checkFrame(span kvcache.Span, layer int, v visible, p kvcache.Part) error {
	s := r.shape
	want, d := r.history[layer][p.Frame], s.HeadDim
	time := p.Frame
	if s.Clamp > 0 {
		time = max(time, span.Start-s.Clamp)
	}
	tolerance := 2e-5
	if s.DType == compute.BF16 {
		tolerance = 2e-2
	}
	for i := p.Lo; i < p.Hi; i++ {
		for h := range s.Heads {
			token, got := i-p.Lo, (h*v.n+i)*d
			from := (token*s.Heads + h) * d
			turned := rotate(want.keys[from:from+d], s, time, token)
			for j := range d {
				if math.Abs(float64(v.keys[got+j])-turned[j]) > tolerance*(1+math.Abs(turned[j])) {
					return fmt.Errorf("frame %d, token %d, head %d: key element %d is %v, want %v", p.Frame, token, h, j, v.keys[got+j], turned[j])
				}
				if x := want.values[from+j]; math.Abs(float64(v.values[got+j]-x)) > tolerance*(1+math.Abs(float64(x))) {
					return fmt.Errorf("frame %d, token %d, head %d: value element %d is %v, want %v", p.Frame, token, h, j, v.values[got+j], x)
				}
			}
		}
	}
	return nil
}

// dense compares attention over the view with attention over all frames, as long as the policy has them all.
func dense(t *testing.T, dev compute.Device, e Exam) {
	r := newRig(t, dev, e, motion)
	for r.frames <= min(e.Anchor+e.Recent, 40) {
		span := r.next()
		r.begin(span)
		r.pass(span, 1)
		for l := range r.shape.Layers {
			r.compare(t, span, l)
		}
		r.chunk()
	}
}

// compare runs the device's attention over the view and ours over the frames.
func (r *rig) compare(t *testing.T, span kvcache.Span, layer int) {
	t.Helper()
	s, n := r.shape, span.Frames*r.shape.Tokens()
	q := r.query.Slice(0, 0, n)
	var numbers []float32
	for f := range span.Frames {
		numbers = append(numbers, r.numbers(2, layer, span.Start+f, 1)...)
	}
	upload(r.dq, q, numbers)
	rope, pos := r.cache.Rope()
	r.dq.Rope(q.Heads(s.Heads), q.Heads(s.Heads), pos, rope)
	out := r.out.Slice(0, 0, n)
	view := r.cache.Layer(layer).View()
	r.dq.Attend(out.Heads(s.Heads), q.Heads(s.Heads), view.Keys, view.Values,
		compute.Attention{Scale: float32(1 / math.Sqrt(float64(s.HeadDim))), LogCount: view.LogCount, Lengths: view.Lengths})
	got := r.floats(out)
	tolerance := 2e-5
	if s.DType == compute.BF16 {
		tolerance = 3e-2
	}
	for i := range n {
		for h := range s.Heads {
			at := (i*s.Heads + h) * s.HeadDim
			query := rotate(numbers[at:at+s.HeadDim], s, span.Start+i/s.Tokens(), i%s.Tokens())
			want := r.attend(query, span, layer, h)
			for j, x := range want {
				if math.Abs(float64(got[at+j])-x) > tolerance {
					t.Fatalf("frame %d, layer %d, token %d, head %d: element %d is %v, dense attention gives %v", span.Start, layer, i, h, j, got[at+j], x)
				}
			}
		}
	}
}

// attend is dense attention of one query over all frames, in float64.
func (r *rig) attend(query []float64, span kvcache.Span, layer, head int) []float64 {
	s := r.shape
	out, sum := make([]float64, s.HeadDim), 0.0
	for f := range span.Start + span.Frames {
		time := f
		if s.Clamp > 0 {
			time = max(time, span.Start-s.Clamp)
		}
		for token := range s.Tokens() {
			at := (token*s.Heads + head) * s.HeadDim
			key := rotate(r.history[layer][f].keys[at:at+s.HeadDim], s, time, token)
			logit := 0.0
			for j := range key {
				logit += key[j] * query[j]
			}
			weight := math.Exp(logit / math.Sqrt(float64(s.HeadDim)))
			sum += weight
			for j, v := range r.history[layer][f].values[at : at+s.HeadDim] {
				out[j] += weight * float64(v)
			}
		}
	}
	for j := range out {
		out[j] /= sum
	}
	return out
}

// conserved counts what became of every token that left the dense frames.
func conserved(t *testing.T, dev compute.Device, e Exam) {
	for name, kind := range kinds {
		r := newRig(t, dev, e, kind)
		for r.frames < long {
			r.chunk()
			r.begin(r.next())
			r.pass(r.next(), 1)
			view, stats := r.look(0), r.cache.Stats()
			if stats.Tokens < 0 || stats.Frames != r.frames {
				t.Fatalf("%s: %+v after %d frames", name, stats, r.frames)
			}
			dense := 0
			for _, p := range view.parts {
				if p.Frame >= 0 {
					dense++
				}
			}
			left := int64(r.frames+r.shape.ChunkFrames-dense) * int64(r.shape.Tokens())
			for h, s := range stats.Heads {
				if got := int64(s.Kept) + s.Merged + s.Evicted; got != left || s.Merged < 0 || s.Evicted < 0 {
					t.Fatalf("%s, frame %d, head %d: %+v, %d tokens have left the dense frames", name, r.frames, h, s, left)
				}
				if e.Complete && s.Evicted > 0 {
					t.Fatalf("%s, frame %d, head %d: %+v evicted", name, r.frames, h, s)
				}
			}
		}
	}
}

func gaps(t *testing.T, dev compute.Device, e Exam) {
	r := newRig(t, dev, e, motion)
	r.feed(9)
	for _, span := range []kvcache.Span{{Start: r.frames + 1, Frames: 1}, {Start: r.frames - 1, Frames: 1}, {Start: r.frames}, {Start: r.frames, Frames: r.shape.ChunkFrames + 1}} {
		if err := r.cache.Begin(r.dq, span); err == nil {
			t.Errorf("a chunk %+v after %d frames was accepted", span, r.frames)
		}
	}
	r.chunk()
}

// steady counts the allocations of a chunk's way through the cache, once its memory is fixed. Queues without host memory make
// copies, which are not counted.
func steady(t *testing.T, dev compute.Device, e Exam) {
	r := newRig(t, dev, e, motion)
	if _, ok := r.dq.(compute.Mapper); !ok || !e.Fixed {
		t.Skip("promised for queues with host memory and caches of fixed size only")
	}
	r.feed(long)
	r.hasty = true
	n := r.shape.ChunkFrames * r.shape.Tokens()
	k, v := r.keys.Slice(0, 0, n).Heads(r.shape.Heads), r.values.Slice(0, 0, n).Heads(r.shape.Heads)
	got := testing.AllocsPerRun(20, func() {
		span := r.next()
		r.begin(span)
		for l := range r.shape.Layers {
			r.cache.Layer(l).Draft(r.dq, k, v)
			r.cache.Layer(l).View()
			r.cache.Layer(l).Commit(r.dq, k, v)
		}
		r.cache.End()
		r.keep(span)
		r.cache.Stats()
		r.frames += span.Frames
	})
	if got > 0 {
		t.Errorf("%v allocations a chunk", got)
	}
}
