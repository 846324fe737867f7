package upstream_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/go-usher/usher/internal/faults"
	"github.com/go-usher/usher/internal/upstream"
)

func init() { roles["proxy"] = playProxy }

// playProxy proxies one connection for each pair of a kind of client and a backend, of those in args.
func playProxy(args []string) error {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	defer l.Close()
	fmt.Println(l.Addr())
	p := upstream.New(upstream.Options{Addresses: args[1:]})
	defer p.Close()
	for _, front := range fronts {
		for range args[1:] {
			c, err := l.Accept()
			if err != nil {
				return err
			}
			door, _, err := newFront(front, c.(upstream.Conn))
			if err != nil {
				return err
			}
			dialed, _, err := p.Dial(context.Background(), upstream.Addresses{}) // each in turn
			if err != nil {
				return err
			}
			if _, err := upstream.Copy(context.Background(), door, dialed); err != nil {
				return err
			}
		}
	}
	return nil
}

var spliced = regexp.MustCompile(`splice.*\) += (\d+)\n`)

// TestTheKernelCopies has strace watch a proxy: each byte is spliced into a pipe and out of it, in both
// directions, whatever the connections are.
func TestTheKernelCopies(t *testing.T) {
	strace, err := exec.LookPath("strace")
	if err != nil {
		t.Skip("strace is not here: ", err)
	}
	faults.NoLeak(t)
	backends := []net.Listener{listen(t, "tcp"), listen(t, "unix")}
	trace := filepath.Join(t.TempDir(), "trace")
	cmd := faults.Command(t, "proxy", "proxy", addressOf(backends[0]), addressOf(backends[1]))
	cmd.Args = append([]string{strace, "-f", "-o", trace, "-e", "trace=splice", cmd.Path}, cmd.Args[1:]...)
	cmd.Path = strace
	stdout := must(cmd.StdoutPipe())(t)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Process.Kill()
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		t.Skip("strace cannot trace here: ", err)
	}
	const size = 1 << 20
	var total int64
	for range fronts {
		for _, l := range backends {
			client := must(net.Dial("tcp", strings.TrimSpace(line)))(t).(*net.TCPConn)
			defer client.Close()
			backend := accept(t, l)
			for _, way := range [][2]upstream.Conn{{client, backend}, {backend, client}} {
				go func() {
					way[0].Write(make([]byte, size))
					way[0].CloseWrite()
				}()
				if n, err := io.Copy(io.Discard, way[1]); n < size || err != nil {
					t.Errorf("%d bytes came through, %v", n, err)
				}
				total += 2 * size
			}
		}
	}
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
	var sum int64
	for _, call := range spliced.FindAllStringSubmatch(string(must(os.ReadFile(trace))(t)), -1) {
		n, _ := strconv.ParseInt(call[1], 10, 64)
		sum += n
	}
	if sum != total {
		t.Errorf("%d bytes were spliced, want %d", sum, total)
	}
}
