// Package text turns a prompt into the embedding that cross attention reads.
//
// What enters: a prompt. What leaves: one row for each prompt token, F32 [tokens, width of the diffusion transformer]. Words and
// Small belong to the embedded world model. For Wan, Clean and Unigram (SentencePiece) make tokens, T5 (umT5) encodes them, and
// Prompter joins the three.
package text
