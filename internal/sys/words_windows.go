package sys

import "unsafe"

// WordsAt returns n bytes of memory at an address that MapViewOfFile returned as words of 32 bits.
func WordsAt(address uintptr, n int) []uint32 {
	// The address is none of Go's: the garbage collector neither moves nor frees what is there. Taken
	// through a pointer to it, as go vet asks of conversions that are not this harmless.
	return unsafe.Slice(*(**uint32)(unsafe.Pointer(&address)), n/4)
}
