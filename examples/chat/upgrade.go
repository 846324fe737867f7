package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"os"
	"sync"
	"time"

	"github.com/go-usher/usher"
	"github.com/go-usher/usher/ipc"
)

// stopTime is how long clients wait at most for a successor that is slow to take them. Tests shorten it.
var stopTime = 10 * time.Second

// lateTime is for connections that a process had handed over when it died to arrive.
const lateTime = time.Second

// next is what the second endpoint is called beside the first.
const next = "-next"

// errGone is in the chain when the process at the other end of a line has ended.
var errGone = errors.New("the other process has ended")

// line is the connection between a process and its successor.
type line struct {
	net.Conn
	in  *json.Decoder
	out *json.Encoder
}

// word is what is said there.
type word struct {
	Say  string // room, here, go, serving; or refused
	Why  string `json:",omitempty"`
	Room *room  `json:",omitempty"`
}

func newLine(c net.Conn) *line { return &line{c, json.NewDecoder(c), json.NewEncoder(c)} }

// say does not tell whether it could be said: a process that has ended is found by who listens.
func (l *line) say(w word) { _ = l.out.Encode(w) }

// await returns the next word, which must be the one that is due. An error is errGone only if there is no other process.
func (l *line) await(say string) (w word, err error) {
	err = l.in.Decode(&w)
	var failed *net.OpError
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.As(err, &failed) && !failed.Timeout() {
		err = errGone
	}
	if err != nil {
		return w, fmt.Errorf("the other process has not said %q: %w", say, err)
	}
	if w.Say != say {
		return w, fmt.Errorf("the other process has said %q, not %q: %s", w.Say, say, w.Why)
	}
	return w, nil
}

// refuse comes before anything is read or written here. The line stays open until the successor has closed it: the end of
// it would be leave to serve.
func (l *line) refuse(why error) {
	l.SetDeadline(time.Now().Add(stopTime))
	l.say(word{Say: "refused", Why: why.Error()})
	l.SetDeadline(time.Time{})
	go func() {
		io.Copy(io.Discard, l)
		l.Close()
	}()
}

// handOver hands the room to the successor at the other end of a line. If it fails the room goes on here, as it was.
func (s *server) handOver(c *usher.Conn) error {
	l := newLine(c)
	if err := checkRequest(c.Info().State); err != nil {
		l.refuse(err)
		return err
	}
	s.room.stop()
	defer s.room.resume() // with those who are in it then: everybody, or nobody
	if err := s.room.offer(l, c.Giver(), s.endpoint+next); err != nil {
		l.refuse(err)
		s.room.takeBack()
		return err
	}
	l.SetDeadline(time.Time{})
	l.say(word{Say: "go"}) // from here on the successor may serve, however late it is, unless it dies
	if _, err := l.await("serving"); err != nil {
		s.room.takeBack()
		return errors.Join(err, s.listen()) // it may have replaced this process
	}
	s.room.letGo()
	return l.Close()
}

// offer returns when the successor has the room and all connections, and serves none.
func (r *room) offer(l *line, successor ipc.Peer, endpoint string) error {
	ctx, cancel := context.WithTimeout(context.Background(), stopTime)
	defer cancel()
	deadline, _ := ctx.Deadline()
	l.SetDeadline(deadline)
	r.Clients = len(r.clients)
	l.say(word{Say: "room", Room: r})
	if err := r.offerClients(ctx, successor, endpoint); err != nil {
		return err
	}
	_, err := l.await("here")
	return err
}

func (r *room) offerClients(ctx context.Context, successor ipc.Peer, endpoint string) error {
	d := usher.Dialer{Policy: only(successor)} // or Handoff would go on to whoever listens there when that has died
	t, err := d.Dial(ctx, endpoint)
	if err != nil {
		return err
	}
	defer t.Close()
	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	var all sync.WaitGroup
	for c := range r.clients {
		all.Go(func() {
			if err := c.offerTo(ctx, t); err != nil {
				fail(err)
			}
		})
	}
	all.Wait()
	return context.Cause(ctx)
}

// only is a policy that admits one process.
func only(who ipc.Peer) ipc.Policy {
	return func(p ipc.Peer) error {
		if p != who {
			return fmt.Errorf("process %d is another one than %d", p.PID, who.PID)
		}
		return nil
	}
}

func (c *client) offerTo(ctx context.Context, t *usher.Target) (err error) {
	if c.kept, err = duplicate(c.conn); err != nil {
		return err
	}
	if c.offer, err = usher.NewOffer(c.conn, c.in, c.state()); err != nil {
		return err
	}
	return t.Handoff(ctx, c.offer)
}

// duplicate returns another descriptor for a connection.
func duplicate(c net.Conn) (*os.File, error) {
	if handed, ok := c.(*usher.Conn); ok {
		c = handed.NetConn()
	}
	has, ok := c.(interface{ File() (*os.File, error) })
	if !ok {
		return nil, errors.New("no descriptor is left for a connection")
	}
	f, err := has.File()
	if err == nil {
		keepable(f)
	}
	return f, err
}

