package main

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/go-usher/usher/internal/admin"
)

// scriptPatience ends a script that hangs, not one that is slow.
const scriptPatience = 30 * time.Second

// TestScripts runs the scripts in testdata/script. Besides testscript's own they have these commands, which wait
// for what they want and fail when it does not come:
//
//	start NAME PROGRAM ARG...          run a process in the background; what it writes goes to the file NAME.log
//	await NAME PATTERN [VARIABLE...]   until that matches, behind the match of the last await; groups become variables
//	signal NAME|PID SIGNAL             send HUP, TERM or KILL
//	[!] ended NAME                     until the process has ended, with exit status 0 or, with !, with another
//	until PATTERN PROGRAM ARG...       run the program, until what it prints matches
//	counted ROUTE OUTCOME N [MORE]     until usher status, asked at unix:admin.sock, counts N connections, or MORE more at most
//	capture PATTERN VARIABLE...        groups of what was printed last become variables
//	build NAME DIR                     build the program in DIR, a folder of this module, as $WORK/NAME
//	certificate FILE HOST...           make a self-signed certificate, and write it and its key to FILE
//	fill FILE MIB                      write random bytes to FILE
//	drip VARIABLE ADDR                 listen at an address that VARIABLE is set to, and pass all on to ADDR byte by byte
//	free VARIABLE                      find an address, HOST:PORT, where nobody listens
//
// Conditions are [ipv6], and [real]: $USHER_REAL is set, so that scripts with heavy clients run.
// $USHER_DIR, where endpoints are, is each script's own.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script", RequireExplicitExec: true, Setup: setUpScript, Condition: scriptCondition,
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"start": startCmd, "await": awaitCmd, "signal": signalCmd, "ended": endedCmd, "until": untilCmd,
			"counted": countedCmd, "capture": captureCmd, "build": buildCmd, "certificate": certificateCmd, "fill": fillCmd,
			"drip": dripCmd, "free": freeCmd,
		},
	})
}

func scriptCondition(cond string) (bool, error) {
	switch cond {
	case "ipv6":
		l, err := net.Listen("tcp", "[::1]:0")
		if err == nil {
			l.Close()
		}
		return err == nil, nil
	case "real":
		return os.Getenv("USHER_REAL") != "", nil
	}
	return false, fmt.Errorf("unknown condition %q", cond)
}

// background are the processes of a script.
type background struct {
	environ   []string
	processes map[string]*process
}

type process struct {
	cmd   *exec.Cmd
	log   string        // the file with what it writes
	read  int           // how much of that await has used
	ended chan struct{} // closed when err is what Wait has returned
	err   error
}

type backgroundKey struct{}

func setUpScript(e *testscript.Env) error {
	dir := filepath.Join(e.WorkDir, "endpoints")
	e.Setenv("USHER_DIR", dir)
	// Under the race detector a process sleeps for a second when it ends, unless told otherwise.
	e.Setenv("GORACE", "atexit_sleep_ms=0 "+os.Getenv("GORACE"))
	b := &background{environ: e.Vars, processes: make(map[string]*process)}
	e.Values[backgroundKey{}] = b
	e.Defer(func() { b.end(e.T()) })
	return os.Mkdir(dir, 0o700)
}

// end ends what the script has left, and shows what all have written if it has failed.
func (b *background) end(t testscript.T) {
	for _, p := range b.processes {
		p.cmd.Process.Signal(syscall.SIGTERM) // not KILL: the process may have others to end
	}
	failed, ok := t.(interface{ Failed() bool })
	for name, p := range b.processes {
		select {
		case <-p.ended:
		case <-time.After(patience):
			p.cmd.Process.Kill()
			<-p.ended
		}
		killGroup(p.cmd)
		if ok && failed.Failed() {
			text, err := os.ReadFile(p.log)
			t.Log(fmt.Sprintf("%s has ended (%v), and wrote (%v):\n%s", name, p.err, err, text))
		}
	}
}

// find returns the process that a command names.
func find(ts *testscript.TestScript, name string) *process {
	p := ts.Value(backgroundKey{}).(*background).processes[name]
	if p == nil {
		ts.Fatalf("no process %s was started", name)
	}
	return p
}

// usage fails a command that is not used as it has to be.
func usage(ts *testscript.TestScript, ok bool, text string) {
	if !ok {
		ts.Fatalf("usage: %s", text)
	}
}

