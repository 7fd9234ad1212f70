package text

import (
	"errors"
	"fmt"

	"longtake/compute"
)

// ErrLongPrompt is wrapped by the error for prompts of more than MaxPrompt bytes.
var ErrLongPrompt = errors.New("prompt is too long")

// MaxPrompt is the most bytes of a prompt. What lies beyond the encoder's tokens has no effect long before that.
const MaxPrompt = 64 << 10

// Prompter encodes prompts for Wan: cleaning, tokens, and the encoder. It is what package rollout calls a Prompter; one call at
// a time.
type Prompter struct {
	tokens  *Unigram
	encoder *T5
	work    *T5Work
}

// NewPrompter joins a tokenizer and an encoder. It is an error when the tokenizer's ids do not fit the encoder's vocabulary.
func NewPrompter(tokens *Unigram, encoder *T5, work *T5Work) (*Prompter, error) {
	if tokens.Pieces() > encoder.Vocabulary {
		return nil, fmt.Errorf("the tokenizer has %d pieces, the text encoder knows %d: they belong to different models", tokens.Pieces(), encoder.Vocabulary)
	}
	return &Prompter{tokens, encoder, work}, nil
}

// MaxTokens returns the most rows that Encode returns.
func (p *Prompter) MaxTokens() int { return p.encoder.MaxTokens }

// Encode returns F32 [rows, width], valid until the next call: a row for each token, and unless they are MaxTokens a row of
// zeros that stands for padded rows of padding (see dit.Work.Prompt). Prompts of more tokens are cut, the end token kept. No
// word is unknown to a tokenizer of pieces. The error wraps ErrLongPrompt, or is the queue's.
func (p *Prompter) Encode(dq compute.Queue, prompt string) (encoded compute.Tensor, padded int, unknown []Unknown, err error) {
	if len(prompt) > MaxPrompt {
		return compute.Tensor{}, 0, nil, fmt.Errorf("%w: %d bytes, at most %d", ErrLongPrompt, len(prompt), MaxPrompt)
	}
	ids := p.tokens.EncodePrompt(Clean(prompt), p.encoder.MaxTokens)
	encoded = p.encoder.Encode(dq, p.work, ids)
	if padded = p.encoder.MaxTokens - len(ids); padded > 0 {
		dq.Upload(p.work.out.Slice(0, len(ids), len(ids)+1), make([]byte, 4*p.encoder.Dim))
		encoded = p.work.out.Slice(0, 0, len(ids)+1)
	}
	return encoded, padded, nil, dq.Err()
}
