package serve

import (
	"encoding/json"
	"flag"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"longtake/api"
)

var update = flag.Bool("update", false, "rewrite openapi.json")

func (r *rig) step(id string, actions ...string) api.StepResult {
	r.t.Helper()
	return call2[api.StepResult](r, "POST", "/v1/sessions/"+id+"/step", api.StepRequest{Actions: actions, Format: "raw"}, http.StatusOK)
}

func (r *rig) create(q api.SessionRequest) api.Session {
	r.t.Helper()
	return call2[api.Session](r, "POST", "/v1/sessions", q, http.StatusCreated)
}

func TestALockStepSessionIsDeterministic(t *testing.T) {
	r := newRig(t, nil)
	var sums []string
	for range 2 {
		x := r.create(api.SessionRequest{Mode: api.Step, Seed: 7})
		r.step(x.ID, "noop", "forward")
		got := r.step(x.ID, "left")
		if got.Chunk != 3 || len(got.Observations) != 1 || len(got.Observations[0].Data) != 3*toySize*toySize {
			t.Fatalf("%+v", got)
		}
		sums = append(sums, got.Digest)
		call2[api.Deleted](r, "DELETE", "/v1/sessions/"+x.ID, nil, http.StatusOK)
		if status, _, _ := r.do("GET", "/v1/sessions/"+x.ID, nil); status != http.StatusNotFound {
			t.Fatalf("a deleted session answers %d", status)
		}
	}
	other := r.create(api.SessionRequest{Mode: api.Step, Seed: 8})
	if sums[0] != sums[1] || r.step(other.ID, "noop", "forward", "left").Digest == sums[0] {
		t.Fatal("the seed does not decide the frames")
	}
}

func TestAForkGoesOnAsItsOriginal(t *testing.T) {
	r := newRig(t, nil)
	x := r.create(api.SessionRequest{Mode: api.Step, Seed: 3, Compare: "fast"})
	r.step(x.ID, "noop", "forward", "forward")
	prompt := "night"
	call2[api.StepResult](r, "POST", "/v1/sessions/"+x.ID+"/step", api.StepRequest{ActionIDs: []int{2}, Prompt: &prompt, Format: "none"}, http.StatusOK)
	fork := call2[api.Session](r, "POST", "/v1/sessions/"+x.ID+"/fork", nil, http.StatusCreated)
	_, log, _ := r.do("GET", "/v1/sessions/"+x.ID+"/snapshot", nil)
	restored := call2[api.Session](r, "POST", "/v1/restore?mode=step", string(log), http.StatusCreated)
	want := r.step(x.ID, "left", "noop").Digest
	for _, id := range []string{fork.ID, restored.ID} {
		if got := r.step(id, "left", "noop"); got.Digest != want || got.Chunk != 6 {
			t.Fatalf("chunk %d, digest %s, want %s", got.Chunk, got.Digest, want)
		}
	}
	// A log whose frames are others is refused in the end.
	bad := strings.Replace(string(log), `"seed":3`, `"seed":4`, 1)
	y := call2[api.Session](r, "POST", "/v1/restore", bad, http.StatusCreated)
	await(t, "the end of a session that diverged", func() bool {
		status, _, _ := r.do("GET", "/v1/sessions/"+y.ID, nil)
		return status == http.StatusNotFound
	})
}

