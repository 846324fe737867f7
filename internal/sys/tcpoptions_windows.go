package sys

import "golang.org/x/sys/windows"

// The names of ws2ipdef.h; Windows has the three for keep-alive times since Windows 10 1709.
var tcpOptions = []option{
	{windows.IPPROTO_TCP, windows.TCP_NODELAY, 1},
	{windows.SOL_SOCKET, windows.SO_KEEPALIVE, 1},
	{windows.IPPROTO_TCP, 3, 15},  // TCP_KEEPIDLE
	{windows.IPPROTO_TCP, 17, 15}, // TCP_KEEPINTVL
	{windows.IPPROTO_TCP, 16, 9},  // TCP_KEEPCNT
}

func getOption(s uintptr, o option) (int, error) {
	return windows.GetsockoptInt(windows.Handle(s), o.level, o.name)
}

func setOption(s uintptr, o option, value int) error {
	return windows.SetsockoptInt(windows.Handle(s), o.level, o.name, value)
}
