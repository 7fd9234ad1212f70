package attentiontest

import "testing"

// allocations returns the allocations of a call.
func allocations(f func()) float64 { return testing.AllocsPerRun(1, f) }