// eventually waits until a condition holds, or never can.
func eventually(ts *testscript.TestScript, what string, holds func() (bool, error)) {
	for deadline := time.Now().Add(scriptPatience); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		ok, err := holds()
		if ok {
			return
		}
		if err != nil {
			ts.Fatalf("%s: %v", what, err)
		}
	}
	ts.Fatalf("not within %v: %s", scriptPatience, what)
}

func startCmd(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, !neg && len(args) >= 2, "start NAME PROGRAM ARG...")
	b := ts.Value(backgroundKey{}).(*background)
	if b.processes[args[0]] != nil {
		ts.Fatalf("%s was started before", args[0])
	}
	p := &process{cmd: exec.Command(args[1], args[2:]...), log: ts.MkAbs(args[0] + ".log"), ended: make(chan struct{})}
	log, err := os.Create(p.log)
	ts.Check(err)
	defer log.Close()
	p.cmd.Dir, p.cmd.Env, p.cmd.Stdout, p.cmd.Stderr = ts.MkAbs("."), b.environ, log, log
	ownGroup(p.cmd)
	ts.Check(p.cmd.Start())
	b.processes[args[0]] = p
	go func() {
		p.err = p.cmd.Wait()
		close(p.ended)
	}()
}

func awaitCmd(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, !neg && len(args) >= 2, "await NAME PATTERN [VARIABLE...]")
	p, pattern := find(ts, args[0]), compile(ts, args[1])
	eventually(ts, fmt.Sprintf("a line of %s.log, after those that were awaited before, matches %#q", args[0], args[1]), func() (bool, error) {
		var gone error
		select {
		case <-p.ended:
			gone = fmt.Errorf("the process has ended (%v)", p.err)
		default:
		}
		text := ts.ReadFile(p.log)
		text = text[p.read : strings.LastIndexByte(text, '\n')+1] // the last line may be half written
		at := pattern.FindStringIndex(text)
		if at == nil {
			return false, gone
		}
		setGroups(ts, pattern, text, args[2:])
		p.read += at[1]
		return true, nil
	})
}

func captureCmd(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, !neg && len(args) >= 2, "capture PATTERN VARIABLE...")
	setGroups(ts, compile(ts, args[0]), ts.ReadFile("stdout"), args[1:])
}

func compile(ts *testscript.TestScript, pattern string) *regexp.Regexp {
	re, err := regexp.Compile("(?m)" + pattern)
	ts.Check(err)
	return re
}

func setGroups(ts *testscript.TestScript, pattern *regexp.Regexp, text string, variables []string) {
	groups := pattern.FindStringSubmatch(text)
	if len(groups) <= len(variables) {
		ts.Fatalf("%#q has %d groups in %q; want %d", pattern, max(len(groups)-1, 0), text, len(variables))
	}
	for i, v := range variables {
		ts.Setenv(v, groups[i+1])
	}
}

var signals = map[string]os.Signal{"HUP": syscall.SIGHUP, "TERM": syscall.SIGTERM, "KILL": syscall.SIGKILL}

func signalCmd(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, !neg && len(args) == 2 && signals[args[1]] != nil, "signal NAME|PID HUP|TERM|KILL")
	if pid, err := strconv.Atoi(args[0]); err == nil { // of one that a process of the script has started
		p, err := os.FindProcess(pid)
		ts.Check(err)
		ts.Check(p.Signal(signals[args[1]]))
		return
	}
	ts.Check(find(ts, args[0]).cmd.Process.Signal(signals[args[1]]))
}

func endedCmd(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, len(args) == 1, "[!] ended NAME")
	p := find(ts, args[0])
	select {
	case <-p.ended:
	case <-time.After(scriptPatience):
		ts.Fatalf("%s has not ended within %v", args[0], scriptPatience)
	}
	var exit *exec.ExitError
	if p.err != nil && !errors.As(p.err, &exit) {
		ts.Fatalf("%s: %v", args[0], p.err)
	}
	if failed := p.err != nil; failed != neg {
		ts.Fatalf("%s has ended: %s", args[0], p.cmd.ProcessState)
	}
}

func untilCmd(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, !neg && len(args) >= 2, "until PATTERN PROGRAM ARG...")
	pattern := compile(ts, args[0])
	eventually(ts, fmt.Sprintf("what %s prints matches %#q", args[1], args[0]), func() (bool, error) {
		ts.Exec(args[1], args[2:]...) // which may fail: curl does, and prints what is asked for
		return pattern.MatchString(ts.ReadFile("stdout")), nil
	})
}

