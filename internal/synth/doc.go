// Package synth writes checkpoints of the Wan families with random weights, in the layouts that the official ones have:
// networks, umT5, both VAEs, a tokenizer, and folders of them all. Tests use small ones, and what is to be timed at full size
// where the real weights cannot be had uses large ones (dev/synth).
//
// What enters: sizes and a seed. What leaves: files. The lists of names and shapes are written from the published formats, not
// from this project's loaders. Weights have a standard deviation of 1/sqrt(inputs), norms are near 1, biases and modulations
// small, so that activations stay sane.
package synth
