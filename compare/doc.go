// Package compare runs one request under several policies of cache and attention, and measures what that costs and saves.
//
// What enters: an engine, a request with its actions, and a list of entries, of which the first is the reference (plain dense
// attention over a full cache, if nothing else is asked for); for tests against the truth also the frames of a simulator.
// What leaves: a Report (speed and size at frontiers, fidelity frame by frame, one-step fidelity on the reference's history),
// a BenchReport (speed and size alone, entries in turn) or a MemoryReport (what is remembered of a place that was left). All
// three are plain data with JSON tags.
//
// Free-running videos are chaotic: two of them part even where only the order of summation differs. So a Report also has the
// ceiling, which is the reference against itself with its keys summed in another order, and the one-step fidelity, where the
// history is the reference's own and only the next chunk is made under the policy.
//
// Entries run one after the other, so that one cache is in memory at a time and timings do not disturb each other; frames are
// scored when a run is over. Of the reference all frames are kept, and its latents for the one-step runs (64 tokens of 192
// values: 147 MB for 3,000 frames).
package compare
