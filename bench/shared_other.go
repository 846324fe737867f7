//go:build !unix

package main

import "net"

// listenShared listens at an address that cannot be shared here.
func listenShared(address string) (net.Listener, error) { return net.Listen("tcp", address) }
