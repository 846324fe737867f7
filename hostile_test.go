//go:build darwin || freebsd || linux || netbsd || openbsd || windows

package usher_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-usher/usher"
	"github.com/go-usher/usher/internal/faults"
	"github.com/go-usher/usher/ipc"
)

func init() { roles["outcome"] = playOutcome }

// head builds the first eight bytes of a message by the words of SPEC.md.
func head(typ, small byte, half uint16, word uint32) []byte {
	b := binary.LittleEndian.AppendUint16([]byte{typ, small}, half)
	return binary.LittleEndian.AppendUint32(b, word)
}

func offerMessage(slot byte, generation uint32, rest string) []byte {
	return append(head(2, slot, 0, generation), rest...)
}

// TestGiversThatBreakTheProtocol lose their channel and hear why; the listener lives on and nothing
// leaks.
func TestGiversThatBreakTheProtocol(t *testing.T) {
	faults.NoLeak(t)
	refused := make(chan error, 100)
	l := listen(t, usher.ListenConfig{Backlog: 8, Refused: func(err error) { refused <- err }})
	null := must(os.Open(os.DevNull))(t)
	defer null.Close()
	attach := func(c *ipc.Conn, data []byte) error {
		_, server := tcpPair(t)
		defer server.Close()
		return c.Send(data, server)
	}
	tests := []struct {
		name  string
		greet bool
		say   func(*ipc.Conn) error
		want  string
	}{
		{"an empty message first", false, func(c *ipc.Conn) error { return c.Send(nil) }, "a message of 0 bytes"},
		{"no hello first", false, func(c *ipc.Conn) error { return c.Send(head(2, 0, 0, 0)) }, "type 2, window 0 and 0 attachments, want a hello"},
		{"another version", false, func(c *ipc.Conn) error { return c.Send(head(1, 9, 0, 0)) }, "peer speaks version 9 of the handover protocol, this program version 1"},
		{"a hello without a page", false, func(c *ipc.Conn) error { return c.Send(head(1, 1, 0, 0)) }, "type 1, window 0 and 0 attachments"},
		{"a page that is none", false, func(c *ipc.Conn) error { return c.Send(head(1, 1, 0, 0), null) }, "page of tickets"},
		{"a hello with more behind it", false, func(c *ipc.Conn) error { return c.Send(append(head(1, 1, 0, 0), 0), null) }, "a reserved field"},
		{"a window, as takers have", false, func(c *ipc.Conn) error { return c.Send(head(1, 1, 3, 0), null) }, "type 1, window 3"},
		{"answers without any", true, func(c *ipc.Conn) error { return c.Send(head(3, 0, 0, 0)) }, "answers of 0 bytes"},
		{"two hellos", true, func(c *ipc.Conn) error { return c.Send(head(1, 1, 0, 0)) }, "a giver sent a message of type 1"},
		{"an unknown message", true, func(c *ipc.Conn) error { return c.Send(head(77, 0, 0, 0)) }, "unknown type 77"},
		{"an answer to a taker", true, func(c *ipc.Conn) error { return c.Send(answerMessage(1, 0, 0, 1)) }, "a giver sent a message of type 3"},
		{"a connection where none belongs", true, func(c *ipc.Conn) error { return attach(c, answerMessage(1, 0, 0, 1)) }, "type 3 with 1 attachments"},
		{"an offer without a connection", true, func(c *ipc.Conn) error { return c.Send(offerMessage(0, 1, "")) }, "type 2 with 0 attachments"},
		{"a slot that is not there", true, func(c *ipc.Conn) error { return attach(c, offerMessage(8, 1, "")) }, "an offer in slot 8, limit 8"},
		{"a slot twice", true, func(c *ipc.Conn) error {
			if err := attach(c, offerMessage(3, 1, "")); err != nil {
				return err
			}
			return attach(c, offerMessage(3, 2, ""))
		}, "slot 3, whose last is not answered yet"},
		{"info that is cut short", true, func(c *ipc.Conn) error { return attach(c, head(2, 0, 9, 1)) }, "an offer whose info has 0 bytes and says 9"},
		{"a field that is cut short", true, func(c *ipc.Conn) error { return attach(c, append(head(2, 0, 4, 1), 1, 9, 0, 'x')) }, "field 1 of the info, at byte 0, has 1 bytes and says 9"},
		{"an address that is none", true, func(c *ipc.Conn) error { return attach(c, append(head(2, 0, 4, 1), 8, 1, 0, 'x')) }, "field 8 of the info"},
		{"the end of offers, which nobody has asked for", true, func(c *ipc.Conn) error { return c.Send(head(7, 0, 0, 0)) }, "a giver sent a message of type 7"},
		{"a report to a taker", true, func(c *ipc.Conn) error { return c.Send(reportMessage(0, 1, 2, 3, "")) }, "a giver sent a message of type 6"},
		{"late answers to a taker", true, func(c *ipc.Conn) error { return c.Send(lateMessage(1, 0, 0, 1, 0)) }, "a giver sent a message of type 8"},
		{"a way back, which is the taker's to offer", true, func(c *ipc.Conn) error { return c.Send(head(9, 0, 0, 0)) }, "a giver sent a message of type 9"},
		{"a page instead of a socket", true, func(c *ipc.Conn) error { return c.Send(head(5, 0, 0, 0)) }, "a giver sent a message of type 5"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var c *ipc.Conn
			if tt.greet {
				c = rawGiver(t, l)
			} else {
				c = must(ipc.Dial(within(t, timeout), l.Addr().String()))(t)
				c.SetDeadline(time.Now().Add(timeout))
			}
			defer c.Close()
			if err := tt.say(c); err != nil {
				t.Fatal(err)
			}
			text, reason, err := farewell(c)
			if err != nil {
				t.Fatal(err)
			}
			if reason != 5 {
				t.Errorf("the farewell has reason %d, want 5", reason)
			}
			wantError(t, errors.New(text), nil, tt.want)
			err = <-refused
			wantError(t, err, ipc.ErrProtocol, tt.want)
			wantError(t, err, nil, fmt.Sprintf("from process %d", os.Getpid()))
		})
	}
	t.Run("and the listener lives on", func(t *testing.T) {
		// The offer of "a slot twice" that was right is still in the queue; its ticket was never written.
		client, c := handOver(t, dial(t, l), l, "")
		checkConversation(t, client, c)
	})
}

