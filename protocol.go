package usher

import (
	"encoding/binary"
	"fmt"

	"github.com/go-usher/usher/ipc"
)

// The handover protocol, version 1: what the messages of a channel say; SPEC.md tells it to other
// languages. All integers are little-endian, and fields called 0 are 0.
//
//	hello    = 1 version:u8 window:u16 flags:u32 first from either side; the giver's has its page attached
//	offer    = 2 slot:u8 info:u16 generation:u32 info prefix     giver to taker, the connection attached
//	answers  = 3 0:u8 0:u16 0:u32 answer…        taker to giver
//	answer   = verb:u8 slot:u8 reason:u8 0:u8 generation:u32
//	leaving  = 4 reason:u8 0:u16 0:u32 text      taker to giver: no more offers, take back what is open
//	replace  = 5 0:u8 0:u16 0:u32                from one that means to listen in the taker's place
//	ended    = 6 0:u8 0:u16 missed:u32 report…   taker to giver: connections that have ended
//	report   = flags:u8 0:u8 info:u16 0:u32 received:i64 sent:i64 duration:i64 info
//	done     = 7 0:u8 0:u16 0:u32                giver to taker: no more offers, and none is open
//	late     = 8 0:u8 0:u16 0:u32 (answer ago:u32)…  taker to giver, as answers
//	back     = 9 0:u8 0:u16 0:u32                taker to giver, a channel attached: on that one the taker gives
//
// Ended and done are for channels on which both hellos have flagReports. Late is for those on which both have flagPatient,
// and takes the place of answers there. Back is for those on which both have flagReturns.
const (
	msgHello   = 1
	msgOffer   = 2
	msgAnswers = 3
	msgLeaving = 4
	msgReplace = 5
	msgEnded   = 6
	msgDone    = 7
	msgLate    = 8
	msgBack    = 9

	protocolVersion = 1
	messageHeadLen  = 8
	answerLen       = 8
	lateAnswerLen   = 12
	reportHeadLen   = 32
)

// Flags of a hello: what a giver wants, or a taker can do.
const (
	flagReports = 1 << iota // the ends of connections are told
	flagPatient             // answers may be late, and say by how much
	flagReturns             // connections can be handed back; goes with flagReports
)

// maxEnded is how many bytes of reports one message has at most. There is room for any one report.
const maxEnded = 128 << 10

// MaxPrefix is how many bytes an offer can carry that were read from the connection.
const MaxPrefix = 1 << 20

// channelLimits bound what a peer can make this side take memory for.
var channelLimits = ipc.Limits{Data: messageHeadLen + maxInfo + MaxPrefix, Attachments: 1}

// verb is what a taker says of an offer. Each offer gets one answer, after which its slot is free.
type verb byte

const (
	verbClaimed  verb = 1 // it is the taker's
	verbDeclined verb = 2 // the taker does not want it, and never claimed it
	verbDropped  verb = 3 // the taker found it withdrawn and has closed its copy unread
)

// reason is why a taker declines or leaves.
type reason byte

const (
	reasonFull        reason = 1 // its queue has no room
	reasonDescriptors reason = 2 // it is out of descriptors
	reasonShutdown    reason = 3 // it takes no more
	reasonReplaced    reason = 4 // another process listens in its place
	reasonProtocol    reason = 5 // the giver broke the protocol; the text says how
	reasonUnusable    reason = 6 // what was offered is no non-blocking stream socket, or cannot be waited for
)

func (r reason) String() string {
	switch r {
	case reasonFull:
		return "its queue is full"
	case reasonDescriptors:
		return "it is out of descriptors"
	case reasonShutdown:
		return "it is shutting down"
	case reasonReplaced:
		return "another process has replaced it"
	case reasonUnusable:
		return "it cannot use what was offered"
	case reasonProtocol:
		return "it says that this side broke the protocol"
	}
	return fmt.Sprintf("for reason %d", byte(r))
}

// ticket names an offer.
type ticket struct {
	slot       uint8
	generation uint32
}

type answer struct {
	ticket
	verb   verb
	reason reason
	ago    uint32 // microseconds from the decision to the sending, in a late answer
}

