//go:build darwin || freebsd || linux || netbsd || openbsd || windows

package usher_test

import (
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-usher/usher"
	"github.com/go-usher/usher/internal/faults"
	"github.com/go-usher/usher/ipc"
)

// patientDelay is how long a taker may keep claims to itself, by the words of SPEC.md and of Dialer.Patient.
const patientDelay = 5 * time.Millisecond

func dialPatient(t testing.TB, path string) *usher.Target {
	t.Helper()
	d := usher.Dialer{Patient: true}
	target := must(d.Dial(within(t, timeout), path))(t)
	t.Cleanup(func() { target.Close() })
	return target
}

// handmadeGiver is a giver that speaks the protocol itself.
type handmadeGiver struct {
	c     *ipc.Conn
	words []uint32
}

func newHandmadeGiver(t testing.TB, l net.Listener, flags uint32) *handmadeGiver {
	t.Helper()
	page := must(usher.CreatePage())(t)
	defer page.Close()
	words, unmap, err := usher.MapPage(page)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(unmap)
	c := must(ipc.Dial(within(t, timeout), l.Addr().String()))(t)
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(timeout))
	if err := c.Send(head(1, 1, 0, flags), page); err != nil {
		t.Fatal(err)
	}
	if m := must(c.Receive())(t); m.Data[0] != 1 {
		t.Fatalf("the taker began with % x", m.Data)
	}
	return &handmadeGiver{c, words}
}

// offer makes an offer of a new connection.
func (g *handmadeGiver) offer(t testing.TB, slot byte, generation uint32) {
	t.Helper()
	_, server := tcpPair(t)
	defer server.Close()
	atomic.StoreUint32(&g.words[int(slot)*16], generation<<2|1)
	if err := g.c.Send(offerMessage(slot, generation, ""), server); err != nil {
		t.Fatal(err)
	}
}

// lateAnswer is an answer as it travels to a patient giver.
type lateAnswer struct {
	verb, slot byte
	generation uint32
	ago        time.Duration
}

// late receives a message of late answers.
func (g *handmadeGiver) late(t testing.TB) (answers []lateAnswer) {
	t.Helper()
	m := must(g.c.Receive())(t)
	if m.Data[0] != 8 {
		t.Fatalf("the taker says % x; want late answers", m.Data)
	}
	for b := m.Data[8:]; len(b) > 0; b = b[12:] {
		ago := time.Duration(binary.LittleEndian.Uint32(b[8:])) * time.Microsecond
		answers = append(answers, lateAnswer{b[0], b[1], binary.LittleEndian.Uint32(b[4:]), ago})
	}
	return answers
}

// TestAPatientGiverIsToldLate of claims, and how late: many come in a message.
func TestAPatientGiverIsToldLate(t *testing.T) {
	faults.NoLeak(t)
	t.Run("a claim that nothing comes after", func(t *testing.T) {
		l := listen(t, usher.ListenConfig{})
		g := newHandmadeGiver(t, l, 2)
		g.offer(t, 3, 7)
		must(l.Accept())(t).Close()
		got := g.late(t)
		if len(got) != 1 || got[0].verb != 1 || got[0].slot != 3 || got[0].generation != 7 || got[0].ago < patientDelay {
			t.Errorf("the answers are %+v; want a claim of slot 3 and generation 7, made %v ago", got, patientDelay)
		}
	})
	t.Run("many claims", func(t *testing.T) {
		l := listen(t, usher.ListenConfig{})
		g := newHandmadeGiver(t, l, 2)
		const rounds, each = 8, 16
		messages := 0
		for generation := range uint32(rounds) {
			for slot := range byte(each) {
				g.offer(t, slot, generation+1)
			}
			for range each {
				must(l.Accept())(t).Close()
			}
			for told := 0; told < each; messages++ {
				answers := g.late(t)
				told += len(answers)
				for i, a := range answers {
					if a.verb != 1 || a.generation != generation+1 || i > 0 && a.ago > answers[i-1].ago {
						t.Errorf("answer %d of %+v", i, answers)
					}
				}
			}
		}
		if messages > rounds*each/2 {
			t.Errorf("%d claims came in %d messages", rounds*each, messages)
		}
	})
	t.Run("no more than half of the window", func(t *testing.T) {
		l := listen(t, usher.ListenConfig{Backlog: 4})
		g := newHandmadeGiver(t, l, 2)
		for generation := range uint32(20) {
			g.offer(t, 0, generation+1)
			g.offer(t, 1, generation+1)
			for told := 0; told < 2; {
				if told == 0 {
					must(l.Accept())(t).Close()
					must(l.Accept())(t).Close()
				}
				answers := g.late(t)
				if told += len(answers); len(answers) == 2 && answers[1].ago < patientDelay {
					return // it has not waited for the time to be up
				}
			}
		}
		t.Error("no two claims were told before their time was up")
	})
	t.Run("together with what is declined, which does not wait", func(t *testing.T) {
		l := listen(t, usher.ListenConfig{Backlog: 1})
		declined := make(chan bool, 2)
		for range cap(declined) { // one of them fills the queue
			g := newHandmadeGiver(t, l, 0)
			g.offer(t, 0, 1)
			go func() {
				_, err := g.c.Receive()
				declined <- err == nil
			}()
		}
		if !<-declined {
			t.Fatal("none was declined")
		}
		g := newHandmadeGiver(t, l, 2)
		for generation := range uint32(50) {
			g.offer(t, 0, generation+1)
			if a := g.late(t)[0]; a.verb == 2 && a.ago < patientDelay {
				return
			}
		}
		t.Error("each offer that was declined has waited to be told")
	})
}

