package main

import (
	"bytes"
	"image/png"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"longtake/api"
	"longtake/client"
	"longtake/serve"
	"longtake/video"

	"net/http/httptest"
)

// hostedWan is a server of a model without a simulator, from its files.
func hostedWan(t *testing.T, family string) (*hosting, *client.Client, error) {
	t.Helper()
	f := serveFlags{machineFlags: machineFlags{modelFlags: modelFlags{Model: tinySet(t, family, nil), Size: "48x64", VAE: "tiny"}, Device: "cpu", Quiet: true},
		Idle: time.Minute, Life: time.Hour, Data: t.TempDir()}
	h, err := f.open(t.Context(), &streams{nil, os.Stdout, os.Stderr, time.Now()}, 0, serve.Options{})
	if err != nil {
		return nil, nil, err
	}
	web := httptest.NewServer(h.server)
	t.Cleanup(func() { h.close(); web.Close() })
	return h, &client.Client{URL: web.URL}, nil
}

// Start, prompt and length are all that a model without a simulator takes.
func TestAModelWithoutASimulatorIsServed(t *testing.T) {
	h, c, err := hostedWan(t, "self-forcing")
	if err != nil {
		t.Fatal(err)
	}
	list, err := c.Models(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, p := range list.Data[0].Policies {
		names = append(names, p.Name)
	}
	if !slices.Equal(names, []string{"window", "fast", "balanced"}) || len(list.Data[0].Actions) != 0 || list.Data[0].ID != "self-forcing" {
		t.Fatalf("%+v", list.Data[0])
	}
	dog := "a dog in the sea"
	x, err := c.CreateSession(t.Context(), api.SessionRequest{Mode: api.Step, Seed: 7, Prompt: &dog})
	if err != nil {
		t.Fatal(err)
	}
	frames := 0
	step := func(q api.StepRequest) (r api.StepResult) {
		t.Helper()
		if q.Format = "raw"; q.Prompt != nil {
			q.Format = "none"
		}
		if r, err = c.Step(t.Context(), x.ID, q); err != nil {
			t.Fatal(err)
		}
		frames += len(r.Observations)
		return r
	}
	step(api.StepRequest{})
	if frames != 9 { // 1 + 4 + 4: the first latent frame is one frame
		t.Errorf("%d frames in the first chunk", frames)
	}
	step(api.StepRequest{ActionIDs: []int{0, 0}})
	if frames != 9+24 {
		t.Errorf("%d frames in three chunks", frames)
	}
	cat := "a cat at night"
	step(api.StepRequest{Prompt: &cat})
	if _, err := c.Control(t.Context(), x.ID, api.Control{Type: "policy", Policy: "fast"}); err != nil {
		t.Fatal(err)
	}
	last := step(api.StepRequest{})
	for _, q := range []api.StepRequest{{ActionIDs: []int{1}}, {Actions: []string{"forward"}}} {
		if _, err := c.Step(t.Context(), x.ID, q); err == nil || !strings.Contains(err.Error(), "follows no actions") {
			t.Errorf("actions: %v", err)
		}
	}
	if err := c.DeleteSession(t.Context(), x.ID); err != nil {
		t.Fatal(err)
	}
	log := filepath.Join(h.data, "logs", x.ID+".jsonl")
	got := parse[replayed](t, succeed(t, "replay", log, "--json", "--device", "cpu", "--model", h.lab.flags.Model, "--size", "48x64", "--vae", "tiny").out)
	if !got.Same || got.SHA256 != last.Digest || got.Chunks != 5 {
		t.Errorf("%+v, the session's digest was %s", got, last.Digest)
	}
}

func TestAServedModelWithoutASimulatorSaysWhatMakesNoSense(t *testing.T) {
	_, c, err := hostedWan(t, "longlive")
	if err != nil {
		t.Fatal(err)
	}
	_, err = c.CreateSession(t.Context(), api.SessionRequest{Mode: api.Step, Start: "sim:3"})
	if err == nil || !strings.Contains(err.Error(), "knows no simulator") {
		t.Errorf("start sim: %v", err)
	}
	if _, err := c.CreateVideo(t.Context(), api.VideoRequest{Actions: "w5", NumFrames: 9}); err == nil || !strings.Contains(err.Error(), "follows none") {
		t.Errorf("actions: %v", err)
	}
	var picture bytes.Buffer
	if err := png.Encode(&picture, video.NewFrame(48, 64).RGBA(nil)); err != nil {
		t.Fatal(err)
	}
	v, err := c.CreateVideo(t.Context(), api.VideoRequest{NumFrames: 14, Image: picture.Bytes()})
	if err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(time.Minute); v.Status != "completed"; {
		if v, err = c.Video(t.Context(), v.ID); err != nil || v.Status == "failed" || time.Now().After(end) {
			t.Fatalf("%+v %v", v, err)
		}
		time.Sleep(10 * time.Millisecond)
	}
	var out bytes.Buffer
	if err := c.VideoContent(t.Context(), v.ID, &out); err != nil || out.Len() < 500 || v.NumFrames != 14 {
		t.Errorf("%d bytes of %+v (%v)", out.Len(), v, err)
	}
	if _, _, err := hostedWan(t, "rolling-forcing"); err == nil || !strings.Contains(err.Error(), "rolling window") {
		t.Errorf("rolling: %v", err)
	}
	if r := longtake(t, "serve", "--listen", "127.0.0.1:0", "--no-data", "--prompt", "a cat"); r.code != exitUsage || !strings.Contains(r.err, "--prompt") {
		t.Errorf("--prompt of the embedded model: %d %s", r.code, r.err)
	}
}

func TestModelsWithoutASimulatorAreComparedAndMeasured(t *testing.T) {
	dir := tinySet(t, "self-forcing", nil)
	model := []string{"--model", dir, "--size", "48x32", "--vae", "tiny", "--prompt", "a cat", "--frames", "13", "--quiet", "--device", "cpu"}
	report := filepath.Join(t.TempDir(), "r.json")
	succeed(t, append([]string{"compare", "--policies", "window; preset:fast", "--ceiling", "none", "-o", report}, model...)...)
	raw, err := os.ReadFile(report)
	if err != nil || !bytes.Contains(raw, []byte(`"a cat"`)) {
		t.Errorf("report of %d bytes (%v)", len(raw), err)
	}
	if r := succeed(t, append([]string{"bench", "--policies", "window", "--frontiers", "9"}, model...)...); !strings.Contains(r.out, "BenchmarkRollout/policy=window/frames=13") {
		t.Errorf("bench: %s", r.out)
	}
	for _, command := range []string{"compare", "bench"} {
		for want, args := range map[string][]string{"follows none": {"--actions", "w5"}, "knows no simulator": {"--start", "sim"}, "only the simulator gives": {"--given", "2"}} {
			if r := longtake(t, append(append([]string{command, "--policies", "window"}, model...), args...)...); r.code != exitUsage || !strings.Contains(r.err, want) {
				t.Errorf("%s %v: %d %s", command, args, r.code, r.err)
			}
		}
	}
	if r := longtake(t, "compare", "--model", dir, "--frames", "13"); r.code != exitUsage || !strings.Contains(r.err, "--model "+dir+" needs a --prompt") {
		t.Errorf("no prompt: %d %s", r.code, r.err)
	}
}