// wireReport is the report of one connection. Its info is that of the offer, as it came.
type wireReport struct {
	handedOn       bool
	info           []byte
	received, sent int64 // bytes; or unknown
	duration       int64 // nanoseconds
}

// unknown is how many bytes a connection has carried when the taker cannot tell.
const unknown = -1

// reportHandedOn is a report's flag.
const reportHandedOn = 1

func appendHead(b []byte, typ, small byte, half uint16, word uint32) []byte {
	b = append(b, typ, small)
	b = binary.LittleEndian.AppendUint16(b, half)
	return binary.LittleEndian.AppendUint32(b, word)
}

func appendHello(b []byte, window int, flags uint32) []byte {
	return appendHead(b, msgHello, protocolVersion, uint16(window), flags)
}

func appendOffer(b []byte, t ticket, info, prefix []byte) []byte {
	b = appendHead(b, msgOffer, t.slot, uint16(len(info)), t.generation)
	return append(append(b, info...), prefix...)
}

func appendAnswersHead(b []byte) []byte { return appendHead(b, msgAnswers, 0, 0, 0) }

func appendAnswer(b []byte, a answer) []byte {
	b = append(b, byte(a.verb), a.slot, byte(a.reason), 0)
	return binary.LittleEndian.AppendUint32(b, a.generation)
}

func appendLateHead(b []byte) []byte { return appendHead(b, msgLate, 0, 0, 0) }

func appendLateAnswer(b []byte, a answer) []byte {
	return binary.LittleEndian.AppendUint32(appendAnswer(b, a), a.ago)
}

func appendLeaving(b []byte, r reason, text string) []byte {
	return append(appendHead(b, msgLeaving, byte(r), 0, 0), text...)
}

func appendReplace(b []byte) []byte { return appendHead(b, msgReplace, 0, 0, 0) }

func appendEndedHead(b []byte, missed uint32) []byte { return appendHead(b, msgEnded, 0, 0, missed) }

func appendReport(b []byte, r wireReport) []byte {
	flags := byte(0)
	if r.handedOn {
		flags = reportHandedOn
	}
	b = appendHead(b, flags, 0, uint16(len(r.info)), 0)
	b = binary.LittleEndian.AppendUint64(b, uint64(r.received))
	b = binary.LittleEndian.AppendUint64(b, uint64(r.sent))
	b = binary.LittleEndian.AppendUint64(b, uint64(r.duration))
	return append(b, r.info...)
}

// reportLen is how many of the bytes b, which appendReport wrote, are the first report.
func reportLen(b []byte) int { return reportHeadLen + int(binary.LittleEndian.Uint16(b[2:])) }

func appendDone(b []byte) []byte { return appendHead(b, msgDone, 0, 0, 0) }

func appendBack(b []byte) []byte { return appendHead(b, msgBack, 0, 0, 0) }

// message is a message parsed; the type says which of its fields hold.
type message struct {
	typ     byte
	window  int    // hello
	flags   uint32 // hello
	offer   ticket // offer
	info    []byte
	prefix  []byte
	answers []answer // answers, late
	reason  reason   // leaving
	text    string
	reports []wireReport // ended
	missed  uint32       // ended: reports that the taker had no room to keep
}