func TestBadRequestsAreExplained(t *testing.T) {
	r := newRig(t, nil)
	step := r.create(api.SessionRequest{Mode: api.Step}).ID
	live := r.create(api.SessionRequest{}).ID
	prompt := strings.Repeat("p", api.MaxPromptBytes+1)
	for _, c := range []struct {
		method, path string
		in           any
		status       int
	}{
		{"POST", "/v1/sessions", `{"seed":"x"}`, 400},
		{"POST", "/v1/sessions", `{"unknown":1}`, 400},
		{"POST", "/v1/sessions", `{} {}`, 400},
		{"POST", "/v1/sessions", `[`, 400},
		{"POST", "/v1/sessions", api.SessionRequest{Policy: "best"}, 400},
		{"POST", "/v1/sessions", api.SessionRequest{Compare: "../window"}, 400},
		{"POST", "/v1/sessions", api.SessionRequest{Mode: "dream"}, 400},
		{"POST", "/v1/sessions", api.SessionRequest{FPS: 1e6}, 400},
		{"POST", "/v1/sessions", api.SessionRequest{Start: "/etc/passwd"}, 400},
		{"POST", "/v1/sessions", api.SessionRequest{Prompt: &prompt}, 400},
		{"POST", "/v1/sessions", api.SessionRequest{Image: make([]byte, 2<<20)}, 400},
		{"POST", "/v1/sessions", api.SessionRequest{Model: "gpt"}, 404},
		{"POST", "/v1/sessions", strings.Repeat(" ", 11<<20), 413},
		{"PUT", "/v1/sessions", nil, 405},
		{"GET", "/v1/sessions/ses_nothing", nil, 404},
		{"GET", "/v1/sessions/..%2f..%2fetc", nil, 404},
		{"GET", "/v1/logs/..%2f..%2fetc%2fpasswd", nil, 404},
		{"GET", "/v1/recordings/rec_aaaaaaaaaaaaaaaaaaaaaaaaaa/content", nil, 404},
		{"GET", "/nothing", nil, 404},
		{"POST", "/v1/sessions/" + step + "/step", api.StepRequest{}, 400},
		{"POST", "/v1/sessions/" + step + "/step", api.StepRequest{ActionIDs: []int{3}}, 400},
		{"POST", "/v1/sessions/" + step + "/step", api.StepRequest{ActionIDs: []int{-1}}, 400},
		{"POST", "/v1/sessions/" + step + "/step", api.StepRequest{Actions: []string{"fly"}}, 400},
		{"POST", "/v1/sessions/" + step + "/step", api.StepRequest{ActionIDs: make([]int, 257)}, 400},
		{"POST", "/v1/sessions/" + step + "/step", api.StepRequest{ActionIDs: []int{0}, Format: "bmp"}, 400},
		{"POST", "/v1/sessions/" + live + "/step", api.StepRequest{ActionIDs: []int{0}}, 409},
		{"POST", "/v1/sessions/" + live + "/control", `{"type":"shutdown"}`, 400},
		{"DELETE", "/v1/sessions/" + live + "/recording", nil, 409},
		{"POST", "/v1/sessions/" + live + "/recording", nil, 503},
		{"GET", "/v1/sessions/" + live + "/stream", nil, 400},
		{"GET", "/v1/sessions/" + live + "/stream?protocol_version=1", nil, 426},
		{"GET", "/v1/sessions/" + live + "/stream?protocol_version=1&format=gif", nil, 400},
		{"GET", "/v1/play?protocol_version=1&seed=x", nil, 400},
		{"POST", "/v1/restore", "{}\n", 400},
		{"POST", "/v1/restore", "", 400},
		{"POST", "/v1/videos", api.VideoRequest{}, 503},
		{"GET", "/v1/videos/vid_none", nil, 404},
		{"GET", "/v1/models/none", nil, 404},
		{"POST", "/v1/sessions/" + live + "/webrtc", api.Offer{}, 404},
	} {
		status, b, _ := r.do(c.method, c.path, c.in)
		var e api.ErrorBody
		if err := json.Unmarshal(b, &e); err != nil || status != c.status || e.Error.Type == "" || e.Error.Message == "" {
			t.Errorf("%s %s: status %d, want %d: %s", c.method, c.path, status, c.status, b)
		}
		if strings.Contains(string(b), "goroutine") || strings.Contains(string(b), t.TempDir()) {
			t.Errorf("%s %s tells too much: %s", c.method, c.path, b)
		}
	}
	status, _, _ := r.do("POST", "/v1/sessions", `{}`, func(q *http.Request) { q.Header.Set("Content-Type", "text/plain") })
	if status != http.StatusUnsupportedMediaType {
		t.Errorf("a form of another site could start sessions: status %d", status)
	}
}

