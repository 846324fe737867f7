package bench

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"time"
)

// measureBulk measures one connection that downloads as fast as it can.
func measureBulk(ctx context.Context, t *trial) error {
	size, downloads := int64(512<<20), 2
	if t.short {
		size, downloads = 64<<20, 1
	}
	sums := make(map[*subject]downloaded)
	download := func(n int64) func(*subject) error {
		return func(s *subject) error {
			got, err := s.download(n)
			sums[s] = sums[s].plus(got)
			return err
		}
	}
	if err := t.inTurn(ctx, 1, download(size/8)); err != nil {
		return err
	}
	clear(sums) // those were to warm up
	if err := t.inTurn(ctx, downloads, download(size)); err != nil {
		return err
	}
	for _, s := range t.subjects {
		sum := sums[s]
		gigabytes := float64(sum.bytes) / 1e9
		s.record("rate", "GB/s", "more", gigabytes/sum.took.Seconds())
		if sum.cpu > 0 {
			s.record("cpu", "s/GB", "less", sum.cpu.Seconds()/gigabytes)
		}
	}
	return nil
}

// downloaded is how much was, how long it took, and how long the contender's processes were on a processor for
// it; 0 if the system does not tell.
type downloaded struct {
	bytes     int64
	took, cpu time.Duration
}

func (d downloaded) plus(other downloaded) downloaded {
	return downloaded{d.bytes + other.bytes, d.took + other.took, d.cpu + other.cpu}
}

// windDown is for processes to finish what they do after the client has its last byte.
const windDown = 20 * time.Millisecond

// download downloads n bytes.
func (s *subject) download(n int64) (downloaded, error) {
	before := s.cpuTime()
	begin := time.Now()
	err := onOneThread(func() error { return fetch(s.HTTP, n) })
	took := time.Since(begin)
	if err != nil {
		return downloaded{}, err
	}
	time.Sleep(windDown)
	return downloaded{n, took, s.cpuTime() - before}, nil
}

// cpuTime is that of door and backend together.
func (s *subject) cpuTime() (sum time.Duration) {
	for _, pid := range append(s.Door[:len(s.Door):len(s.Door)], s.Backend...) {
		sum += cpuTime(pid)
	}
	return sum
}

// fetch asks for n bytes and drops them.
func fetch(address string, n int64) error {
	a, err := parseAddress(address)
	if err != nil {
		return err
	}
	conn, _, err := dial(a)
	if err != nil {
		return err
	}
	defer conn.Close()
	if _, err := conn.Write(get(Host, PathBulk+strconv.FormatInt(n, 10))); err != nil {
		return err
	}
	buf := make([]byte, 1<<20)
	early, err := readHeader(conn, buf, n)
	if err != nil {
		return err
	}
	if err := discard(conn, n-early, buf); err == io.EOF {
		return errEnd
	} else if err != nil {
		return err
	}
	return conn.Close()
}

// readHeader reads the header of an answer whose body should have n bytes. It returns how many of those came along.
func readHeader(r io.Reader, buf []byte, n int64) (early int64, err error) {
	for have := 0; have < maxHeader; {
		got, err := r.Read(buf[have:])
		have += got
		body, length, parseErr := parseHeader(buf[:have])
		switch {
		case parseErr != nil:
			return 0, parseErr
		case body > 0 && length != n:
			return 0, fmt.Errorf("a body of %d bytes; want %d", length, n)
		case body > 0 && int64(have-body) > n:
			return 0, fmt.Errorf("more than the %d bytes of the body", n)
		case body > 0:
			return int64(have - body), nil
		case err == io.EOF:
			return 0, errEnd
		case err != nil:
			return 0, err
		}
	}
	return 0, errTooLong
}
