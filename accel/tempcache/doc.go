// Package tempcache is TempCache of FAST-AR (arXiv:2602.01801, sec. 4.1): a KV cache in which tokens that repeat over time
// share one entry, so that memory and time grow with what is new in a video and not with its length.
//
// What enters: what enters every kvcache.Cache, keys before rotary embedding and values, chunk by chunk. What leaves: a
// kvcache.View with anchor frames, the newest frames and the chunk in work as they are, then for every head the merged
// entries, each with the logarithm of how many tokens it stands for (LogCount). By the paper's Lemma 5.1 attention over the
// view equals dense attention wherever merged keys are equal; for keys that differ by at most e in any logit the output
// moves by at most 2 R tanh(e/2), R being the radius of the values.
//
// Life of a token: it is written like in a window, and read as it is while its frame is among the newest. When the frame
// leaves the ring of dense frames (in Cache.Begin, so once a chunk and never on noise), each head compares the token's key
// with its entries. If the nearest is near enough the token joins it, else it becomes an entry of its own. Beyond a budget the
// two nearest entries are merged, or, if they are not near at all, the entry with the least members over age is forgotten.
//
// Where the paper is silent the choices are ours; README.md says which, and what they cost.
package tempcache
