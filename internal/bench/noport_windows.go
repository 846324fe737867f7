package bench

import "golang.org/x/sys/windows"

// noPort are what connect says when ports have run short.
var noPort = []error{windows.WSAEADDRINUSE, windows.WSAEADDRNOTAVAIL, windows.WSAENOBUFS}
