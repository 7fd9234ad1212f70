package kvcache

import "longtake/compute"

// Recaller is a Cache that remembers more frames than it has keys of. Of a frame that is old it keeps the clean latents, a few per cent of the
// bytes, and has its keys made again when the frame is to be seen: by the clean pass, of that frame alone. Its user runs it, since a cache
// knows no network.
//
// Keys that are made again must depend on nothing but the latents, the controls of the frame, and what Outdate is called for. Then which frames have
// their keys at hand is a matter of time alone, and no frame of the video depends on it.
type Recaller interface {
	Cache
	// Keep stores the clean latents [tokens, Shape.Latent] of a frame that End has just made history, which are copied. It returns the number under
	// which the frame is remembered, from 0 on and below a bound; it is given to another frame when this one is forgotten. A frame
	// that was left out by End has -1.
	Keep(dq compute.Queue, frame int, latent compute.Tensor) (number int)
	// Recall opens the next frame whose keys are missing for the chunk span to see it, or for the chunk after it as far as can be told; ok is false
	// when none is. Call it after SetPoses and before Begin, until ok is false.
	Recall(dq compute.Queue, span Span) (r Recalled, ok bool)
	// Outdate gives up all keys that were made again: something else than latents and controls has changed that they were made with.
	Outdate()
}

// Recalled is a frame in its clean pass.
type Recalled struct {
	// Number is Keep's.
	Number int
	// Latent is what Keep stored, F32 [tokens, Shape.Latent], valid until the next call.
	Latent compute.Tensor
	// Layers take the keys of the forward. The frame sees itself alone.
	Layers Layers
}
