package usher

import (
	"net"
	"testing"
)

// TestAddressesThatNobodyKnows are left out, not sent empty: the taker could not read them.
func TestAddressesThatNobodyKnows(t *testing.T) {
	for _, a := range []net.Addr{nil, &net.TCPAddr{}, orNowhere(nil), &net.UnixAddr{Name: "/x", Net: "unix"}} {
		b, err := encodeInfo(&Info{}, addrPort(a), addrPort(a))
		if err != nil || len(b) != 0 {
			t.Errorf("%v is sent as % x, %v", a, b, err)
		}
	}
}