// parseMessage reads a peer's message. The result aliases b.
func parseMessage(b []byte) (message, error) {
	if len(b) < messageHeadLen {
		return message{}, fmt.Errorf("%w: a message of %d bytes, want at least %d", ipc.ErrProtocol, len(b), messageHeadLen)
	}
	typ, small := b[0], b[1]
	half, word := binary.LittleEndian.Uint16(b[2:]), binary.LittleEndian.Uint32(b[4:])
	rest := b[messageHeadLen:]
	m := message{typ: typ}
	switch typ {
	case msgHello:
		// The version comes first: another one may have given the other fields a meaning.
		if small != protocolVersion {
			return m, fmt.Errorf("%w: peer speaks version %d of the handover protocol, this program version %d",
				ipc.ErrProtocol, small, protocolVersion)
		}
		m.window, m.flags = int(half), word
		return m, checkZero(typ, uint32(len(rest))) // flags that this version does not know mean nothing to it
	case msgOffer:
		if len(rest) < int(half) {
			return m, fmt.Errorf("%w: an offer whose info has %d bytes and says %d", ipc.ErrProtocol, len(rest), half)
		}
		m.offer = ticket{slot: small, generation: word}
		m.info, m.prefix = rest[:half:half], rest[half:]
		if len(m.prefix) > MaxPrefix {
			return m, fmt.Errorf("%w: an offer with a prefix of %d bytes, limit %d", ipc.ErrProtocol, len(m.prefix), MaxPrefix)
		}
		return m, nil
	case msgAnswers, msgLate:
		if err := checkZero(typ, uint32(small), uint32(half), word); err != nil {
			return m, err
		}
		var err error
		m.answers, err = parseAnswers(rest, typ == msgLate)
		return m, err
	case msgLeaving:
		m.reason, m.text = reason(small), string(rest)
		return m, checkZero(typ, uint32(half), word)
	case msgReplace, msgDone, msgBack:
		return m, checkZero(typ, uint32(small), uint32(half), word, uint32(len(rest)))
	case msgEnded:
		if err := checkZero(typ, uint32(small), uint32(half)); err != nil {
			return m, err
		}
		m.missed = word
		var err error
		m.reports, err = parseReports(rest)
		return m, err
	}
	return m, fmt.Errorf("%w: a message of the unknown type %d", ipc.ErrProtocol, typ)
}

func parseAnswers(b []byte, late bool) ([]answer, error) {
	size := answerLen
	if late {
		size = lateAnswerLen
	}
	if len(b) == 0 || len(b)%size != 0 || len(b) > size*MaxOpen {
		return nil, fmt.Errorf("%w: answers of %d bytes, want a multiple of %d, some and at most %d", ipc.ErrProtocol, len(b), size, size*MaxOpen)
	}
	answers := make([]answer, 0, len(b)/size)
	for ; len(b) > 0; b = b[size:] {
		a := answer{
			ticket: ticket{slot: b[1], generation: binary.LittleEndian.Uint32(b[4:])},
			verb:   verb(b[0]), reason: reason(b[2]),
		}
		if a.verb < verbClaimed || a.verb > verbDropped || b[3] != 0 {
			return nil, fmt.Errorf("%w: an answer of % x", ipc.ErrProtocol, b[:size])
		}
		if late {
			a.ago = binary.LittleEndian.Uint32(b[answerLen:])
		}
		answers = append(answers, a)
	}
	return answers, nil
}

func parseReports(b []byte) ([]wireReport, error) {
	if len(b) == 0 || len(b) > maxEnded {
		return nil, fmt.Errorf("%w: reports of %d bytes, want some and at most %d", ipc.ErrProtocol, len(b), maxEnded)
	}
	var reports []wireReport
	for len(b) > 0 {
		if len(b) < reportHeadLen || len(b) < reportLen(b) {
			return nil, fmt.Errorf("%w: a report that is cut short at %d bytes", ipc.ErrProtocol, len(b))
		}
		r, err := parseReport(b[:reportLen(b)])
		if err != nil {
			return nil, err
		}
		reports = append(reports, r)
		b = b[reportLen(b):]
	}
	return reports, nil
}

// parseReport reads one that is whole.
func parseReport(b []byte) (wireReport, error) {
	r := wireReport{
		handedOn: b[0] == reportHandedOn,
		info:     b[reportHeadLen:len(b):len(b)],
		received: int64(binary.LittleEndian.Uint64(b[8:])),
		sent:     int64(binary.LittleEndian.Uint64(b[16:])),
		duration: int64(binary.LittleEndian.Uint64(b[24:])),
	}
	if b[0]&^reportHandedOn != 0 || r.received < unknown || r.sent < unknown || r.duration < 0 {
		return r, fmt.Errorf("%w: a report of % x", ipc.ErrProtocol, b[:reportHeadLen])
	}
	return r, checkZero(msgEnded, uint32(b[1]), binary.LittleEndian.Uint32(b[4:]))
}

// checkZero holds the fields that a later version may give a meaning.
func checkZero(typ byte, fields ...uint32) error {
	for _, f := range fields {
		if f != 0 {
			return fmt.Errorf("%w: a reserved field of a message of type %d is %#x, want 0", ipc.ErrProtocol, typ, f)
		}
	}
	return nil
}
