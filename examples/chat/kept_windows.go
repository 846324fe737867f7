package main

import (
	"errors"
	"net"
	"os"

	"golang.org/x/sys/windows"
)

// keepable readies a second descriptor for connOf, which cannot use one on a completion port, where package os has put it.
func keepable(f *os.File) { f.Fd() }

// connOf returns a connection on a descriptor that was kept. The socket, of which f is one handle, is still on the completion
// port of the process that had claimed it, and net.FileConn needs it on this one's: it has to be on none (a
// FILE_COMPLETION_INFORMATION of zeros says so).
func connOf(f *os.File) (net.Conn, error) {
	raw, err := f.SyscallConn()
	if err != nil {
		return nil, err
	}
	var none [16]byte
	var status windows.IO_STATUS_BLOCK
	var replaceErr error
	err = raw.Control(func(h uintptr) {
		replaceErr = windows.NtSetInformationFile(windows.Handle(h), &status, &none[0], uint32(len(none)), windows.FileReplaceCompletionInformation)
	})
	if err := errors.Join(err, replaceErr); err != nil {
		return nil, err
	}
	return net.FileConn(f)
}
