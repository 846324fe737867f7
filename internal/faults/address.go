package faults

import (
	"fmt"
	"math/rand/v2"
	"net"
	"testing"
)

// Listen listens at a port that is below those which systems give to clients: when it is closed, and before it is open again,
// nobody gets it by chance.
func Listen(t testing.TB) net.Listener {
	t.Helper()
	for t.Context().Err() == nil {
		if l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", 10001+rand.N(20000))); err == nil {
			return l
		}
	}
	t.Fatal("no port is free")
	return nil
}
