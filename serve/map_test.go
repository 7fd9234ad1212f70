package serve

import (
	"strings"
	"testing"
	"time"

	"longtake/api"
)

func TestMapsGoToThoseWhoAskAndChangeNoFrame(t *testing.T) {
	r := newRig(t, nil)
	p := r.player("fps=100&format=raw&compare=fast&seed=4")
	other := r.player("fps=100&format=raw&compare=fast&seed=4")
	send(t, p, api.Control{Type: "map", Map: true, ID: 3})
	next(t, p, notice("applied"))
	pictures := map[int]string{}
	seen := [2]int{}
	for seen[0] < 2 || seen[1] < 2 {
		m, err := p.Next(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if m.Frame != nil && m.Frame.View == 0 {
			pictures[m.Frame.Frame] = string(m.Image)
		}
		if m.Notice == nil || m.Notice.Type != "map" {
			continue
		}
		a := m.Notice.Map
		seen[a.View]++
		if want := []string{"window", "fast"}[a.View]; a.Policy != want || a.Rows*a.Columns != len(a.Kept) || a.Merged[1] != 1 || a.Attended[1] != 0.75 {
			t.Fatalf("%+v", a)
		}
	}
	same := 0
	for same < 3 {
		m, err := other.Next(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if m.Notice != nil && m.Notice.Type == "map" {
			t.Fatal("a map for one who did not ask")
		}
		if m.Frame == nil || m.Frame.View != 0 || m.Frame.Frame == 0 { // the start picture is number 0, too
			continue
		}
		if image, ok := pictures[m.Frame.Frame]; ok {
			if same++; image != string(m.Image) {
				t.Fatalf("frame %d is another with a map", m.Frame.Frame)
			}
		}
		if m.Frame.Frame > 1000 {
			t.Fatal("no frame of both was seen")
		}
	}
	send(t, p, api.Control{Type: "map", ID: 4})
	next(t, p, notice("applied"))
	for until := time.Now().Add(100 * time.Millisecond); time.Now().Before(until); {
		if m, err := p.Next(t.Context()); err != nil || m.Notice != nil && m.Notice.Type == "map" && time.Now().Add(50*time.Millisecond).After(until) {
			t.Fatalf("a map after it was turned off, %v", err)
		}
	}
}

// A caller who floods a session with prompts takes no memory that was not reserved; the session goes on without a snapshot.
func TestTheHistoryOfASessionIsBounded(t *testing.T) {
	r := newRig(t, nil)
	x := r.create(api.SessionRequest{Mode: api.Step})
	var s *Session
	for _, s = range r.all() {
	}
	if status, _, _ := r.do("GET", "/v1/sessions/"+x.ID+"/snapshot", nil); status != 200 {
		t.Fatalf("snapshot: %d", status)
	}
	for i := range 2 * maxHistory / api.MaxPromptBytes {
		s.note(&Event{Type: eventPrompt, Chunk: i, Prompt: strings.Repeat("x", api.MaxPromptBytes)})
	}
	if len(s.events) > maxHistory || cap(s.events) > 2*maxHistory {
		t.Errorf("%d bytes of history", len(s.events))
	}
	if status, b, _ := r.do("GET", "/v1/sessions/"+x.ID+"/snapshot", nil); status != 400 || !strings.Contains(string(b), "on disk") {
		t.Errorf("snapshot of a long session: %d, %s", status, b)
	}
	call2[api.StepResult](r, "POST", "/v1/sessions/"+x.ID+"/step", api.StepRequest{ActionIDs: []int{1}}, 200)
}
