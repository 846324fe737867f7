//go:build unix

package door

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-usher/usher"
	"github.com/go-usher/usher/internal/admin"
	"github.com/go-usher/usher/internal/faults"
)

func init() { roles["wanderer"] = playWanderer }

func TestAClientThatHasGoneWhenItIsGivenBack(t *testing.T) {
	for _, c := range []struct {
		name, prefix string
		sent         string // that the taker has not read
		end          func(*net.TCPConn)
		outcomes     []admin.Outcome
	}{
		{"it has reset the connection", "", "", reset, []admin.Outcome{admin.Idle}},
		{"it has reset the connection after half a request", "GET / HT", "", reset, []admin.Outcome{admin.Gone}},
		{"it has ended its side", "", "", endSide, []admin.Outcome{admin.Idle}},
		{"it has ended its side after half a request", "GET / HT", "", endSide, []admin.Outcome{admin.Gone}},
		{"it has ended its side after half a request, of which none is read", "", "GET / HT", endSide, []admin.Outcome{admin.Gone, admin.Timeout}},
		{"it has ended its side after half a request, of which a part is read", "GET ", "/ HT", endSide, []admin.Outcome{admin.Gone, admin.Timeout}},
		{"it has ended its side after a request", "GET / HTTP/1.1\r\nHost: b.test\r\n\r\n", "", endSide, []admin.Outcome{admin.HandedOver}},
		{"it has ended its side after a request, of which a part is read", "GET /", " HTTP/1.1\r\nHost: b.test\r\n\r\n", endSide, []admin.Outcome{admin.HandedOver}},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := newHouse(t)
			shop := must(usher.Listen(h.path("shop")))(t)
			defer shop.Close()
			h.take("blog", echo("blog"), nil)
			h.open(`listeners: [{name: web, address: "127.0.0.1:0", limits: {peek_timeout: 1s}}]` + "\n" + twoHosts)
			client, conn := served(t, shop, h.addr("web"), "a.test")
			info := conn.Info()
			send(t, client, c.sent)
			c.end(client)
			giveBack(t, conn, c.prefix, info)
			if c.outcomes[0] == admin.HandedOver {
				if got := answered(t, bufio.NewReader(client)); !strings.HasPrefix(got, "blog") {
					t.Errorf("the client is told %q", got)
				}
				h.expect("b", admin.HandedOver, 1)
			} else {
				eventually(t, "it has its end", func() bool {
					n := 0
					for _, o := range c.outcomes {
						n += h.count("none", o)
					}
					return n == 1
				})
			}
			client.Close()
			h.nothingLeft()
		})
	}
}

func reset(c *net.TCPConn)   { c.SetLinger(0); c.Close() }
func endSide(c *net.TCPConn) { c.CloseWrite() }

func TestTheWholeRequestHasToFitIntoPeekBytesAlsoOfWhatIsGivenBack(t *testing.T) {
	h := newHouse(t)
	shop := must(usher.Listen(h.path("shop")))(t)
	defer shop.Close()
	h.open(`listeners: [{name: web, address: "127.0.0.1:0", limits: {peek_bytes: 4KiB}}]` + "\n" + twoHosts)
	for _, read := range []int{8 << 10, 4 << 10, 1 << 10, 0} {
		client, conn := served(t, shop, h.addr("web"), "a.test")
		info := conn.Info()
		head := "GET /" + strings.Repeat("x", 8<<10)
		send(t, client, head)
		prefix := make([]byte, read)
		must(io.ReadFull(conn, prefix))(t)
		giveBack(t, conn, string(prefix), info)
		if got := answeredStatus(t, client); got != http.StatusRequestHeaderFieldsTooLarge {
			t.Errorf("with %d of %d bytes read the client is told %d, want 431", read, len(head), got)
		}
		client.Close()
	}
	h.expect("none", admin.TooLong, 4)
	h.nothingLeft()
}

