//go:build darwin || freebsd || linux || netbsd || openbsd

package usher_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/go-usher/usher"
	"github.com/go-usher/usher/ipc"
)

func init() {
	roles["bench-giver"] = playBenchGiver
	roles["told-giver"] = playToldGiver
	roles["try-giver"] = playTryGiver
	roles["bench-taker"] = playBenchTaker
	roles["plain-giver"] = playPlainGiver
	roles["plain-taker"] = playPlainTaker
	roles["latency-taker"] = playLatencyTaker
}

const (
	benchConns   = 4000 // a round; each has a descriptor on either side
	benchWorkers = 256  // calls of Handoff at once
)

// cpuTime is what this process has used, user and system.
func cpuTime() time.Duration {
	var u syscall.Rusage
	syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// playPlainTaker is playBenchTaker with package ipc alone.
func playPlainTaker(args []string) error {
	l, err := ipc.Listen(args[0])
	if err != nil {
		return err
	}
	defer l.Close()
	n, _ := strconv.Atoi(args[1])
	fmt.Println("ready")
	channel, err := l.Accept()
	if err != nil {
		return err
	}
	from := cpuTime()
	for range n {
		m, err := channel.Receive()
		if err != nil {
			return err
		}
		f, err := m.Attachments()[0].Socket()
		if err != nil {
			return err
		}
		f.Close()
	}
	fmt.Println(int64(cpuTime() - from))
	return nil
}

// playBenchTaker closes what it takes at the endpoint args[0], and says what args[1] of them cost.
func playBenchTaker(args []string) error {
	l, err := usher.Listen(args[0])
	if err != nil {
		return err
	}
	defer l.Close()
	n, _ := strconv.Atoi(args[1])
	fmt.Println("ready")
	from := cpuTime()
	for range n {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		c.Close()
	}
	fmt.Println(int64(cpuTime() - from))
	return nil
}

// playBenchGiver accepts args[1] connections, then hands all over to the endpoint args[0] and says what
// that cost.
func playBenchGiver(args []string) error {
	ctx := context.Background()
	t, err := usher.Dial(ctx, args[0])
	if err != nil {
		return err
	}
	defer t.Close()
	return giveAll(args[1], benchWorkers, func(c net.Conn) error { return benchHandoff(t, c) }, func() {})
}

// playToldGiver is playBenchGiver with reports, which it waits for.
func playToldGiver(args []string) error {
	ctx := context.Background()
	d := usher.Dialer{Ended: func(usher.Report) {}}
	t, err := d.Dial(ctx, args[0])
	if err != nil {
		return err
	}
	defer t.Close()
	return giveAll(args[1], benchWorkers, func(c net.Conn) error { return benchHandoff(t, c) }, func() { t.Shutdown(ctx) })
}

// playTryGiver is playBenchGiver with TryHandoff in one goroutine, and a target that is patient.
func playTryGiver(args []string) error {
	ctx := context.Background()
	d := usher.Dialer{Patient: true}
	t, err := d.Dial(ctx, args[0])
	if err != nil {
		return err
	}
	defer t.Close()
	var open sync.WaitGroup
	done := func(_ time.Time, err error) {
		if err != nil {
			panic(err)
		}
		open.Done()
	}
	return giveAll(args[1], 1, func(c net.Conn) error {
		o, err := usher.NewOffer(c, benchPayload, usher.Info{})
		if err != nil {
			return err
		}
		open.Add(1)
		if t.TryHandoff(o, timeout, done) {
			return nil
		}
		open.Done()
		return t.Handoff(ctx, o)
	}, open.Wait)
}

func benchHandoff(t *usher.Target, c net.Conn) error {
	o, err := usher.NewOffer(c, benchPayload, usher.Info{})
	if err != nil {
		return err
	}
	return t.Handoff(context.Background(), o)
}

// playPlainGiver is playBenchGiver with package ipc alone.
func playPlainGiver(args []string) error {
	channel, err := ipc.Dial(context.Background(), args[0])
	if err != nil {
		return err
	}
	defer channel.Close()
	return giveAll(args[1], 1, func(c net.Conn) error {
		defer c.Close()
		return channel.Send(benchPayload, c.(*net.TCPConn))
	}, func() {})
}

var benchPayload = []byte("0123456789abcdef")

// giveAll accepts as many connections as count says, at an address that it says, gives all away, and says
// what that and settle cost.
func giveAll(count string, workers int, give func(net.Conn) error, settle func()) error {
	n, err := strconv.Atoi(count)
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Println(l.Addr())
	conns := make(chan net.Conn, n)
	for range n {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		conns <- c
	}
	close(conns)
	from, began := cpuTime(), time.Now()
	var wg sync.WaitGroup
	errs := make(chan error, workers)
	for range workers {
		wg.Go(func() {
			for c := range conns {
				if err := give(c); err != nil {
					errs <- err
					return
				}
			}
		})
	}
	wg.Wait()
	close(errs)
	settle()
	fmt.Println(int64(cpuTime()-from), int64(time.Since(began)))
	return <-errs
}

// handOverAll is a round of the loop: the CPU time of giver and taker together for each handover.
func handOverAll(b *testing.B, takerRole, giverRole string) float64 {
	path := endpoint(b)
	taker := startRole(b, takerRole, path, strconv.Itoa(benchConns))
	taker.hear(b)
	giver := startRole(b, giverRole, path, strconv.Itoa(benchConns))
	address := giver.hear(b)
	for range benchConns {
		c := must(net.Dial("tcp", address))(b)
		defer c.Close()
	}
	var given, took float64
	fmt.Sscan(giver.hear(b), &given)
	fmt.Sscan(taker.hear(b), &took)
	return (given + took) / benchConns
}

// BenchmarkCPU gives connections away to a process that closes them, in turn by Handoff, by TryHandoff, by package ipc
// alone, and by a program in C without any promise (testdata/rawloop.c), and reports the medians of CPU
// time, giver and taker together, and their ratios to C.
func BenchmarkCPU(b *testing.B) {
	cc, err := exec.LookPath("cc")
	if err != nil {
		b.Skip("no C compiler is here: ", err)
	}
	raw := filepath.Join(b.TempDir(), "rawloop")
	if out, err := exec.Command(cc, "-O2", "-o", raw, "testdata/rawloop.c").CombinedOutput(); err != nil {
		b.Fatalf("%v: %s", err, out)
	}
	var ours, tried, plain, floor []float64
	for b.Loop() {
		out := must(exec.Command(raw, strconv.Itoa(benchConns)).Output())(b)
		var cpu float64
		fmt.Sscan(string(out), &cpu)
		floor = append(floor, cpu)
		plain = append(plain, handOverAll(b, "plain-taker", "plain-giver"))
		ours = append(ours, handOverAll(b, "bench-taker", "bench-giver"))
		tried = append(tried, handOverAll(b, "bench-taker", "try-giver"))
	}
	b.ReportMetric(median(floor), "C-cpu-ns")
	b.ReportMetric(median(plain), "ipc-cpu-ns")
	b.ReportMetric(median(ours), "usher-cpu-ns")
	b.ReportMetric(median(tried), "try-cpu-ns")
	b.ReportMetric(median(plain)/median(floor), "ipc/C")
	b.ReportMetric(median(ours)/median(floor), "usher/C")
	b.ReportMetric(median(tried)/median(floor), "try/C")
}

// BenchmarkTryHandoff makes an offer and accepts it, without the making of its connection. Memory is that of giver and
// taker together, in one process.
func BenchmarkTryHandoff(b *testing.B) {
	if runtime.GOOS != "linux" {
		b.Skip("it makes none here")
	}
	for _, patient := range []bool{false, true} {
		b.Run(fmt.Sprintf("patient=%t", patient), func(b *testing.B) {
			l := listen(b, usher.ListenConfig{})
			d := usher.Dialer{Patient: patient}
			target := must(d.Dial(within(b, timeout), l.Addr().String()))(b)
			defer target.Close()
			tcp := must(net.Listen("tcp", "127.0.0.1:0"))(b)
			defer tcp.Close()
			done := func(_ time.Time, err error) {
				if err != nil {
					b.Error(err)
				}
			}
			b.ReportAllocs()
			for range b.N {
				b.StopTimer()
				client := must(net.Dial("tcp", tcp.Addr().String()))(b)
				o := must(usher.NewOffer(must(tcp.Accept())(b), benchPayload, usher.Info{}))(b)
				b.StartTimer()
				if !target.TryHandoff(o, timeout, done) {
					b.Fatal("the offer could not be made at once")
				}
				c := must(l.Accept())(b)
				b.StopTimer()
				c.Close()
				client.Close()
				b.StartTimer()
			}
		})
	}
}

// BenchmarkReports hands connections over to a process that closes them, without reports of that and with, in turn, and
// reports the medians of CPU time, giver and taker together, and what the reports add.
func BenchmarkReports(b *testing.B) {
	var without, with []float64
	for b.Loop() {
		without = append(without, handOverAll(b, "bench-taker", "bench-giver"))
		with = append(with, handOverAll(b, "bench-taker", "told-giver"))
	}
	b.ReportMetric(median(without), "without-cpu-ns")
	b.ReportMetric(median(with), "with-cpu-ns")
	b.ReportMetric(median(with)-median(without), "added-ns")
	b.ReportMetric(median(with)/median(without), "with/without")
}

// playLatencyTaker answers each connection that comes to the endpoint args[0] by package usher, or to
// args[1] by package ipc alone, with one byte, as soon as it has it.
func playLatencyTaker(args []string) error {
	kept, err := usher.Listen(args[0])
	if err != nil {
		return err
	}
	plain, err := ipc.Listen(args[1])
	if err != nil {
		return err
	}
	fmt.Println("ready")
	go func() {
		for {
			c, err := kept.Accept()
			if err != nil {
				return
			}
			c.Write([]byte("x"))
			c.Close()
		}
	}()
	channel, err := plain.Accept()
	if err != nil {
		return err
	}
	for {
		m, err := channel.Receive()
		if err != nil {
			return nil
		}
		c, err := m.Attachments()[0].Conn()
		if err != nil {
			return err
		}
		c.Write([]byte("x"))
		c.Close()
	}
}

// BenchmarkLatency is the time from giving a connection away to its first byte from the taker, by
// Handoff and by a plain ipc.Send, in turn; it reports the medians and what the promise adds.
func BenchmarkLatency(b *testing.B) {
	paths := []string{endpoint(b), endpoint(b)}
	taker := startRole(b, "latency-taker", paths...)
	taker.hear(b)
	t := must(usher.Dial(within(b, timeout), paths[0]))(b)
	defer t.Close()
	channel := must(ipc.Dial(within(b, timeout), paths[1]))(b)
	defer channel.Close()
	l := must(net.Listen("tcp", "127.0.0.1:0"))(b)
	defer l.Close()
	ctx := context.Background()
	var times [2][]time.Duration
	for b.Loop() {
		for i := range times {
			client := must(net.Dial("tcp", l.Addr().String()))(b)
			server := must(l.Accept())(b)
			from := time.Now()
			if i == 0 {
				o := must(usher.NewOffer(server, benchPayload, usher.Info{}))(b)
				go t.Handoff(ctx, o)
			} else {
				go func() {
					channel.Send(benchPayload, server.(*net.TCPConn))
					server.Close()
				}()
			}
			if _, err := io.ReadFull(client, make([]byte, 1)); err != nil {
				b.Fatal(err)
			}
			times[i] = append(times[i], time.Since(from))
			client.Close()
		}
	}
	kept, plain := median(times[0]), median(times[1])
	b.ReportMetric(float64(kept), "usher-ns")
	b.ReportMetric(float64(plain), "ipc-ns")
	b.ReportMetric(float64(kept-plain), "added-ns")
}
