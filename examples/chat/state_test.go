package main

import (
	"encoding/json"
	"math"
	"reflect"
	"strings"
	"testing"

	"github.com/go-usher/usher"
)

func TestTheStateOfAClientComesBack(t *testing.T) {
	c := &client{Version: stateVersion, Name: "<ann> \u2028", Rest: []byte("\xbc is half\n\x00\xff"), Next: 7, info: usher.Info{Host: "chat.example.com"}}
	info := c.state()
	got, err := parseClient(info.State, 6)
	if err != nil || info.Host != c.info.Host {
		t.Fatalf("%+v, %v", info, err)
	}
	got.info = c.info
	if !reflect.DeepEqual(got, c) {
		t.Errorf("%+v came back as %+v", c, got)
	}
}

func TestTheLargestStateHasRoomInAnInfo(t *testing.T) {
	c := &client{Version: stateVersion, Name: strings.Repeat("\x00", maxLine), Rest: make([]byte, maxRest), Next: math.MaxInt64}
	conn, _ := handed(t, "", usher.Info{})
	if _, err := usher.NewOffer(conn, nil, c.state()); err != nil {
		t.Error(err)
	}
}

func TestStatesThatCannotBeAreRefusedInWords(t *testing.T) {
	for state, want := range map[string]string{
		``:                           "the state of a client: ",
		`{"Version":1`:               "the state of a client: ",
		`[1]`:                        "the state of a client: ",
		`{"Version":2,"Next":1}`:     "a state has version 2, this program reads 1",
		`{"Next":1}`:                 "a state has version 0, this program reads 1",
		`{"Version":1,"Name":"x"}`:   "the next message for x is 0, the last was 6",
		`{"Version":1,"Next":8}`:     "the next message for  is 8, the last was 6",
		`{"Version":1,"Rest":"%"}`:   "the state of a client: ",
		`{"Version":1,"Next":"one"}`: "the state of a client: ",
	} {
		if _, err := parseClient([]byte(state), 6); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%s: the error is %v, want %q", state, err, want)
		}
	}
	for state, want := range map[string]string{
		`null`:          "a room has come without a state",
		`{"Version":9}`: "a state has version 9, this program reads 1",
		`{"Version":1,"Last":1,"History":["a","b"]}`: "a room has 2 messages of 1",
		`{"Version":1,"Last":-1}`:                    "a room has 0 messages of -1",
	} {
		var r *room
		if err := json.Unmarshal([]byte(state), &r); err != nil {
			t.Fatal(err)
		}
		if err := r.check(); err == nil || err.Error() != want {
			t.Errorf("%s: the error is %v, want %q", state, err, want)
		}
	}
	for state, want := range map[string]string{
		`no list`: "the request of a successor: ",
		`[]`:      "states here have version 1, the successor reads []",
		`[2,3]`:   "states here have version 1, the successor reads [2 3]",
	} {
		if err := checkRequest([]byte(state)); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%s: the error is %v, want %q", state, err, want)
		}
	}
	if err := checkRequest([]byte(`[2,1]`)); err != nil {
		t.Error(err)
	}
}

func FuzzAClientThatIsReadIsWrittenAndReadTheSame(f *testing.F) {
	f.Add([]byte(`{"Version":1,"Name":"ann","Rest":"aGVsbG8K","Next":17}`), int64(20))
	f.Add([]byte(`{"Version":2}`), int64(0))
	f.Add([]byte(`{"Version":1,"Next":1,"conn":{},"Name":"\ud800"}`), int64(math.MaxInt64))
	f.Fuzz(func(t *testing.T, b []byte, last int64) {
		c, err := parseClient(b, last)
		if err != nil {
			return
		}
		again, err := parseClient(c.state().State, last)
		if err != nil || again.Name != c.Name || again.Next != c.Next || string(again.Rest) != string(c.Rest) {
			t.Errorf("%q is %+v, then %+v, %v", b, c, again, err)
		}
	})
}

func FuzzARoomThatIsReadHasMessagesForItsClients(f *testing.F) {
	f.Add([]byte(`{"Version":1,"Last":20,"History":["19 ann: a\n","20 ann: b\n"],"Clients":3}`), int64(19))
	f.Add([]byte(`{"Version":1,"Last":0,"History":null}`), int64(1))
	f.Add([]byte(`{"Version":1,"Last":9223372036854775807,"History":["x"]}`), int64(math.MaxInt64))
	f.Fuzz(func(t *testing.T, b []byte, next int64) {
		r := new(room)
		if json.Unmarshal(b, r) != nil || r.check() != nil {
			return
		}
		c := &client{Version: stateVersion, Next: next}
		c, err := parseClient(c.state().State, r.Last)
		if err != nil {
			return
		}
		if ok := r.fill(c); ok != (r.Last+1-next <= int64(len(r.History))) {
			t.Errorf("message %d of %d, of which %d are kept: %v", next, r.Last, len(r.History), ok)
		}
	})
}
