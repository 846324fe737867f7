package sys

import "unsafe"

// Words returns the memory of b, which must be aligned as an mmap is, as words of 32 bits.
func Words(b []byte) []uint32 {
	return unsafe.Slice((*uint32)(unsafe.Pointer(unsafe.SliceData(b))), len(b)/4)
}