// reportMessage builds a message of one report.
func reportMessage(flags byte, received, sent, duration int64, info string) []byte {
	b := append(head(6, 0, 0, 0), head(flags, 0, uint16(len(info)), 0)...)
	for _, n := range []int64{received, sent, duration} {
		b = binary.LittleEndian.AppendUint64(b, uint64(n))
	}
	return append(b, info...)
}

// TestGiversThatSpeakOnAfterTheEnd have said that they offer no more, and do.
func TestGiversThatSpeakOnAfterTheEnd(t *testing.T) {
	faults.NoLeak(t)
	refused := make(chan error, 1)
	l := listen(t, usher.ListenConfig{Refused: func(err error) { refused <- err }})
	for name, say := range map[string]func(c *ipc.Conn, server *net.TCPConn) error{
		"an offer":       func(c *ipc.Conn, server *net.TCPConn) error { return c.Send(offerMessage(1, 1, ""), server) },
		"the same again": func(c *ipc.Conn, _ *net.TCPConn) error { return c.Send(head(7, 0, 0, 0)) },
	} {
		t.Run(name, func(t *testing.T) {
			page := must(usher.CreatePage())(t)
			defer page.Close()
			c := must(ipc.Dial(within(t, timeout), l.Addr().String()))(t)
			defer c.Close()
			c.SetDeadline(time.Now().Add(timeout))
			_, waits := tcpPair(t)
			_, server := tcpPair(t)
			// The first offer keeps the channel open: nobody accepts it.
			for _, err := range []error{
				c.Send(head(1, 1, 0, 1), page), c.Send(offerMessage(0, 1, ""), waits), c.Send(head(7, 0, 0, 0)), say(c, server),
			} {
				if err != nil {
					t.Fatal(err)
				}
			}
			_, reason, err := farewell(c)
			if err != nil || reason != 5 {
				t.Errorf("the farewell has reason %d, %v; want 5", reason, err)
			}
			wantError(t, <-refused, ipc.ErrProtocol, "a giver sent a message of type")
		})
	}
}

