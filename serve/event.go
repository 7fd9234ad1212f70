package serve

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"

	"longtake/api"
)

// Types of event, the lines of an event log.
const (
	eventBegin   = "begin"   // first line: what runs, and the setup
	eventAction  = "action"  // Action holds from chunk Chunk on
	eventPrompt  = "prompt"  // Prompt
	eventPolicy  = "policy"  // Policy of view View
	eventCompare = "compare" // Policy of a second view, "" for none
	eventReset   = "reset"   // Setup anew
	eventDigest  = "digest"  // SHA256 of all frames before chunk Chunk
	eventEnd     = "end"     // the same, and nothing follows
)

// Event is one line of an event log: what happened before chunk Chunk was made.
type Event struct {
	Type  string `json:"type"`
	Chunk int    `json:"chunk"`

	Version int    `json:"version,omitempty"`
	Model   string `json:"model,omitempty"`
	Hash    string `json:"model_sha256,omitempty"`
	Kernel  string `json:"kernel_class,omitempty"`
	// Policies says what the server's policies were, in words by name: of the first line.
	Policies map[string]string `json:"policies,omitempty"`
	Setup    *Setup            `json:"setup,omitempty"`
	Compare  string            `json:"compare,omitempty"`

	Action int    `json:"action,omitempty"`
	Prompt string `json:"prompt,omitempty"`
	View   int    `json:"view,omitempty"`
	Policy string `json:"policy,omitempty"`
	SHA256 string `json:"sha256,omitempty"`
}

// Bounds of event logs.
const (
	logVersion = 1
	// maxEvents bounds what a log may hold to be restored.
	maxEvents = 100_000
	// maxHistory bounds the bytes that a session keeps in memory to be forked or restored from: a key a second for a day. It
	// is part of what a session is said to take.
	maxHistory = 4 << 20
	// maxChunks is more than a day at 120 chunks a second.
	maxChunks = 20_000_000
	// maxLine holds a start picture in base64 and a prompt.
	maxLine = 1 << 20
	// digestEvery is how many chunks go between two digests.
	digestEvery = 32
)

// line returns an event as a line of a log.
func (e *Event) line() []byte {
	b, err := json.Marshal(e)
	if err != nil {
		panic(err) // plain strings and numbers
	}
	return append(b, '\n')
}

// ReadLog reads an event log. A last line that was cut short by a crash is left out. Limit bounds the events.
func ReadLog(in io.Reader, limit int) (events []Event, err error) {
	lines := bufio.NewScanner(in)
	lines.Buffer(make([]byte, 0, 64<<10), maxLine)
	lines.Split(wholeLines)
	last := 0
	for lines.Scan() {
		var e Event
		if err := api.Strict(lines.Bytes(), &e); err != nil {
			return nil, badf("event log, line %d: %v", len(events)+1, err)
		}
		if err := e.check(len(events) == 0, last); err != nil {
			return nil, badf("event log, line %d: %w", len(events)+1, err)
		}
		if len(events) >= limit {
			return nil, badf("event log of more than %d events", limit)
		}
		last = e.Chunk
		events = append(events, e)
	}
	if err := lines.Err(); err != nil {
		return nil, badf("event log, line %d: %w", len(events)+1, err)
	}
	if len(events) == 0 {
		return nil, badf("event log without a first line")
	}
	return events, nil
}

// wholeLines is bufio.ScanLines without a last line that does not end.
func wholeLines(data []byte, atEOF bool) (advance int, token []byte, err error) {
	if i := bytes.IndexByte(data, '\n'); i >= 0 {
		return i + 1, data[:i], nil
	}
	if atEOF {
		return len(data), nil, nil
	}
	return 0, nil, nil
}

func (e *Event) check(first bool, last int) error {
	if first != (e.Type == eventBegin) {
		return fmt.Errorf("%q: a log has one first line, of type begin", e.Type)
	}
	if e.Chunk < last || e.Chunk > maxChunks {
		return fmt.Errorf("chunk %d after chunk %d", e.Chunk, last)
	}
	switch e.Type {
	case eventBegin:
		if e.Version != logVersion {
			return fmt.Errorf("version %d, this program reads %d", e.Version, logVersion)
		}
		if e.Setup == nil || e.Chunk != 0 {
			return fmt.Errorf("begin without a setup, or at chunk %d", e.Chunk)
		}
	case eventReset:
		if e.Setup == nil {
			return fmt.Errorf("reset without a setup")
		}
	case eventPrompt:
		return api.CheckPrompt(e.Prompt)
	case eventPolicy:
		if e.View < 0 || e.View > 1 {
			return fmt.Errorf("view %d", e.View)
		}
	case eventAction, eventCompare, eventDigest, eventEnd:
	default:
		return fmt.Errorf("unknown type %.40q", e.Type)
	}
	if e.Setup != nil && e.Setup.Prompt != nil {
		return api.CheckPrompt(*e.Setup.Prompt)
	}
	return nil
}
