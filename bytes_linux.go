package usher

import "golang.org/x/sys/unix"

// States of a connection whose client's FIN has come (include/net/tcp_states.h). In the last one it may have
// been a RST instead: nothing tells.
const (
	tcpTimeWait  = 6
	tcpClose     = 7
	tcpCloseWait = 8
	tcpLastAck   = 9
	tcpClosing   = 11
)

// kernelBytes returns how many bytes processes have read from a TCP connection and written to it since it was
// made, as the kernel has counted them (tcp(7), TCP_INFO); unknown for other sockets.
func kernelBytes(fd uintptr) (received, sent int64) {
	s := int(fd)
	// One of MPTCP, which package net makes for clients that ask for it, tells of its first subflow only.
	if p, err := unix.GetsockoptInt(s, unix.SOL_SOCKET, unix.SO_PROTOCOL); err != nil || p != unix.IPPROTO_TCP {
		return unknown, unknown
	}
	info, err := unix.GetsockoptTCPInfo(s, unix.IPPROTO_TCP, unix.TCP_INFO)
	if err != nil {
		return unknown, unknown
	}
	unread, err := unix.IoctlGetInt(s, unix.SIOCINQ)
	if err != nil {
		return unknown, unknown
	}
	received = int64(info.Bytes_received) - int64(unread)
	switch info.State {
	case tcpTimeWait, tcpClose, tcpCloseWait, tcpLastAck, tcpClosing:
		received-- // the FIN counts as a byte
	}
	// Not Bytes_acked, which lacks what is on its way and has the FIN.
	sent = int64(info.Bytes_sent) - int64(info.Bytes_retrans) + int64(info.Notsent_bytes)
	if info.Bytes_sent == 0 && info.Bytes_acked > 1 { // a kernel before 4.19 does not count them
		sent = unknown
	}
	return max(received, 0), max(sent, unknown)
}