func TestTheOpenAPIDocumentIsTheCommittedOneAndAnswersKeepIt(t *testing.T) {
	r := newRig(t, withStore(t))
	_, b, _ := r.do("GET", "/openapi.json", nil)
	if *update {
		if err := os.WriteFile("openapi.json", b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile("openapi.json")
	if err != nil || string(want) != string(b) {
		t.Fatalf("openapi.json differs from what is served (go test ./serve -run OpenAPI -update): %v", err)
	}
	var doc struct {
		Paths      map[string]map[string]any
		Components struct{ Schemas map[string]any }
	}
	if err := json.Unmarshal(b, &doc); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"Session", "StepResult", "Video", "Model", "ErrorBody", "FrameHeader", "Notice", "Control"} {
		if doc.Components.Schemas[name] == nil {
			t.Errorf("no schema of %s", name)
		}
	}
	// Every operation of the document has a handler, and no handler is missing from it.
	n := 0
	for path, item := range doc.Paths {
		for method := range item {
			n++
			status, b, _ := r.do(strings.ToUpper(method), strings.ReplaceAll(path, "{id}", "ses_none"), nil)
			if status == http.StatusMethodNotAllowed || strings.Contains(string(b), "there is no page") {
				t.Errorf("%s %s is in the document only", method, path)
			}
		}
	}
	if n != len(r.routes) {
		t.Errorf("%d operations in the document, %d routes", n, len(r.routes))
	}
	x := r.create(api.SessionRequest{})
	for path, name := range map[string]string{"/v1/models": "ModelList", "/v1/models/toy": "Model", "/v1/sessions": "SessionList",
		"/v1/sessions/" + x.ID: "Session", "/healthz": "Status", "/readyz": "Status", "/v1/videos": "VideoList", "/v1/videos/none": "ErrorBody"} {
		_, b, _ := r.do("GET", path, nil)
		var v any
		if err := json.Unmarshal(b, &v); err != nil {
			t.Fatal(err)
		}
		for _, fault := range obeys(v, map[string]any{"$ref": "#/components/schemas/" + name}, doc.Components.Schemas, path) {
			t.Error(fault)
		}
	}
}

// obeys checks a value against a schema, as far as our schemas go.
func obeys(v any, schema map[string]any, all map[string]any, at string) (faults []string) {
	if ref, ok := schema["$ref"].(string); ok {
		return obeys(v, all[ref[strings.LastIndexByte(ref, '/')+1:]].(map[string]any), all, at)
	}
	switch v := v.(type) {
	case map[string]any:
		properties, _ := schema["properties"].(map[string]any)
		for name, field := range v {
			p, ok := properties[name].(map[string]any)
			if !ok {
				if p, ok = schema["additionalProperties"].(map[string]any); !ok {
					faults = append(faults, at+"."+name+" is not in the schema")
					continue
				}
			}
			faults = append(faults, obeys(field, p, all, at+"."+name)...)
		}
		required, _ := schema["required"].([]any)
		for _, name := range required {
			if _, ok := v[name.(string)]; !ok {
				faults = append(faults, at+"."+name.(string)+" is missing")
			}
		}
	case []any:
		items, _ := schema["items"].(map[string]any)
		for _, e := range v {
			faults = append(faults, obeys(e, items, all, at+"[]")...)
		}
	case string, float64, bool:
		kinds := map[string]string{"string": "string", "number": "float64", "integer": "float64", "boolean": "bool"}
		name := map[bool]string{true: "string"}[false]
		switch v.(type) {
		case string:
			name = "string"
		case float64:
			name = "float64"
		case bool:
			name = "bool"
		}
		if kind, _ := schema["type"].(string); kinds[kind] != name {
			faults = append(faults, at+" is a "+name)
		}
	}
	return faults
}

func TestEveryRouteHasAnExample(t *testing.T) {
	b, err := os.ReadFile("../api/README.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, rt := range newRig(t, nil).routes {
		found := false
		for line := range strings.Lines(string(b)) {
			method := "GET"
			if _, after, ok := strings.Cut(line, "-X "); ok {
				method, _, _ = strings.Cut(after, " ")
			}
			want := regexp.MustCompile(`\$S` + regexp.MustCompile(`\\\{\w+\\\}`).ReplaceAllString(regexp.QuoteMeta(rt.path), `[^/ ]+`) + `["?;\s]`)
			found = found || method == rt.method && want.MatchString(line)
		}
		if !found {
			t.Errorf("api/README.md has no example of %s %s", rt.method, rt.path)
		}
	}
}

func TestVideosGoThroughTheirStates(t *testing.T) {
	r := newRig(t, func(o *Options, fake *toy) {
		o.Store, o.Limits.Videos = openStore(t), 2
		fake.delay = 2 * time.Millisecond
	})
	v := call2[api.Video](r, "POST", "/v1/videos", `{"prompt":"a","seconds":"1","size":"16x16","seed":5}`, http.StatusOK)
	// A video is begun at once where none is being made: on a busy machine before the answer is written.
	if v.Status != api.Queued && v.Status != api.InProgress || v.NumFrames != 50 || v.Size != "16x16" || v.Seconds != "1" {
		t.Fatalf("%+v", v)
	}
	await(t, "the video", func() bool {
		v = call2[api.Video](r, "GET", "/v1/videos/"+v.ID, nil, http.StatusOK)
		return v.Status == api.Completed
	})
	status, b, head := r.do("GET", "/v1/videos/"+v.ID+"/content", nil)
	if status != http.StatusOK || int64(len(b)) != v.Bytes || head.Get("Content-Type") != "video/webm" || string(b[:4]) != "\x1a\x45\xdf\xa3" {
		t.Fatalf("status %d, %d bytes, %v", status, len(b), head)
	}
	if v.Progress != 100 || v.Digest == "" || v.CompletedAt == 0 {
		t.Fatalf("%+v", v)
	}
	// A queue that is full refuses; what waits and what runs can be cancelled.
	var ids []string
	for range 10 {
		status, b, head := r.do("POST", "/v1/videos", api.VideoRequest{NumFrames: 2000})
		if status == http.StatusServiceUnavailable {
			if head.Get("Retry-After") == "" {
				t.Error("refused without Retry-After")
			}
			break
		}
		var v api.Video
		if err := json.Unmarshal(b, &v); err != nil {
			t.Fatal(err)
		}
		ids = append(ids, v.ID)
	}
	if len(ids) < 2 || len(ids) > 3 {
		t.Fatalf("%d videos were taken with 2 places", len(ids))
	}
	for _, id := range ids {
		call2[api.Video](r, "POST", "/v1/videos/"+id+"/cancel", nil, http.StatusOK)
		await(t, "the cancellation", func() bool {
			return call2[api.Video](r, "GET", "/v1/videos/"+id, nil, http.StatusOK).Status == api.Cancelled
		})
		if status, _, _ := r.do("GET", "/v1/videos/"+id+"/content", nil); status != http.StatusConflict {
			t.Errorf("content of a cancelled video: status %d", status)
		}
	}
	list := call2[api.VideoList](r, "GET", "/v1/videos", nil, http.StatusOK)
	if len(list.Data) != 1+len(ids) {
		t.Fatalf("%d videos in the list", len(list.Data))
	}
	call2[api.Deleted](r, "DELETE", "/v1/videos/"+v.ID, nil, http.StatusOK)
	for _, bad := range []string{`{"size":"17x17"}`, `{"size":"-8x-8"}`, `{"size":"8e9x8"}`, `{"seconds":1e8}`, `{"num_frames":-1}`, `{"actions":"?"}`,
		`{"policy":"none"}`, `{"num_frames":5000}`} {
		if status, b, _ := r.do("POST", "/v1/videos", bad); status != http.StatusBadRequest {
			t.Errorf("%s: status %d %s", bad, status, b)
		}
	}
}

func TestMetricsTellWhatHappens(t *testing.T) {
	r := newRig(t, nil)
	x := r.create(api.SessionRequest{Mode: api.Step})
	r.step(x.ID, "noop", "noop")
	_, b, _ := r.do("GET", "/metrics", nil)
	for _, name := range []string{"longtake_frames_total 2", "longtake_sessions 1", "longtake_frames_late_total 0", "longtake_cache_bytes 1000",
		"longtake_chunk_stage_seconds", "longtake_control_to_frame_seconds", "longtake_frames_per_second", "longtake_sessions_started_total 1"} {
		if !strings.Contains(string(b), name) {
			t.Errorf("no %q in the metrics", name)
		}
	}
	if strings.Contains(string(b), x.ID) {
		t.Error("metrics name sessions")
	}
}

func TestReadinessFollowsWarmthAndDraining(t *testing.T) {
	fake := &toy{}
	s, err := New(Options{Models: []*Model{fake.model()}, Hosts: []string{"example.com"}})
	if err != nil {
		t.Fatal(err)
	}
	status := func(path string) int {
		w := newRecorder("GET", path)
		s.ServeHTTP(w.ResponseRecorder, w.request)
		return w.Code
	}
	var got []int
	got = append(got, status("/healthz"), status("/readyz"))
	if _, err := s.Warm(t.Context()); err != nil {
		t.Fatal(err)
	}
	got = append(got, status("/readyz"))
	s.Close()
	got = append(got, status("/readyz"), status("/healthz"))
	if want := []int{200, 503, 200, 503, 200}; !slices.Equal(got, want) {
		t.Fatalf("got %v, want %v", got, want)
	}
}
