//go:build race

package main

// raceEnabled says that the race detector slows plain Go down about tenfold.
const raceEnabled = true
