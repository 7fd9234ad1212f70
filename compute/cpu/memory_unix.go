//go:build unix

package cpu

import "syscall"

// mapMemory reserves zeroed pages outside the Go heap.
func mapMemory(n int64) ([]byte, error) {
	b, err := syscall.Mmap(-1, 0, int(n), syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_ANON|syscall.MAP_PRIVATE)
	if err == nil && n >= hugeBytes {
		wantHugePages(b)
	}
	return b, err
}

// hugeBytes is the least memory that asks for large pages: a long history is read from end to end in every pass, and finding its
// pages then takes a tenth of the time of attention.
const hugeBytes = 16 << 20

// unmapMemory gives pages back. An error would mean a slice that mapMemory did not return.
func unmapMemory(b []byte) {
	if err := syscall.Munmap(b); err != nil {
		panic("cpu: unmap: " + err.Error())
	}
}
