// Package pose is a cache policy for world models whose actions give a pose: a frame made near where an old one was made is
// allowed to see that old one again, as if it were recent.
//
// What enters: the chunk's keys and the pose of its frames (kvcache.Posed). What leaves: a view of the newest frames and of the
// few stored ones nearest in pose. A frame whose pose matches gets a bonus on its logits and is read as if it were Move frames
// old. It is a rule of reading: no weights, no training. The rule and its constants were found on the embedded model
// (train/README.md); it is our own, not the paper's.
//
// Memory is bounded: a frame that leaves the window is stored only if no stored frame covers its pose, and a full store gives
// up the frame that a newer one covers best. Of old frames it keeps the clean latents, a thirtieth of the bytes that keys and values take in
// float32, and has keys made again when they are to be seen (kvcache.Recaller).
package pose
