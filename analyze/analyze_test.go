package analyze

import (
	"bytes"
	"context"
	"encoding/json"
	"encoding/xml"
	"errors"
	"io"
	"math"
	"slices"
	"strings"
	"testing"

	"longtake/compute/cpu"
	"longtake/kvcache"
	"longtake/model/modeltest"
	"longtake/rollout"
	"longtake/video"
	"longtake/world"
)

// products is an index that computes them.
type products struct {
	width int
	keys  []float32
}

func (p *products) Put(slot int, key []float32) { copy(p.keys[slot*p.width:], key) }
func (p *products) Score(dst, query []float32, lo int) {
	for i := range dst {
		dst[i] = dot(query, p.keys[(lo+i)*p.width:][:p.width])
	}
}

// blind ranks nothing but slot 0.
type blind struct{}

func (blind) Put(int, []float32) {}
func (blind) Score(dst, _ []float32, lo int) {
	for i := range dst {
		dst[i] = float32(math.Inf(-1))
		if lo+i == 0 {
			dst[i] = 0
		}
	}
}

// options asks for two given and four generated frames.
func options(t *testing.T, e *rollout.Engine) Options {
	t.Helper()
	episode, err := world.NewEpisode(7, 6, world.LookAround, 3)
	if err != nil {
		t.Fatal(err)
	}
	o := Options{Engine: e, Frames: 6, At: []int{5, 3}, Pass: -1, Layers: []int{4, 1}, Thresholds: []float64{0.9, 1.1}, Words: strings.Fields(episode.Prompt())}
	o.Request = rollout.Request{Prompt: episode.Prompt(), Seed: 7, Steps: 2, Heading: episode.Poses[0].Heading}
	for i, a := range episode.Actions {
		o.Actions = append(o.Actions, int(a))
		if i < 2 {
			f := video.NewFrame(64, 64)
			episode.World.Render(f.Pix, episode.Poses[i], 64, 64)
			o.Request.Start, o.Request.StartActions = append(o.Request.Start, f), append(o.Request.StartActions, int(a))
		}
	}
	o.Trials = []Trial{{Name: "full", Cache: kvcache.Window{Recent: kvcache.Full}}, {Name: "narrow", Cache: kvcache.Window{Recent: 1}}}
	o.Matchers = []Matcher{{Name: "products", New: func(width, slots int) Index { return &products{width, make([]float32, width*slots)} }},
		{Name: "blind", New: func(int, int) Index { return blind{} }}}
	return o
}