func countedCmd(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, !neg && (len(args) == 3 || len(args) == 4), "counted ROUTE OUTCOME N [MORE]")
	least, err := strconv.ParseUint(args[2], 10, 64)
	ts.Check(err)
	most := least
	if len(args) == 4 {
		more, err := strconv.ParseUint(args[3], 10, 64)
		ts.Check(err)
		most += more
	}
	eventually(ts, strings.Join(args, " "), func() (bool, error) {
		n, err := countOf(ts, args[0], admin.Outcome(args[1]))
		if err == nil && n > most {
			err = fmt.Errorf("there are %d", n)
		}
		return err == nil && n >= least, err
	})
}

// countOf asks as an operator would.
func countOf(ts *testscript.TestScript, route string, outcome admin.Outcome) (n uint64, err error) {
	if err := ts.Exec("usher", "status", "--json", "--admin", "unix:admin.sock"); err != nil {
		return 0, err
	}
	var s admin.Status
	if err := json.Unmarshal([]byte(ts.ReadFile("stdout")), &s); err != nil {
		return 0, err
	}
	at := slices.IndexFunc(s.Routes, func(r admin.RouteStatus) bool { return r.Name == route })
	if at < 0 {
		return 0, fmt.Errorf("there is no route %s", route)
	}
	for _, c := range s.Routes[at].Connections {
		if c.Outcome == outcome {
			n += c.N
		}
	}
	return n, nil
}

func buildCmd(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, !neg && len(args) == 2, "build NAME DIR")
	cmd := exec.Command("go", "build", "-buildvcs=false", "-o", ts.MkAbs(args[0]), "./"+args[1])
	cmd.Dir = filepath.Join("..", "..") // and the test's own environment: go needs its caches
	if out, err := cmd.CombinedOutput(); err != nil {
		ts.Fatalf("build %s: %v\n%s", args[1], err, out)
	}
}

func certificateCmd(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, !neg && len(args) >= 2, "certificate FILE HOST...")
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	ts.Check(err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: args[1]}, DNSNames: args[1:],
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	ts.Check(err)
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	ts.Check(err)
	var b bytes.Buffer
	ts.Check(pem.Encode(&b, &pem.Block{Type: "CERTIFICATE", Bytes: der}))
	ts.Check(pem.Encode(&b, &pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8}))
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), b.Bytes(), 0o600))
}

func fillCmd(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, !neg && len(args) == 2, "fill FILE MIB")
	n, err := strconv.ParseInt(args[1], 10, 64)
	ts.Check(err)
	f, err := os.Create(ts.MkAbs(args[0]))
	ts.Check(err)
	defer f.Close()
	_, err = io.CopyN(f, rand.Reader, n<<20)
	ts.Check(err)
}

// dripCmd writes each byte by itself: so the door sees a request at every length that it can have.
func dripCmd(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, !neg && len(args) == 2, "drip VARIABLE ADDR")
	l, err := net.Listen("tcp", "127.0.0.1:0")
	ts.Check(err)
	ts.Setenv(args[0], l.Addr().String())
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			serving.Go(func() { drip(c, args[1]) })
		}
	})
	ts.Defer(func() {
		l.Close()
		serving.Wait()
	})
}

func drip(client net.Conn, addr string) {
	defer client.Close()
	door, err := net.Dial("tcp", addr)
	if err != nil {
		return
	}
	defer door.Close()
	deadline := time.Now().Add(scriptPatience)
	client.SetDeadline(deadline)
	door.SetDeadline(deadline)
	go func() {
		defer door.Close() // the client is gone
		b := make([]byte, 1)
		for {
			if _, err := client.Read(b); err != nil {
				return
			}
			if _, err := door.Write(b); err != nil {
				return
			}
		}
	}()
	io.Copy(client, door)
}

// freeCmd takes an address of the loopback network that no other test of this machine uses, nor any client.
func freeCmd(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, !neg && len(args) == 1, "free VARIABLE")
	pid := os.Getpid()
	l, err := net.Listen("tcp", fmt.Sprintf("127.%d.%d.%d:0", 1+pid>>16&63, pid>>8&255, pid&255))
	ts.Check(err)
	ts.Setenv(args[0], l.Addr().String())
	ts.Check(l.Close())
}
