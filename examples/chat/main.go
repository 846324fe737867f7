// Chat is a server whose connections last for days, and which is upgraded under them. Run it as "chat ENDPOINT" beside a
// front door with
//
//	listeners: [{name: chat, address: ":7000", sniff: none}]
//	routes: [{match: {}, handoff: ENDPOINT}]
//
// and talk with "nc localhost 7000". A line is a message to everybody, "/name NAME" says who you are, and each message
// comes with its number in the room. Start the new version with the same ENDPOINT: it takes the place of the one that runs,
// which hands it the room and all connections, and ends. On SIGTERM or SIGINT the program writes what is due and ends.
//
// # How one process succeeds another
//
// The new process finds its endpoint in use. It listens at a second one, ENDPOINT-next, which keeps others from doing the
// same, and hands the old process one end of a connection, the line, on which both then talk:
//
//	new  which states it reads                in Info.State, with the line
//	old  room, or refused                     it has stopped: nothing is read, said or written any more
//	old  (each connection, to ENDPOINT-next)  with its state in Info.State, and what was read of it as the prefix
//	new  here                                 all have come
//	old  go, or refused
//	new  serving                              it has taken ENDPOINT over, and begins
//
// Nobody misses a message or gets one twice, for one process at most serves at any time, and begins where the other has
// stopped. The old one serves until it stops, and says "room" after that; the new one serves once it has said "serving".
// In between all clients wait, as they would for a packet that was lost, and what was said of them stays true: the number of
// their next message, what is left of those under way, and the beginning of a line, to the byte.
//
// Nobody is dropped, whoever dies. Until it hears "serving" the old process keeps the states, and a second descriptor of each
// connection, which it does not use. If the line ends before that, the new process is gone and has never served: the old
// one goes on. It has its endpoint still, where those who came meanwhile are waiting unclaimed; only if it has said "go" it
// may have lost that, and takes it again. If the line ends for the new process before it was refused, the old one is gone
// with whom it had not handed over: the new one serves the others. A process that is merely slow is not gone, and its line
// does not end. "refused" in the place of "go" keeps such a successor from serving, whenever it reads that; and once the old
// process has said "go" it does not serve unless the line ends, however long that takes.
//
// For another protocol, say WebSocket, client and cutLine would be different, and the rest as it is.
package main

import (
	"context"
	"errors"
	"log"
	"net"
	"os"
	"os/signal"
	"sync"
	"syscall"

	"github.com/go-usher/usher"
)

// version is what the welcome says; set it with -ldflags "-X main.version=2".
var version = "1"

func main() {
	if len(os.Args) != 2 {
		log.Fatal("usage: chat ENDPOINT")
	}
	// What comes from a process that fails to succeed another is not closed but left to the kernel: usher.Conn.Close
	// would end the connection for the old process as well. log.Fatal does that.
	if err := run(os.Args[1]); err != nil {
		log.Fatal(err)
	}
}

func run(endpoint string) error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // so that a second signal ends the process at once
	s, err := start(ctx, endpoint)
	if err != nil {
		return err
	}
	log.Printf("chat %s serves %s", version, endpoint)
	defer context.AfterFunc(ctx, s.shutDown)()
	return s.serve()
}

type server struct {
	endpoint string
	room     *room

	mu sync.Mutex // held while the room is handed over, so that a signal does not come between
	l  *usher.Listener
}

// start returns a server with a room of its own, or with that of the process which has the endpoint.
func start(ctx context.Context, endpoint string) (*server, error) {
	for {
		l, err := usher.Listen(endpoint)
		if err == nil {
			return &server{endpoint: endpoint, room: newRoom(), l: l}, nil
		}
		t, dialErr := usher.Dial(ctx, endpoint)
		if dialErr != nil { // nobody whom this could succeed
			return nil, err
		}
		s, err := succeed(ctx, t, endpoint)
		t.Close()
		if !errors.Is(err, errGone) {
			return s, err
		}
	}
}

// serve returns when the room is closed or handed over. A handover is made by the goroutine that accepts: what comes
// meanwhile is not claimed, and waits for whoever serves then.
func (s *server) serve() error {
	for {
		conn, err := s.l.Accept()
		if err != nil { // a signal; or another program has the endpoint now, which has asked for nothing
			log.Print(err)
			s.room.close()
			return s.leave()
		}
		c := conn.(*usher.Conn)
		if len(c.Info().State) == 0 {
			s.room.welcome(c)
			continue
		}
		s.mu.Lock()
		err = s.handOver(c)
		s.mu.Unlock()
		if err == nil {
			log.Printf("chat %s has handed %s over", version, s.endpoint)
			return s.leave()
		}
		log.Printf("chat %s goes on, the handover failed: %v", version, err)
	}
}

// shutDown makes serve close the room.
func (s *server) shutDown() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.leave()
}

// leave gives what is not claimed back, and waits until givers have heard what became of the rest.
func (s *server) leave() error {
	ctx, cancel := context.WithTimeout(context.Background(), stopTime)
	defer cancel()
	if err := s.l.Shutdown(ctx); !errors.Is(err, net.ErrClosed) {
		return err
	}
	return nil
}
