// Package dit is the causal diffusion transformer: Wan-2.1's block with a KV cache, one implementation for every family.
//
// What enters: the noisy latents of a chunk as tokens, one timestep a latent frame, the prompt's keys and values, and a cache.
// What leaves: the network's prediction for these tokens (a flow or the clean latents; package sampler knows which), and the
// chunk's keys in the cache. Latents are tokens here, [tokens, patch values]: the patch embedding is a Linear.
//
// Checked against Self-Forcing wan/modules/causal_model.py @ 33593df and, for the embedded model, train/tw.py. Differences in
// number, names and additions (actions, headings) are data in Config and Names, never branches on a family.
package dit
