// Package kvcachetest is the conformance suite of cache policies.
//
// What enters: a device and an Exam, which names a policy and what it promises. What leaves: test failures that say which law
// of kvcache.Cache does not hold. Every policy runs the same laws: a draft is overwritten by the next forward, a chunk that was
// interrupted leaves no trace, Reset is as good as new, bytes are known beforehand, keys that are not finite are reported and
// kept out, anchors and recent frames are never lost, and, as long as nothing has been merged or forgotten, attention over the
// view is dense attention, computed here in float64 from the frames themselves.
package kvcachetest