// letGo empties a room that the successor has.
func (r *room) letGo() {
	for c := range r.clients {
		c.kept.Close() // which, unlike usher.Conn.Close, leaves the connection alone
	}
	clear(r.clients)
}

// takeBack is for when the successor does not serve, and will not. The room is stopped: nobody else uses it.
func (r *room) takeBack() {
	for c := range r.clients {
		if err := c.takeBack(); err != nil {
			log.Printf("the connection of %s is lost: %v", c.Name, err)
			r.remove(c)
		}
	}
}

// takeBack has the connection from the offer, or from the descriptor that was kept if the offer was claimed.
func (c *client) takeBack() error {
	if c.kept == nil {
		return nil
	}
	defer func() { c.kept.Close(); c.kept, c.offer = nil, nil }()
	if c.offer == nil {
		return nil
	}
	if conn, err := c.offer.Reclaim(); err == nil {
		c.adopt(conn) // with c.in, which was its prefix
		return nil
	}
	conn, err := connOf(c.kept)
	if err == nil {
		c.conn = conn
	}
	return err
}

// succeed takes the room over from the process at the other end of t. After an error the caller must end this process:
// connections that it has are the other's.
func succeed(ctx context.Context, t *usher.Target, endpoint string) (*server, error) {
	before, _ := t.Taker()
	lc := usher.ListenConfig{Policy: only(before)} // no door: a client may ask it for a host of this name
	l, err := lc.Listen(endpoint + next)
	if err != nil {
		return nil, err
	}
	defer l.Close()
	line, err := ask(ctx, t)
	if err != nil {
		return nil, err
	}
	r, err := takeRoom(l, line)
	if err != nil {
		return nil, err
	}
	s := &server{endpoint: endpoint, room: r}
	if err := s.listen(); err != nil {
		line.say(word{Say: "refused", Why: err.Error()})
		return nil, err
	}
	line.say(word{Say: "serving"})
	line.Close()
	r.mu.Lock()
	r.post("* chat " + version + " goes on")
	r.mu.Unlock()
	r.resume()
	return s, nil
}

// takeRoom returns the room when it may be served, and closes l.
func takeRoom(l *usher.Listener, line *line) (*room, error) {
	w, err := line.await("room")
	if err != nil {
		return nil, err
	}
	r := w.Room
	if err := r.check(); err != nil {
		line.say(word{Say: "refused", Why: err.Error()})
		return nil, err
	}
	var receiving sync.WaitGroup
	receiving.Go(func() { r.receive(l, line) })
	line.SetDeadline(time.Time{}) // once this has said "here" it cannot leave: "go" may be on its way
	_, err = line.await("go")
	if errors.Is(err, errGone) {
		log.Print("the process before has died: those whom it had not handed over are lost")
		time.Sleep(lateTime)
		err = nil
	}
	l.Close()
	receiving.Wait()
	return r, err
}

// listen takes the endpoint, whoever has it.
func (s *server) listen() error {
	lc := usher.ListenConfig{Replace: true}
	l, err := lc.Listen(s.endpoint)
	if err == nil {
		s.l = l
	}
	return err
}

// ask hands one end of a line to the process that t leads to, and returns the other.
func ask(ctx context.Context, t *usher.Target) (*line, error) {
	ours, theirs, err := pair()
	if err != nil {
		return nil, err
	}
	o, err := usher.NewOffer(theirs, nil, usher.Info{State: request()})
	if err != nil {
		ours.Close()
		theirs.Close()
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, stopTime)
	defer cancel()
	ours.SetDeadline(time.Now().Add(2 * stopTime))
	if err := t.Handoff(ctx, o); err != nil {
		ours.Close()
		return nil, err
	}
	return newLine(ours), nil
}

// pair returns both ends of a connection; where there are no Unix sockets to pass it has to be TCP.
func pair() (ours, theirs net.Conn, err error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, nil, err
	}
	defer l.Close()
	if ours, err = net.Dial("tcp", l.Addr().String()); err != nil {
		return nil, nil, err
	}
	if theirs, err = l.Accept(); err != nil {
		ours.Close()
		return nil, nil, err
	}
	if from := theirs.RemoteAddr().String(); from != ours.LocalAddr().String() {
		ours.Close()
		theirs.Close()
		return nil, nil, fmt.Errorf("somebody else has connected to %v, from %s", l.Addr(), from)
	}
	return ours, theirs, nil
}

// receive adds the clients that come to a room, and says so when all have.
func (r *room) receive(l *usher.Listener, line *line) {
	for range r.Clients {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		if err := r.welcomeBack(conn.(*usher.Conn)); err != nil {
			line.say(word{Say: "refused", Why: err.Error()})
			return
		}
	}
	line.say(word{Say: "here"})
}

// welcomeBack takes over the connection of somebody whom the process before has served.
func (r *room) welcomeBack(conn *usher.Conn) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	c, err := parseClient(conn.Info().State, r.Last)
	if err != nil {
		return err
	}
	c.info = conn.Info()
	c.info.State = nil
	c.adopt(conn)
	r.enter(c)
	return nil
}