// TestATryIsAnOffer has a taker end each channel when an offer comes: a Handoff goes on to the next one, and does not try the one
// that has just ended once more.
func TestATryIsAnOffer(t *testing.T) {
	faults.NoLeak(t)
	var offers atomic.Int32
	taker := newRawTaker(t, 4, 3, func(c *ipc.Conn, _ []uint32, _ byte, _ uint32) error {
		offers.Add(1)
		return c.Close()
	})
	target := must(usher.Dial(within(t, timeout), taker.l.Addr().String()))(t)
	defer target.Close()
	_, server := tcpPair(t)
	o := newOffer(t, server, "", usher.Info{})
	const handoffs, tries = 200, 4
	for range handoffs {
		if err := target.Handoff(within(t, timeout), o); err == nil {
			t.Fatal("it was handed over")
		}
	}
	if n := offers.Load(); n != handoffs*tries {
		t.Errorf("%d offers, want %d", n, handoffs*tries)
	}
}

// farewell returns what a taker says last.
func farewell(c *ipc.Conn) (text string, reason byte, err error) {
	for {
		m, err := c.Receive()
		if err != nil {
			return "", 0, fmt.Errorf("the channel ended without a farewell: %w", err)
		}
		if m.Data[0] == 4 {
			return string(m.Data[8:]), m.Data[1], nil
		}
	}
}

// rawTaker accepts one channel at an endpoint and answers as do says, which has the page to write on.
type rawTaker struct {
	l *ipc.Listener
}

func newRawTaker(t *testing.T, window uint16, flags uint32, do func(c *ipc.Conn, words []uint32, slot byte, generation uint32) error) *rawTaker {
	t.Helper()
	l := must(ipc.Listen(endpoint(t)))(t)
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				c.SetDeadline(time.Now().Add(timeout))
				if err := serveRaw(c, window, flags, do); err != nil && !errors.Is(err, net.ErrClosed) {
					t.Error(err)
				}
			}()
		}
	}()
	return &rawTaker{l}
}

func serveRaw(c *ipc.Conn, window uint16, flags uint32, do func(*ipc.Conn, []uint32, byte, uint32) error) error {
	if err := c.Send(head(1, 1, window, flags)); err != nil {
		return err
	}
	m, err := c.Receive()
	if err != nil {
		return nil // the giver did not like the hello
	}
	defer m.Close()
	f, err := m.Attachments()[0].File()
	if err != nil {
		return err
	}
	defer f.Close()
	words, unmap, err := usher.MapPage(f)
	if err != nil {
		return err
	}
	defer unmap()
	for {
		m, err := c.Receive()
		if err != nil {
			return nil
		}
		m.Close()
		if err := do(c, words, m.Data[1], binary.LittleEndian.Uint32(m.Data[4:])); err != nil {
			return err
		}
	}
}

func answerMessage(verb, slot, reason byte, generation uint32) []byte {
	return append(head(3, 0, 0, 0), head(verb, slot, uint16(reason), generation)...)
}

// lateMessage is answerMessage for a patient giver.
func lateMessage(verb, slot, reason byte, generation, ago uint32) []byte {
	b := append(head(8, 0, 0, 0), head(verb, slot, uint16(reason), generation)...)
	return binary.LittleEndian.AppendUint32(b, ago)
}

// claim tears the ticket of an offer as a taker does.
func claim(words []uint32, slot byte, generation uint32) bool {
	return atomic.CompareAndSwapUint32(&words[int(slot)*16], generation<<2|1, generation<<2|2)
}

