package main

import (
	"fmt"
	"io"
	"sync"
	"time"
)

// logWriter writes lines without ever keeping the one waiting who has something to say: whoever reads the log may
// stall, and a door must not stop for that. Lines that find no room are counted, and the count is a line of its
// own later.
type logWriter struct {
	w     io.Writer
	lines chan []byte
	ended chan struct{}

	mu      sync.Mutex
	closed  bool
	dropped int
}

// logRoom is how many lines may wait to be written.
const logRoom = 8192

func newLogWriter(w io.Writer) *logWriter {
	l := &logWriter{w: w, lines: make(chan []byte, logRoom), ended: make(chan struct{})}
	go l.run()
	return l
}

// Write takes a line over, or drops it. It never fails.
func (l *logWriter) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return len(b), nil
	}
	select {
	case l.lines <- append([]byte(nil), b...): // slog uses b again
	default:
		l.dropped++
	}
	return len(b), nil
}

func (l *logWriter) run() {
	defer close(l.ended)
	for line := range l.lines {
		l.w.Write(line) // there is nobody to tell that it fails
		if n := l.takeDropped(); n > 0 {
			fmt.Fprintf(l.w, "usher: %d lines of the log are missing here: they were not read in time\n", n)
		}
	}
}

func (l *logWriter) takeDropped() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := l.dropped
	l.dropped = 0
	return n
}

// close writes what there is, for as long as patience says. Lines that come later are dropped.
func (l *logWriter) close(patience time.Duration) {
	l.mu.Lock()
	if !l.closed {
		l.closed = true
		close(l.lines)
	}
	l.mu.Unlock()
	select {
	case <-l.ended:
	case <-time.After(patience):
	}
}