// TestAGiverThatIsNotPatient is told at once.
func TestAGiverThatIsNotPatient(t *testing.T) {
	faults.NoLeak(t)
	l := listen(t, usher.ListenConfig{})
	g := newHandmadeGiver(t, l, 0)
	for generation := range uint32(50) {
		g.offer(t, 0, generation+1)
		c := must(l.Accept())(t)
		claimed := time.Now()
		m := must(g.c.Receive())(t)
		told := time.Since(claimed)
		c.Close()
		if m.Data[0] != 3 {
			t.Fatalf("the taker says % x; want answers", m.Data)
		}
		if told < patientDelay {
			return
		}
	}
	t.Error("it was never told as soon as others")
}

// TestHandoffToAPatientTarget waits for what comes late, and does not stall where the window is small.
func TestHandoffToAPatientTarget(t *testing.T) {
	faults.NoLeak(t)
	for _, backlog := range []int{1, 2, 3, usher.DefaultBacklog} {
		t.Run(fmt.Sprint("backlog ", backlog), func(t *testing.T) {
			l := listen(t, usher.ListenConfig{Backlog: backlog})
			go echoAll(l)
			target := dialPatient(t, l.Addr().String())
			var wg sync.WaitGroup
			for i := range 4 {
				wg.Go(func() {
					for j := range 16 {
						token := fmt.Sprintf("%d-%d", i, j)
						client, server := tcpPair(t)
						if err := target.Handoff(within(t, timeout), newOffer(t, server, token, usher.Info{})); err != nil {
							t.Error(err)
							return
						}
						client.CloseWrite()
						if got, err := io.ReadAll(client); err != nil || string(got) != token {
							t.Errorf("client %s read %q, %v", token, got, err)
						}
					}
				})
			}
			wg.Wait()
		})
	}
}

// TestAListenerThatLeavesTellsFirst what it has claimed, and has not told a patient giver yet.
func TestAListenerThatLeavesTellsFirst(t *testing.T) {
	faults.NoLeak(t)
	l := listen(t, usher.ListenConfig{})
	g := newHandmadeGiver(t, l, 2)
	g.offer(t, 0, 1)
	must(l.Accept())(t).Close()
	down := make(chan error, 1)
	go func() { down <- l.Shutdown(within(t, timeout)) }()
	if got := g.late(t); len(got) != 1 || got[0].verb != 1 {
		t.Errorf("the answers are %+v", got)
	}
	if _, reason, err := farewell(g.c); err != nil || reason != 3 {
		t.Errorf("the farewell has reason %d, %v; want 3", reason, err)
	}
	g.c.Close()
	if err := await(t, down, "the shutdown"); err != nil {
		t.Error(err)
	}
}
