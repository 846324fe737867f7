package upstream

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"time"
)

// watch checks the backend again and again until ctx ends. The next check begins when the last has ended, so
// that one which hangs has none piling up behind it.
func (b *Backend) watch(ctx context.Context) {
	h := b.pool.health
	// The doors of a farm that were started together, and the backends of a door, are not checked together.
	next := time.NewTimer(rand.N(h.Interval/10 + 1))
	defer next.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-next.C:
		}
		began := time.Now()
		err := b.check(ctx)
		if ctx.Err() != nil {
			return
		}
		b.checked(err)
		next.Reset(jitter(h.Interval) - time.Since(began)) // at once if that is over
	}
}

// jitter returns d give or take a tenth.
func jitter(d time.Duration) time.Duration { return d - d/10 + rand.N(d/5+1) }

// check connects, and asks if there is something to ask. It has closed the connection when it returns.
func (b *Backend) check(ctx context.Context) error {
	h := b.pool.health
	ctx, cancel := context.WithTimeout(ctx, h.Timeout)
	defer cancel()
	c, err := dial(ctx, b.Address, checkHeader(b.pool.o.SendProxy))
	if err != nil {
		return fmt.Errorf("check: %w", err)
	}
	defer c.Close()
	if h.Path == "" {
		return nil
	}
	// The context's deadline is one of the things that end it.
	stop := context.AfterFunc(ctx, func() { c.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if err := get(c, h.Path, checkHost(h.Host, b.Address)); err != nil {
		return fmt.Errorf("check: GET %s: %w", h.Path, withoutAddress(err))
	}
	return nil
}

// checkHost is the Host that a check asks for. A backend on a Unix socket has no address that could be one.
func checkHost(host, address string) string {
	if host != "" {
		return host
	}
	if strings.HasPrefix(address, "unix:") {
		return "localhost"
	}
	return address
}

// get asks for path on a connection that serves for nothing else, and returns an error unless the answer is
// a status below 400.
//
// It is not done by http.Transport, which goes on connecting when its request was given up: the checks of a
// backend that hangs would pile up.
func get(c Conn, path, host string) error {
	r, err := http.NewRequest(http.MethodGet, "http://backend/"+strings.TrimPrefix(path, "/"), nil)
	if err != nil {
		return err
	}
	r.Host = host
	r.Close = true
	r.Header.Set("User-Agent", "usher")
	if err := r.Write(c); err != nil {
		return err
	}
	status, err := readStatus(c)
	if err != nil {
		return err
	}
	if status >= 400 {
		return fmt.Errorf("status %d", status)
	}
	return nil
}

// maxAnswer is how many bytes of the answer to a check are read at most.
const maxAnswer = 64 << 10

// readStatus reads the answer to a GET and returns its status. It reads the body as well, if that is short:
// a connection that is closed before would be reset, and some backends log that.
func readStatus(r io.Reader) (int, error) {
	b := bufio.NewReader(io.LimitReader(r, maxAnswer))
	for {
		answer, err := http.ReadResponse(b, nil) // nil stands for a GET
		if err != nil {
			return 0, err
		}
		if answer.StatusCode < 200 { // another one follows: RFC 9110, section 15.2
			continue
		}
		_, _ = io.Copy(io.Discard, answer.Body)
		return answer.StatusCode, nil
	}
}