// TestTakersThatBreakTheProtocol lose their channel; the giver keeps the connection, or has handed it
// over, by what is on the page and nothing else.
func TestTakersThatBreakTheProtocol(t *testing.T) {
	faults.NoLeak(t)
	word := func(words []uint32, slot byte) *uint32 { return &words[int(slot)*16] }
	say := func(data func(slot byte, generation uint32) []byte) func(*ipc.Conn, []uint32, byte, uint32) error {
		return func(c *ipc.Conn, _ []uint32, slot byte, generation uint32) error {
			return c.Send(data(slot, generation))
		}
	}
	tests := []struct {
		name    string
		patient bool // the giver; all takers can be late
		window  uint16
		do      func(*ipc.Conn, []uint32, byte, uint32) error
		want    string // "" if it is handed over all the same
	}{
		{"a claim that is not on the page", false, 4, say(func(s byte, g uint32) []byte { return answerMessage(1, s, 0, g) }), "says that it has claimed an offer, and has not"},
		{"an answer of another generation", false, 4, say(func(s byte, g uint32) []byte { return answerMessage(1, s, 0, g+1) }), "which is not open"},
		{"an answer for another slot", false, 4, say(func(s byte, g uint32) []byte { return answerMessage(2, s+1, 1, g) }), "which is not open"},
		{"an answer for a slot that is not there", false, 4, say(func(s byte, g uint32) []byte { return answerMessage(2, 200, 1, g) }), "which is not open"},
		{"an unknown verb", false, 4, say(func(s byte, g uint32) []byte { return answerMessage(9, s, 0, g) }), "an answer of 09"},
		{"half an answer", false, 4, say(func(s byte, g uint32) []byte { return answerMessage(2, s, 1, g)[:12] }), "answers of 4 bytes"},
		{"an offer of its own", false, 4, say(func(s byte, g uint32) []byte { return offerMessage(s, g, "") }), "a taker sent a message of type 2"},
		{"dropped without cause", false, 4, say(func(s byte, g uint32) []byte { return answerMessage(3, s, 0, g) }), "dropped an offer that was not withdrawn"},
		{"a report that nobody wants", false, 4, say(func(byte, uint32) []byte { return reportMessage(0, 1, 2, 3, "") }), "a taker sent a message of type 6"},
		{"the end of offers, which is not its to say", false, 4, say(func(byte, uint32) []byte { return head(7, 0, 0, 0) }), "a taker sent a message of type 7"},
		{"a way back that nobody wants", false, 4, say(func(byte, uint32) []byte { return head(9, 0, 0, 0) }), "a taker sent a message of type 9"},
		{"no window", false, 0, nil, "with a message of type 1 and window 0"},
		{"a window as wide as a house", false, 65535, nil, "window 65535, want a hello and 1 to 64"},
		{"it scribbles over the ticket, and leaves", false, 4, func(c *ipc.Conn, words []uint32, slot byte, generation uint32) error {
			atomic.StoreUint32(word(words, slot), 0xdeadbeef)
			return c.Close()
		}, "it wrote 0xdeadbeef over the ticket"},
		{"it claims, and says that it declines", false, 4, func(c *ipc.Conn, words []uint32, slot byte, generation uint32) error {
			claim(words, slot, generation)
			return c.Send(answerMessage(2, slot, 1, generation))
		}, ""},
		{"late answers to one that is not patient", false, 4, say(func(s byte, g uint32) []byte { return lateMessage(2, s, 1, g, 0) }), "a taker sent a message of type 8"},
		{"answers to one that is patient", true, 4, say(func(s byte, g uint32) []byte { return answerMessage(2, s, 1, g) }), "a taker sent a message of type 3"},
		{"half a late answer", true, 4, say(func(s byte, g uint32) []byte { return lateMessage(2, s, 1, g, 0)[:16] }), "answers of 8 bytes, want a multiple of 12"},
		{"a late claim that is not on the page", true, 4, say(func(s byte, g uint32) []byte { return lateMessage(1, s, 0, g, 1000) }), "says that it has claimed an offer, and has not"},
		{"more late answers than there are slots", true, 4, say(func(s byte, g uint32) []byte {
			b := head(8, 0, 0, 0)
			for range usher.MaxOpen + 1 {
				b = append(b, lateMessage(2, s, 1, g, 0)[8:]...)
			}
			return b
		}), "answers of 780 bytes"},
		{"it claims, and says nothing", false, 4, func(c *ipc.Conn, words []uint32, slot byte, generation uint32) error {
			claim(words, slot, generation)
			return c.Close()
		}, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			taker := newRawTaker(t, tt.window, 3, tt.do)
			d := usher.Dialer{Patient: tt.patient}
			target, err := d.Dial(within(t, timeout), taker.l.Addr().String())
			if tt.do == nil {
				wantError(t, err, ipc.ErrProtocol, tt.want)
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			defer target.Close()
			client, server := tcpPair(t)
			o := newOffer(t, server, "pre", usher.Info{})
			err = target.Handoff(within(t, timeout), o)
			if tt.want == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			wantError(t, err, ipc.ErrProtocol, tt.want)
			c := must(o.Reclaim())(t)
			defer c.Close()
			if _, err := io.ReadFull(c, make([]byte, 3)); err != nil {
				t.Error(err)
			}
			checkConversation(t, client, c)
		})
	}
}

