package compare_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"math"
	"reflect"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"longtake/attention"
	"longtake/compare"
	"longtake/compute"
	"longtake/compute/cpu"
	"longtake/kvcache"
	"longtake/model/modeltest"
	"longtake/rollout"
	"longtake/video"
	"longtake/world"
)

func entry(name string, p kvcache.Policy) compare.Entry {
	return compare.Entry{Policy: compare.Policy{Name: name}, Keeps: p}
}

var (
	full   = entry("full", kvcache.Window{Recent: kvcache.Full})
	narrow = entry("narrow", kvcache.Window{Recent: 1})
)

// options asks for a look around of six frames after two given ones.
func options(t testing.TB, e *rollout.Engine, entries ...compare.Entry) compare.Options {
	episode, err := world.NewEpisode(7, 8, world.LookAround, 2)
	if err != nil {
		t.Fatal(err)
	}
	o := compare.Options{Engine: e, Frames: 8, Entries: entries, Frontiers: []int{5}, Span: 3, OneStep: true, Stills: 2}
	o.Truth = func(i int) video.Frame {
		f := video.NewFrame(64, 64)
		episode.World.Render(f.Pix, episode.Poses[i], 64, 64)
		return f
	}
	o.Request = rollout.Request{Prompt: episode.Prompt(), Seed: 7, Steps: 1, Heading: episode.Poses[0].Heading}
	for i, a := range episode.Actions {
		o.Actions = append(o.Actions, int(a))
		if i < 3 {
			o.Request.Start, o.Request.StartActions = append(o.Request.Start, o.Truth(i)), append(o.Request.StartActions, int(a))
		}
	}
	for _, at := range world.Revisits(episode.Poses, 3) {
		o.Seen = append(o.Seen, at >= 0)
	}
	return o
}