func TestAStudyOfTheEmbeddedModel(t *testing.T) {
	e := modeltest.TinyWorld(t, cpu.Options{})
	o := options(t, e)
	s, err := Run(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(s.At, []int{3, 5}) || !slices.Equal(s.Layers, []int{1, 4}) || s.Pass != 1 || len(s.clip.moments) != 2 || len(s.clip.frames) != 6 {
		t.Fatalf("studied %+v", s)
	}
	for _, r := range s.Recall {
		last := len(r.Mass) - 1
		if !slices.IsSorted(r.Mass) || math.Abs(r.Mass[last]-1) > 1e-9 || !(r.Own > 0.05 && r.Own < 0.95) || !(r.Previous > 0.1) || math.Abs(r.Last8-1) > 1e-9 || r.Older32 != 0 {
			t.Errorf("recall %+v", r)
		}
	}
	for _, v := range s.Similarity {
		if !(v.Best[0] >= v.Same[0] && v.BestAll >= v.Best[0] && v.BestAll <= 1.0001 && v.Pair < v.Same[0]) {
			t.Errorf("similarity %+v", v)
		}
	}
	for _, u := range s.Prompt {
		if len(u.Mass) != len(s.Words) || math.Abs(total(u.Mass)-1) > 1e-6 || !(u.Query90 < u.Frame90 && u.Frame90 < u.Frame95 && u.Frame95 < u.Frame99) {
			t.Errorf("prompt %+v", u)
		}
	}
	if s.Words[0] != "you" {
		t.Errorf("the first word is %q", s.Words[0])
	}
	if full, narrow := s.Trials[0], s.Trials[1]; full.Error != 0 || full.Kept != 1 || !(narrow.Error > 0.01 && narrow.Kept < 0.7 && narrow.Cosine < 1) {
		t.Errorf("trials %+v", s.Trials)
	}
	if exact, blind := s.Matchers[0], s.Matchers[1]; exact.Looked != 1 || math.Abs(exact.Mass[2]-exact.Exact[2]) > 1e-6 || blind.Looked > 0.01 || !(blind.Mass[3] < 0.2) {
		t.Errorf("matchers %+v", s.Matchers)
	}
	for _, m := range s.Merging {
		if m.Threshold > 1 && (m.Kept != 1 || math.Abs(m.Recall-1) > 1e-5) {
			t.Errorf("nothing merged, yet %+v", m)
		}
		if m.Threshold < 1 && !(m.Kept < 1 && m.Recall > 0.5 && m.Recall <= 1.00001) {
			t.Errorf("merging %+v", m)
		}
	}
	drawn(t, s)
}

// drawn checks the page and the files of a study.
func drawn(t *testing.T, s *Study) {
	t.Helper()
	s.Setup.Prompt = "<script>alert(1)</script>"
	s.maps[0].word = "</td><script>"
	page, files := s.Draw()
	var b bytes.Buffer
	if err := page.Write(&b); err != nil {
		t.Fatal(err)
	}
	names := map[string]bool{}
	check := func(name string, data []byte) {
		for d := xml.NewDecoder(bytes.NewReader(data)); ; {
			token, err := d.Token()
			if errors.Is(err, io.EOF) {
				return
			}
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			if e, ok := token.(xml.StartElement); ok && e.Name.Local == "script" {
				t.Fatalf("%s: text became an element", name)
			}
		}
	}
	check("page", b.Bytes())
	if strings.Contains(b.String(), "NaN") {
		t.Error("the page shows NaN")
	}
	for _, f := range files {
		if names[f.Name] || len(f.Data) == 0 || strings.ContainsAny(f.Name, "/<> ") {
			t.Errorf("file %q of %d bytes", f.Name, len(f.Data))
		}
		names[f.Name] = true
		if strings.HasSuffix(f.Name, ".svg") {
			check(f.Name, f.Data)
		}
	}
	for _, want := range []string{"recall.svg", "similarity-best.svg", "components-layer4.png", "prompt.svg", "correspondence-layer1.svg", "merging-kept.svg", "cache-kept.svg", "matchers-0.svg"} {
		if !names[want] {
			t.Errorf("there is no %s", want)
		}
	}
	if _, err := json.Marshal(s); err != nil {
		t.Error(err)
	}
}

func TestImpossibleStudiesAreRefused(t *testing.T) {
	e := modeltest.TinyWorld(t, cpu.Options{})
	for want, change := range map[string]func(*Options){
		"nothing to study":   func(o *Options) { o.Frames = 2 },
		"frame 1 cannot":     func(o *Options) { o.At = []int{1} },
		"frame 6 cannot":     func(o *Options) { o.At = []int{6} },
		"layer 6":            func(o *Options) { o.Layers = []int{6} },
		"pass 2":             func(o *Options) { o.Pass = 2 },
		"5000 denoising":     func(o *Options) { o.Request.Steps = 5000 },
		"must not be negati": func(o *Options) { o.Trials[0].Cache = kvcache.Window{Recent: -5} },
	} {
		o := options(t, e)
		change(&o)
		if _, err := Run(t.Context(), o); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want %q: %v", want, err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	o := options(t, e)
	o.Progress = func(string, int, int) { cancel() }
	if _, err := Run(ctx, o); !errors.Is(err, context.Canceled) {
		t.Errorf("a cancelled study says %v", err)
	}
}
