package processes

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"sync/atomic"
)

// lastPort is the port that was given away last. They lie below those that the system chooses for clients, which
// would otherwise take them by the thousand.
var lastPort atomic.Uint32

func init() { lastPort.Store(20000 + rand.Uint32N(5000)) }

// FreeAddress returns an address of the loopback interface that nobody listens at, for programs that have to be told
// where to listen.
func FreeAddress() (string, error) {
	for range 2000 {
		address := fmt.Sprintf("127.0.0.1:%d", 20000+lastPort.Add(1)%12000)
		l, err := net.Listen("tcp", address)
		if err != nil {
			continue
		}
		return address, l.Close()
	}
	return "", errors.New("no port is free on 127.0.0.1")
}

// FreeAddresses returns two: one for HTTP and one for TLS.
func FreeAddresses() (http, tls string, err error) {
	http, err = FreeAddress()
	if err != nil {
		return "", "", err
	}
	tls, err = FreeAddress()
	return http, tls, err
}
