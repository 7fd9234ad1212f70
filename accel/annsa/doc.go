// Package annsa is AnnSA of FAST-AR (arXiv:2602.01801, sec. 4.3): self attention of a chunk over the part of the history that
// matters to it, found by approximate nearest neighbours (package ann).
//
// What enters: the queries of a chunk and a view of any cache. What leaves: what dense attention would give, nearly. The
// history is cut into tiles of a few tokens of one latent frame when a frame leaves the newest ones: the tokens of a frame are
// split by their keys, so that a tile's keys are alike, and the mean key of a tile is put into an index, once. In the first
// sparse pass of a chunk each head scores the tiles for groups of its queries and keeps the best until a budget is spent or
// hardly any mass is missed; their keys and values are gathered behind those that are always kept (anchors, the newest
// frames, the chunk itself), and one dense call of the device's attention per pass does the rest. Later passes of the chunk
// use the same gathered keys.
//
// In the no-drop mode every tile that was not kept stays as one key: the mean key and mean value of its tokens, with the
// logarithm of their number on its logit (Lemma 5.1 of the paper), in the same softmax.
//
// Where the paper is silent the choices are ours; README.md says which, and what they cost.
package annsa