func TestTheLogTellsTheStoryOfAConnection(t *testing.T) {
	h := newHouse(t)
	shop, blog := must(usher.Listen(h.path("shop")))(t), must(usher.Listen(h.path("blog")))(t)
	defer shop.Close()
	defer blog.Close()
	h.open(twoHosts)
	client, conn := served(t, shop, h.addr("web"), "a.test")
	first := conn.Info().ID
	giveBack(t, conn, "", conn.Info())
	send(t, client, "GET / HTTP/1.1\r\nHost: b.test\r\n\r\n")
	second := accept(t, blog).Info().ID
	if first == second || second == "" {
		t.Errorf("it has the name %q, and then %q", first, second)
	}
	h.expect("b", admin.HandedOver, 1)
	eventually(t, "the log has both lines, and the end of the first part", func() bool {
		return len(h.lines("msg=connection ")) == 2 && len(h.lines("msg=ended ")) == 1
	})
	if line := h.lines("msg=connection ")[1]; !strings.Contains(line, "id="+second+" ") || !strings.Contains(line, "returned.id="+first+" ") {
		t.Errorf("its second line does not name %s and %s: %s", second, first, line)
	}
	if line := h.lines("msg=ended ")[0]; !strings.Contains(line, "id="+first+" ") || !strings.Contains(line, "handed_on=true") {
		t.Errorf("the line of the end of its first part: %s", line)
	}
}

// leave has one door leave its channels to takers to another.
func leave(t testing.TB, from, to *house, want int) {
	t.Helper()
	all := must(from.door.detach(t.Context(), from.door.giveUpTargets()))(t)
	if len(all) != want {
		t.Fatalf("%d channels were detached, want %d", len(all), want)
	}
	for _, x := range all {
		var y detached
		if err := json.Unmarshal(must(json.Marshal(x))(t), &y); err != nil {
			t.Fatal(err)
		}
		y.Conn = x.Conn
		if err := to.door.attach(y); err != nil {
			t.Error(err)
		}
	}
}

// ended waits for the line of a connection's end, and returns how long it lasted.
func (h *house) ended(id string) time.Duration {
	h.t.Helper()
	var line string
	eventually(h.t, "the end of "+id+" is logged", func() bool {
		for _, l := range h.lines("msg=ended ") {
			if strings.Contains(l, "id="+id+" ") {
				line = l
			}
		}
		return line != ""
	})
	_, lasted, _ := strings.Cut(line, " lasted=")
	return must(time.ParseDuration(strings.Fields(lasted)[0]))(h.t)
}

func TestWhatTakersHaveToTellComesToTheNextDoor(t *testing.T) {
	for name, routes := range map[string]string{
		"which has their endpoint": twoHosts,
		"which has it no more":     `routes: [{name: b, match: {host: b.test}, handoff: "{blog}"}]`,
	} {
		t.Run(name, func(t *testing.T) {
			s := newSuccession(t, "", twoHosts)
			shop := must(usher.Listen(s.old.path("shop")))(t)
			defer shop.Close()
			s.old.take("blog", echo("blog"), nil)
			kept, keptConn := served(t, shop, s.addr, "a.test")
			wandering, wanderingConn := served(t, shop, s.addr, "a.test")
			since := time.Now()
			s.openWith(routes)
			// Twice, as when one upgrade follows the other, and the next but one is this door again.
			leave(t, s.old, s.next, 1)
			leave(t, s.next, s.old, 1)
			leave(t, s.old, s.next, 1)

			id := keptConn.Info().ID
			least := time.Since(since)
			keptConn.Close()
			if lasted := s.next.ended(id); lasted < least {
				t.Errorf("it lasted %v by its report, want %v at least", lasted, least)
			}
			if got := rest(t, kept); got != "" {
				t.Errorf("the client reads %q", got)
			}

			id = wanderingConn.Info().ID
			giveBack(t, wanderingConn, "GET /second HTTP/1.1\r\nHost: b.test\r\n\r\n", wanderingConn.Info())
			if got := answered(t, bufio.NewReader(wandering)); !strings.HasPrefix(got, "blog has GET b.test/second") {
				t.Errorf("the client is told %q", got)
			}
			eventually(t, "the log says where it has come from", func() bool {
				return strings.Contains(s.next.log.String(), "returned.endpoint=shop returned.pid="+fmt.Sprint(os.Getpid())+" returned.id="+id)
			})
			s.next.ended(id)
			if ends := s.old.lines("msg=ended "); len(ends) > 0 {
				t.Errorf("the old door has heard of %s", ends)
			}
			eventually(t, "nothing is waited for", func() bool { return len(s.next.door.partings.all())+len(s.old.door.partings.all()) == 0 })
		})
	}
}

