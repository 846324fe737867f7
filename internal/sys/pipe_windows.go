package sys

import "golang.org/x/sys/windows"

var procImpersonateNamedPipeClient = windows.NewLazySystemDLL("advapi32.dll").NewProc("ImpersonateNamedPipeClient")

// ImpersonateNamedPipeClient makes the calling thread, which must be locked to its goroutine, act as
// the client of a pipe until windows.RevertToSelf.
func ImpersonateNamedPipeClient(pipe windows.Handle) error {
	ok, _, err := procImpersonateNamedPipeClient.Call(uintptr(pipe))
	if ok == 0 {
		return err
	}
	return nil
}
