// Package text turns a prompt into the embedding that cross attention reads.
//
// What enters: a prompt. What leaves: one row for each prompt token, F32 [tokens, width of the diffusion transformer]. Words and
// Small belong to the embedded world model.
package text
