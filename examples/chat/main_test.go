package main

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/go-usher/usher"
	"github.com/go-usher/usher/internal/faults"
)

// What CI makes larger.
var (
	manyClients  = flag.Int("chat.clients", 200, "clients in the test of upgrades")
	manyUpgrades = flag.Int("chat.upgrades", 3, "upgrades in that")
)

// roles are what the test binary can play in a process of its own.
var roles = map[string]func([]string) error{"chat": playChat, "mayfly": playMayfly, "orphan": playOrphan}

func TestMain(m *testing.M) { faults.Main(m, roles) }

// timeout ends a test that hangs, not one that is slow.
const timeout = 60 * time.Second

// last is the text of the last message of a test.
const last = "that is all"

// playChat is the program, which says on its standard output what it logs, and how it ends.
func playChat(args []string) error {
	log.SetOutput(os.Stdout)
	log.SetFlags(0)
	version = args[1]
	stateVersion = must(strconv.Atoi(args[2]))
	stopTime = must(time.ParseDuration(args[3]))
	if err := run(args[0]); err != nil {
		fmt.Println("failed:", err)
	}
	return nil
}

// startChat starts a version of the program.
func startChat(t testing.TB, endpoint string, version int) *faults.Actor {
	t.Helper()
	return faults.Start(t, "chat", endpoint, strconv.Itoa(version), "1", "10s")
}

// serves waits until a process of that version serves.
func serves(a *faults.Actor, version int) { a.Await(fmt.Sprintf("chat %d serves", version)) }

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// giver is a front door that hands all that it accepts to one endpoint. It has the address.
func giver(t testing.TB, endpoint string) string {
	t.Helper()
	l := must(net.Listen("tcp", "127.0.0.1:0"))
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	target := must(usher.Dial(ctx, endpoint))
	var running sync.WaitGroup
	t.Cleanup(func() {
		l.Close()
		cancel()
		running.Wait()
		target.Close()
	})
	running.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			running.Go(func() {
				o := must(usher.NewOffer(c, nil, usher.Info{Listener: "chat"}))
				if err := target.Handoff(ctx, o); err != nil {
					t.Errorf("a client could not be handed over: %v", err)
					must(o.Reclaim()).Close()
				}
			})
		}
	})
	return l.Addr().String()
}

// talker is a client that checks what it gets.
type talker struct {
	*net.TCPConn
	in   *bufio.Reader
	next int64            // number that must come next
	said map[string]int64 // how many messages each speaker has said, which are numbered by it

	lasts int  // last messages that are to be heard
	late  bool // it came when the speakers had begun

	got, lost, twice int64
	dropped          error // how the connection ended, if that was before the last message
}

