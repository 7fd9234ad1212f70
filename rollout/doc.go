// Package rollout is the main path: an Engine is a loaded model, a Session one timeline, Next makes one chunk of it.
//
// What enters: a Request (prompt, seed, start frames, cache policy) and, chunk by chunk, actions. What leaves: frames, without
// end. Everything a session needs is allocated when it starts, in amounts known beforehand (SessionBytes).
//
// Session is Self-Forcing's loop (pipeline/causal_inference.py @ 33593df): a chunk is denoised step by step against the cache,
// then run once more without noise so that the cache keeps clean keys. Overlapped and Rolling are other loops with the same
// verbs; Engine.Open chooses (docs/design/0006-loops.md).
package rollout
