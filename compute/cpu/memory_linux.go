package cpu

import (
	"bytes"
	"os"
	"strconv"
	"syscall"
)

// systemMemory reads total and available bytes of the machine from /proc/meminfo; zeros when it cannot.
func systemMemory() (total, free int64) {
	data, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return 0, 0
	}
	for line := range bytes.Lines(data) {
		f := bytes.Fields(line)
		if len(f) < 2 {
			continue
		}
		kib, err := strconv.ParseInt(string(f[1]), 10, 64)
		if err != nil {
			continue
		}
		switch string(f[0]) {
		case "MemTotal:":
			total = kib << 10
		case "MemAvailable:":
			free = kib << 10
		}
	}
	return total, free
}

// wantHugePages asks for pages of 2 MiB. It is advice: where there are none, pages stay small.
func wantHugePages(b []byte) { syscall.Madvise(b, syscall.MADV_HUGEPAGE) }
