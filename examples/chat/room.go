package main

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/go-usher/usher"
)

const (
	maxLine    = 1 << 10  // bytes of a client's line; a longer one is several
	maxHistory = 4 << 10  // messages; a client that is further behind is too slow
	maxRest    = 16 << 10 // bytes that are taken for a client at once, so that its state has room in usher.Info
	byeTime    = 5 * time.Second
)

// room has what is said and who hears it. It runs two goroutines for each client, except while it is stopped. What is
// exported is its state, as its successor gets it.
type room struct {
	Version int
	Last    int64    // the number of the last message
	History []string // the last messages, as they are written
	Clients int      // how many follow

	mu      sync.Mutex
	clients map[*client]struct{}
	stopped bool
	ending  bool // what is due is written, and nothing more
	running sync.WaitGroup
}

// client is somebody in a room. What is exported is its state, which goes with its connection.
type client struct {
	Version int
	Name    string
	Rest    []byte // to be written before the message with number Next. Bytes, for it may begin within a character.
	Next    int64

	conn net.Conn
	info usher.Info // of the door
	in   []byte     // was read and not said: a line that is not complete
	left bool
	news *sync.Cond // of the room's mu: there is a message, or nothing more to be written

	// While it is handed over: the offer, and another descriptor for when the taker dies with what it has claimed.
	offer *usher.Offer
	kept  *os.File
}

func newRoom() *room { return &room{Version: stateVersion, clients: make(map[*client]struct{})} }

// welcome takes over the connection of somebody new.
func (r *room) welcome(conn *usher.Conn) {
	c := &client{Version: stateVersion, Name: "guest", info: conn.Info()}
	c.adopt(conn)
	r.mu.Lock()
	defer r.mu.Unlock()
	c.Next = r.Last + 1
	c.Rest = fmt.Appendf(nil, "* This is chat %s. You are guest, \"/name NAME\" changes that. The next message is number %d.\n", version, c.Next)
	r.enter(c)
}

// adopt takes over a connection. What the giver has read of it is read at once: from then on all that was is in c.in.
func (c *client) adopt(conn *usher.Conn) {
	c.in = make([]byte, conn.Buffered())
	_, _ = io.ReadFull(conn, c.in) // waits for nothing, so it cannot fail
	c.conn = conn
}

// enter is called with r.mu held.
func (r *room) enter(c *client) {
	c.news = sync.NewCond(&r.mu)
	r.clients[c] = struct{}{}
	if !r.stopped {
		r.serve(c)
	}
}

func (r *room) serve(c *client) {
	_ = c.conn.SetDeadline(time.Time{}) // which stop has set, if the connection never left
	r.running.Go(func() { r.hear(c) })
	r.running.Go(func() { r.tell(c) })
}

// stop returns when nothing is read, said or written any more. A line whose end was not read stays in client.in, what was not
// written in client.Rest, to the byte.
func (r *room) stop() {
	r.mu.Lock()
	r.stopped = true
	for c := range r.clients {
		_ = c.conn.SetDeadline(time.Unix(1, 0))
		c.news.Signal()
	}
	r.mu.Unlock()
	r.running.Wait()
}

func (r *room) resume() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.stopped = false
	for c := range r.clients {
		r.serve(c)
	}
}

// hear says what a client sends.
func (r *room) hear(c *client) {
	buf := make([]byte, 4<<10)
	for {
		for line, rest, ok := cutLine(c.in); ok; line, rest, ok = cutLine(c.in) {
			r.say(c, strings.ToValidUTF8(string(line), "\uFFFD")) // JSON would change it otherwise
			c.in = rest
		}
		n, err := c.conn.Read(buf)
		c.in = append(c.in, buf[:n]...)
		if err != nil {
			r.leave(c)
			return
		}
	}
}

// cutLine returns the first line of b, without its end, if it is complete or as long as a line can be.
func cutLine(b []byte) (line, rest []byte, ok bool) {
	line, _, ok = bytes.Cut(b[:min(len(b), maxLine)], []byte("\n"))
	if ok {
		return bytes.TrimSuffix(line, []byte("\r")), b[len(line)+1:], true
	}
	return line, b[len(line):], len(line) == maxLine
}

func (r *room) say(c *client, line string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if name, ok := strings.CutPrefix(line, "/name "); ok && name != "" {
		r.post("* " + c.Name + " is " + name + " now")
		c.Name = name
	} else if line != "" {
		r.post(c.Name + ": " + line)
	}
}

// post is called with r.mu held.
func (r *room) post(text string) {
	r.Last++
	r.History = append(r.History, fmt.Sprintf("%d %s\n", r.Last, text))
	r.History = r.History[max(0, len(r.History)-maxHistory):]
	for c := range r.clients {
		c.news.Signal()
	}
}

// tell writes to a client what was said.
func (r *room) tell(c *client) {
	for r.await(c) {
		n, err := c.conn.Write(c.Rest)
		c.Rest = c.Rest[n:]
		if err != nil {
			r.leave(c)
			return
		}
	}
}

// await waits until c.Rest has something, and returns false if it will not. A client that has missed something leaves.
func (r *room) await(c *client) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	for !r.stopped && !r.ending && !c.left && len(c.Rest) == 0 && c.Next > r.Last {
		c.news.Wait()
	}
	if !r.stopped && !c.left && !r.fill(c) {
		r.remove(c)
	}
	return !r.stopped && !c.left && len(c.Rest) > 0
}

// fill puts messages into c.Rest if it is empty. It returns false if the client has missed some. r.mu is held.
func (r *room) fill(c *client) bool {
	behind := int(r.Last + 1 - c.Next)
	if len(c.Rest) > 0 || behind > len(r.History) {
		return len(c.Rest) > 0
	}
	for _, message := range r.History[len(r.History)-behind:] {
		if len(c.Rest)+len(message) > maxRest {
			break
		}
		c.Rest = append(c.Rest, message...)
		c.Next++
	}
	return true
}

// leave is for a connection that has failed or ended. If the room is stopped whoever goes on learns that anew.
func (r *room) leave(c *client) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.stopped && !c.left {
		r.remove(c)
	}
}

// remove is called with r.mu held.
func (r *room) remove(c *client) {
	c.left = true
	delete(r.clients, c)
	c.conn.Close()
	c.news.Signal()
}

// close writes what is due, to those that read it in time, and ends all connections.
func (r *room) close() {
	r.stop()
	r.mu.Lock()
	r.stopped, r.ending = false, true
	for c := range r.clients {
		_ = c.conn.SetDeadline(time.Now().Add(byeTime))
		r.running.Go(func() {
			r.tell(c)
			r.leave(c)
		})
	}
	r.mu.Unlock()
	r.running.Wait()
}
