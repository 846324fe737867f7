//go:build darwin || freebsd || linux || netbsd || openbsd

package ipc

import (
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// FuzzControl gives the parser of control data what no kernel would.
func FuzzControl(f *testing.F) {
	f.Add(unix.UnixRights(1, 2, 3))
	f.Add(unix.UnixRights())
	f.Add([]byte{255, 255, 255, 255, 255, 255, 255, 255})
	f.Fuzz(func(t *testing.T, oob []byte) {
		fds, err := rights(oob)
		if err != nil && !errors.Is(err, ErrProtocol) {
			t.Errorf("error is not ErrProtocol: %v", err)
		}
		if len(fds)*4 > len(oob) {
			t.Errorf("%d descriptors in %d bytes", len(fds), len(oob))
		}
	})
}

// FuzzStream writes anything at all to a channel, in pieces, with descriptors here and there, and
// checks that Receive ends without a leak.
func FuzzStream(f *testing.F) {
	one := beginFrame(nil, 4, nil, nil)
	f.Add(append(one, "data"...), uint16(3), uint8(0))
	withFile := entry{kind: kindFile, name: "n"}.append(make([]byte, headerLen))
	header{table: entryLen + 1, count: 1}.put(withFile)
	f.Add(withFile, uint16(100), uint8(1))
	f.Add(append(withFile, one...), uint16(7), uint8(2))
	null, err := os.Open(os.DevNull)
	if err != nil {
		f.Fatal(err)
	}
	defer null.Close()
	f.Fuzz(func(t *testing.T, b []byte, piece uint16, every uint8) {
		fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(fds[1])
		tr, err := fromDescriptor(fds[0])
		if err != nil {
			t.Fatal(err)
		}
		if len(b) > 10_000 {
			b = b[:10_000] // what a socket holds without a reader
		}
		for i := 0; len(b) > 0 && i < 100; i++ {
			n := min(len(b), int(piece)+1)
			var oob []byte
			if every > 0 && i%int(every) == 0 {
				oob = unix.UnixRights(int(null.Fd()))
			}
			if err := unix.Sendmsg(fds[1], b[:n], oob, nil, unix.MSG_DONTWAIT); err != nil {
				break
			}
			b = b[n:]
		}
		unix.Shutdown(fds[1], unix.SHUT_WR)
		c := newConn(tr, "fuzz", Limits{Data: 1 << 20})
		defer c.Close()
		c.SetReadDeadline(time.Now().Add(10 * time.Second))
		for {
			m, err := c.Receive()
			if err == nil {
				m.Close()
				continue
			}
			if err != io.EOF && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, ErrProtocol) {
				t.Errorf("received %v", err)
			}
			break
		}
		c.Close()
		if _, err := c.Receive(); !errors.Is(err, net.ErrClosed) {
			t.Errorf("after Close: %v", err)
		}
		// Every descriptor that came is closed: the lowest free number is that which was free before.
		next, err := unix.Dup(0)
		if err != nil {
			t.Fatal(err)
		}
		unix.Close(next)
		if next > fds[1]+8 {
			t.Errorf("descriptors leak: the next is %d", next)
		}
	})
}
