package main

import (
	"fmt"
	"io"
	"strings"
	"testing"
	"time"
)

func TestALogThatIsNotReadKeepsNobodyWaiting(t *testing.T) {
	r, w := io.Pipe() // has no room at all
	l := newLogWriter(w)
	const written = 3 * logRoom
	for i := range written {
		fmt.Fprintf(l, "line %d\n", i)
	}
	read := make(chan string)
	go func() {
		b, _ := io.ReadAll(r)
		read <- string(b)
	}()
	l.close(time.Minute)
	w.Close()
	lines := strings.Split(strings.TrimSuffix(<-read, "\n"), "\n")
	missing := 0
	for i, line := range lines {
		var n int
		if _, err := fmt.Sscanf(line, "usher: %d lines of the log are missing", &n); err == nil {
			missing += n
		} else if want := fmt.Sprintf("line %d", i-min(missing, 1)); i < logRoom && line != want {
			t.Fatalf("line %d is %q, want %q", i, line, want)
		}
	}
	if got := len(lines) - 1 + missing; got != written || missing == 0 {
		t.Errorf("%d lines were read and %d are said to be missing, of %d", len(lines)-1, missing, written)
	}
	fmt.Fprintln(l, "after the end")
}

func TestALogIsWrittenToItsEnd(t *testing.T) {
	var b strings.Builder
	l := newLogWriter(&b)
	for range 100 {
		io.WriteString(l, "x\n")
	}
	l.close(time.Minute)
	if b.String() != strings.Repeat("x\n", 100) {
		t.Errorf("%d bytes were written, want 200", b.Len())
	}
	l.close(time.Minute)
}