// TestAnswersThatComeTwice end the channel. What the first has said stands.
func TestAnswersThatComeTwice(t *testing.T) {
	faults.NoLeak(t)
	for _, tt := range []struct {
		name    string
		patient bool
		answer  func(slot byte, generation uint32) []byte
		claims  bool
	}{
		{"claimed", false, func(s byte, g uint32) []byte { return answerMessage(1, s, 0, g) }, true},
		{"declined", false, func(s byte, g uint32) []byte { return answerMessage(2, s, 1, g) }, false},
		{"claimed, late", true, func(s byte, g uint32) []byte { return lateMessage(1, s, 0, g, 9) }, true},
		{"declined, late", true, func(s byte, g uint32) []byte { return lateMessage(2, s, 1, g, 9) }, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			taker := newRawTaker(t, 4, 2, func(c *ipc.Conn, words []uint32, slot byte, generation uint32) error {
				if tt.claims {
					claim(words, slot, generation)
				}
				b := tt.answer(slot, generation)
				return c.Send(append(b, b[8:]...))
			})
			e := newEar()
			d := e.dialer()
			d.Patient = tt.patient
			target := must(d.Dial(within(t, timeout), taker.l.Addr().String()))(t)
			defer target.Close()
			err := target.Handoff(within(t, timeout), newOffer(t, must1(tcpPair(t)), "", usher.Info{}))
			if tt.claims && err != nil || !tt.claims && !errors.Is(err, usher.ErrDeclined) {
				t.Errorf("the outcome is %v", err)
			}
			wantError(t, await(t, e.lost, "the taker"), ipc.ErrProtocol, "which is not open")
		})
	}
}

// TestFlagsThatNobodyKnows mean nothing to either side: a later version may give them a meaning.
func TestFlagsThatNobodyKnows(t *testing.T) {
	faults.NoLeak(t)
	const unknown = 0xffff_fff8
	t.Run("in a giver's hello", func(t *testing.T) {
		l := listen(t, usher.ListenConfig{Refused: func(err error) { t.Error(err) }})
		g := newHandmadeGiver(t, l, unknown)
		g.offer(t, 0, 1)
		must(l.Accept())(t).Close()
		if m := must(g.c.Receive())(t); !bytes.Equal(m.Data, answerMessage(1, 0, 0, 1)) {
			t.Errorf("the taker says % x", m.Data)
		}
	})
	t.Run("in a taker's", func(t *testing.T) {
		taker := newRawTaker(t, 4, unknown|3, func(c *ipc.Conn, words []uint32, slot byte, generation uint32) error {
			claim(words, slot, generation)
			return c.Send(lateMessage(1, slot, 0, generation, 0))
		})
		d := usher.Dialer{Patient: true}
		target := must(d.Dial(within(t, timeout), taker.l.Addr().String()))(t)
		defer target.Close()
		if err := target.Handoff(within(t, timeout), newOffer(t, must1(tcpPair(t)), "", usher.Info{})); err != nil {
			t.Error(err)
		}
	})
}

// TestTakersThatReportLies lose their channel when it can be known. The connection is the giver's all the while.
func TestTakersThatReportLies(t *testing.T) {
	faults.NoLeak(t)
	two := reportMessage(0, 1, 2, 3, "")
	two = append(two, two[8:]...)
	missed := reportMessage(0, 1, 2, 3, "")
	missed[4] = 1
	answers := head(3, 0, 0, 0)
	tests := []struct {
		name   string
		claims bool
		say    [][]byte
		want   string
	}{
		{"one that it does not have", false, [][]byte{reportMessage(0, 1, 2, 3, "")}, "more connections than it has claimed"},
		{"twice", true, [][]byte{reportMessage(0, 1, 2, 3, ""), reportMessage(0, 1, 2, 3, "")}, "more connections than it has claimed"},
		{"two at once", true, [][]byte{two}, "more connections than it has claimed"},
		{"more missed than there are", true, [][]byte{missed}, "more connections than it has claimed"},
		{"none", true, [][]byte{head(6, 0, 0, 0)}, "reports of 0 bytes"},
		{"a part", true, [][]byte{reportMessage(0, 1, 2, 3, "")[:39]}, "cut short at 31 bytes"},
		{"less info than it says", true, [][]byte{reportMessage(0, 1, 2, 3, "info")[:42]}, "cut short at 34 bytes"},
		{"info that is none", true, [][]byte{reportMessage(0, 1, 2, 3, "\x09\xff\xffx")}, "in a report: field 9 of the info"},
		{"less than nothing received", true, [][]byte{reportMessage(0, -2, 2, 3, "")}, "a report of"},
		{"less than nothing sent", true, [][]byte{reportMessage(0, 1, -2, 3, "")}, "a report of"},
		{"no time at all, and less", true, [][]byte{reportMessage(0, 1, 2, -1, "")}, "a report of"},
		{"a flag that nobody knows", true, [][]byte{reportMessage(2, 1, 2, 3, "")}, "a report of 02"},
		{"too many", true, [][]byte{append(head(6, 0, 0, 0), make([]byte, 128<<10+1)...)}, "at most 131072"},
		{"answers when it has left", true, [][]byte{head(4, 3, 0, 0), append(answers, head(1, 0, 0, 1)...)}, "a taker sent a message of type 3"},
		{"leaving twice", true, [][]byte{head(4, 3, 0, 0), head(4, 3, 0, 0)}, "a taker sent a message of type 4"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			leaves := tt.say[0][0] == 4
			if isWindows && leaves {
				t.Skip("there a giver goes when it has heard the farewell")
			}
			l := must(ipc.Listen(endpoint(t)))(t)
			defer l.Close()
			ended := make(chan error, 1)
			go func() { ended <- lie(l, tt.claims, tt.say) }()
			lost := make(chan error, 1)
			d := usher.Dialer{Ended: func(usher.Report) {}, Lost: func(_ ipc.Peer, err error) { lost <- err }}
			target := must(d.Dial(within(t, timeout), l.Addr().String()))(t)
			defer target.Close()
			client, server := tcpPair(t)
			o := newOffer(t, server, "", usher.Info{})
			err := target.Handoff(within(t, timeout), o)
			if err := <-ended; err != io.EOF {
				t.Errorf("the channel ended with %v", err)
			}
			if leaves { // in good order, and lied then
				wantError(t, <-lost, nil, "the taker leaves")
			} else {
				wantError(t, <-lost, ipc.ErrProtocol, tt.want)
			}
			if tt.claims {
				if err != nil {
					t.Error(err)
				}
				return
			}
			wantError(t, err, ipc.ErrProtocol, tt.want)
			checkConversation(t, client, must(o.Reclaim())(t))
		})
	}
}

