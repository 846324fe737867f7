//go:build darwin || freebsd || linux || netbsd || openbsd || windows

package ipc_test

import (
	"context"
	"fmt"
	"io"
	"log"
	"net"
	"os"

	"github.com/go-usher/usher/ipc"
)

// A connection is handed over after some of it was read. Here both sides are in one process.
func Example() {
	dir, err := os.MkdirTemp("", "ipc")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	os.Setenv("USHER_DIR", dir) // of use on Unix only; without it, the user's own folder
	defer os.Unsetenv("USHER_DIR")

	// The backend serves one connection that comes to its endpoint.
	l, err := ipc.Listen("example-shop")
	if err != nil {
		log.Fatal(err)
	}
	defer l.Close()
	go func() {
		channel, err := l.Accept()
		if err != nil {
			log.Fatal(err)
		}
		defer channel.Close()
		m, err := channel.Receive()
		if err != nil {
			log.Fatal(err)
		}
		defer m.Close() // closes what was not taken
		conn, err := m.Attachments()[0].Conn()
		if err != nil {
			log.Fatal(err)
		}
		whole := ipc.NewPrefixConn(conn, m.Data)
		defer whole.Close()
		all, err := io.ReadAll(whole)
		if err != nil {
			log.Fatal(err)
		}
		fmt.Fprintf(whole, "the backend read %q", all)
	}()

	// The giver accepts a connection, reads four bytes and hands it over.
	web, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	defer web.Close()
	client, err := net.Dial("tcp", web.Addr().String())
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()
	io.WriteString(client, "GET /hats")
	client.(*net.TCPConn).CloseWrite()

	conn, err := web.(*net.TCPListener).AcceptTCP()
	if err != nil {
		log.Fatal(err)
	}
	prefix := make([]byte, 4)
	if _, err := io.ReadFull(conn, prefix); err != nil {
		log.Fatal(err)
	}
	channel, err := ipc.Dial(context.Background(), "example-shop")
	if err != nil {
		log.Fatal(err)
	}
	defer channel.Close()
	if err := channel.Send(prefix, conn); err != nil {
		log.Fatal(err)
	}
	conn.Close() // the giver's copy

	answer, err := io.ReadAll(client)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(string(answer))
	// Output: the backend read "GET /hats"
}

// A file keeps its name and its offset.
func ExampleConn_Send() {
	a, b, err := ipc.Pair()
	if err != nil {
		log.Fatal(err)
	}
	defer a.Close()
	defer b.Close()

	f, err := os.CreateTemp("", "hats")
	if err != nil {
		log.Fatal(err)
	}
	defer os.Remove(f.Name())
	defer f.Close()
	io.WriteString(f, "bowler, fedora")
	f.Seek(8, io.SeekStart)
	if err := a.Send([]byte("have a look"), f); err != nil {
		log.Fatal(err)
	}

	m, err := b.Receive()
	if err != nil {
		log.Fatal(err)
	}
	defer m.Close()
	got, err := m.Attachments()[0].File()
	if err != nil {
		log.Fatal(err)
	}
	defer got.Close()
	rest, err := io.ReadAll(got)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%s: %s, same name: %t\n", m.Data, rest, got.Name() == f.Name())
	// Output: have a look: fedora, same name: true
}