func TestADoorThatHasLeftItsChannelsStillHandsOver(t *testing.T) {
	s := newSuccession(t, ", limits: {peek_timeout: 1m}", twoHosts)
	shop := must(usher.Listen(s.old.path("shop")))(t)
	defer shop.Close()
	_, first := served(t, shop, s.addr, "a.test")
	late := raw(t, s.addr)
	send(t, late, "GET / HTTP/1.1\r\nHo")
	s.old.peeking(1)
	s.open()
	leave(t, s.old, s.next, 1)
	send(t, late, "st: a.test\r\n\r\n")
	second := accept(t, shop)
	serveOne(t, second, "late")
	if got := answered(t, bufio.NewReader(late)); got != "late" {
		t.Errorf("the client is told %q", got)
	}
	s.old.expect("a", admin.HandedOver, 2)
	leave(t, s.old, s.next, 1) // which it has made for that
	for _, c := range []*usher.Conn{first, second} {
		c.Close()
		s.next.ended(c.Info().ID)
	}
}

func TestOffersThatAreOpenWhenTheDoorLeavesItsChannelsAreMadeAgain(t *testing.T) {
	const n = 5
	h := newHouse(t)
	l := must(usher.Listen(h.path("chat")))(t)
	h.open(`routes: [{name: r, match: {}, handoff: "{chat}", handoff_timeout: 10m}]`)
	h.up(1)
	clients := make([]*net.TCPConn, n)
	for i := range clients {
		clients[i] = speak(t, h.addr("web"), request)
	}
	eventually(t, "all are on offer", func() bool { return h.endpoint("chat").Takers[0].Open == n })
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if all, err := h.door.detach(ctx, h.door.giveUpTargets()); len(all) > 0 || err != nil {
		t.Errorf("%d channels were detached, on which nothing was claimed; %v", len(all), err)
	}
	eventually(t, "all are on offer again", func() bool {
		e := h.endpoint("chat")
		return len(e.Takers) == 1 && e.Takers[0].Open == n
	})
	server := http.Server{Handler: whoami("chat")}
	go server.Serve(l)
	defer server.Close()
	for _, c := range clients {
		if got := rest(t, c); !strings.HasPrefix(got, "HTTP/1.1 200 ") {
			t.Errorf("a client is told %q", got)
		}
	}
	h.expect("r", admin.HandedOver, n)
	h.nothingLeft()
}

func TestAConnectionThatHasComeBackDoesNotKeepChannelsFromLeaving(t *testing.T) {
	h := newHouse(t)
	shop := must(usher.Listen(h.path("shop")))(t)
	defer shop.Close()
	h.open(`listeners: [{name: web, address: "127.0.0.1:0", limits: {peek_timeout: 1h}}]` + "\n" + twoHosts)
	_, kept := served(t, shop, h.addr("web"), "a.test")
	client, conn := served(t, shop, h.addr("web"), "a.test")
	giveBack(t, conn, "", conn.Info())
	h.peeking(1)
	ctx, cancel := context.WithTimeout(t.Context(), timeout)
	defer cancel()
	all := must(h.door.detach(ctx, h.door.giveUpTargets()))(t)
	if len(all) != 1 || ctx.Err() != nil {
		t.Errorf("%d channels were detached, want 1; %v", len(all), ctx.Err())
	}
	for _, x := range all {
		x.Conn.Close()
	}
	client.Close()
	kept.Close()
}

