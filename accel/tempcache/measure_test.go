package tempcache_test

import (
	"fmt"
	"math"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"longtake/accel/tempcache"
	"longtake/attention"
	"longtake/compute/cpu"
	"longtake/kvcache"
	"longtake/model/modeltest"
	"longtake/rollout"
	"longtake/video"
	"longtake/world"
)

// subject is a policy under measurement.
type subject struct {
	name   string
	policy kvcache.Policy
	watch  bool
}

// subjects are the rows of the table in README.md.
func subjects(needs []float64) []subject {
	with := func(p tempcache.Policy, f func(*tempcache.Policy)) tempcache.Policy {
		f(&p)
		return p
	}
	type policy = tempcache.Policy
	ours, paper := tempcache.Default(), tempcache.Paper()
	window := func(n int) subject {
		return subject{name: fmt.Sprintf("window %d", n), policy: kvcache.Window{Recent: n}}
	}
	list := []subject{{name: "full", policy: kvcache.Window{Recent: kvcache.Full}}, window(15), window(9)}
	add := func(name string, p policy) {
		list = append(list, subject{name, p, p.ByQuery || p.MaxError > 0})
	}
	for _, tau := range []float64{0.9, 0.85, 0.8} {
		add(fmt.Sprintf("default, threshold %g", tau), with(ours, func(p *policy) { p.Threshold = tau }))
	}
	for _, b := range []struct {
		frames int
		tau    float64
	}{{24, 0.9}, {16, 0.9}, {16, 0.85}, {12, 0.85}} {
		set := func(p *policy) { p.Budget.Frames, p.Threshold = b.frames, b.tau }
		add(fmt.Sprintf("budget %d frames, threshold %g", b.frames, b.tau), with(ours, set))
		add(fmt.Sprintf("budget %d frames by need, threshold %g", b.frames, b.tau), with(with(ours, set), func(p *policy) { p.Shares = needs }))
	}
	for _, tau := range []float64{0.7, 0.6, 0.5} {
		add(fmt.Sprintf("paper, threshold %g", tau), with(paper, func(p *policy) { p.Threshold = tau }))
	}
	for _, tau := range []float64{0.9, 0.8} {
		add(fmt.Sprintf("newest key, threshold %g", tau), with(ours, func(p *policy) { p.Threshold, p.Keep = tau, tempcache.Newest }))
	}
	add("unrotated, threshold 0.9", with(ours, func(p *policy) { p.Space = tempcache.Unrotated }))
	add("no log counts, threshold 0.8", with(ours, func(p *policy) { p.Threshold, p.NoLogCount = 0.8, true }))
	add("shared by heads, threshold 0.8", with(ours, func(p *policy) { p.Threshold, p.Shared = 0.8, true }))
	add("neighbours 2x6, threshold 0.9", with(ours, func(p *policy) { p.Search = tempcache.Neighbours }))
	add("logit error 1, threshold 0.5", with(ours, func(p *policy) { p.Threshold, p.MaxError = 0.5, 1 }))
	add("by query, threshold 0.9", with(ours, func(p *policy) { p.ByQuery = true }))
	add("one a frame, threshold 0.9", with(ours, func(p *policy) { p.OnePerFrame = true }))
	add("count cap 4, threshold 0.8", with(ours, func(p *policy) { p.Threshold, p.CountCap = 0.8, 4 }))
	add("decay 0.9, threshold 0.8", with(ours, func(p *policy) { p.Threshold, p.Decay = 0.8, 0.9 }))
	add("retest 4, threshold 0.8", with(ours, func(p *policy) { p.Threshold, p.Retest = 0.8, 4 }))
	add("recent 6, threshold 0.9", with(ours, func(p *policy) { p.Recent = 6 }))
	add("default, threshold 0.95", with(ours, func(p *policy) { p.Threshold = 0.95 }))
	add("default, threshold 0.88", with(ours, func(p *policy) { p.Threshold = 0.88 }))
	add("default, threshold 0.7", with(ours, func(p *policy) { p.Threshold = 0.7 }))
	for _, tau := range []float64{0.8, 0.9} {
		add(fmt.Sprintf("paper, threshold %g", tau), with(paper, func(p *policy) { p.Threshold = tau }))
	}
	add("paper, by key, threshold 0.6", with(paper, func(p *policy) { p.Threshold, p.ByQuery = 0.6, false }))
	for _, e := range []float64{0.5, 2} {
		add(fmt.Sprintf("logit error %g, threshold 0.5", e), with(ours, func(p *policy) { p.Threshold, p.MaxError = 0.5, e }))
	}
	add("neighbours 2x16, threshold 0.9", with(ours, func(p *policy) { p.Search, p.Depth = tempcache.Neighbours, 16 }))
	return list
}

const span = 30 // headings: a full turn

// lookBack shows a full turn to the right as truth and generates the turn back: everything in it has been seen.
type lookBack struct {
	episode *world.Episode
	truth   []video.Frame
}

func newLookBack(t *testing.T, seed uint32) lookBack {
	e, err := world.NewEpisode(seed, 2*span+1, world.LookAround, span)
	if err != nil {
		t.Fatal(err)
	}
	l := lookBack{episode: e}
	for _, pose := range e.Poses {
		f := video.NewFrame(64, 64)
		e.World.Render(f.Pix, pose, 64, 64)
		l.truth = append(l.truth, f)
	}
	return l
}

