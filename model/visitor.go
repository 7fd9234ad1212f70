package model

import (
	"longtake/compute"
	"longtake/text"
)

// visitor is a Prompter whose encoder comes to the device only while prompts are encoded. What it has encoded stays in the
// host's memory.
type visitor struct {
	load func() (*text.Prompter, compute.Arena, error)
	out  func() compute.Tensor
	most int
	kept map[string]encoding
}

// encoding is a prompt's rows, F32, and how many padding rows the last one stands for.
type encoding struct {
	rows   []byte
	padded int
}

// keptPrompts bounds what is remembered; a prompt takes at most 8 MiB.
const keptPrompts = 64

// MaxTokens returns the most rows that Encode returns.
func (v *visitor) MaxTokens() int { return v.most }

// Encode returns a prompt's rows. The encoder is loaded for a prompt that is new.
func (v *visitor) Encode(dq compute.Queue, prompt string) (compute.Tensor, int, []text.Unknown, error) {
	if _, ok := v.kept[prompt]; !ok {
		if err := v.encode(dq, prompt); err != nil {
			return compute.Tensor{}, 0, nil, err
		}
	}
	e, out := v.kept[prompt], v.out()
	rows := out.Slice(0, 0, len(e.rows)/4/out.Dim(1))
	dq.Upload(rows, e.rows)
	return rows, e.padded, nil, dq.Err()
}

// encode loads the encoder, encodes prompts and gives the encoder's memory back.
func (v *visitor) encode(dq compute.Queue, prompts ...string) error {
	encoder, arena, err := v.load()
	if err != nil {
		return err
	}
	defer arena.Free()
	for _, p := range prompts {
		if len(v.kept) >= keptPrompts {
			clear(v.kept)
		}
		rows, padded, _, err := encoder.Encode(dq, p)
		if err != nil {
			return err
		}
		e := encoding{make([]byte, rows.Bytes()), padded}
		dq.Download(e.rows, rows)
		if err := dq.Wait(); err != nil {
			return err
		}
		v.kept[p] = e
	}
	return nil
}