func TestAComparisonFindsWhatAPolicyForgets(t *testing.T) {
	e := modeltest.TinyWorld(t, cpu.Options{})
	o := options(t, e, full, entry("same", kvcache.Window{Recent: 100}), narrow)
	o.Ceiling = &compare.Ceiling{How: "later keys first"}
	said := map[string]int{}
	o.Progress = func(what string, done, total int) { said[what] = done }
	r, err := compare.Policies(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	if r.Setup.Given != 3 || r.Setup.Frames != 8 || len(r.Runs) != 3 || r.TruthFrames != 5 || len(r.TruthStrip) != 2 {
		t.Errorf("report of %+v, %d runs, %d true frames", r.Setup, len(r.Runs), r.TruthFrames)
	}
	reference, same, narrow := r.Runs[0], r.Runs[1], r.Runs[2]
	if same.FramesHash != reference.FramesHash || same.Mean.Equal != 5 || same.FirstDiverged != -1 || same.Mean.PSNR != 100 {
		t.Errorf("a window that forgets nothing differs: %+v", same.Mean)
	}
	if narrow.Mean.Equal == 5 || !(narrow.Mean.PSNR < 60) || narrow.FirstDiverged < 3 || !(narrow.TruthMean < reference.TruthMean) {
		t.Errorf("a window of one frame: %+v, first diverged %d, truth %v against %v", narrow.Mean, narrow.FirstDiverged, narrow.TruthMean, reference.TruthMean)
	}
	for _, run := range append(r.Runs, *r.Ceiling) {
		if len(run.Frontiers) != 2 || run.Frontiers[0].Frame != 5 || run.Frontiers[1].Frame != 8 || len(run.ChunkSeconds) != 5 || len(run.Strip) != 2 {
			t.Fatalf("%s: frontiers %+v", run.Policy.Name, run.Frontiers)
		}
		f := run.Frontiers[1]
		if f.Chunks != 3 || f.FPS <= 0 || f.P50 > f.P95 || f.CacheBytes <= 0 || f.Denoise <= 0 {
			t.Errorf("%s: speed %+v", run.Policy.Name, f.Speed)
		}
	}
	if d := reference.Frontiers[1].Density; d != 1 {
		t.Errorf("a full cache has density %v", d)
	}
	if q := same.Frontiers[1].OneStep; q == nil || q.Equal != 1 || q.From != 7 || q.To != 8 {
		t.Errorf("one step of an equal policy: %+v", q)
	}
	if q := narrow.Frontiers[1].OneStep; q == nil || q.Equal != 0 || !(q.PSNR > 10 && q.PSNR < 60) {
		t.Errorf("one step of a window of one frame: %+v", q)
	}
	for i, near := range [2][]compare.Decibel{same.Frontiers[1].Around, narrow.Frontiers[1].Around} {
		if len(near) != 2 || (near[0] >= 100) != (i == 0) || !(near[1] > 10) { // the chunks of frames 5 and 6; that of 4 ends at the frontier before
			t.Errorf("single chunks before the end: %v", near)
		}
	}
	if c := r.Ceiling; !(c.Mean.PSNR > 40) {
		t.Errorf("the ceiling is %+v, expected close", c.Mean)
	}
	if said["narrow"] != 8 || said["narrow, one step"] != 7 || said["ceiling"] != 8 {
		t.Errorf("progress %v", said)
	}
	roundTrip(t, r)
}

// roundTrip writes and reads JSON: nothing may be lost, save digits.
func roundTrip[T any](t *testing.T, r *T) {
	t.Helper()
	first, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	back := new(T)
	d := json.NewDecoder(bytes.NewReader(first))
	d.DisallowUnknownFields()
	if err := d.Decode(back); err != nil {
		t.Fatal(err)
	}
	second, err := json.Marshal(back)
	if err != nil || !bytes.Equal(first, second) {
		t.Errorf("JSON changes when it is read and written again (%v):\n%.600s\n%.600s", err, first, second)
	}
}

func TestAnotherOrderOfKeysDiffersByRoundingOnly(t *testing.T) {
	e := modeltest.TinyWorld(t, cpu.Options{})
	o := options(t, e, full)
	var latents [2][]float32
	for i, maker := range []attention.Maker{attention.Dense{}, compare.Reordered{}} {
		o.Request.Self = maker
		s, err := e.NewSession(t.Context(), o.Request)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Next(t.Context(), o.Actions[3]); err != nil {
			t.Fatal(err)
		}
		latents[i], _ = s.Latents()
		s.Close()
	}
	worst := 0.0
	for i, v := range latents[0] {
		worst = max(worst, math.Abs(float64(v-latents[1][i])))
	}
	limit := 1e-3
	if e.Device.Types().Cache == compute.BF16 { // multiplies in it, too: measured 3e-3
		limit *= 32
	}
	if worst == 0 || worst > limit {
		t.Errorf("latents differ by up to %v, at most %v", worst, limit)
	}
}

func TestDecibelsAndFractionsSurviveJSON(t *testing.T) {
	in := []compare.Decibel{31.25, compare.Decibel(math.Inf(1)), compare.Unmeasured}
	b, err := json.Marshal(in)
	if err != nil || string(b) != `[31.25,"inf",null]` {
		t.Fatalf("%s, %v", b, err)
	}
	var out []compare.Decibel
	if err := json.Unmarshal(b, &out); err != nil || out[0] != in[0] || !math.IsInf(float64(out[1]), 1) || out[2].Measured() {
		t.Errorf("read %v, %v", out, err)
	}
	b, _ = json.Marshal([]compare.Fraction{0.5, compare.Fraction(math.NaN())})
	var f []compare.Fraction
	if err := json.Unmarshal(b, &f); err != nil || f[0] != 0.5 || !math.IsNaN(float64(f[1])) {
		t.Errorf("read %v of %s, %v", f, b, err)
	}
	if json.Unmarshal([]byte(`"many"`), &out[0]) == nil {
		t.Error("a word passed for decibels")
	}
}

func TestImpossibleComparisonsAreRefused(t *testing.T) {
	e := modeltest.TinyWorld(t, cpu.Options{})
	for want, change := range map[string]func(*compare.Options){
		"no policies":         func(o *compare.Options) { o.Entries = nil },
		"listed twice":        func(o *compare.Options) { o.Entries = append(o.Entries, o.Entries[0]) },
		"nothing to compare":  func(o *compare.Options) { o.Frames = 3 },
		"frontier 0":          func(o *compare.Options) { o.Frontiers = []int{0} },
		"another order":       func(o *compare.Options) { o.Entries[0].Looks, o.Ceiling = compare.Reordered{}, &compare.Ceiling{} },
		"action 99":           func(o *compare.Options) { o.Actions[5] = 99 },
		"counts must not be":  func(o *compare.Options) { o.Entries[0].Keeps = kvcache.Window{Recent: -5} },
		"5000 denoising step": func(o *compare.Options) { o.Request.Steps = 5000 },
	} {
		o := options(t, e, full)
		change(&o)
		if _, err := compare.Policies(t.Context(), o); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want %q: %v", want, err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	o := options(t, e, full)
	o.Progress = func(string, int, int) { cancel() }
	if _, err := compare.Policies(ctx, o); !errors.Is(err, context.Canceled) {
		t.Errorf("a cancelled comparison says %v", err)
	}
}

func TestFrontiersEndWithTheVideo(t *testing.T) {
	if got := compare.DefaultFrontiers(); !reflect.DeepEqual(got, []int{100, 500, 1000, 2000, 3000}) {
		t.Errorf("default frontiers %v", got)
	}
}

func TestRunsSideBySideFindTheSameAsRunsInTurn(t *testing.T) {
	e := modeltest.TinyWorld(t, cpu.Options{})
	o := options(t, e, full, narrow)
	o.Ceiling = &compare.Ceiling{How: "later keys first"}
	var reports [2]*compare.Report
	for i, parallel := range []int{1, 3} {
		o.Parallel, o.Alone = parallel, 1
		var err error
		if reports[i], err = compare.Policies(t.Context(), o); err != nil {
			t.Fatal(err)
		}
		roundTrip(t, reports[i])
	}
	a, b := reports[0], reports[1]
	for i, run := range append(a.Runs, *a.Ceiling) {
		other := append(b.Runs, *b.Ceiling)[i]
		if run.FramesHash != other.FramesHash || run.Mean != other.Mean {
			t.Errorf("%s: frames or quality differ: %+v, %+v", run.Policy.Name, run.Mean, other.Mean)
		}
		for k, f := range run.Frontiers {
			g := other.Frontiers[k]
			if g.Chunks < 1 || g.FPS <= 0 || g.Attend <= 0 || g.Tokens != f.Tokens || i > 0 && *f.OneStep != *g.OneStep || !slices.Equal(f.Around, g.Around) {
				t.Errorf("%s, frame %d: %+v, %+v", run.Policy.Name, f.Frame, f, g)
			}
		}
		if len(other.ChunkSeconds) != 5 || !(other.Total > 0 && other.ComponentSpeedup > 0) {
			t.Errorf("%s: times %v, total %v", run.Policy.Name, other.ChunkSeconds, other.Total)
		}
	}
}

func TestALimitOfTimeEndsAtAFrontier(t *testing.T) {
	e := modeltest.TinyWorld(t, cpu.Options{})
	o := options(t, e, full, narrow)
	o.Frames, o.Frontiers, o.Truth = 100_000, []int{5, 9, 100}, nil
	over := false
	o.Late = func() bool { return over }
	if err := o.Check(); err == nil || !errors.Is(err, rollout.ErrRequest) {
		t.Errorf("a limit for runs in turn: %v", err)
	}
	o.Parallel, o.Alone = 2, 1
	var made atomic.Int64
	o.Progress = func(string, int, int) { made.Add(1) }
	o.Late = func() bool { return made.Load() > 40 }
	r, err := compare.Policies(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	if r.Asked != 100_000 || r.Setup.Frames != r.Frontiers[len(r.Frontiers)-1] || len(r.Runs[1].PSNR) != r.Setup.Frames {
		t.Errorf("asked %d, made %d, frontiers %v", r.Asked, r.Setup.Frames, r.Frontiers)
	}
	for _, run := range r.Runs {
		if len(run.Frontiers) != len(r.Frontiers) || len(run.ChunkSeconds) != r.Setup.Frames-3 {
			t.Errorf("%s: %d frontiers, %d chunks", run.Policy.Name, len(run.Frontiers), len(run.ChunkSeconds))
		}
	}
	o.Late = func() bool { return true }
	if _, err := compare.Policies(t.Context(), o); err == nil || !strings.Contains(err.Error(), "out of time") {
		t.Errorf("no time at all: %v", err)
	}
}

func TestAFreeRunMayEndBeforeTheVideo(t *testing.T) {
	e := modeltest.TinyWorld(t, cpu.Options{})
	endless := entry("endless", kvcache.Window{Recent: kvcache.Full})
	endless.Unbounded = true
	o := options(t, e, full, endless, narrow)
	o.Parallel, o.Alone, o.Free, o.Frontiers, o.OneStep = 3, 1, 5, []int{5}, false
	if err := o.Check(); err == nil {
		t.Error("free runs end early and nothing goes on")
	}
	o.OneStep = true
	solo := 0
	o.Solo = func(on bool) { solo++ }
	r, err := compare.Policies(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	roundTrip(t, r)
	run := r.Runs[1]
	if run.FreeFrames != 5 || r.Runs[2].FreeFrames != 8 || len(run.PSNR) != 8 || run.PSNR[6].Measured() || !run.PSNR[4].Measured() || solo == 0 {
		t.Errorf("free to %d, PSNR %v, solo %d", run.FreeFrames, run.PSNR, solo)
	}
	last := run.Frontiers[1] // its last chunk is only looked at: sizes are those before
	if last.Chunks < 1 || last.Tokens != 7*64 || last.OneStep.Equal != 1 || last.Quality.PSNR.Measured() || len(run.ChunkSeconds) != 5 {
		t.Errorf("at the end %+v, %d chunks", last, len(run.ChunkSeconds))
	}
}