// enter makes a client and hears the welcome.
func enter(t testing.TB, addr string) *talker {
	t.Helper()
	k, err := visit(t, addr)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// visit is enter for a goroutine that is not the test's.
func visit(t testing.TB, addr string) (*talker, error) {
	c, err := net.Dial("tcp", addr)
	if err != nil {
		return nil, err
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(2 * timeout))
	k := &talker{TCPConn: c.(*net.TCPConn), in: bufio.NewReader(c), said: make(map[string]int64), lasts: 1}
	welcome, err := k.in.ReadString('\n')
	if err != nil {
		return nil, fmt.Errorf("instead of a welcome there is %q, %w", welcome, err)
	}
	_, number, _ := strings.Cut(welcome, "The next message is number ")
	k.next, err = strconv.ParseInt(strings.TrimSuffix(number, ".\n"), 10, 64)
	return k, err
}

func (k *talker) tell(line string) error {
	_, err := io.WriteString(k, line+"\n")
	return err
}

// hearAll reads to the last messages of the test.
func (k *talker) hearAll() {
	for k.lasts > 0 {
		line, err := k.in.ReadString('\n')
		if err == nil {
			err = k.hear(strings.TrimSuffix(line, "\n"))
		}
		if err != nil {
			k.dropped = fmt.Errorf("after message %d: %w", k.next-1, err)
			return
		}
	}
}

// hear counts a message.
func (k *talker) hear(message string) error {
	number, text, _ := strings.Cut(message, " ")
	n, err := strconv.ParseInt(number, 10, 64)
	if err != nil {
		return fmt.Errorf("there is %q", message)
	}
	k.got++
	k.count(n, &k.next)
	who, what, _ := strings.Cut(text, ": ")
	if m, err := strconv.ParseInt(what, 10, 64); err == nil {
		due := k.said[who] + 1
		if k.late && due == 1 {
			due = m
		}
		k.count(m, &due)
		k.said[who] = due - 1
	}
	if what == last {
		k.lasts--
	}
	return nil
}

// count notes that number n has come, where due was expected.
func (k *talker) count(n int64, due *int64) {
	if n < *due {
		k.twice++
		return
	}
	k.lost += n - *due
	*due = n + 1
}

// hearAll has all of them hear to the end, each in a goroutine.
func hearAll(talkers []*talker) *sync.WaitGroup {
	var all sync.WaitGroup
	for _, k := range talkers {
		all.Go(k.hearAll)
	}
	return &all
}

// sum adds up what was counted, and fails the test for what must not be.
func sum(t testing.TB, talkers []*talker) (deliveries, lost, twice, dropped int64) {
	t.Helper()
	for i, k := range talkers {
		deliveries, lost, twice = deliveries+k.got, lost+k.lost, twice+k.twice
		if k.dropped != nil {
			dropped++
			t.Errorf("client %d: %v", i, k.dropped)
		}
	}
	if lost+twice > 0 {
		t.Errorf("%d messages were lost and %d came twice", lost, twice)
	}
	return
}

// awaitDeath waits for the end of a process that kills itself.
func awaitDeath(a *faults.Actor) {
	a.Await("gone")
	a.Kill()
}

// dies ends this process as SIGKILL does.
func dies() {
	fmt.Println("gone") // for a test that waits for this with awaitDeath
	must(os.FindProcess(os.Getpid())).Kill()
	select {}
}

// playMayfly is a successor that dies at a step.
func playMayfly(args []string) error {
	endpoint, step := args[0], args[1]
	dieAt := func(s string) {
		if s == step {
			dies()
		}
	}
	ctx := context.Background()
	t := must(usher.Dial(ctx, endpoint))
	l := must(usher.Listen(endpoint + next))
	line := must(ask(ctx, t))
	dieAt("asked")
	room := must(line.await("room")).Room
	dieAt("room")
	if step == "signal" {
		taker, _ := t.Taker()
		if err := must(os.FindProcess(taker.PID)).Signal(syscall.SIGTERM); err != nil {
			return err
		}
		step = "go"
	}
	var claimed []net.Conn // or the collector would close them
	for i := range room.Clients {
		if i == room.Clients/2 {
			dieAt("some")
		}
		claimed = append(claimed, must(l.Accept()))
	}
	defer runtime.KeepAlive(claimed)
	dieAt("all")
	if step == "late" {
		_, err := line.await("go")
		if err == nil || errors.Is(err, errGone) || !strings.Contains(err.Error(), "refused") {
			return fmt.Errorf("one that is late was not refused: %v", err)
		}
		dies()
	}
	line.say(word{Say: "here"})
	must(line.await("go"))
	dieAt("go")
	lc := usher.ListenConfig{Replace: true}
	must(lc.Listen(endpoint))
	dieAt("replaced")
	return fmt.Errorf("no step %q", step)
}

// playOrphan is a server of some clients that dies when it has handed over some fewer.
func playOrphan(args []string) error {
	endpoint, clients, handed := args[0], must(strconv.Atoi(args[1])), must(strconv.Atoi(args[2]))
	l := must(usher.Listen(endpoint))
	fmt.Println("chat 1 serves")
	r := newRoom()
	for {
		c := must(l.Accept()).(*usher.Conn)
		if len(c.Info().State) == 0 {
			r.welcome(c)
			continue
		}
		r.stop()
		if len(r.clients) != clients {
			return fmt.Errorf("%d clients have come", len(r.clients))
		}
		r.Clients = clients
		newLine(c).say(word{Say: "room", Room: r})
		t := must(usher.Dial(context.Background(), endpoint+next))
		for c := range r.clients {
			if handed == 0 {
				dies()
			}
			handed--
			if err := c.offerTo(context.Background(), t); err != nil {
				return err
			}
		}
	}
}