// TestTakersThatOweNothing lose their channel when they leave, or when they have told all, though they keep it open
// themselves: else one that comes and goes could make the giver keep as many as it likes.
func TestTakersThatOweNothing(t *testing.T) {
	faults.NoLeak(t)
	leaving, report := head(4, 3, 0, 0), reportMessage(0, 1, 2, 3, "")
	for _, tt := range []struct {
		name    string
		claims  bool
		say     [][]byte
		reports int
	}{
		{"having claimed nothing", false, [][]byte{leaving}, 0},
		{"having reported all", true, [][]byte{report, leaving}, 1},
		{"and report all then", true, [][]byte{leaving, report}, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if isWindows && tt.say[0][0] == 4 && tt.claims {
				t.Skip("there a giver goes when it has heard the farewell")
			}
			l := must(ipc.Listen(endpoint(t)))(t)
			defer l.Close()
			ended := make(chan error, 1)
			go func() { ended <- lie(l, tt.claims, tt.say) }()
			e := newEar()
			target := e.dial(t, l.Addr().String())
			_, server := tcpPair(t)
			ctx, cancel := context.WithCancel(within(t, timeout))
			handed := make(chan error, 1)
			go func() { handed <- target.Handoff(ctx, newOffer(t, server, "", usher.Info{})) }()
			if err := <-ended; err != io.EOF {
				t.Errorf("the channel ended with %v", err)
			}
			cancel() // one that was not claimed goes on to the next taker, and there is none
			if err := <-handed; (err == nil) != tt.claims {
				t.Error(err)
			}
			target.Close()
			if len(e.reports) != tt.reports {
				t.Errorf("%d connections were reported; want %d", len(e.reports), tt.reports)
			}
		})
	}
}

// TestATakerThatScribblesAndLeaves loses its channel as others that scribble do, whatever it owes.
func TestATakerThatScribblesAndLeaves(t *testing.T) {
	faults.NoLeak(t)
	ended := make(chan error, 1)
	taker := newRawTaker(t, 4, 1, func(c *ipc.Conn, words []uint32, slot byte, generation uint32) error {
		if slot == 0 {
			atomic.CompareAndSwapUint32(&words[0], generation<<2|1, generation<<2|2)
			return c.Send(answerMessage(1, slot, 0, generation))
		}
		atomic.StoreUint32(&words[int(slot)*16], 0xdeadbeef)
		if err := c.Send(head(4, 3, 0, 0)); err != nil {
			return err
		}
		ended <- receiveToEnd(c)
		return nil
	})
	target := newEar().dial(t, taker.l.Addr().String())
	for i := range 2 {
		_, server := tcpPair(t)
		err := target.Handoff(within(t, timeout), newOffer(t, server, "", usher.Info{}))
		if i == 0 && err != nil {
			t.Fatal(err)
		}
	}
	if err := await(t, ended, "the end of the channel"); err != io.EOF {
		t.Errorf("the channel ended with %v", err)
	}
}

