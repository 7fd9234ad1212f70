// Package ann finds, among many stored keys, those whose dot product with a query is large, without computing the products:
// approximate nearest neighbours in the two ways that FAST-AR names (arXiv:2602.01801, sec. 4), hashing (LSH) and
// quantisation (Quant), and exactly (Exact), which is their oracle. The three modules of package accel share it.
//
// What enters: keys, one at a time, each when it is stored. What leaves: estimates of dot products (Score), the best key
// (Nearest), or whether a query shares a bucket with a key. A key is hashed once; nothing is ever built anew, apart from the
// first keys, from which LSH learns their mean and product quantisation its centroids. Nothing is allocated in steady state,
// that is, while slots do not grow.
//
// The paper prints no number of bits, tables or probes; the defaults are our choice, by the table in README.md.
package ann
