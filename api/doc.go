// Package api holds the words that longtake's server and its clients exchange: requests, answers, and the messages of the
// WebSocket protocol. What enters and leaves is JSON, and for frames a JSON header with an image behind it.
//
// Nothing here computes or connects. Durations are milliseconds unless a name says seconds; sizes are bytes; a chunk is counted
// from the start of the session, resets included.
package api

// ProtocolVersion is the WebSocket protocol's version, the protocol_version of the query.
const ProtocolVersion = 1

// Limits of what is accepted, see also serve.Limits.
const (
	// MaxPromptBytes is the longest prompt.
	MaxPromptBytes = 8 << 10
	// MaxControlBytes is the longest control message of a WebSocket.
	MaxControlBytes = 64 << 10
	// MaxKeys is how many keys may be held at once, each with a name of at most MaxKeyBytes.
	MaxKeys     = 16
	MaxKeyBytes = 32
	// MaxFPS is the highest frame rate of a session.
	MaxFPS = 120
	// MaxStepActions is the most chunks that one lock-step request makes.
	MaxStepActions = 256
)

// Error types: what went wrong, for programs.
const (
	// BadRequest says that the request cannot be understood or asks for what there is not.
	BadRequest = "invalid_request_error"
	// Unauthorized says that a token is missing or wrong.
	Unauthorized = "authentication_error"
	// Forbidden says that the request came from a place that is not allowed: Host or Origin.
	Forbidden = "permission_error"
	// NotFound says that there is nothing with that id.
	NotFound = "not_found_error"
	// Conflict says that the object is in a state that does not allow the request.
	Conflict = "conflict_error"
	// RateLimited says that too many requests came.
	RateLimited = "rate_limit_error"
	// Overloaded says that the server is full; retry_after says when to come again.
	Overloaded = "overloaded_error"
	// Internal says that the server failed.
	Internal = "server_error"
)

// Error is what went wrong.
type Error struct {
	Type    string `json:"type"`
	Message string `json:"message"`
}

// Error returns the message.
func (e *Error) Error() string { return e.Message }

// ErrorBody is the body of every answer that is no success.
type ErrorBody struct {
	Error Error `json:"error"`
	// RetryAfter is in seconds, with Overloaded and RateLimited.
	RetryAfter float64 `json:"retry_after,omitempty"`
}
