package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/go-usher/usher"
	"github.com/go-usher/usher/internal/faults"
	"github.com/go-usher/usher/ipc"
)

// What a speaker of a test does: one message in each pause, and some of the speakers byte by byte.
const (
	speakers = 20
	pause    = 400 * time.Millisecond
)

func TestNobodyMissesAMessageOrGetsOneTwiceWhateverBecomesOfUpgrades(t *testing.T) {
	endpoint := faults.Endpoint(t)
	serving := startChat(t, endpoint, 1)
	serves(serving, 1)
	g := crowd(t, giver(t, endpoint), *manyClients)
	for v := 2; v < 2+*manyUpgrades; v++ {
		g.speakOn(t)
		failedUpgrades(t, serving, endpoint, v)
		g.speakOn(t)
		serving = upgrade(t, serving, endpoint, v)
	}
	g.end(t, *manyUpgrades)
}

// upgrade starts a new version and returns it when it serves and the one before has ended.
func upgrade(t testing.TB, old *faults.Actor, endpoint string, version int) *faults.Actor {
	t.Helper()
	a := startChat(t, endpoint, version)
	serves(a, version)
	old.Await(fmt.Sprintf("chat %d has handed", version-1))
	old.End()
	return a
}

// failedUpgrades tries all ways to fail, each of which must leave the process that serves as it was.
func failedUpgrades(t testing.TB, serving *faults.Actor, endpoint string, v int) {
	t.Helper()
	for _, step := range []string{"asked", "room", "some", "all"} {
		awaitDeath(faults.Start(t, "mayfly", endpoint, step))
	}
	stranger := faults.Start(t, "chat", endpoint, "stranger", "99", "10s")
	if why := stranger.Await("failed: "); !strings.Contains(why, "states here have version 1, the successor reads [99]") {
		t.Errorf("a successor that cannot read the state says %q", why)
	}
	// These may have had the endpoint already; the next successor must find the process that has it again.
	step := []string{"go", "replaced"}[v%2]
	awaitDeath(faults.Start(t, "mayfly", endpoint, step))
	serving.Await(fmt.Sprintf("chat %d goes on, the handover failed: the other process has not said \"serving\"", v-1))
}

// gathering are clients of which some speak.
type gathering struct {
	talkers  []*talker
	hearing  sync.WaitGroup
	speaking sync.WaitGroup
	over     atomic.Bool  // the speakers are to end
	said     atomic.Int64 // their numbers, together
}

func crowd(t testing.TB, addr string, n int) *gathering {
	t.Helper()
	g := new(gathering)
	talkers := make([]*talker, n)
	for i := range talkers {
		talkers[i] = enter(t, addr)
	}
	for _, k := range talkers[n-n/10:] { // slow readers; nothing was said yet that k.in could have
		k.SetReadBuffer(4 << 10)
		k.in.Reset(&slowly{k, &g.over})
	}
	g.join(talkers)
	for i, k := range g.talkers[:speakers] {
		g.speaking.Go(func() {
			if err := g.speak(k, i); err != nil {
				t.Errorf("speaker %d: %v", i, err)
			}
		})
	}
	return g
}

// join has clients hear until all speakers have said that it is over.
func (g *gathering) join(talkers []*talker) {
	g.talkers = append(g.talkers, talkers...)
	for _, k := range talkers {
		k.lasts = speakers
		g.hearing.Go(k.hearAll)
	}
}

// speakOn waits until something was said.
func (g *gathering) speakOn(t testing.TB) {
	t.Helper()
	enough := g.said.Load() + speakers
	for deadline := time.Now().Add(timeout); g.said.Load() < enough; time.Sleep(pause / 40) {
		if time.Now().After(deadline) {
			t.Fatal("nobody speaks")
		}
	}
}

// speak says a name, numbers until it is over, and that it is.
func (g *gathering) speak(k *talker, i int) error {
	how := io.WriteString
	if i%2 == 1 {
		how = byteByByte
	}
	if _, err := how(k, fmt.Sprintf("/name speaker %d\n", i)); err != nil {
		return err
	}
	time.Sleep(rand.N(pause)) // so that they do not speak in chorus
	for n := 1; !g.over.Load(); n++ {
		if _, err := how(k, strconv.Itoa(n)+"\r\n"); err != nil {
			return err
		}
		g.said.Add(1)
		time.Sleep(pause)
	}
	return k.tell(last)
}

func byteByByte(w io.Writer, s string) (int, error) {
	for i := range len(s) {
		if _, err := io.WriteString(w, s[i:i+1]); err != nil {
			return i, err
		}
		time.Sleep(pause / 40)
	}
	return len(s), nil
}

// slowly reads a few bytes at a time until that is over.
type slowly struct {
	io.Reader
	over *atomic.Bool
}

func (s *slowly) Read(b []byte) (int, error) {
	if !s.over.Load() {
		b = b[:min(len(b), 64)]
		time.Sleep(pause / 40)
	}
	return s.Reader.Read(b)
}

