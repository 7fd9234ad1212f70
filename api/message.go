package api

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"unicode/utf8"
)

// Control is a message from a viewer. Type says which of the fields count:
//
//	keys     Keys are held now, by their KeyboardEvent.code ("KeyW"); what was pressed and released between two chunks still
//	         counts for one
//	action   Action, by name, from now on; "" returns to the keys
//	prompt   Prompt from the next chunk on
//	policy   Policy of view View, with the last frames as its past
//	compare  Policy of a second view beside the first, "" for none
//	pause    Paused
//	reset    begin again with Seed and Start
//	fps      FPS
//	record   Record on or off
//	map      Map on or off: this viewer wants the map of every view
//	ping     nothing; the answer carries Time back
type Control struct {
	Type string `json:"type"`
	// ID, if not 0, is repeated in the receipts of this message.
	ID int64 `json:"id,omitempty"`
	// Time is the sender's clock in milliseconds, repeated in the header of the first frame that obeys.
	Time   float64  `json:"ts,omitempty"`
	Keys   []string `json:"keys,omitempty"`
	Action string   `json:"action,omitempty"`
	Prompt string   `json:"prompt,omitempty"`
	View   int      `json:"view,omitempty"`
	Policy string   `json:"policy,omitempty"`
	Paused bool     `json:"paused,omitempty"`
	Seed   uint64   `json:"seed,omitempty"`
	Start  string   `json:"start,omitempty"`
	FPS    float64  `json:"fps,omitempty"`
	Record bool     `json:"record,omitempty"`
	Map    bool     `json:"map,omitempty"`
}

// ParseControl reads and checks a message. Errors are for the sender.
func ParseControl(b []byte) (c Control, err error) {
	if len(b) > MaxControlBytes {
		return c, fmt.Errorf("message of %d bytes: at most %d", len(b), MaxControlBytes)
	}
	if err := Strict(b, &c); err != nil {
		return c, err
	}
	return c, c.check()
}

func (c *Control) check() error {
	if math.IsNaN(c.Time) || math.Abs(c.Time) > 1e15 {
		return errors.New("ts is out of range")
	}
	switch c.Type {
	case "keys":
		if len(c.Keys) > MaxKeys {
			return fmt.Errorf("%d keys held: at most %d", len(c.Keys), MaxKeys)
		}
		for _, k := range c.Keys {
			if len(k) > MaxKeyBytes {
				return fmt.Errorf("key name of %d bytes: at most %d", len(k), MaxKeyBytes)
			}
		}
	case "prompt":
		return CheckPrompt(c.Prompt)
	case "policy":
		if c.View < 0 || c.View > 1 {
			return fmt.Errorf("view %d: 0 or 1", c.View)
		}
	case "fps":
		return CheckFPS(c.FPS)
	case "action", "compare", "pause", "reset", "record", "map", "ping":
	default:
		return fmt.Errorf("unknown type %.32q of message", c.Type)
	}
	return nil
}

// CheckPrompt refuses prompts that are too long or no text.
func CheckPrompt(p string) error {
	if len(p) > MaxPromptBytes {
		return fmt.Errorf("prompt of %d bytes: at most %d", len(p), MaxPromptBytes)
	}
	if !utf8.ValidString(p) {
		return errors.New("prompt is not UTF-8")
	}
	return nil
}

// CheckFPS refuses impossible frame rates.
func CheckFPS(fps float64) error {
	if !(fps >= 0.1 && fps <= MaxFPS) {
		return fmt.Errorf("fps must be between 0.1 and %d", MaxFPS)
	}
	return nil
}

// Strict decodes one JSON value and refuses unknown fields and anything behind it.
func Strict(b []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return fmt.Errorf("not the JSON that is wanted: %w", err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return errors.New("more than one JSON value")
	}
	return nil
}

// Notice is a message to a viewer other than a frame. Type says which:
//
//	hello     the protocol's version, the Session and its Model; the first message
//	received  the control ID has arrived
//	applied   the control ID, of type Control, counts from Chunk on; Unknown are words that the model does not know
//	state     the Session has changed
//	map       a Map of a view, a few times a second for viewers that asked for it; the newest takes the place of unread ones
//	error     Error, of control ID if that is not 0
//	pong      answers ping
//	end       the session has ended for Reason
type Notice struct {
	Type            string   `json:"type"`
	ProtocolVersion int      `json:"protocol_version,omitempty"`
	ID              int64    `json:"id,omitempty"`
	Control         string   `json:"control,omitempty"`
	Chunk           int      `json:"chunk,omitempty"`
	Unknown         []string `json:"unknown_words,omitempty"`
	Time            float64  `json:"ts,omitempty"`
	Session         *Session `json:"session,omitempty"`
	Model           *Model   `json:"model,omitempty"`
	Prompt          string   `json:"prompt,omitempty"`
	Reason          string   `json:"reason,omitempty"`
	RetryAfter      float64  `json:"retry_after,omitempty"`
	Error           *Error   `json:"error,omitempty"`
	Map             *Map     `json:"map,omitempty"`
}

