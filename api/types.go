package api

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
)

// Modes of a session: Live runs at its frame rate while somebody watches, Step makes chunks when it is asked to.
const (
	Live = "live"
	Step = "step"
)

// SessionRequest asks for a session. Everything may be left out.
type SessionRequest struct {
	Model string `json:"model,omitempty"`
	// Mode is "live" (default) or "step".
	Mode string `json:"mode,omitempty"`
	Seed uint64 `json:"seed,omitempty"`
	// Start is "sim" (the simulator's view in the world of the seed, the default), "sim:SEED" or "none". Image, a PNG, JPEG,
	// GIF or WebP file in base64, takes its place.
	Start string `json:"start,omitempty"`
	Image []byte `json:"image,omitempty"`
	// Prompt describes the world; left out it is the simulator's own for the seed.
	Prompt *string `json:"prompt,omitempty"`
	// Steps is the number of denoising steps, 0 for the model's own.
	Steps int `json:"num_inference_steps,omitempty"`
	// Policy names what is kept of the past; Compare a second policy that runs beside it with the same input.
	Policy  string `json:"policy,omitempty"`
	Compare string `json:"compare,omitempty"`
	// FPS is the frame rate of a live session, 0 for the model's own.
	FPS float64 `json:"fps,omitempty"`
}

// Session describes a session.
type Session struct {
	ID     string `json:"id"`
	Object string `json:"object"` // "session"
	Model  string `json:"model"`
	Mode   string `json:"mode"`
	// Status is "starting", "restoring", "running", "waiting" (live without a viewer, or step), "paused" or "ended".
	Status    string   `json:"status"`
	Reason    string   `json:"reason,omitempty"` // why it ended
	CreatedAt int64    `json:"created_at"`       // Unix seconds
	Seed      uint64   `json:"seed"`
	Policy    string   `json:"policy"`
	Compare   string   `json:"compare,omitempty"`
	FPS       float64  `json:"fps"`
	Width     int      `json:"width"`
	Height    int      `json:"height"`
	Actions   []string `json:"actions"`
	Chunk     int      `json:"chunk"`
	Frames    int      `json:"frames"`
	Late      int      `json:"late_frames"`
	Viewers   int      `json:"viewers"`
	Memory    int64    `json:"memory_bytes"` // reserved for it
	// Digest is the SHA-256 of all frames so far, see Snapshot.
	Digest string `json:"frames_sha256,omitempty"`
	// Recording is the id of the recording in work.
	Recording string `json:"recording,omitempty"`
}

// SessionList is the answer to a list of sessions.
type SessionList struct {
	Object string    `json:"object"` // "list"
	Data   []Session `json:"data"`
}

// StepRequest makes chunks of a session in step mode, one for each action.
type StepRequest struct {
	// Actions are names of the model's actions, ActionIDs their numbers: give one of the two, an action for each chunk. Of a model without
	// actions nothing is one chunk, and zeros are as many.
	Actions   []string `json:"actions,omitempty"`
	ActionIDs []int    `json:"action_ids,omitempty"`
	// Prompt, if not null, is used from the first of these chunks on.
	Prompt *string `json:"prompt,omitempty"`
	// Format of the observations: "jpeg" (default), "png", "raw" (RGB, rows packed) or "none".
	Format string `json:"format,omitempty"`
	// Last leaves out all observations but the last chunk's.
	Last bool `json:"last_only,omitempty"`
}

// StepResult is what a StepRequest made.
type StepResult struct {
	Object string `json:"object"` // "step"
	Chunk  int    `json:"chunk"`  // chunks of the session so far
	// Observations are the frames, in order; of a comparison both views'.
	Observations []Observation `json:"observations"`
	Digest       string        `json:"frames_sha256"` // of all frames of the session so far
	Elapsed      float64       `json:"elapsed_ms"`
}

// Observation is one frame of a step.
type Observation struct {
	Chunk  int    `json:"chunk"`
	Frame  int    `json:"frame"`
	View   int    `json:"view"`
	Format string `json:"format"`
	Width  int    `json:"width"`
	Height int    `json:"height"`
	Data   []byte `json:"data"` // base64 in JSON
}

// Recording is a video file that the server writes while a session runs.
type Recording struct {
	ID      string `json:"id"`
	Object  string `json:"object"` // "recording"
	Session string `json:"session"`
	// Status is "recording", "completed" or "failed".
	Status  string `json:"status"`
	Frames  int    `json:"frames"`
	Dropped int    `json:"dropped_frames"` // that the disk or the encoder was too slow for
	Bytes   int64  `json:"bytes"`
	Error   *Error `json:"error,omitempty"`
}

