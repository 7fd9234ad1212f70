package annca_test

import (
	"flag"
	"math"
	"testing"

	"longtake/accel/ann"
	"longtake/accel/annca"
	"longtake/attention"
	"longtake/compute/cpu"
	"longtake/kvcache"
	"longtake/model/modeltest"
	"longtake/rollout"
	"longtake/video"
	"longtake/video/metric"
	"longtake/world"
)

var (
	measureFlag = flag.Bool("measure", false, "measure on the embedded model and print a table")
	clips       = flag.Int("clips", 3, "clips of a measurement")
)

// lookBack generates what follows the first known frames of a look around.
func lookBack(t *testing.T, e *rollout.Engine, seed uint32, known, frames int, cross attention.Maker) (got, truth []video.Frame) {
	t.Helper()
	c, err := world.NewEpisode(seed, frames, world.LookAround, 30)
	if err != nil {
		t.Fatal(err)
	}
	r := rollout.Request{Prompt: c.Prompt(), Seed: 7, Heading: c.Poses[0].Heading, Cache: kvcache.Window{Recent: kvcache.Full}, Cross: cross}
	for i, pose := range c.Poses {
		f := video.NewFrame(64, 64)
		c.World.Render(f.Pix, pose, 64, 64)
		if i < known {
			r.Start, r.StartActions = append(r.Start, f), append(r.StartActions, int(c.Actions[i]))
		} else {
			truth = append(truth, f)
		}
	}
	s, err := e.NewSession(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for _, a := range c.Actions[known:] {
		f, err := s.Next(t.Context(), int(a))
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, f...)
	}
	return got, truth
}

// psnr is of the mean squared error over all frames.
func psnr(t *testing.T, a, b []video.Frame) float64 {
	sum := 0.0
	for i := range a {
		d, err := metric.PSNR(a[i], b[i])
		if err != nil {
			t.Fatal(err)
		}
		sum += math.Pow(10, -d/10)
	}
	return -10 * math.Log10(sum/float64(len(a)))
}

// TestMeasure prints README.md's table: go test ./accel/annca -run Measure -measure -v -timeout 1h
func TestMeasure(t *testing.T) {
	if !*measureFlag {
		t.Skip("minutes of measuring: -run Measure -measure -v -timeout 1h")
	}
	e := modeltest.TinyWorld(t, cpu.Options{Threads: 2})
	const known, frames = 31, 61
	var dense [][]video.Frame
	sum := 0.0
	for i := range *clips {
		f, truth := lookBack(t, e, uint32(61000+i), known, frames, nil)
		dense = append(dense, f)
		sum += psnr(t, f, truth) / float64(*clips)
	}
	t.Logf("dense: %.2f dB to the truth, %d clips", sum, *clips)
	t.Log("| matcher | top | prompt kept | mass kept | to dense | to truth | deciding, ms a frame |")
	for _, v := range []struct {
		matcher string
		top     int
	}{{"exact", 1}, {"exact", 2}, {"exact", 4}, {"lsh64", 1}, {"lsh64", 2}, {"lsh64", 4}, {"quant2", 1}, {"quant8", 1}, {"lsh8x2+0", 0}, {"lsh8x4+1", 0}} {
		matcher, err := ann.Parse(v.matcher)
		if err != nil {
			t.Fatal(err)
		}
		probe := &attention.Probe{Inner: annca.Options{Matcher: matcher, Top: v.top}, Every: 4}
		toDense, toTruth := 0.0, 0.0
		for i := range *clips {
			f, truth := lookBack(t, e, uint32(61000+i), known, frames, probe)
			toDense += psnr(t, f, dense[i]) / float64(*clips)
			toTruth += psnr(t, f, truth) / float64(*clips)
		}
		density, recall, deciding := 0.0, 0.0, 0.0
		for _, m := range probe.Results() {
			density += m.Density / 6
			recall += m.Recall / 6
			deciding += m.Deciding.Seconds() * 1e3 / float64(frames**clips)
		}
		t.Logf("| %s | %d | %.2f | %.3f | %.1f | %.2f | %.1f |", v.matcher, v.top, density, recall, toDense, toTruth, deciding)
	}
}

func TestTheEmbeddedModelFollowsFewerWords(t *testing.T) {
	e := modeltest.TinyWorld(t, cpu.Options{Threads: 2})
	dense, _ := lookBack(t, e, 61000, 6, 8, nil)
	all, _ := lookBack(t, e, 61000, 6, 8, annca.Options{All: true})
	if d := psnr(t, all, dense); !math.IsInf(d, 1) {
		t.Errorf("with all tokens %.1f dB, want the same bits", d)
	}
	o := annca.Default()
	if held, _ := lookBack(t, e, 61000, 6, 8, o); !math.IsInf(psnr(t, held, dense), 1) {
		t.Error("a prompt that is too short to gain from is not attended to whole")
	}
	o.From = 0 // the prompt is short
	got, _ := lookBack(t, e, 61000, 6, 8, o)
	if d := psnr(t, got, dense); !(d > 35) {
		t.Errorf("%v: %.1f dB to dense", o, d)
	}
}

func TestBadOptionsAreRefused(t *testing.T) {
	for _, o := range []annca.Options{{Top: -1}, {Matcher: ann.LSH{Bits: 64}}, {}, {Matcher: ann.Scalar(8)}} {
		if o.Check() == nil {
			t.Errorf("accepted %+v", o)
		}
	}
	for _, o := range []annca.Options{annca.Default(), annca.Paper(), {All: true}} {
		if err := o.Check(); err != nil {
			t.Error(err)
		}
	}
}