// end has the speakers come to an end, waits until everybody has heard it, and says what came of all.
func (g *gathering) end(t testing.TB, upgrades int) {
	t.Helper()
	g.over.Store(true)
	g.speaking.Wait()
	g.hearing.Wait()
	for _, k := range g.talkers {
		heard := int64(0)
		for _, n := range k.said {
			heard += n
		}
		if !k.late {
			k.lost += g.said.Load() - heard
		}
	}
	deliveries, lost, twice, dropped := sum(t, g.talkers)
	t.Logf("%d clients, %d upgrades, %d messages, %d deliveries, %d lost, %d twice, %d dropped",
		len(g.talkers), upgrades, g.talkers[0].got, deliveries, lost, twice, dropped)
}

func TestASuccessorThatIsLateIsRefusedAndTheRoomGoesOn(t *testing.T) {
	endpoint := faults.Endpoint(t)
	serving := faults.Start(t, "chat", endpoint, "1", "1", "200ms")
	serves(serving, 1)
	g := crowd(t, giver(t, endpoint), speakers)
	awaitDeath(faults.Start(t, "mayfly", endpoint, "late"))
	upgrade(t, serving, endpoint, 2)
	g.end(t, 1)
}

func TestClientsAreNotHandedToAnotherProcessThanTheOneThatAsked(t *testing.T) {
	endpoint := faults.Endpoint(t)
	l := must(usher.Listen(endpoint)) // by this process, as the next successor might when the first has died
	defer l.Close()
	r := newRoom()
	conn, client := handed(t, "", usher.Info{})
	r.welcome(conn)
	r.stop()
	err := r.offerClients(t.Context(), ipc.Peer{PID: os.Getppid()}, endpoint)
	if !errors.Is(err, ipc.ErrDenied) {
		t.Errorf("the error is %v, want %v", err, ipc.ErrDenied)
	}
	r.takeBack()
	r.resume()
	io.WriteString(client, "still here\n")
	in := bufio.NewReader(client)
	in.ReadString('\n')
	if line, err := in.ReadString('\n'); line != "1 guest: still here\n" {
		t.Errorf("the client is told %q, %v", line, err)
	}
	r.close()
}

func TestASuccessorServesThoseWhoHaveComeWhenTheProcessBeforeDies(t *testing.T) {
	const clients, handed = 10, 6
	endpoint := faults.Endpoint(t)
	orphan := faults.Start(t, "orphan", endpoint, strconv.Itoa(clients), strconv.Itoa(handed))
	serves(orphan, 1)
	addr := giver(t, endpoint)
	var talkers []*talker
	for range clients {
		talkers = append(talkers, enter(t, addr))
	}
	if err := talkers[0].tell("before the upgrade"); err != nil {
		t.Fatal(err)
	}
	hearing := hearAll(talkers)
	serves(startChat(t, endpoint, 2), 2)
	// Those whom the successor finds on the way may come a moment after it serves. They have missed nothing then.
	if err := enter(t, addr).tell(last); err != nil {
		t.Fatal(err)
	}
	hearing.Wait()
	survived := 0
	for i, k := range talkers {
		if k.lost+k.twice > 0 {
			t.Errorf("client %d has lost %d messages, and got %d twice", i, k.lost, k.twice)
		}
		if k.dropped == nil && k.got == 3 { // what was said, that version 2 goes on, and the last
			survived++
		}
	}
	if survived != handed {
		t.Errorf("%d of %d clients survived, %d were handed over", survived, clients, handed)
	}
}

func TestOnASignalEverybodyGetsWhatIsDue(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("no process can be sent SIGTERM")
	}
	endpoint := faults.Endpoint(t)
	serving := startChat(t, endpoint, 1)
	serves(serving, 1)
	addr := giver(t, endpoint)
	talkers := []*talker{enter(t, addr), enter(t, addr), enter(t, addr)}
	for i := range 1000 {
		if err := talkers[0].tell(strconv.Itoa(i + 1)); err != nil {
			t.Fatal(err)
		}
	}
	if err := talkers[0].tell(last); err != nil {
		t.Fatal(err)
	}
	talkers[0].hearAll() // now all is said
	if err := must(os.FindProcess(serving.PID())).Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	serving.End()
	hearAll(talkers[1:]).Wait()
	sum(t, talkers)
	for i, k := range talkers {
		if _, err := k.in.ReadByte(); err != io.EOF {
			t.Errorf("client %d: the connection ends with %v", i, err)
		}
	}
}

func TestASignalDuringAnUpgradeWaitsForIt(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("no process can be sent SIGTERM")
	}
	endpoint := faults.Endpoint(t)
	serving := startChat(t, endpoint, 1)
	serves(serving, 1)
	k := enter(t, giver(t, endpoint))
	awaitDeath(faults.Start(t, "mayfly", endpoint, "signal")) // which has come as far as "go"
	serving.End()
	if b, err := io.ReadAll(k); err != nil || len(b) > 0 {
		t.Errorf("the connection ends with %q, %v", b, err)
	}
}

func TestTheFirstOfTwoSuccessorsIsTheOne(t *testing.T) {
	endpoint := faults.Endpoint(t)
	serving := startChat(t, endpoint, 1)
	serves(serving, 1)
	l := must(usher.Listen(endpoint + next)) // as the first does
	second := startChat(t, endpoint, 2)
	if why := second.Await("failed: "); !strings.Contains(why, next) {
		t.Errorf("the second successor says %q", why)
	}
	l.Close()
	upgrade(t, serving, endpoint, 2)
}
