//go:build !amd64 || purego

package cpu

// classes lists what this machine can run, best first.
func classes() []*class { return []*class{genericClass} }

// pause is a hint to the processor between looks at a shared word; there is none here.
func pause() {}
