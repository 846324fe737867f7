package sniff

import (
	"bytes"
	"encoding/hex"
	"iter"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

// sample returns what a real client sent; see testdata/README.md.
func sample(t testing.TB, name string) []byte {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", name+".hex"))
	if err != nil {
		t.Fatal(err)
	}
	b, err := hex.DecodeString(strings.Join(strings.Fields(string(text)), ""))
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return b
}

// samples returns all of them by name.
func samples(t testing.TB) map[string][]byte {
	t.Helper()
	files, err := filepath.Glob("testdata/*.hex")
	if err != nil || len(files) == 0 {
		t.Fatalf("no samples: %v", err)
	}
	all := make(map[string][]byte)
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".hex")
		all[name] = sample(t, name)
	}
	return all
}

// junk is what may follow the bytes that led to a verdict.
var junk = []string{"\x00", "\n", "\r\n\r\n", "\x16\x03\x01\x00\x05", "GET / HTTP/1.1\r\nHost: other.example\r\n\r\n", preface, "PROXY UNKNOWN\r\n"}

// checkFinal holds the promise that a verdict is final: once a prefix has one, every longer prefix has the same, and so has whatever else
// follows. It returns the length of the shortest prefix with a verdict, or -1. As only the bytes so far are looked at, this is true for
// every way in which a network may cut the stream.
func checkFinal[T any](t testing.TB, b []byte, read func([]byte) (T, error)) int {
	t.Helper()
	at := -1
	var first T
	var verdict error
	for n := range prefixes(b) {
		got, err := read(b[:n:n])
		if at < 0 {
			if err == ErrShort {
				continue
			}
			at, first, verdict = n, got, err
		}
		checkSame(t, b[:n], got, err, first, verdict)
	}
	if at < 0 {
		return -1
	}
	for _, more := range junk {
		longer := append(bytes.Clone(b[:at]), more...)
		got, err := read(longer)
		checkSame(t, longer, got, err, first, verdict)
	}
	return at
}

// prefixes gives the lengths of all prefixes, or of about a thousand where there are many more, but always of the two longest.
func prefixes(b []byte) iter.Seq[int] {
	return func(yield func(int) bool) {
		for n := 0; n < len(b)-1; n += 1 + len(b)/2048 {
			if !yield(n) {
				return
			}
		}
		for n := max(0, len(b)-1); n <= len(b); n++ {
			if !yield(n) {
				return
			}
		}
	}
}

func checkSame(t testing.TB, b []byte, got any, err error, first any, verdict error) {
	t.Helper()
	if errorText(err) != errorText(verdict) || !reflect.DeepEqual(got, first) {
		t.Fatalf("%q gives %+v, %v; but a shorter prefix gave %+v, %v", b, got, err, first, verdict)
	}
}

func errorText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// checkVerdictAt holds that the last of the bytes decides: with one byte less more are needed.
func checkVerdictAt[T any](t testing.TB, b []byte, read func([]byte) (T, error)) {
	t.Helper()
	if at := checkFinal(t, b, read); at != len(b) {
		t.Errorf("%q has its verdict after %d bytes; want %d", b, at, len(b))
	}
}

// fuzzLength bounds what the fuzz targets try every prefix of: the square of more says nothing new.
const fuzzLength = 1024
