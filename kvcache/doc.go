// Package kvcache holds the keys and values of past latent frames, so that a chunk is computed from its own tokens alone.
//
// What enters: keys after QK normalisation but before rotary embedding (RoPE), and values, of the chunk in work, once in every
// forward and layer. What leaves: a View of everything that the chunk's queries may see, keys rotated.
//
// Life of a chunk: Begin makes room and fixes positions; every denoising forward calls Layer.Draft, which overwrites the
// chunk's slots (Self-Forcing causal_model.py @ 33593df writes on every forward, too); the clean pass calls Layer.Commit,
// which leaves the keys of the noise-free chunk; End closes the chunk. A Begin without an End in between starts the chunk anew.
//
// Keys are rotated once, when they are written, at their absolute position, and stay so: scores depend on differences of
// positions only. What has to move, keys older than the clamp, is rotated again from the unrotated copy at Begin
// (docs/design/0002-rotate-at-write.md).
package kvcache