// TestWhatComesBackWhileTheDoorHandsOnIsServed has it come back when the door has nothing else, to a new door that does not greet.
func TestWhatComesBackWhileTheDoorHandsOnIsServed(t *testing.T) {
	h := newHouse(t)
	shop := must(usher.Listen(h.path("shop")))(t)
	defer shop.Close()
	h.openUpgradable(toShop)
	client, conn := served(t, shop, h.addr("web"), "x.test")
	f := h.fakeSuccessor()
	f.sockets()
	f.say(message{Say: sayReady, Kept: []int{0}})
	f.hears(sayYours)
	f.say(message{Say: sayServing})
	_, way, err := f.hear(t.Context(), timeout, sayLeaving)
	if err != nil {
		t.Fatal(err)
	}
	f.say(message{Say: saySettled})
	<-h.door.Replaced()
	ended := make(chan error, 1)
	go func() { ended <- h.door.Shutdown(context.Background()) }()
	eventually(t, "it waits for its end", func() bool {
		h.door.work.mu.Lock()
		defer h.door.work.mu.Unlock()
		return h.door.work.none != nil
	})
	send(t, client, request11)
	giveBack(t, conn, "", conn.Info())
	taken := make(chan net.Conn, 1)
	go func() {
		if c, err := shop.Accept(); err == nil {
			serveOne(t, c, "again")
			taken <- c
		}
	}()
	if got := answered(t, bufio.NewReader(client)); got != "again" {
		t.Errorf("the client is told %q", got)
	}
	way.Close()
	_, target, err := f.hear(t.Context(), timeout, sayTarget)
	if err != nil {
		t.Fatal(err)
	}
	target.Close()
	(<-taken).Close() // only now, or there would be no channel to pass on
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// TestNothingComesBackToADoorThatHasNothingMoreToDo has whoever is answered at its admin address hold up its end.
func TestNothingComesBackToADoorThatHasNothingMoreToDo(t *testing.T) {
	h := newHouse(t)
	shop := must(usher.Listen(h.path("shop")))(t)
	defer shop.Close()
	h.open(toShop + "admin: 127.0.0.1:0\n")
	client, conn := served(t, shop, h.addr("web"), "x.test")
	e := h.door.endpoints[h.path("shop")][0]
	h.door.admin.served.Add(1)
	release := sync.OnceFunc(h.door.admin.served.Done)
	defer release()
	ended := make(chan error, 1)
	go func() { ended <- h.door.Shutdown(context.Background()) }()
	eventually(t, "its channels are closed", func() bool {
		e.mu.Lock()
		defer e.mu.Unlock()
		return e.closed && len(h.door.partings.all()) == 0
	})
	o := must(usher.NewOffer(conn, nil, conn.Info()))(t)
	if err := o.HandBack(t.Context()); err == nil {
		t.Error("the door has it back")
	} else {
		send(t, client, request11)
		serveOne(t, must(o.Reclaim())(t), "again")
		if got := answered(t, bufio.NewReader(client)); got != "again" {
			t.Errorf("the client is told %q", got)
		}
	}
	release()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func TestADoorThatEndsAttachesNothing(t *testing.T) {
	s := newSuccession(t, "", twoHosts)
	shop := must(usher.Listen(s.old.path("shop")))(t)
	defer shop.Close()
	served(t, shop, s.addr, "a.test")
	s.open()
	s.next.shut()
	all := must(s.old.door.detach(t.Context(), s.old.door.giveUpTargets()))(t)
	if len(all) != 1 {
		t.Fatalf("%d channels were detached, want 1", len(all))
	}
	if err := s.next.door.attach(all[0]); !errors.Is(err, errShutDown) {
		t.Errorf("%v, want that the door is shutting down", err)
	}
}

func TestAChannelWithoutItsStateIsNotAttached(t *testing.T) {
	s := newSuccession(t, "", twoHosts)
	shop := must(usher.Listen(s.old.path("shop")))(t)
	defer shop.Close()
	served(t, shop, s.addr, "a.test")
	s.open()
	x := must(s.old.door.detach(t.Context(), s.old.door.giveUpTargets()))(t)[0]
	x.State = []byte("none")
	if err := s.next.door.attach(x); err == nil || !strings.Contains(err.Error(), "shop") {
		t.Errorf("%v, want an error that names the endpoint", err)
	}
}

// wanderer is a taker that serves one host, and gives connections back on which another is asked for.
type wanderer struct {
	host string
}

// playWanderer is one. Args: the socket, and its host. It ends with its input.
func playWanderer(args []string) error {
	l, err := usher.Listen(args[0])
	if err != nil {
		return err
	}
	w := &wanderer{host: args[1]}
	go w.serveAll(l)
	fmt.Println("ready")
	io.Copy(io.Discard, os.Stdin)
	return l.Close()
}

func (w *wanderer) serveAll(l *usher.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go w.serve(c.(*usher.Conn))
	}
}

// serve answers each request with its host, and its path. It reads little at a time, so that it has read a part of a
// request when it knows that it is not its own; and gives some back before there is any.
func (w *wanderer) serve(c *usher.Conn) {
	var read []byte
	for served := 0; ; served++ {
		host, ok := readHost(c, &read)
		if !ok {
			c.Close()
			return
		}
		answer := w.host
		if host != w.host && served == 0 {
			answer = "strayed to " + w.host
		} else if host != w.host {
			if c = w.giveBack(c, read); c == nil {
				return
			}
			read, answer = nil, "kept by "+w.host
		}
		head := readHead(c, &read)
		path := strings.Fields(string(head))[1]
		fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s %s", len(answer)+1+len(path), answer, path)
		if rand.IntN(4) > 0 {
			continue
		}
		if c = w.giveBack(c, read); c == nil {
			return
		}
		read = nil
	}
}

// giveBack returns the connection if it is not taken.
func (w *wanderer) giveBack(c *usher.Conn, read []byte) *usher.Conn {
	o, err := usher.NewOffer(c, read, c.Info())
	if err != nil {
		panic(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	if o.HandBack(ctx) == nil {
		return nil
	}
	for {
		if c, err = o.Reclaim(); err == nil {
			return c
		}
		time.Sleep(time.Millisecond)
	}
}

// readHost reads until it knows the host of a request.
func readHost(c net.Conn, read *[]byte) (host string, ok bool) {
	for b := make([]byte, 16); ; {
		if _, after, found := bytes.Cut(*read, []byte("\r\nHost: ")); found {
			if host, _, found := bytes.Cut(after, []byte("\r\n")); found {
				return string(host), true
			}
		}
		n, err := c.Read(b)
		if err != nil {
			return "", false
		}
		*read = append(*read, b[:n]...)
	}
}

// readHead reads a request to its end, and takes it from what was read.
func readHead(c net.Conn, read *[]byte) []byte {
	for b := make([]byte, 16); ; {
		if at := bytes.Index(*read, []byte("\r\n\r\n")); at >= 0 {
			head := (*read)[:at]
			*read = (*read)[at+4:]
			return head
		}
		n, err := c.Read(b)
		if err != nil {
			return []byte("? ?")
		}
		*read = append(*read, b[:n]...)
	}
}

// wander makes requests to any of hosts on connections that stay, from several clients at once, until there were n and more
// says so no longer. Of each answer judge says whether it will do; an error of the connection it is asked as well, and the
// client makes another.
func wander(addr string, hosts []string, clients, n int, more func() bool, judge func(host, path, answer string, err error)) {
	var asked atomic.Int64
	var all sync.WaitGroup
	for range clients {
		all.Go(func() {
			var c net.Conn
			var r *bufio.Reader
			for i := asked.Add(1); i <= int64(n) || more(); i = asked.Add(1) {
				var err error
				if c == nil {
					if c, err = net.Dial("tcp", addr); err != nil {
						judge("", "", "", err)
						continue
					}
					r = bufio.NewReader(c)
				}
				c.SetDeadline(time.Now().Add(timeout))
				host, path := hosts[rand.IntN(len(hosts))], fmt.Sprint("/", i)
				answer, err := ask(c, r, host, path)
				judge(host, path, answer, err)
				if err != nil {
					c.Close()
					c = nil
				}
			}
			if c != nil {
				c.Close()
			}
		})
	}
	all.Wait()
}

func ask(c net.Conn, r *bufio.Reader, host, path string) (string, error) {
	request := "GET " + path + " HTTP/1.1\r\nAccept: */*\r\nHost: " + host + "\r\nUser-Agent: one that wanders about\r\n\r\n"
	for cut := rand.IntN(2 * len(request)); request != ""; cut = len(request) { // half of them in two pieces
		n, err := io.WriteString(c, request[:min(cut, len(request))])
		if err != nil {
			return "", err
		}
		request = request[n:]
	}
	response, err := http.ReadResponse(r, nil)
	if err != nil {
		return "", err
	}
	body, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", response.Status, body)
	}
	return string(body), err
}

const fourHosts = `
routes:
  - {name: a, match: {host: a.test}, handoff: shop}
  - {name: b, match: {host: b.test}, handoff: blog}
  - {name: c, match: {host: c.test}, handoff: chat}
  - {name: d, match: {host: d.test}, handoff: desk}
`

func TestConnectionsWanderBetweenTakersAndNoRequestIsLost(t *testing.T) {
	h := newHouse(t)
	hosts := []string{"a.test", "b.test", "c.test", "d.test"}
	for i, name := range []string{"shop", "blog", "chat", "desk"} {
		taker := faults.Start(t, "wanderer", h.path(name), hosts[i])
		taker.Await("ready")
		defer taker.End()
	}
	h.open(fourHosts)
	h.up(4)
	n := 10 * *loadConns
	var lost atomic.Int64
	wander(h.addr("web"), hosts, 16, n, never, func(host, path, answer string, err error) {
		if err != nil || answer != host+" "+path {
			lost.Add(1)
			t.Errorf("%s%s is told %q, %v", host, path, answer, err)
		}
	})
	h.nothingLeft()
	returned := uint64(0)
	for _, e := range h.door.Status().Endpoints {
		returned += e.Returned
	}
	t.Logf("%d requests, %d lost; connections were given back %d times", n, lost.Load(), returned)
	if returned < uint64(n)/2 {
		t.Errorf("%d requests have made connections wander %d times", n, returned)
	}
}

// TestATakerIsKilledWhileItGivesBack has one taker that is killed again and again. What it owns then is lost, as with any
// server; nobody else notices.
func TestATakerIsKilledWhileItGivesBack(t *testing.T) {
	h := newHouse(t)
	blog := faults.Start(t, "wanderer", h.path("blog"), "b.test")
	blog.Await("ready")
	h.open(`routes: [{name: a, match: {host: a.test}, handoff: shop, handoff_timeout: 20s}, {name: b, match: {host: b.test}, handoff: blog}]`)
	h.up(1)
	stop := make(chan struct{})
	var killer sync.WaitGroup
	killed := 0
	killer.Go(func() {
		for ; !isClosed(stop); killed++ {
			a := faults.Start(t, "wanderer", h.path("shop"), "a.test")
			a.Await("ready")
			time.Sleep(time.Duration(rand.IntN(50)) * time.Millisecond)
			a.Kill()
		}
	})
	began := time.Now()
	more := func() bool { return time.Since(began) < 2*time.Second }
	var faithful, others, broken atomic.Int64
	var all sync.WaitGroup
	all.Go(func() {
		wander(h.addr("web"), []string{"b.test"}, 4, 0, more, func(host, path, answer string, err error) {
			faithful.Add(1)
			if err != nil || answer != host+" "+path {
				t.Errorf("a client of the other taker, %s%s, is told %q, %v", host, path, answer, err)
			}
		})
	})
	all.Go(func() {
		wander(h.addr("web"), []string{"a.test", "b.test"}, 4, 0, more, func(host, path, answer string, err error) {
			others.Add(1)
			if err != nil {
				broken.Add(1)
				if os.IsTimeout(err) {
					t.Errorf("%s%s was told nothing at all", host, path)
				}
				return
			}
			if answer != host+" "+path && !strings.HasPrefix(answer, "kept by ") {
				t.Errorf("%s%s is told %q", host, path, answer)
			}
		})
	})
	all.Wait()
	close(stop)
	killer.Wait()
	h.nothingLeft()
	blog.End()
	t.Logf("%d requests of one host; %d of both, of which %d were lost with a taker, of which %d were killed", faithful.Load(), others.Load(), broken.Load(), killed)
}

// TestADoorOutOfDescriptorsTakesBackWhatItCan has fewer descriptors than connections that wander: a taker keeps what the
// door cannot take.
func TestADoorOutOfDescriptorsTakesBackWhatItCan(t *testing.T) {
	h := newHouse(t)
	hosts := []string{"a.test", "b.test"}
	for i, name := range []string{"shop", "blog"} {
		taker := faults.Start(t, "wanderer", h.path(name), hosts[i])
		taker.Await("ready")
		defer taker.End()
	}
	door := faults.Start(t, "door", "few", `
listeners: [{name: web, address: "127.0.0.1:0", limits: {peek_timeout: 20s}}]
routes: [{match: {host: a.test}, handoff: shop, handoff_timeout: 20s}, {match: {host: b.test}, handoff: blog, handoff_timeout: 20s}]
endpoints: {dir: `+h.dir+`}
`)
	addr := strings.TrimSpace(door.Await("listening"))
	var lost, kept atomic.Int64
	wander(addr, hosts, 2*fewDescriptors, 2**loadConns, never, func(host, path, answer string, err error) {
		if strings.HasPrefix(answer, "kept by ") {
			kept.Add(1)
			return
		}
		if err != nil || answer != host+" "+path {
			lost.Add(1)
			t.Errorf("%s%s is told %q, %v", host, path, answer, err)
		}
	})
	door.Tell("status")
	door.Await("status")
	t.Logf("%d requests, %d lost; %d were answered by a taker whose connection the door could not take", 2**loadConns, lost.Load(), kept.Load())
	door.End()
}
