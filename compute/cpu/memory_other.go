//go:build !unix

package cpu

// mapMemory takes memory from the Go heap, aligned like pages.
func mapMemory(n int64) ([]byte, error) { return alignedBytes(int(n)), nil }

// unmapMemory leaves the slice to the garbage collector.
func unmapMemory([]byte) {}
