// Package computetest decides what a device is: a compute.Device that passes Run keeps the contract of package compute.
//
// A function that opens a device enters, and how far its numbers may be from the truth; a test passes or fails. The truth
// is float64 loops over dense arrays, written for being obviously right (oracle.go, attend.go); Reference wraps them as a
// device of their own, slow and exact, which other tests may use as an oracle.
//
// Inputs are new in every run. A failure prints its seed; LONGTAKE_TEST_SEED=<number> repeats it. Destinations are filled
// with NaN before each call, lie inside larger tensors whose rest must not change, and inputs are surrounded by NaN and
// must not change either. Besides comparing with the truth, Run checks laws that relate calls to each other.
package computetest
