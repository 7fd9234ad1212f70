//go:build darwin || dragonfly || freebsd || linux || netbsd || openbsd

package weights

import (
	"fmt"
	"syscall"
)

// mapFile maps a file read-only.
func mapFile(path string) ([]byte, func() error, error) {
	h, size, err := openFile(path)
	if err != nil {
		return nil, nil, err
	}
	defer h.Close()
	if size == 0 { // mmap refuses an empty range
		return readFile(h, size)
	}
	data, err := syscall.Mmap(int(h.Fd()), 0, int(size), syscall.PROT_READ, syscall.MAP_SHARED)
	if err != nil {
		return nil, nil, fmt.Errorf("map %s: %w", path, err)
	}
	return data, func() error { return syscall.Munmap(data) }, nil
}