// Map says where in the frame the tokens lie that a view's cache keeps, and where its queries look. The grids are Rows by Columns
// tokens, row by row.
type Map struct {
	View    int    `json:"view"`
	Chunk   int    `json:"chunk"`
	Policy  string `json:"policy"`
	Rows    int    `json:"rows"`
	Columns int    `json:"columns"`
	// Kept keys are tokens as they were; Merged tokens are part of a key that stands for several. Both are counts of the newest
	// view, mean over layers and heads, by the place of a key's newest token.
	Kept   []float32 `json:"kept"`
	Merged []float32 `json:"merged"`
	// Attended is the share of self attention in each place, a running mean over layers and heads; the sum is 1, or 0 before the
	// first chunk.
	Attended []float32 `json:"attended"`
}

// FrameHeader stands before the image of every frame.
type FrameHeader struct {
	Frame int `json:"frame"` // of the session
	Chunk int `json:"chunk"`
	View  int `json:"view"` // 1 for the second of a comparison
	// Format is "jpeg", "png", "raw", or "none" without an image; Width and Height are the image's.
	Format string `json:"format"`
	Width  int    `json:"width"`
	Height int    `json:"height"`
	// Policy made it, led by Action, a name.
	Policy string `json:"policy"`
	Action string `json:"action,omitempty"`
	// GenMS is the time the chunk took, by stages.
	GenMS     float64 `json:"gen_ms"`
	DenoiseMS float64 `json:"denoise_ms"`
	CommitMS  float64 `json:"commit_ms"`
	DecodeMS  float64 `json:"decode_ms"`
	// CacheBytes and CacheTokens (a head's mean) are the cache's sizes. Heads are, of a compressing cache, the tokens that each
	// head of each layer keeps, and HeadsPerLayer how to fold them.
	CacheBytes    int64   `json:"cache_bytes"`
	CacheTokens   float64 `json:"cache_tokens"`
	Heads         []int   `json:"heads,omitempty"`
	HeadsPerLayer int     `json:"heads_per_layer,omitempty"`
	Merged        int64   `json:"merged,omitempty"`
	Evicted       int64   `json:"evicted,omitempty"`
	// PSNR of this view against the first, decibels, of a comparison's second; 99 is equal.
	PSNR float64 `json:"psnr,omitempty"`
	FPS  float64 `json:"fps"`  // over the last frames
	Late int     `json:"late"` // frames so far
	// Dropped counts frames that this viewer was too slow for.
	Dropped int `json:"dropped,omitempty"`
	// Echo is the Time of the newest of this viewer's keys and actions that this frame obeys and no earlier one that it was sent.
	Echo float64 `json:"echo,omitempty"`
}

// maxHeader bounds the header of a frame.
const maxHeader = 64 << 10

// AppendFrame appends the message of a frame: the header's length as 4 bytes, least significant first, the header as JSON, and
// the image.
func AppendFrame(dst []byte, h *FrameHeader, image []byte) ([]byte, error) {
	j, err := json.Marshal(h)
	if err != nil {
		return dst, fmt.Errorf("frame header: %w", err)
	}
	dst = binary.LittleEndian.AppendUint32(dst, uint32(len(j)))
	dst = append(dst, j...)
	return append(dst, image...), nil
}

// ParseFrame takes a message of AppendFrame apart. The image is part of b.
func ParseFrame(b []byte) (h FrameHeader, image []byte, err error) {
	if len(b) < 4 {
		return h, nil, fmt.Errorf("frame message of %d bytes", len(b))
	}
	n := binary.LittleEndian.Uint32(b)
	if n > maxHeader || int(n) > len(b)-4 {
		return h, nil, fmt.Errorf("frame header of %d bytes in a message of %d", n, len(b))
	}
	if err := json.Unmarshal(b[4:4+n], &h); err != nil {
		return h, nil, fmt.Errorf("frame header: %w", err)
	}
	return h, b[4+n:], nil
}
