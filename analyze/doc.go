// Package analyze measures how much of a model's attention is redundant, as the FAST-AR paper does (arXiv:2602.01801, figures 2
// to 5 and 10), on any model that a rollout.Engine runs.
//
// What enters: an engine, a request, its actions and the latent frames to look at. What leaves: a Study (plain data with JSON
// tags), its drawings as files, and its report.Page.
//
// A session runs over a full cache with dense attention. A recorder stands between the network and the cache: it copies the
// clean keys and values of every latent frame, unrotated as the network hands them over, and, in one denoising pass of each
// examined chunk, the queries, which it turns back by the inverse of their rotation. Everything else is computed on the host
// from these copies, in float32 dot products and float64 sums, so that no number here depends on an acceleration. Two things
// are asked of real accelerations, through interfaces: caches to be tried run beside the full one and are shown the same keys
// and the same queries (Trial), and indexes rank the same keys (Matcher).
package analyze
