package sys

import (
	"unsafe"

	"golang.org/x/sys/windows"
)

var procNtQueryObject = windows.NewLazySystemDLL("ntdll.dll").NewProc("NtQueryObject")

// IsSection says whether h is a handle of a section: memory that CreateFileMapping made. It asks for
// the PUBLIC_OBJECT_TYPE_INFORMATION (ntifs.h), which starts with the type's name.
func IsSection(h windows.Handle) bool {
	const objectTypeInformation = 2
	var info struct {
		name windows.NTUnicodeString
		rest [1024]byte // more fields, and the name itself
	}
	var n uint32
	status, _, _ := procNtQueryObject.Call(uintptr(h), objectTypeInformation,
		uintptr(unsafe.Pointer(&info)), unsafe.Sizeof(info), uintptr(unsafe.Pointer(&n)))
	return status == 0 && info.name.String() == "Section"
}