// Number reads a JSON number or a string that holds one: OpenAI's clients send "seconds" as a string.
type Number float64

// UnmarshalJSON implements json.Unmarshaler.
func (n *Number) UnmarshalJSON(b []byte) error {
	text := strings.Trim(string(b), `"`)
	v, err := strconv.ParseFloat(text, 64)
	if err != nil || v != v || v < 0 || v > 1e9 {
		return fmt.Errorf("%.40q is no number from 0 to 1e9", text)
	}
	*n = Number(v)
	return nil
}

// VideoRequest asks for a video file, in OpenAI's shape with the field's usual additions.
type VideoRequest struct {
	Model  string  `json:"model,omitempty"`
	Prompt *string `json:"prompt,omitempty"`
	// Seconds or NumFrames is the length; the default is 4 seconds.
	Seconds   Number `json:"seconds,omitempty"`
	NumFrames int    `json:"num_frames,omitempty"`
	// Size is "WIDTHxHEIGHT", a whole multiple of the model's frames.
	Size  string  `json:"size,omitempty"`
	FPS   float64 `json:"fps,omitempty"`
	Seed  uint64  `json:"seed,omitempty"`
	Steps int     `json:"num_inference_steps,omitempty"`
	Start string  `json:"start,omitempty"`
	// Image is the first frame, as in SessionRequest.
	Image  []byte `json:"image,omitempty"`
	Policy string `json:"policy,omitempty"`
	// Actions is a script such as "w20 d8 (w10 q5)x4", repeated to the length of the video; empty is the simulator's walker.
	Actions string `json:"actions,omitempty"`
}

// Statuses of a video.
const (
	Queued     = "queued"
	InProgress = "in_progress"
	Completed  = "completed"
	Failed     = "failed"
	Cancelled  = "cancelled"
)

// Video is a job and its result.
type Video struct {
	ID          string  `json:"id"`
	Object      string  `json:"object"` // "video"
	Model       string  `json:"model"`
	Status      string  `json:"status"`
	Progress    int     `json:"progress"` // percent
	CreatedAt   int64   `json:"created_at"`
	CompletedAt int64   `json:"completed_at,omitempty"`
	Seconds     string  `json:"seconds"`
	Size        string  `json:"size"`
	FPS         float64 `json:"fps"`
	NumFrames   int     `json:"num_frames"`
	Seed        uint64  `json:"seed"`
	Policy      string  `json:"policy"`
	Bytes       int64   `json:"bytes,omitempty"`
	Digest      string  `json:"frames_sha256,omitempty"`
	Error       *Error  `json:"error,omitempty"`
}

// VideoList is the answer to a list of videos.
type VideoList struct {
	Object string  `json:"object"` // "list"
	Data   []Video `json:"data"`
}

// Model is a model that the server plays.
type Model struct {
	ID      string  `json:"id"`
	Object  string  `json:"object"` // "model"
	Created int64   `json:"created"`
	OwnedBy string  `json:"owned_by"`
	About   string  `json:"about,omitempty"`
	Licence string  `json:"licence,omitempty"`
	Hash    string  `json:"sha256"`
	Kernel  string  `json:"kernel_class"`
	Width   int     `json:"width"`
	Height  int     `json:"height"`
	FPS     float64 `json:"fps"`
	// Actions by number, and the keys that mean them.
	Actions  []string          `json:"actions"`
	Keys     map[string]string `json:"keys,omitempty"`
	Policies []Policy          `json:"policies"`
	// WeightBytes are shared by all sessions.
	WeightBytes int64 `json:"weight_bytes"`
}

// Policy is a choice of what is kept of the past.
type Policy struct {
	Name  string `json:"name"`
	About string `json:"about,omitempty"`
	// SessionBytes is the memory of a session with it.
	SessionBytes int64 `json:"session_bytes"`
}

// ModelList is the answer to a list of models.
type ModelList struct {
	Object string  `json:"object"` // "list"
	Data   []Model `json:"data"`
}

// Deleted confirms a deletion.
type Deleted struct {
	ID      string `json:"id"`
	Object  string `json:"object"`
	Deleted bool   `json:"deleted"`
}

// Login answers a login: a cookie for this page, for so long.
type Login struct {
	ExpiresIn int `json:"expires_in"` // seconds
}

// Offer is a WebRTC session description: the browser's, then the server's.
type Offer struct {
	Type string `json:"type"`
	SDP  string `json:"sdp"`
}

// Status answers /healthz and /readyz.
type Status struct {
	Status   string `json:"status"` // "ok", "warming", "draining"
	Sessions int    `json:"sessions"`
}

var _ json.Unmarshaler = (*Number)(nil)
