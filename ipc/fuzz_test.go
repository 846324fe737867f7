package ipc

import (
	"bytes"
	"errors"
	"testing"
)

// FuzzHeader checks that a header is refused or within the limits, and means what it says.
func FuzzHeader(f *testing.F) {
	good := make([]byte, headerLen)
	header{table: 8, data: 5, count: 1}.put(good)
	f.Add(good)
	f.Add([]byte("GET / HTTP/1.1\r\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) < headerLen {
			return
		}
		limits := Limits{Data: 1000, Attachments: 4}.withDefaults()
		h, err := parseHeader(b, limits)
		if err != nil {
			if !errors.Is(err, ErrProtocol) {
				t.Errorf("error is not ErrProtocol: %v", err)
			}
			return
		}
		if int(h.data) > limits.Data || int(h.count) > limits.Attachments || h.size() > limits.Data+4*(entryLen+maxBody+maxName) {
			t.Errorf("%+v is over the limits", h)
		}
		again := make([]byte, headerLen)
		h.put(again)
		if !bytes.Equal(again, b[:headerLen]) {
			t.Errorf("%x was read as %+v, which is %x", b[:headerLen], h, again)
		}
	})
}

// FuzzTable checks that a table is refused or is exactly what its entries make.
func FuzzTable(f *testing.F) {
	f.Add(entry{kind: kindFile, name: "notes.txt"}.append(nil), 1)
	f.Add(entry{kind: kindSocket, body: []byte("body")}.append(entry{kind: kindFile}.append(nil)), 2)
	f.Add([]byte{2, 0, 255, 255, 255, 255, 0, 0}, 1)
	f.Fuzz(func(t *testing.T, b []byte, count int) {
		if count < 0 || count > MaxAttachments {
			return
		}
		entries, err := parseTable(b, count)
		if len(entries) > count {
			t.Fatalf("%d entries of %d", len(entries), count)
		}
		if err != nil {
			if !errors.Is(err, ErrProtocol) {
				t.Errorf("error is not ErrProtocol: %v", err)
			}
			return
		}
		var again []byte
		for _, e := range entries {
			again = e.append(again)
		}
		if !bytes.Equal(again, b) || len(entries) != count {
			t.Errorf("%x was read as %+v, which is %x", b, entries, again)
		}
	})
}