// roll is what one policy made of one clip.
type roll struct {
	frames           [][]float32 // latents
	errors           []float64   // mean squared error of each frame to the truth, of 255
	tokens, bytes    float64
	took, compacting time.Duration
	logit            float64
}

func (l lookBack) roll(t *testing.T, e *rollout.Engine, s subject) roll {
	actions := make([]int, len(l.episode.Actions))
	for i, a := range l.episode.Actions {
		actions[i] = int(a)
	}
	r := rollout.Request{Prompt: l.episode.Prompt(), Seed: 7, Cache: s.policy, Start: l.truth[:span+1], StartActions: actions[:span+1],
		Heading: l.episode.Poses[0].Heading}
	if s.watch {
		r.Self = tempcache.Watching(attention.Dense{})
	}
	session, err := e.NewSession(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	defer session.Close()
	dq, _ := e.Device.NewQueue()
	defer dq.Close()
	var out roll
	began := time.Now()
	for f := span + 1; f <= 2*span; f++ {
		frames, err := session.Next(t.Context(), actions[f])
		if err != nil {
			t.Fatal(err)
		}
		sum := 0.0
		for i, v := range frames[0].Pix {
			d := float64(v) - float64(l.truth[f].Pix[i])
			sum += d * d
		}
		out.errors = append(out.errors, sum/float64(len(frames[0].Pix)))
		out.frames = append(out.frames, download(t, dq, session.Latent()))
	}
	stats := session.Stats()
	out.took, out.compacting = time.Since(began), stats.Compacting
	out.tokens, out.bytes = stats.Tokens, float64(stats.Bytes)
	if os.Getenv("LONGTAKE_NEEDS") != "" && stats.Heads != nil {
		fullest := make([]float64, e.CacheShape.Layers)
		for i, n := range tempcache.Needs(stats.Heads) {
			fullest[i/e.CacheShape.Heads] = max(fullest[i/e.CacheShape.Heads], n)
		}
		fmt.Println(fullest)
	}
	for _, h := range stats.Heads {
		out.logit += h.LogitError / float64(len(stats.Heads))
	}
	return out
}

func decibels(peak, mse float64) float64 { return 10 * math.Log10(peak*peak/mse) }

// TestMeasureLookBack prints the table of README.md: LONGTAKE_MEASURE names the rows by parts of their names, separated by
// commas, or is "all"; LONGTAKE_CLIPS is the number of clips.
func TestMeasureLookBack(t *testing.T) {
	want := os.Getenv("LONGTAKE_MEASURE")
	if want == "" {
		t.Skip("minutes of measuring: LONGTAKE_MEASURE=all LONGTAKE_CLIPS=4 go test ./accel/tempcache -run MeasureLookBack -v -timeout 1h")
	}
	clips, _ := strconv.Atoi(os.Getenv("LONGTAKE_CLIPS"))
	clips = max(clips, 1)
	first, _ := strconv.Atoi(os.Getenv("LONGTAKE_SEED"))
	e := modeltest.TinyWorld(t, cpu.Options{Float32: true, Threads: 2})
	var tests []lookBack
	for i := range clips {
		tests = append(tests, newLookBack(t, uint32(first+i)))
	}
	var dense []roll
	fmt.Println("| policy | tokens | MiB | PSNR | thirds | worst clip | to dense | ms a frame | of it merging |")
	for i, s := range subjects(e.LayerNeeds) {
		if i > 0 && want != "all" && !chosen(want, s.name) {
			continue
		}
		var rolls []roll
		for _, l := range tests {
			rolls = append(rolls, l.roll(t, e, s))
		}
		if i == 0 {
			dense = rolls
		}
		fmt.Println(row(s.name, rolls, dense))
	}
}

func chosen(want, name string) bool {
	for part := range strings.SplitSeq(want, ",") {
		if strings.Contains(name, part) {
			return true
		}
	}
	return false
}

// row averages squared errors over frames and clips.
func row(name string, rolls, dense []roll) string {
	var all, toDense, n, tokens, bytes float64
	var thirds [3]float64
	var took, compacting time.Duration
	worst := math.Inf(1)
	for i, r := range rolls {
		clip := 0.0
		for _, e := range r.errors {
			clip += e / float64(len(r.errors))
		}
		worst = min(worst, decibels(255, clip))
		for f, e := range r.errors {
			all += e
			thirds[f*3/len(r.errors)] += e
			n++
			for j, v := range r.frames[f] {
				d := float64(v - dense[i].frames[f][j])
				toDense += d * d / float64(len(r.frames[f]))
			}
		}
		tokens, bytes = tokens+r.tokens, bytes+r.bytes
		took, compacting = took+r.took, compacting+r.compacting
	}
	clips := float64(len(rolls))
	ms := func(d time.Duration, frames float64) float64 { return d.Seconds() * 1000 / frames }
	return fmt.Sprintf("| %s | %.0f | %.1f | %.2f | %.1f / %.1f / %.1f | %.1f | %.1f | %.0f | %.1f |", name, tokens/clips, bytes/clips/(1<<20),
		decibels(255, all/n), decibels(255, 3*thirds[0]/n), decibels(255, 3*thirds[1]/n), decibels(255, 3*thirds[2]/n),
		worst, decibels(2, toDense/n), ms(took, n), ms(compacting, clips*(2*span+1)))
}