// lie is a taker that can report. It claims its first offer, or does not, says what it is given to say, and returns how
// the channel ends.
func lie(l *ipc.Listener, claims bool, say [][]byte) error {
	c, err := l.Accept()
	if err != nil {
		return err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(timeout))
	if err := c.Send(head(1, 1, 4, 1)); err != nil {
		return err
	}
	m, err := c.Receive()
	if err != nil {
		return err
	}
	defer m.Close()
	f, err := m.Attachments()[0].File()
	if err != nil {
		return err
	}
	defer f.Close()
	words, unmap, err := usher.MapPage(f)
	if err != nil {
		return err
	}
	defer unmap()
	offer, err := c.Receive()
	if err != nil {
		return err
	}
	defer offer.Close()
	if claims {
		atomic.CompareAndSwapUint32(&words[0], 1<<2|1, 1<<2|2)
		say = append([][]byte{answerMessage(1, 0, 0, 1)}, say...)
	}
	for _, b := range say {
		if err := c.Send(b); err != nil {
			return err
		}
	}
	return receiveToEnd(c)
}

// TestALateClaimFails has a taker answer for an offer and try to claim it when the slot has the next
// one: the generation keeps it from tearing that ticket.
func TestALateClaimFails(t *testing.T) {
	faults.NoLeak(t)
	var first atomic.Uint32
	torn := make(chan bool, 2)
	taker := newRawTaker(t, 1, 1, func(c *ipc.Conn, words []uint32, slot byte, generation uint32) error {
		if first.CompareAndSwap(0, generation) {
			return c.Send(answerMessage(2, slot, 1, generation)) // declined
		}
		old, next := first.Load(), generation
		torn <- atomic.CompareAndSwapUint32(&words[0], old<<2|1, old<<2|2)
		torn <- atomic.CompareAndSwapUint32(&words[0], next<<2|1, next<<2|2)
		return c.Send(answerMessage(1, slot, 0, next))
	})
	target := must(usher.Dial(within(t, timeout), taker.l.Addr().String()))(t)
	defer target.Close()
	_, server := tcpPair(t)
	o := newOffer(t, server, "", usher.Info{})
	wantError(t, target.Handoff(within(t, timeout), o), usher.ErrDeclined, "")
	if err := target.Handoff(within(t, timeout), o); err != nil {
		t.Error(err)
	}
	if <-torn {
		t.Error("the late claim tore the next ticket")
	}
	if !<-torn {
		t.Error("the claim in time did not tear its own")
	}
}

// TestAnAnswerForWhatWasNeverSent has a taker answer for an offer that waits behind a large one and was
// withdrawn. To believe it would free the slot twice.
func TestAnAnswerForWhatWasNeverSent(t *testing.T) {
	faults.NoLeak(t)
	l := must(ipc.Listen(endpoint(t)))(t)
	defer l.Close()
	channels := make(chan *ipc.Conn, 1)
	go func() {
		c, err := l.Accept()
		if err == nil {
			err = c.Send(head(1, 1, 4, 0))
		}
		if err != nil {
			t.Error(err)
		}
		channels <- c
	}()
	target := must(usher.Dial(within(t, timeout), l.Addr().String()))(t)
	defer target.Close()
	c := <-channels
	defer c.Close()

	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	large := newOffer(t, must1(tcpPair(t)), strings.Repeat("x", usher.MaxPrefix), usher.Info{})
	got := make(chan error, 1)
	go func() { got <- target.Handoff(ctx, large) }() // fills the channel
	time.Sleep(30 * time.Millisecond)
	behind := newOffer(t, must1(tcpPair(t)), "", usher.Info{})
	wantError(t, target.Handoff(within(t, 30*time.Millisecond), behind), os.ErrDeadlineExceeded, "")
	if err := c.Send(answerMessage(3, 1, 0, 1)); err != nil {
		t.Fatal(err)
	}
	wantError(t, <-got, ipc.ErrProtocol, "which is not open")
}

// must1 returns the server's end of a pair.
func must1(_, server *net.TCPConn) *net.TCPConn { return server }

