package usher

import (
	"bytes"
	"math"
	"net/netip"
	"reflect"
	"testing"
)

// FuzzParseMessage reads what peers may send. What parses must be within the limits, and be written as it
// was read.
func FuzzParseMessage(f *testing.F) {
	f.Add(appendHello(nil, MaxOpen, 0))
	f.Add(appendHello(nil, 0, flagReports|flagPatient|flagReturns))
	f.Add(appendOffer(nil, ticket{slot: 3, generation: 7}, []byte{fieldHost, 1, 0, 'h'}, []byte("prefix")))
	f.Add(appendAnswer(appendAnswer(appendAnswersHead(nil), answer{verb: verbClaimed}),
		answer{ticket: ticket{slot: 63, generation: maxGeneration}, verb: verbDeclined, reason: reasonFull}))
	f.Add(appendLateAnswer(appendLateHead(nil), answer{ticket: ticket{slot: 1, generation: 2}, verb: verbClaimed, ago: 1234}))
	f.Add(appendLeaving(nil, reasonProtocol, "why"))
	f.Add(appendReplace(nil))
	f.Add(appendDone(nil))
	f.Add(appendBack(nil))
	f.Add(appendReport(appendReport(appendEndedHead(nil, 3), wireReport{info: []byte{fieldID, 1, 0, 'x'}, received: 1, sent: 2, duration: 3}),
		wireReport{handedOn: true, received: unknown, sent: unknown}))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := parseMessage(b)
		if err != nil {
			return
		}
		var again []byte
		switch m.typ {
		case msgHello:
			again = appendHello(nil, m.window, m.flags)
		case msgOffer:
			again = appendOffer(nil, m.offer, m.info, m.prefix)
		case msgAnswers:
			if len(m.answers) > MaxOpen {
				t.Fatalf("%d answers", len(m.answers))
			}
			again = appendAnswersHead(nil)
			for _, a := range m.answers {
				again = appendAnswer(again, a)
			}
		case msgLate:
			again = appendLateHead(nil)
			for _, a := range m.answers {
				again = appendLateAnswer(again, a)
			}
		case msgLeaving:
			again = appendLeaving(nil, m.reason, m.text)
		case msgReplace:
			again = appendReplace(nil)
		case msgEnded:
			again = appendEndedHead(nil, m.missed)
			for _, r := range m.reports {
				again = appendReport(again, r)
			}
		case msgDone:
			again = appendDone(nil)
		case msgBack:
			again = appendBack(nil)
		}
		if !bytes.Equal(again, b) {
			t.Fatalf("read % x, wrote % x", b, again)
		}
	})
}

// FuzzDecodeInfo reads infos. What decodes must encode to something that decodes to the same.
func FuzzDecodeInfo(f *testing.F) {
	full := Info{ID: "i", Route: "r", Listener: "l", State: []byte("t"), ServerName: "s", ALPN: []string{"h2", "x"}, Host: "h", Path: "/", Client: netip.MustParseAddrPort("[::1%lo]:1")}
	b, err := encodeInfo(&full, netip.AddrPort{}, netip.AddrPort{})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte{fieldLocal, 11, 0, '1', '.', '2', '.', '3', '.', '4', ':', '5', '6', '7', 99, 1, 0, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		info, local, remote, err := decodeInfo(b)
		if err != nil || len(b) > maxInfo {
			return
		}
		reported, _, _, err := decodeInfo(reportedInfo(b))
		expected := info
		expected.State = nil
		if err != nil || !reflect.DeepEqual(reported, expected) {
			t.Fatalf("reported of %+v would be %+v, %v", info, reported, err)
		}
		again, err := encodeInfo(&info, local, remote)
		if err != nil {
			t.Fatal(err)
		}
		info2, local2, remote2, err := decodeInfo(again)
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range info.ALPN {
			if p == "" { // an empty name says nothing, and is not sent
				return
			}
		}
		if !reflect.DeepEqual(info, info2) || local.Port() != local2.Port() || remote.Port() != remote2.Port() {
			t.Fatalf("%+v %v %v became %+v %v %v", info, local, remote, info2, local2, remote2)
		}
	})
}

// FuzzGivingState reads what a predecessor may send. What parses must be written as it was read.
func FuzzGivingState(f *testing.F) {
	f.Add(givingState{owed: 1}.append(nil))
	f.Add(givingState{patient: true, returns: true, parted: true, saidDone: true, owed: math.MaxInt64}.append(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := parseGivingState(b)
		if err != nil {
			return
		}
		if again := s.append(nil); !bytes.Equal(again, b) || s.owed <= 0 {
			t.Fatalf("read % x as %+v, wrote % x", b, s, again)
		}
	})
}
