//go:build darwin || freebsd || linux || netbsd || openbsd || windows

package usher_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"github.com/go-usher/usher"
)

// exampleEndpoint is a path of this process's own; a program would use a plain name, such as "shop".
func exampleEndpoint() (path string, remove func()) {
	if runtime.GOOS == "windows" {
		return fmt.Sprintf(`\\.\pipe\usher\example-%d`, os.Getpid()), func() {}
	}
	dir, err := os.MkdirTemp("", "usher")
	if err != nil {
		log.Fatal(err)
	}
	return filepath.Join(dir, "shop"), func() { os.RemoveAll(dir) }
}

// A front door reads the first bytes of a connection and hands it to a backend, which serves it as if it
// had accepted it. Giver and taker are two processes in earnest.
func Example() {
	endpoint, remove := exampleEndpoint()
	defer remove()

	// The taker.
	l, err := usher.Listen(endpoint)
	if err != nil {
		log.Fatal(err)
	}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "hello from %s", r.Host)
	})}
	go server.Serve(l)
	defer server.Close()

	// The giver.
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	target, err := usher.Dial(ctx, endpoint)
	if err != nil {
		log.Fatal(err)
	}
	defer target.Close()
	door, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	defer door.Close()
	go func() {
		conn, err := door.Accept()
		if err != nil {
			return
		}
		head := make([]byte, 512)
		n, err := conn.Read(head) // to see who is asked for
		if err != nil {
			conn.Close()
			return
		}
		offer, err := usher.NewOffer(conn, head[:n], usher.Info{})
		if err != nil {
			conn.Close()
			return
		}
		if err := target.Handoff(ctx, offer); err != nil {
			if mine, err := offer.Reclaim(); err == nil {
				mine.Close()
			}
		}
	}()

	// A client.
	client, err := net.Dial("tcp", door.Addr().String())
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()
	io.WriteString(client, "GET / HTTP/1.0\r\nHost: shop.example.com\r\n\r\n")
	answer, err := io.ReadAll(client)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(string(answer[len(answer)-len("hello from shop.example.com"):]))
	// Output: hello from shop.example.com
}

// When nobody takes the connection in time, it is the giver's as if nothing had been.
func ExampleOffer_Reclaim() {
	endpoint, remove := exampleEndpoint()
	defer remove()
	busy, err := usher.Listen(endpoint) // and does not accept
	if err != nil {
		log.Fatal(err)
	}
	defer busy.Close()
	target, err := usher.Dial(context.Background(), endpoint)
	if err != nil {
		log.Fatal(err)
	}
	defer target.Close()
	client, conn := pipe()
	defer client.Close()
	offer, err := usher.NewOffer(conn, []byte("what was read, "), usher.Info{})
	if err != nil {
		log.Fatal(err)
	}

	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Millisecond)
	defer cancel()
	err = target.Handoff(ctx, offer)
	fmt.Println(errors.Is(err, os.ErrDeadlineExceeded))
	mine, err := offer.Reclaim()
	if err != nil {
		log.Fatal(err)
	}
	defer mine.Close()
	io.WriteString(client, "and what was not")
	client.CloseWrite()
	all, err := io.ReadAll(mine)
	fmt.Println(string(all), err)
	// Output:
	// true
	// what was read, and what was not <nil>
}

// A front door is out of the path of what it has handed over, and writes its access log all the same.
func ExampleDialer() {
	endpoint, remove := exampleEndpoint()
	defer remove()
	l, err := usher.Listen(endpoint)
	if err != nil {
		log.Fatal(err)
	}
	defer l.Close()
	go func() {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		io.ReadAll(conn)
		io.WriteString(conn, "hello")
		conn.Close()
	}()

	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	dialer := usher.Dialer{Ended: func(r usher.Report) {
		fmt.Printf("%s %s: %d bytes received, %d sent\n", r.Info.ID, r.Info.Host, r.Received, r.Sent)
	}}
	target, err := dialer.Dial(ctx, endpoint)
	if err != nil {
		log.Fatal(err)
	}
	client, conn := pipe()
	defer client.Close()
	offer, err := usher.NewOffer(conn, []byte("what was read, "), usher.Info{ID: "c-1", Host: "shop.example.com"})
	if err != nil {
		log.Fatal(err)
	}
	if err := target.Handoff(ctx, offer); err != nil {
		log.Fatal(err)
	}
	io.WriteString(client, "and what was not")
	client.CloseWrite()

	if err := target.Shutdown(ctx); err != nil { // waits until all ends were reported
		log.Fatal(err)
	}
	// Output: c-1 shop.example.com: 31 bytes received, 5 sent
}

// pipe returns both ends of a TCP connection.
func pipe() (client, server *net.TCPConn) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	defer l.Close()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		log.Fatal(err)
	}
	s, err := l.Accept()
	if err != nil {
		log.Fatal(err)
	}
	return c.(*net.TCPConn), s.(*net.TCPConn)
}

// A backend reads a request that is for another, and gives the connection back to the door, which hands it on, or serves it.
func ExampleOffer_HandBack() {
	endpoint, remove := exampleEndpoint()
	defer remove()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()

	// The taker.
	l, err := usher.Listen(endpoint)
	if err != nil {
		log.Fatal(err)
	}
	defer l.Close()
	go func() {
		accepted, err := l.Accept()
		if err != nil {
			return
		}
		conn := accepted.(*usher.Conn)
		request := make([]byte, 512)
		n, _ := conn.Read(request)
		offer, err := usher.NewOffer(conn, request[:n], conn.Info())
		if err != nil {
			conn.Close()
			return
		}
		if err := offer.HandBack(ctx); err != nil {
			if mine, err := offer.Reclaim(); err == nil {
				mine.Close() // or make do with it
			}
		}
	}()

	// The giver.
	returned := make(chan *usher.Conn, 1)
	dialer := usher.Dialer{Returned: func(c *usher.Conn) { returned <- c }}
	target, err := dialer.Dial(ctx, endpoint)
	if err != nil {
		log.Fatal(err)
	}
	defer target.Close()
	door, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	defer door.Close()
	client, err := net.Dial("tcp", door.Addr().String())
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()
	io.WriteString(client, "a request for somebody else")
	conn, err := door.Accept()
	if err != nil {
		log.Fatal(err)
	}
	offer, err := usher.NewOffer(conn, nil, usher.Info{ID: "connection 1"})
	if err != nil {
		log.Fatal(err)
	}
	if err := target.Handoff(ctx, offer); err != nil {
		log.Fatal(err)
	}

	back := <-returned
	defer back.Close()
	request := make([]byte, 512)
	n, _ := back.Read(request)
	fmt.Printf("%s is back, with %q\n", back.Info().ID, request[:n])
	// Output: connection 1 is back, with "a request for somebody else"
}
