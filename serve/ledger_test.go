package serve

import (
	"testing"
	"time"

	"longtake/api"
)

// What runs is charged what it takes, policy by policy, not what was guessed before it ran.
func TestSessionsAreChargedWhatTheyTake(t *testing.T) {
	r := newRig(t, func(o *Options, fake *toy) {
		fake.slow = map[string]time.Duration{"fast": 8 * time.Millisecond}
		o.Ledger = NewLedger(0, 0, 0.9)
	})
	p := r.player("fps=100&format=none&policy=fast") // 0.8 of the engine, which nobody knows yet
	for next(t, p, anyFrame).Frame.Chunk < 60 {
	}
	if took, _ := r.chunkTimeOf(r.Models[0], "fast"); took < 6*time.Millisecond {
		t.Errorf("a chunk takes %v", took)
	}
	if took, _ := r.chunkTimeOf(r.Models[0], "window"); took > 6*time.Millisecond {
		t.Errorf("a chunk of the other policy takes %v", took)
	}
	status, _, _ := r.do("POST", "/v1/sessions", api.SessionRequest{Policy: "fast", FPS: 100})
	if status != 503 {
		t.Errorf("a second one: status %d", status)
	}
}
