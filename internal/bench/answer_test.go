package bench

import (
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"
)

func TestOnlyTheRightAnswerIsOne(t *testing.T) {
	const good = "HTTP/1.1 200 OK\r\nDate: now\r\nContent-Length: 3\r\n\r\nok\n"
	tests := []struct {
		name, answer string
		want         string // what the error says; empty: none
	}{
		{"as net/http writes it", good, ""},
		{"with names of headers in lower case", strings.ToLower(good[len("HTTP/1.1 200 OK"):]), "not an answer"},
		{"in lower case but for the first line", "HTTP/1.1 200 OK\r\ncontent-length:3\r\n\r\nok\n", ""},
		{"another status", strings.Replace(good, "200 OK", "503 Service Unavailable", 1), "status 200"},
		{"no HTTP at all", "ok\n", "not an answer with status 200"},
		{"another body", strings.Replace(good, "ok\n", "ko\n", 1), `ko\n`},
		{"a body of another length", strings.Replace(good, "3\r\n", "4\r\n", 1), "a body of 4 bytes; want 3"},
		{"more than the body", good + "x", `ok\nx`},
		{"no length", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nok\n", "without Content-Length"},
		{"a length that is none", strings.Replace(good, ": 3", ": three", 1), "not a Content-Length"},
		{"a negative length", strings.Replace(good, ": 3", ": -3", 1), "not a Content-Length"},
		{"an end in the header", good[:20], errEnd.Error()},
		{"an end in the body", good[:len(good)-1], errEnd.Error()},
		{"nothing", "", errEnd.Error()},
		{"a header without end", "HTTP/1.1 200 OK\r\nX: " + strings.Repeat("x", maxHeader), errTooLong.Error()},
	}
	readers := map[string]func(io.Reader) io.Reader{
		"at once":      func(r io.Reader) io.Reader { return r },
		"with its end": iotest.DataErrReader,
		"in bytes":     iotest.OneByteReader,
	}
	for _, tt := range tests {
		for how, reader := range readers {
			t.Run(tt.name+" "+how, func(t *testing.T) {
				if how == "in bytes" && tt.name == "more than the body" {
					t.Skip("what comes later is not read")
				}
				err := readAnswer(reader(strings.NewReader(tt.answer)), make([]byte, maxHeader))
				if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
					t.Errorf("error %v; want %q", err, tt.want)
				}
			})
		}
	}
}

func TestAReadErrorIsTold(t *testing.T) {
	broken := errors.New("broken")
	if err := readAnswer(iotest.ErrReader(broken), make([]byte, maxHeader)); !errors.Is(err, broken) {
		t.Errorf("error %v; want %v", err, broken)
	}
}

func TestTheHeaderOfALargeAnswer(t *testing.T) {
	const header = "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n"
	tests := []struct {
		name, answer string
		early        int64
		want         string // what the error says; empty: none
	}{
		{"alone", header, 0, ""},
		{"with a part of the body", header + "01234", 5, ""},
		{"with all of it", header + "0123456789", 10, ""},
		{"with more than that", header + "0123456789x", 0, "more than the 10 bytes"},
		{"of another length", strings.Replace(header, "10", "11", 1), 0, "a body of 11 bytes; want 10"},
		{"another status", "HTTP/1.1 404 Not Found\r\n\r\n", 0, "404"},
		{"that ends", header[:30], 0, errEnd.Error()},
		{"that does not end", "HTTP/1.1 200 OK\r\nX: " + strings.Repeat("x", maxHeader), 0, errTooLong.Error()},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			early, err := readHeader(strings.NewReader(tt.answer), make([]byte, 2*maxHeader), 10)
			if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
				t.Fatalf("error %v; want %q", err, tt.want)
			}
			if early != tt.early {
				t.Errorf("%d bytes of the body; want %d", early, tt.early)
			}
		})
	}
}

// FuzzAnswer: what is wrong stays wrong whatever follows, and an answer that is done ends in the body.
func FuzzAnswer(f *testing.F) {
	f.Add("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok\n", 20)
	f.Add("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok\nx", 40)
	f.Add("HTTP/1.1 200 OK\ncontent-length:\t 3 \r\r\n\r\nok\n", 17)
	f.Add("HTTP/1.1 503 no\r\nContent-Length: 3\r\n\r\nok\n", 13)
	f.Add("HTTP/1.1 200 \r\n\r\n\r\n\r\n", 16)
	f.Fuzz(func(t *testing.T, text string, cut int) {
		done, err := checkAnswer([]byte(text))
		if done && (err != nil || !strings.HasSuffix(text, "\r\n\r\n"+SmallBody)) {
			t.Errorf("%q is done, error %v", text, err)
		}
		if cut < 0 || cut > len(text) {
			return
		}
		if _, early := checkAnswer([]byte(text[:cut])); early != nil && err == nil {
			t.Errorf("%q: %v; but not %q", text[:cut], early, text)
		}
	})
}
