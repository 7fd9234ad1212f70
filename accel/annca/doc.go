// Package annca is AnnCA of FAST-AR (arXiv:2602.01801, sec. 4.2): cross attention of a chunk over those prompt tokens that its
// queries are near to, found by approximate nearest neighbours (package ann).
//
// What enters: the queries of a chunk and the prompt's keys. What leaves: what dense cross attention would give, nearly. In the
// first pass of a chunk a token is kept if any query of the chunk, in any head, is near to it; later passes use the same
// tokens. The last word of the prompt, and the token that stands for its padding, are always kept.
//
// That all padding rows have one key and one value, so that one token with the logarithm of their number gives the same
// attention exactly, is package dit's doing and always on.
package annca
