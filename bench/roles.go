package main

// roles are what this program is besides itself: processes that the bench needs.
var roles = map[string]func(args []string) error{
	"backend":  playBackend,
	"tcpproxy": playTCPProxy,
}
