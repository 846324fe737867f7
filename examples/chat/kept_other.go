//go:build !windows

package main

import (
	"net"
	"os"
)

func keepable(*os.File) {} // not File.Fd, which makes the socket blocking

func connOf(f *os.File) (net.Conn, error) { return net.FileConn(f) }
