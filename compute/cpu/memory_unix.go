//go:build unix

package cpu

import "syscall"

// mapMemory reserves zeroed pages outside the Go heap.
func mapMemory(n int64) ([]byte, error) {
	return syscall.Mmap(-1, 0, int(n), syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_ANON|syscall.MAP_PRIVATE)
}

// unmapMemory gives pages back. An error would mean a slice that mapMemory did not return.
func unmapMemory(b []byte) {
	if err := syscall.Munmap(b); err != nil {
		panic("cpu: unmap: " + err.Error())
	}
}
