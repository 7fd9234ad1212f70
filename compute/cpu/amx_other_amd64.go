//go:build !linux && amd64 && !purego

package cpu

// hasAMX is false: only Linux is known to hand out the tile registers.
func hasAMX() bool { return false }

var amxClass *class