// TestAGiverThatDoesNotRead offers in a slot again before it has heard of the last: the answers do not
// pile up.
func TestAGiverThatDoesNotRead(t *testing.T) {
	faults.NoLeak(t)
	if isWindows {
		t.Skip("there a socket can be sent once")
	}
	refused := make(chan error, 1)
	l := listen(t, usher.ListenConfig{Backlog: 1, Refused: func(err error) { refused <- err }})
	_, server := tcpPair(t)
	if err := rawGiver(t, l).Send(offerMessage(0, 1, ""), server); err != nil { // fills the queue
		t.Fatal(err)
	}
	time.Sleep(10 * time.Millisecond)
	c := rawGiver(t, l)
	for range 200_000 {
		if err := c.Send(offerMessage(0, 1, ""), server); err != nil { // is declined, and not read
			break
		}
	}
	wantError(t, <-refused, ipc.ErrProtocol, "not answered yet")
}

// TestAPeerThatSaysNothing does not keep a listener from shutting down.
func TestAPeerThatSaysNothing(t *testing.T) {
	faults.NoLeak(t)
	l := listen(t, usher.ListenConfig{})
	c := must(ipc.Dial(within(t, timeout), l.Addr().String()))(t)
	defer c.Close()
	must(c.Receive())(t) // the taker's hello
	if err := l.Shutdown(within(t, timeout)); err != nil {
		t.Error(err)
	}
}

// TestADialThatIsNotGreeted ends with its context.
func TestADialThatIsNotGreeted(t *testing.T) {
	faults.NoLeak(t)
	l := must(ipc.Listen(endpoint(t)))(t)
	defer l.Close()
	accepted := make(chan *ipc.Conn, 1)
	go func() { c, _ := l.Accept(); accepted <- c }()
	_, err := usher.Dial(within(t, 30*time.Millisecond), l.Addr().String())
	wantError(t, err, os.ErrDeadlineExceeded, "has not greeted")
	(<-accepted).Close()
}

// TestAnOutcomeIsItsOffers runs playOutcome in a process of its own: the breakpoint is the process's.
func TestAnOutcomeIsItsOffers(t *testing.T) {
	if err := startRole(t, "outcome").cmd.Wait(); err != nil {
		t.Error(err)
	}
}

// playOutcome holds the goroutine of one Handoff right after it has sent its offer, until the next has
// the slot, which the taker's answer has freed meanwhile. That one's outcome must be its own.
func playOutcome([]string) error {
	const name = "outcome"
	dir, err := os.MkdirTemp("", "usher")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	path := dir + "/" + name
	if isWindows {
		path = fmt.Sprintf(`\\.\pipe\usher\test-%d-%s`, os.Getpid(), name)
	}
	var sent, offered atomic.Int32
	secondOffered := make(chan bool)
	usher.SetBreakpoint(func(step, moment string) {
		if step == "offer" && moment == "after" && offered.Add(1) == 2 {
			close(secondOffered)
		}
		if step == "send" && moment == "after" && sent.Add(1) == 1 {
			<-secondOffered
			time.Sleep(50 * time.Millisecond) // for the second to wait for its outcome
		}
	})
	lc := usher.ListenConfig{Backlog: 1}
	l, err := lc.Listen(path)
	if err != nil {
		return err
	}
	defer l.Close()
	go echoAll(l)
	target, err := usher.Dial(context.Background(), path)
	if err != nil {
		return err
	}
	defer target.Close()

	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	defer tcp.Close()
	errs := make(chan error, 2)
	for i := range 2 {
		token := fmt.Sprint("token ", i)
		go func() { errs <- handOverToken(target, tcp, token) }()
	}
	return errors.Join(<-errs, <-errs)
}

// handOverToken hands a connection over and expects its token back.
func handOverToken(target *usher.Target, tcp net.Listener, token string) error {
	client, err := net.Dial("tcp", tcp.Addr().String())
	if err != nil {
		return err
	}
	defer client.Close()
	client.SetDeadline(time.Now().Add(timeout))
	io.WriteString(client, token)
	client.(*net.TCPConn).CloseWrite()
	server, err := tcp.Accept()
	if err != nil {
		return err
	}
	o, err := usher.NewOffer(server, nil, usher.Info{})
	if err != nil {
		return err
	}
	if err := target.Handoff(context.Background(), o); err != nil {
		return err
	}
	got, err := io.ReadAll(client)
	if err == nil && len(got) != len(token) {
		err = fmt.Errorf("the client with %q read %q", token, got)
	}
	return err
}
