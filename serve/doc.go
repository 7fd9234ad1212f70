// Package serve streams live worlds to browsers and programs.
//
// What enters: HTTP requests and WebSocket messages (package api), and Models that a command has put together; this package
// knows nothing of tensors or devices. What leaves: frames as they are made, video files, and for every session an event log
// from which Replay makes the same frames again, hash for hash.
//
// A session is one goroutine around a scene, the part that is free of clocks: events and actions in, frames out. The goroutine
// samples the newest input, waits for its turn on the engine (Turns: one chunk at a time, in order of arrival, so that sessions
// share the processor evenly), makes a chunk and publishes its frames when they are due. Viewers take frames from a mailbox with
// one place: whoever is slow misses frames and slows nobody. Frames are encoded once, by the first viewer that wants them.
//
// # What survives a crash
//
// After kill -9: finished videos and recordings; of a recording in work everything but its last second, in a file that can be
// played; of an event log everything but its last second, in whole lines. The model's memory is not kept: a session is restored by making its
// frames again from its log, which costs as long as making them did.
package serve
