//go:build !linux

package cpu

// systemMemory is unknown here.
func systemMemory() (total, free int64) { return 0, 0 }

func wantHugePages([]byte) {}
